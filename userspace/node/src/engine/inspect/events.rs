//! `oxbow/events`: packets as the programs tell of them.

use super::super::Engine;
use super::short_flow;
use crate::audience::{Place, Told, reason_of};
use crate::packet::{Filter, describe, fields_of_head};
use oxbow_abi::monitor::{Listen as KernelListen, SEEN_CACHED, SEEN_DELIVER, SEEN_DROP, Seen};
use oxbow_abi::reason::Reason;
use oxbow_pipeline::ir::{DatapathKey, LflowId, Location, PortKey};
use oxbow_report::events::{Event, Listen};
use std::os::fd::OwnedFd;

impl Engine {
    /// Looks a filter's names up, and reads its expression.
    ///
    /// # Errors
    /// A port or reason that does not exist; an expression that is none; no programs that could tell.
    pub fn listen_place(&mut self, listen: &Listen) -> Result<(Option<Place>, Option<Filter>), String> {
        self.inside()?;
        let filter = listen.r#match.as_deref().map(Filter::parse).transpose()?;
        if let Some(reason) = &listen.reason
            && reason_of(reason).is_none()
        {
            let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.text()).collect();
            return Err(format!("no packet is dropped for \"{reason}\"; reasons: {}", known.join(", ")));
        }
        let Some(port) = &listen.port else { return Ok((None, filter)) };
        let (datapath, key) = self.keys_of(port)?;
        let found = self.world.compiler().program().port(DatapathKey(datapath), PortKey(key));
        let device = match found.map(|port| port.location) {
            // A nested port shares its device with others.
            Some(Location::Local { ifindex, tag: None }) => ifindex,
            _ => 0,
        };
        Ok((Some((datapath, key, device)), filter))
    }

    /// Lets the programs tell, or be silent (no flags).
    pub fn tell_listeners(&mut self, flags: u32, listen: &KernelListen) {
        if let Ok(inside) = self.inside()
            && let Err(error) = inside.tell(flags, listen)
        {
            tracing::warn!(target: "dataplane", "cannot change what listeners are told: {error}");
        }
    }

    /// What the programs told, at most so many, and how many records they could not tell since the load.
    pub fn hear(&mut self, most: usize, wall_ms: u64, now_ns: u64) -> (Vec<Told>, u64) {
        let Ok(inside) = self.inside() else { return (Vec::new(), 0) };
        let (told, untold) = (inside.told(most), inside.untold());
        (told.iter().map(|seen| self.event(seen, wall_ms, now_ns)).collect(), untold)
    }

    /// Readable when the programs tell something.
    pub fn told_descriptor(&mut self) -> Option<OwnedFd> {
        self.inside().ok().and_then(|inside| inside.told_descriptor())
    }

    fn event(&self, seen: &Seen, wall_ms: u64, now_ns: u64) -> Told {
        let kind = seen.kind & 0xff;
        let name = |port: u32| self.port_or_group(seen.datapath, port);
        let mut outport = (seen.outport != 0).then(|| name(seen.outport));
        if kind == SEEN_DELIVER && outport.is_none() {
            // A cached verdict knows the device only; nested ports share theirs.
            let mut on_device = self.states.serve.iter().filter(|vif| vif.ifindex == seen.what);
            outport = match (on_device.next(), on_device.next()) {
                (Some(only), None) => Some(only.name.clone()),
                _ => None,
            };
        }
        let flow = self.world.compiler().flow(LflowId(seen.lflow)).filter(|_| seen.lflow != 0);
        let head = &seen.head[..(seen.head_len as usize).min(seen.head.len())];
        let known = self.world.compiler().program().datapath(DatapathKey(seen.datapath)).is_some();
        let inport = if seen.inport == 0 { String::new() } else { name(seen.inport) };
        let is_remote = self.world.compiler().program().port(DatapathKey(seen.datapath), PortKey(seen.inport));
        let event = Event {
            time: wall_ms as f64 / 1e3 - now_ns.saturating_sub(seen.at) as f64 / 1e9,
            event: match kind {
                SEEN_DROP => "drop",
                SEEN_DELIVER => "deliver",
                _ => "tunnel",
            }
            .to_owned(),
            by: if seen.kind & SEEN_CACHED != 0 { "cache" } else { "walk" }.to_owned(),
            datapath: if known { self.datapath_name(seen.datapath) } else { String::new() },
            inport,
            outport,
            reason: (kind == SEEN_DROP)
                .then(|| Reason::from_number(seen.what).map_or("unknown", Reason::text).to_owned()),
            flow: flow.map(|row| short_flow(row)),
            flow_uuid: flow.map(|row| row.uuid.to_string()),
            device: (kind == SEEN_DELIVER).then(|| self.device_name(seen.what)),
            chassis: (kind != SEEN_DELIVER && kind != SEEN_DROP).then(|| self.chassis_name(seen.what)),
            tunnel: is_remote.is_some_and(|port| matches!(port.location, Location::Remote { .. })),
            len: seen.len,
            microflow: describe(&fields_of_head(head, seen.len as usize)),
            frame: None,
        };
        Told { event, head: head.to_vec() }
    }
}

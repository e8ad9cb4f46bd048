//! `oxbow/verdicts`.

use super::super::Engine;
use crate::dataplane::inspect::Cached;
use crate::packet::{describe, fields_of_key, mac_text};
use oxbow_abi::reason::Reason;
use oxbow_abi::verdict::{
    DELIVER, Denied, FDB_SLOTS, GUARDS, KEY_TUNNEL, REWRITE_MAC, REWRITE_VLAN, Verdict as AbiVerdict, VerdictKey,
};
use oxbow_pipeline::ir::LflowId;
use oxbow_report::verdicts::{Guard, Key, Verdict, Verdicts, Wanted};

/// Whether a verdict is for packets from a port, or by tunnel to it.
pub(super) fn is_of(key: &VerdictKey, (datapath, port): (u32, u32)) -> bool {
    key.datapath & !KEY_TUNNEL == datapath
        && (key.ports & 0xffff == port || key.datapath & KEY_TUNNEL != 0 && key.ports >> 16 == port)
}

impl Engine {
    /// What the caches hold.
    ///
    /// # Errors
    /// A port that is not known here; what the dataplane says.
    pub fn verdicts_report(&mut self, wanted: &Wanted) -> Result<Verdicts, String> {
        let port = wanted.port.as_deref().map(|name| self.keys_of(name)).transpose()?;
        let cached = self.inside()?.cached().map_err(|error| error.to_string())?;
        let (denied, total) = (cached.denied.len() as u64, (cached.denied.len() + cached.verdicts.len()) as u64);
        let wants = |key: &VerdictKey| port.is_none_or(|port| is_of(key, port));
        let mut forwarding: Vec<_> = cached.verdicts.iter().filter(|(key, _)| wants(key)).collect();
        let mut denying: Vec<_> = cached.denied.iter().filter(|(key, _)| wants(key)).collect();
        forwarding.sort_by_key(|(_, verdict)| std::cmp::Reverse(verdict.hits));
        denying.sort_by_key(|(_, denied)| std::cmp::Reverse(denied.hits));
        let limit = wanted.limit.unwrap_or(usize::MAX);
        // What will not be shown need not be put into words.
        forwarding.truncate(limit);
        denying.truncate(limit);
        let mut verdicts: Vec<Verdict> =
            forwarding.into_iter().map(|(key, verdict)| self.verdict(key, verdict, &cached)).collect();
        verdicts.extend(denying.into_iter().map(|(key, denied)| self.denial(key, denied, &cached)));
        verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.hits));
        verdicts.truncate(limit);
        Ok(Verdicts { verdicts, total, denied })
    }

    pub(super) fn verdict(&self, key: &VerdictKey, verdict: &AbiVerdict, cached: &Cached) -> Verdict {
        let datapath = key.datapath & !KEY_TUNNEL;
        let (kind, result) = if verdict.kind == DELIVER {
            ("deliver", format!("deliver to {}", self.device_name(verdict.ifindex)))
        } else {
            let outport = self.port_or_group(datapath, verdict.option & 0xffff);
            ("tunnel", format!("tunnel to {} for {outport}", self.chassis_name(verdict.chassis)))
        };
        let mut rewrites = Vec::new();
        if verdict.rewrite & REWRITE_MAC != 0 {
            let mac = |bytes: &[u8]| mac_text(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)));
            rewrites.push(format!("eth.dst = {}", mac(&verdict.mac[..6])));
            rewrites.push(format!("eth.src = {}", mac(&verdict.mac[6..])));
        }
        if verdict.rewrite & REWRITE_VLAN != 0 {
            rewrites.push(format!("vlan.tci = {:#x}", verdict.vlan));
        }
        let path = &verdict.path[..(verdict.path_len as usize).min(verdict.path.len())];
        let guards = guards(verdict.version, &verdict.guard, &verdict.fdb, &verdict.fdb_generation, cached);
        Verdict {
            key: self.verdict_key(key),
            result,
            kind: kind.to_owned(),
            reason: None,
            valid: guards.iter().all(|guard| guard.holds),
            guards,
            version: verdict.version,
            hits: verdict.hits,
            bytes: verdict.bytes,
            age_s: Some(cached.now.saturating_sub(verdict.created) as f64 / 1e9),
            rewrites,
            path: path.iter().map(|number| self.short_flow_of(*number)).collect(),
            path_uuids: path.iter().map(|number| self.flow_uuid(*number)).collect(),
        }
    }

    fn denial(&self, key: &VerdictKey, denied: &Denied, cached: &Cached) -> Verdict {
        let reason = Reason::from_number(denied.reason).map_or("unknown", Reason::text);
        let guards = guards(denied.version, &denied.guard, &denied.fdb, &denied.fdb_generation, cached);
        let path = if denied.lflow == 0 { Vec::new() } else { vec![denied.lflow] };
        Verdict {
            key: self.verdict_key(key),
            result: format!("drop: {reason}"),
            kind: "drop".to_owned(),
            reason: Some(reason.to_owned()),
            valid: guards.iter().all(|guard| guard.holds),
            guards,
            version: denied.version,
            hits: denied.hits,
            bytes: 0,
            age_s: None,
            rewrites: Vec::new(),
            path: path.iter().map(|number| self.short_flow_of(*number)).collect(),
            path_uuids: path.iter().map(|number| self.flow_uuid(*number)).collect(),
        }
    }

    fn verdict_key(&self, key: &VerdictKey) -> Key {
        let (datapath, tunnel) = (key.datapath & !KEY_TUNNEL, key.datapath & KEY_TUNNEL != 0);
        Key {
            datapath: self.datapath_name(datapath),
            inport: self.port_or_group(datapath, key.ports & 0xffff),
            outport: tunnel.then(|| self.port_or_group(datapath, key.ports >> 16)),
            tunnel,
            microflow: describe(&fields_of_key(key)),
        }
    }

    pub(super) fn flow_uuid(&self, number: u32) -> String {
        self.world.compiler().flow(LflowId(number)).map_or_else(String::new, |row| row.uuid.to_string())
    }
}

/// What a verdict rests on, and whether it still holds: the rule of the programs (`cache::valid`).
fn guards(
    version: u32,
    guard: &[u32; GUARDS],
    fdb: &[u32; FDB_SLOTS],
    generation: &[u32; FDB_SLOTS],
    cached: &Cached,
) -> Vec<Guard> {
    let mut all = Vec::new();
    for index in guard.iter().take_while(|index| **index != 0) {
        let now = cached.guards.get(index).copied().unwrap_or(u32::MAX);
        all.push(Guard { index: *index, kind: "guard".to_owned(), seen: version, now, holds: now <= version });
    }
    for (slot, seen) in fdb.iter().zip(generation).take_while(|(slot, _)| **slot != 0) {
        let now = cached.generations.get(slot).copied().unwrap_or(u32::MAX);
        all.push(Guard { index: *slot, kind: "fdb".to_owned(), seen: *seen, now, holds: now == *seen });
    }
    all
}

impl Engine {
    /// The verdict or denial with this key that is cached now.
    pub(super) fn cached_verdict(&mut self, key: &VerdictKey) -> Option<Verdict> {
        let cached = self.inside().ok()?.cached().ok()?;
        let verdict = cached.verdicts.iter().find(|(other, _)| other == key);
        let denied = cached.denied.iter().find(|(other, _)| other == key);
        verdict
            .map(|(key, verdict)| self.verdict(key, verdict, &cached))
            .or_else(|| denied.map(|(key, denied)| self.denial(key, denied, &cached)))
    }
}

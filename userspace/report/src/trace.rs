//! `oxbow trace`: the way of one packet, by the reference interpreter and by the loaded programs.

use crate::flows::LogicalFlow;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What would become of a packet. Nothing is sent, learned, counted or cached for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// The port that sends it.
    pub inport: String,
    /// Its datapath.
    pub datapath: String,
    /// The packet as it was read, as a microflow.
    pub microflow: String,
    /// The frame, in hexadecimal.
    pub frame: String,
    /// Chassis where the port is, and so where `steps` and `fates` are.
    pub chassis: String,
    /// The way there, in order: flows walked, copies made, their ends.
    pub steps: Vec<Step>,
    /// What becomes of it there, in order: what leaves, and what is dropped.
    pub fates: Vec<Fate>,
    /// What the loaded programs say of the same packet. Only those of the chassis that is asked can.
    pub programs: Programs,
    /// A verdict for such packets that is cached, and that real packets follow now.
    pub cached: Option<crate::verdicts::Verdict>,
    /// What becomes of it, or of each copy, where it arrives through a tunnel.
    pub arrivals: Vec<Arrival>,
    /// Where all copies end, over all chassis; those that were not followed end in their tunnel.
    pub ends: Vec<End>,
}

/// A packet that arrives through a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arrival {
    /// Chassis that it arrives at.
    pub chassis: String,
    /// Chassis that it comes from.
    pub from: String,
    /// What the tunnel says of it.
    pub tunnel: Tunnel,
    /// The way, as [`Trace::steps`].
    pub steps: Vec<Step>,
    /// What becomes of it, as [`Trace::fates`].
    pub fates: Vec<Fate>,
    /// What the loaded programs say of it, if it arrives at the chassis that is asked.
    pub programs: Programs,
    /// As [`Trace::cached`].
    pub cached: Option<crate::verdicts::Verdict>,
}

/// The outer headers of a packet between chassis (ovn-architecture(7), Tunnel Encapsulations).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnel {
    /// `geneve` or `vxlan`.
    pub kind: String,
    /// Source address, where the chassis that is asked is one of the two.
    pub source: Option<String>,
    /// Destination address, likewise.
    pub destination: Option<String>,
    /// Network identifier: tunnel key of the datapath.
    pub key: u32,
    /// Tunnel key of the logical input port.
    pub inport_key: u32,
    /// Its name.
    pub inport: String,
    /// Tunnel key of the logical output port or multicast group.
    pub outport_key: u32,
    /// Its name.
    pub outport: String,
}

/// Where a copy ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// On which chassis.
    pub at: String,
    /// The loaded programs came to the same; else it is the reference interpreter's word alone.
    pub verified: bool,
    /// How.
    #[serde(flatten)]
    pub fate: Fate,
}

impl Trace {
    /// Wherever the loaded programs ran, they came to the same as the reference interpreter.
    pub fn agrees(&self) -> bool {
        let all = std::iter::once(&self.programs).chain(self.arrivals.iter().map(|arrival| &arrival.programs));
        all.into_iter().all(|programs| !programs.ran || programs.agree)
    }
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A logical flow matched.
    Flow {
        /// The flow.
        #[serde(flatten)]
        flow: LogicalFlow,
        /// Name of the datapath.
        datapath: String,
        /// What its actions changed: `reg0[0] = 1`, `outport = "vm2"`.
        changes: Vec<String>,
    },
    /// The packet, or a copy, goes on towards a local port.
    Egress {
        /// The port.
        outport: String,
    },
    /// An address would be learned.
    Learn {
        /// The address.
        mac: String,
        /// The port.
        port: String,
    },
    /// It, or a copy, came to its end.
    End(Fate),
}

/// The end of a packet or copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Fate {
    /// `deliver`, `tunnel` or `drop`.
    pub fate: String,
    /// Logical port it is delivered to, or would be.
    pub outport: Option<String>,
    /// Device it leaves by (`deliver`).
    pub device: Option<String>,
    /// Chassis it is sent to (`tunnel`).
    pub chassis: Option<String>,
    /// Why (`drop`): the names of `oxbow drops`.
    pub reason: Option<String>,
    /// Logical flow that dropped it.
    pub flow: Option<String>,
    /// How it leaves, as a microflow, where that differs from how it came.
    pub packet: Option<String>,
    /// What leaves, in hexadecimal: the frame on the device, or the inner frame of a tunnel.
    pub frame: Option<String>,
}

/// The same packet given to the programs that are loaded, without sending anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Programs {
    /// They were run.
    pub ran: bool,
    /// Why they were not.
    pub why_not: Option<String>,
    /// Whether they came to the same fates by the same logical flows.
    pub agree: bool,
    /// What differs.
    pub differences: Vec<String>,
    /// Logical flows they took, `STAGE_NAME/PRIORITY` each.
    pub path: Vec<String>,
    /// Their fates.
    pub fates: Vec<Fate>,
    /// The walk would be cached: the next packet of the flow takes the fast path.
    pub cacheable: bool,
    /// Copies that the policy sends to other chassis and that the underlay keeps from leaving: a next hop without address, a packet too large.
    pub held_up: Vec<Fate>,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        match self.fate.as_str() {
            "deliver" => {
                write!(f, "delivered to {}", name(&self.outport))?;
                if let Some(device) = &self.device {
                    write!(f, " ({device})")?;
                }
            }
            "tunnel" => write!(f, "tunnelled to {} for {}", name(&self.chassis), name(&self.outport))?,
            _ => {
                write!(f, "dropped: {}", name(&self.reason))?;
                if let Some(outport) = &self.outport {
                    write!(f, " on the way to {outport}")?;
                }
                if let Some(flow) = &self.flow {
                    write!(f, " by logical flow {flow}")?;
                }
            }
        }
        match &self.packet {
            Some(packet) => write!(f, " as {packet}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Programs { ran, why_not, agree, differences, path, fates, cacheable, held_up } = self;
        match (ran, agree) {
            (false, _) => writeln!(f, "Programs: not run: {}", why_not.as_deref().unwrap_or("no reason given"))?,
            (true, true) => {
                let cached = if *cacheable { "cached after the first packet" } else { "walked by every packet" };
                writeln!(f, "Programs: agree ({cached})")?;
                for fate in held_up {
                    writeln!(f, "  but the underlay does not take it now: {fate}")?;
                }
            }
            (true, false) => {
                writeln!(f, "Programs: DISAGREE, which is a bug: please report it with this output")?;
                for difference in differences {
                    writeln!(f, "  {difference}")?;
                }
                for fate in fates {
                    writeln!(f, "  programs: {fate}")?;
                }
                writeln!(f, "  programs: {}", path.join(" > "))?;
            }
        }
        Ok(())
    }
}

/// The way at one chassis and what comes of it.
struct Leg<'a> {
    steps: &'a [Step],
    fates: &'a [Fate],
    programs: &'a Programs,
    cached: Option<&'a crate::verdicts::Verdict>,
}

impl fmt::Display for Leg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heading = None;
        for step in self.steps {
            match step {
                Step::Flow { flow, datapath, changes } => {
                    if heading != Some((datapath, &flow.pipeline)) {
                        writeln!(f, "\n{}(dp=\"{datapath}\")", flow.pipeline)?;
                        heading = Some((datapath, &flow.pipeline));
                    }
                    let LogicalFlow { stage, stage_name, priority, r#match, actions, uuid, .. } = flow;
                    let short = uuid.get(..8).unwrap_or(uuid);
                    writeln!(f, "{stage:>2}. {stage_name}: {}, priority {priority}, uuid {short}", r#match)?;
                    writeln!(f, "    {actions}")?;
                    for change in changes {
                        writeln!(f, "      {change}")?;
                    }
                }
                Step::Egress { outport } => {
                    heading = None;
                    writeln!(f, "    -> towards {outport}")?;
                }
                Step::Learn { mac, port } => writeln!(f, "      would learn {mac} at {port}")?,
                Step::End(fate) => writeln!(f, "    => {fate}")?,
            }
        }
        writeln!(f, "\nFate:")?;
        for fate in self.fates {
            writeln!(f, "  {fate}")?;
        }
        if self.fates.is_empty() {
            writeln!(f, "  nothing leaves")?;
        }
        write!(f, "{}", self.programs)?;
        match self.cached {
            Some(verdict) => write!(f, "Cached verdict that packets follow now:\n{verdict}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trace { inport, datapath, microflow, chassis, steps, fates, programs, cached, arrivals, ends, .. } = self;
        writeln!(f, "# {microflow}")?;
        writeln!(f, "# from {inport} on {datapath}, at {chassis}")?;
        write!(f, "{}", Leg { steps, fates, programs, cached: cached.as_ref() })?;
        for Arrival { chassis, from, tunnel, steps, fates, programs, cached } in arrivals {
            let Tunnel { kind, source, destination, key, inport_key, inport, outport_key, outport } = tunnel;
            let addresses = match (source, destination) {
                (Some(source), Some(destination)) => format!(" {source} -> {destination}"),
                _ => String::new(),
            };
            writeln!(f, "\n# {from} -> {chassis} by {kind}{addresses}")?;
            writeln!(
                f,
                "# network {key} ({datapath}), from port {inport_key} ({inport}), to {outport_key} ({outport})"
            )?;
            write!(f, "{}", Leg { steps, fates, programs, cached: cached.as_ref() })?;
        }
        if !arrivals.is_empty() {
            writeln!(f, "\nIn the end:")?;
            for End { at, verified, fate } in ends {
                let by = if *verified { "reference and programs" } else { "reference alone" };
                writeln!(f, "  {at}: {fate} [{by}]")?;
            }
        }
        Ok(())
    }
}

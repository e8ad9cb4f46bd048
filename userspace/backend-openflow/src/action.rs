//! From the actions of a rule to actions of OpenFlow.
//!
//! A list that goes on in another table does so by its last action, `resubmit`; whatever must not see what happens on the way (a copy, an
//! output that is followed by more) is in `clone`. Questions (port security, addresses) are resubmits to tables that answer in a bit of
//! `reg12` or in `reg15`, which is saved on the stack.

use crate::layout::{
    ADDRESSES, ADVERTISE, ADVERTISEMENT, DELIVERY, LEARNED_COOKIE, LEARNED_IDLE, LEARNED_LIMIT, LEARNED_PRIORITY, LIST,
    PORT_SEC_IN, PORT_SEC_OUT, REMOTE_OUTPUT, RESULT, ROUTER, SAME_PORT, SCRATCH, stage,
};
use crate::matching::{Has, Known, Unsupported, storage};
use crate::numbers::PER_RULE;
use crate::oxm::{self, ICMP6, IP6, Oxm, ones};
use oxbow_pipeline::ir::{Act, Direction, Field, Pipeline, Slice, Stages, width};

/// Where a list stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The first of the rule's numbers for lists ([`crate::numbers`]).
    pub(crate) first: u32,
    /// The pipeline.
    pub(crate) pipeline: Pipeline,
    /// Where a stage starts on the datapath.
    pub(crate) stages: &'a Stages,
}

/// A list, lowered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lowered {
    /// As ovs-ofctl(8) writes it.
    pub(crate) text: String,
    /// Lists that stand in [`ADVERTISEMENT`]: their numbers and texts.
    pub(crate) lists: Vec<(u32, String)>,
    /// Whether it asks for the port of an address.
    pub(crate) asks: bool,
}

/// Fields of packets that a list touches.
pub(crate) fn touched(acts: &[Act]) -> Vec<Field> {
    let mut fields = Vec::new();
    collect(acts, &mut fields);
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn collect(acts: &[Act], fields: &mut Vec<Field>) {
    for act in acts {
        match act {
            Act::Set { dst, .. } => fields.push(dst.field),
            Act::Move { dst, src, .. } => fields.extend([dst.field, src.field]),
            Act::Exchange { a, b, .. } => fields.extend([a.field, b.field]),
            Act::DecTtl => fields.push(Field::IpTtl),
            Act::Clone(nested) => collect(nested, fields),
            Act::PutFdb { mac, .. } | Act::LookupFdb { mac, .. } | Act::GetFdb { mac, .. } => fields.push(*mac),
            // What is inside is about another packet.
            Act::NdNa { .. }
            | Act::Next { .. }
            | Act::Output
            | Act::Drop(_)
            | Act::CheckPortSecurity { .. }
            | Act::Punt(_) => {}
        }
    }
}

/// Lowers a list for packets of which this is known.
pub(crate) fn lower(acts: &[Act], place: Place<'_>, known: Known) -> Result<Lowered, Unsupported> {
    let mut writer = Writer { place, known, done: Lowered::default(), lists: 0, inside: false };
    writer.list(acts)?;
    if writer.done.text.is_empty() {
        writer.done.text.push_str("drop");
    }
    Ok(writer.done)
}

struct Writer<'a> {
    place: Place<'a>,
    known: Known,
    done: Lowered,
    lists: usize,
    /// Within a neighbor advertisement.
    inside: bool,
}

impl Writer<'_> {
    fn push(&mut self, action: &str) {
        if !self.done.text.is_empty() {
            self.done.text.push(',');
        }
        self.done.text.push_str(action);
    }

    fn list(&mut self, acts: &[Act]) -> Result<(), Unsupported> {
        for (n, act) in acts.iter().enumerate() {
            let last = n + 1 == acts.len();
            match act {
                Act::Set { dst, width, value } => self.set(*dst, *width, *value)?,
                Act::Move { dst, src, width } => self.copy(*dst, *src, *width)?,
                Act::Exchange { a, b, width } => self.exchange(*a, *b, *width)?,
                Act::DecTtl => match self.known.has(oxm(Field::IpTtl)?.needs) {
                    Has::Yes => self.push("dec_ttl"),
                    // Without a TTL it reads as 0, and is exceeded.
                    Has::No => return Ok(()),
                    Has::Unknown => return Err(Unsupported::Prerequisite(Field::IpTtl)),
                },
                Act::Next { pipeline, stage: number } => {
                    if let Some(entry) = self.place.stages.entry(*pipeline, *number) {
                        self.push(&format!("resubmit(,{})", stage(*pipeline, entry)));
                    }
                    return Ok(());
                }
                Act::Output => {
                    let table = match self.place.pipeline {
                        Pipeline::Ingress => REMOTE_OUTPUT,
                        Pipeline::Egress => DELIVERY,
                    };
                    if last {
                        self.push(&format!("resubmit(,{table})"));
                    } else {
                        self.push(&format!("clone(resubmit(,{table}))"));
                    }
                }
                Act::Drop(_) | Act::Punt(_) => return Ok(()),
                Act::Clone(nested) => self.nested("", nested)?,
                Act::CheckPortSecurity { direction, dst } => {
                    let table = match direction {
                        Direction::In => PORT_SEC_IN,
                        Direction::Out => PORT_SEC_OUT,
                    };
                    self.ask(table);
                    self.answer(*dst)?;
                }
                Act::PutFdb { port, mac } => {
                    let (mac, port) = (self.readable(*mac)?.name, oxm(*port)?.name);
                    self.push(&format!(
                        "learn(table={ADDRESSES},idle_timeout={LEARNED_IDLE},priority={LEARNED_PRIORITY},\
                         cookie={LEARNED_COOKIE:#x},limit={LEARNED_LIMIT},metadata[],eth_dst[]={mac}[],\
                         load:{port}[0..15]->reg15[0..15])"
                    ));
                }
                Act::GetFdb { dst, mac } => self.get_address(*dst, *mac)?,
                Act::LookupFdb { dst, port, mac } => self.lookup_address(*dst, *port, *mac)?,
                Act::NdNa { router, acts } => self.advertise(*router, acts)?,
            }
        }
        Ok(())
    }

    /// `clone(first…, list)`.
    fn nested(&mut self, first: &str, acts: &[Act]) -> Result<(), Unsupported> {
        let outer = std::mem::replace(&mut self.done.text, first.to_owned());
        self.list(acts)?;
        let inner = std::mem::replace(&mut self.done.text, outer);
        if !inner.is_empty() {
            self.push(&format!("clone({inner})"));
        }
        Ok(())
    }

    /// Whether packets have the field.
    fn has(&self, field: Field) -> Result<bool, Unsupported> {
        match self.known.has(oxm(field)?.needs) {
            Has::Yes => Ok(true),
            Has::No => Ok(false),
            Has::Unknown => Err(Unsupported::Prerequisite(field)),
        }
    }

    fn readable(&self, field: Field) -> Result<Oxm, Unsupported> {
        if self.has(field)? { oxm(field) } else { Err(Unsupported::Prerequisite(field)) }
    }

    fn set(&mut self, dst: Slice, bits: u8, value: u128) -> Result<(), Unsupported> {
        let field = storage(dst.field);
        let whole = bits == width(field);
        match field {
            // `ct_clear` takes mark and label along.
            Field::CtState if whole && value == 0 => {
                self.push("ct_clear");
                return Ok(());
            }
            Field::CtMark | Field::CtLabel if whole && value == 0 => return Ok(()),
            Field::CtState | Field::CtMark | Field::CtLabel | Field::EthType | Field::IpProto | Field::IpFrag => {
                return Err(Unsupported::Set { field, width: bits });
            }
            _ => {}
        }
        if !self.has(field)? {
            return Ok(());
        }
        let oxm = oxm(field)?;
        if !whole && !oxm.maskable {
            return Err(Unsupported::Set { field, width: bits });
        }
        let mut text = "set_field:".to_owned();
        oxm.value(&mut text, field, value << dst.offset, ones(bits) << dst.offset);
        text.push_str("->");
        text.push_str(oxm.name);
        self.push(&text);
        Ok(())
    }

    fn copy(&mut self, dst: Slice, src: Slice, bits: u8) -> Result<(), Unsupported> {
        if !self.has(storage(dst.field))? {
            return Ok(());
        }
        if !self.has(storage(src.field))? {
            return self.set(dst, bits, 0);
        }
        let mut text = "move:".to_owned();
        slice(&mut text, src, bits)?;
        text.push_str("->");
        slice(&mut text, dst, bits)?;
        self.push(&text);
        Ok(())
    }

    fn exchange(&mut self, a: Slice, b: Slice, bits: u8) -> Result<(), Unsupported> {
        match (self.has(storage(a.field))?, self.has(storage(b.field))?) {
            (true, true) => {
                for (verb, slice_of) in [("push:", a), ("push:", b), ("pop:", a), ("pop:", b)] {
                    let mut text = verb.to_owned();
                    slice(&mut text, slice_of, bits)?;
                    self.push(&text);
                }
                Ok(())
            }
            (true, false) => self.set(a, bits, 0),
            (false, true) => self.set(b, bits, 0),
            (false, false) => Ok(()),
        }
    }

    /// Asks a table that answers in [`RESULT`].
    fn ask(&mut self, table: u8) {
        let bit = 1u32 << RESULT;
        self.push(&format!("set_field:0x0/{bit:#x}->{SCRATCH},resubmit(,{table})"));
    }

    fn answer(&mut self, dst: Slice) -> Result<(), Unsupported> {
        let mut text = format!("move:{SCRATCH}[{RESULT}]->");
        slice(&mut text, dst, 1)?;
        self.push(&text);
        Ok(())
    }

    /// Runs `then` with the address to look for in `eth_dst`.
    fn with_address(
        &mut self,
        mac: Field,
        then: impl FnOnce(&mut Self) -> Result<(), Unsupported>,
    ) -> Result<(), Unsupported> {
        let name = self.readable(mac)?.name;
        if mac == Field::EthDst {
            return then(self);
        }
        self.push(&format!("push:eth_dst[],move:{name}[]->eth_dst[]"));
        then(self)?;
        self.push("pop:eth_dst[]");
        Ok(())
    }

    fn get_address(&mut self, dst: Field, mac: Field) -> Result<(), Unsupported> {
        self.done.asks = true;
        let dst = storage(dst);
        let name = oxm(dst)?.name;
        self.with_address(mac, |writer| {
            if dst == Field::OutPort {
                writer.push(&format!("set_field:0x0->reg15,resubmit(,{ADDRESSES})"));
            } else {
                writer.push(&format!(
                    "push:reg15[],set_field:0x0->reg15,resubmit(,{ADDRESSES}),move:reg15[]->{name}[],pop:reg15[]"
                ));
            }
            Ok(())
        })
    }

    fn lookup_address(&mut self, dst: Slice, port: Field, mac: Field) -> Result<(), Unsupported> {
        self.done.asks = true;
        let port = storage(port);
        let name = oxm(port)?.name;
        self.with_address(mac, |writer| {
            if port != Field::InPort {
                writer.push(&format!("push:reg14[],move:{name}[]->reg14[]"));
            }
            writer.push(&format!("push:reg15[],set_field:0x0->reg15,resubmit(,{ADDRESSES})"));
            writer.ask(SAME_PORT);
            writer.push("pop:reg15[]");
            if port != Field::InPort {
                writer.push("pop:reg14[]");
            }
            Ok(())
        })?;
        self.answer(dst)
    }

    fn advertise(&mut self, router: bool, acts: &[Act]) -> Result<(), Unsupported> {
        if self.inside || self.lists >= PER_RULE {
            return Err(Unsupported::Nested);
        }
        let id = self.place.first | self.lists as u32;
        self.lists += 1;
        let known = Known { eth_type: Some(IP6), protocol: Some(ICMP6), icmp6: Some(136) };
        let outer = std::mem::replace(&mut self.known, known);
        let text = std::mem::take(&mut self.done.text);
        self.inside = true;
        let result = self.list(acts);
        self.inside = false;
        self.known = outer;
        let inner = std::mem::replace(&mut self.done.text, text);
        result?;
        if !inner.is_empty() {
            let bit = 1u32 << ROUTER;
            let value = if router { bit } else { 0 };
            self.push(&format!(
                "clone(set_field:{value:#x}/{bit:#x}->{SCRATCH},set_field:{id:#x}->{LIST},resubmit(,{ADVERTISE}))"
            ));
            self.done.lists.push((id, inner));
        }
        Ok(())
    }
}

fn oxm(field: Field) -> Result<Oxm, Unsupported> {
    oxm::of(field).ok_or(Unsupported::Field(field))
}

fn slice(out: &mut String, of: Slice, bits: u8) -> Result<(), Unsupported> {
    let field = storage(of.field);
    let oxm = oxm(field)?;
    if bits != width(field) && !oxm.maskable {
        return Err(Unsupported::Set { field, width: bits });
    }
    oxm.bits(out, field, of.offset, bits);
    Ok(())
}

/// Flows of [`ADVERTISE`], and the match of a list in [`ADVERTISEMENT`].
pub(crate) mod advertisement {
    use super::{ADVERTISEMENT, LIST, ROUTER, SCRATCH};

    const SOLICITED: u32 = 1 << 30;
    const OVERRIDE: u32 = 1 << 29;
    const IS_ROUTER: u32 = 1 << 31;

    /// A list's match.
    pub(crate) fn matches(list: u32) -> String {
        format!("{LIST}={list:#x},icmp6,icmpv6_type=136,icmpv6_code=0")
    }

    /// What makes an advertisement of a solicitation in place (ovn-sb(5), `nd_na`; RFC 4861, sections 4.4 and 7.2.4): priority, match, actions.
    ///
    /// Open vSwitch writes what a header has and cannot make it longer: the solicitation's first option, its sender's link-layer address,
    /// becomes the target's, and other options stay. Without an option there is none in the answer.
    pub(crate) fn flows() -> Vec<(u16, String, String)> {
        let router = 1u32 << ROUTER;
        let mut flows = Vec::new();
        for (is_router, flag) in [(0, 0), (router, IS_ROUTER)] {
            for probe in [false, true] {
                let source = if probe { ",ipv6_src=::" } else { "" };
                let matches =
                    format!("{SCRATCH}={is_router:#x}/{router:#x},icmp6{source},icmpv6_type=135,icmpv6_code=0");
                let flags = flag | OVERRIDE | if probe { 0 } else { SOLICITED };
                let to = if probe { "set_field:ff02::1->ipv6_dst" } else { "move:ipv6_src[]->ipv6_dst[]" };
                let actions = format!(
                    "set_field:{flags:#x}->nd_reserved,set_field:2->nd_options_type,{to},move:nd_target[]->ipv6_src[],\
                     move:eth_dst[]->nd_sll[],push:eth_src[],push:eth_dst[],pop:eth_src[],pop:eth_dst[],\
                     set_field:255->nw_ttl,set_field:0x0->ipv6_label,set_field:0->ip_dscp,set_field:0->nw_ecn,\
                     set_field:136->icmpv6_type,resubmit(,{ADVERTISEMENT})"
                );
                flows.push((if probe { 110 } else { 100 }, matches, actions));
            }
        }
        flows
    }
}

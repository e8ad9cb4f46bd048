//! From the conditions of a rule to matches of OpenFlow.
//!
//! A rule with at most one condition of several alternatives is a flow for each of them. With more, the flows would be a product; they become
//! a conjunction instead (ovs-fields(7), "Conjunctive Match Fields"): a flow for each alternative of each condition, and one for all of them
//! together. Only the Ethernet type and, where something rests on it, the protocol are told apart beforehand, because OpenFlow has no field
//! of a protocol in a match that leaves open which protocol it is. (A match that lacks what its fields need is not refused by Open vSwitch
//! but widened: it says "normalization changed ofp_match" and leaves the field out.)
//!
//! Whether a condition has several alternatives is decided by the rule alone: a set counts as several whatever is in it, so that a member more or
//! less is a flow more or less.

use crate::numbers::PER_RULE;
use crate::oxm::{self, ICMP6, Needs, ones};
use oxbow_pipeline::ir::{Alternatives, DatapathKey, Dim, Field, Masked, Program, SetId, width};
use std::fmt::Write as _;

/// Why a rule cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    /// There is no such field.
    #[error("OpenFlow has no field for {0}")]
    Field(Field),
    /// Single bits of a field that has none.
    #[error("OpenFlow cannot match {value:#x}/{mask:#x} of {field}")]
    Mask {
        /// The field.
        field: Field,
        /// Its bits.
        value: u128,
        /// Which of them.
        mask: u128,
    },
    /// A field of a protocol, and the flow does not say which protocol it is about.
    #[error("{0} is looked at or set without its protocol")]
    Prerequisite(Field),
    /// Two conditions on one field.
    #[error("two conditions on {0}")]
    Twice(Field),
    /// More protocols than conjunctions can be told apart.
    #[error("more than {MOST} protocols in one match")]
    Protocols,
    /// An action that writes what it cannot.
    #[error("OpenFlow cannot set {width} bits of {field}")]
    Set {
        /// The field.
        field: Field,
        /// How many.
        width: u8,
    },
    /// Lists in lists.
    #[error("a neighbor advertisement within a neighbor advertisement")]
    Nested,
}

/// Protocols that one rule may be about.
const MOST: usize = PER_RULE;

/// What a flow's packets are known to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    /// Ethernet type.
    pub(crate) eth_type: Option<u16>,
    /// IP protocol.
    pub(crate) protocol: Option<u8>,
    /// ICMPv6 type (with code 0).
    pub(crate) icmp6: Option<u8>,
}

/// Whether a packet has a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Has {
    /// Every such packet.
    Yes,
    /// No such packet: it reads as 0, and setting it does nothing.
    No,
    /// It is not known.
    Unknown,
}

impl Known {
    /// Whether packets of which this is known have a field with such needs.
    pub(crate) fn has(self, needs: Needs) -> Has {
        let check = |known: Option<u16>, wanted: Option<Vec<u16>>| match (known, wanted) {
            (_, None) => Has::Yes,
            (None, Some(_)) => Has::Unknown,
            (Some(known), Some(wanted)) => {
                if wanted.contains(&known) {
                    Has::Yes
                } else {
                    Has::No
                }
            }
        };
        let of = |bytes: &[u8]| bytes.iter().map(|byte| u16::from(*byte)).collect::<Vec<_>>();
        let all = [
            check(self.eth_type, needs.types().map(<[u16]>::to_vec)),
            check(self.protocol.map(u16::from), needs.protocol().map(|protocol| of(&[protocol]))),
            check(self.icmp6.map(u16::from), needs.icmp6_types().map(of)),
        ];
        if all.contains(&Has::No) {
            Has::No
        } else if all.contains(&Has::Unknown) {
            Has::Unknown
        } else {
            Has::Yes
        }
    }

    /// The keyword of ovs-ofctl(8) for it.
    fn keyword(self, out: &mut String) {
        let text = match (self.eth_type, self.protocol) {
            (None, _) => return,
            (Some(oxm::IP4), Some(1)) => "icmp",
            (Some(oxm::IP4), Some(6)) => "tcp",
            (Some(oxm::IP4), Some(17)) => "udp",
            (Some(oxm::IP4), Some(132)) => "sctp",
            (Some(oxm::IP6), Some(6)) => "tcp6",
            (Some(oxm::IP6), Some(17)) => "udp6",
            (Some(oxm::IP6), Some(132)) => "sctp6",
            (Some(oxm::IP6), Some(ICMP6)) => "icmp6",
            (Some(eth_type), protocol) => {
                let name = match eth_type {
                    oxm::IP4 => "ip",
                    oxm::IP6 => "ipv6",
                    oxm::ARP => "arp",
                    oxm::RARP => "rarp",
                    _ => "",
                };
                let written =
                    if name.is_empty() { write!(out, ",eth_type={eth_type:#06x}") } else { write!(out, ",{name}") };
                let written = written.and_then(|()| match protocol {
                    Some(protocol) => write!(out, ",nw_proto={protocol}"),
                    None => Ok(()),
                });
                debug_assert!(written.is_ok(), "writing to a string does not fail");
                return;
            }
        };
        out.push(',');
        out.push_str(text);
    }
}

/// What a match does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The rule's actions, for packets of which this is known.
    Acts(Known),
    /// `conjunction(id, n/of)`, `n` from 1.
    Member {
        /// Which conjunction.
        id: u32,
        /// Which condition.
        n: u8,
        /// Of how many.
        of: u8,
    },
}

/// A flow's match, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// As ovs-ofctl(8) writes it, without table and priority.
    pub(crate) matches: String,
    /// What it does.
    pub(crate) part: Part,
}

/// A rule's identity and conditions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    /// Its datapath.
    pub(crate) datapath: DatapathKey,
    /// The first of its numbers for conjunctions ([`crate::numbers`]).
    pub(crate) first: u32,
    /// Its conditions.
    pub(crate) dims: &'a [Dim],
    /// Fields that its actions touch.
    pub(crate) touched: &'a [Field],
}

/// Some members of a set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Only<'a> {
    /// The set.
    pub(crate) set: SetId,
    /// Its members.
    pub(crate) members: &'a [Masked],
}

/// A condition under what is known.
enum Column<'a> {
    List(Field, Vec<String>),
    Set(Field, &'a Dim, SetId),
}

/// All flows of a rule, or with `only` those that rest on these members of a set.
pub(crate) fn plan(shape: Shape<'_>, program: &Program, only: Option<Only<'_>>) -> Result<Vec<Planned>, Unsupported> {
    let variants = variants(shape)?;
    if variants.len() > MOST {
        return Err(Unsupported::Protocols);
    }
    let mut all = Vec::new();
    for (n, known) in variants.into_iter().enumerate() {
        let id = shape.first | n as u32;
        flows(shape, program, known, id, only, &mut all)?;
    }
    Ok(all)
}

/// The protocols that a rule has to be told apart by.
fn variants(shape: Shape<'_>) -> Result<Vec<Known>, Unsupported> {
    let Shape { dims, touched, .. } = shape;
    let needs = |field: Field| oxm::of(field).map_or(Needs::Nothing, |oxm| oxm.needs);
    let mut found = vec![Known::default()];
    // In this order: a protocol is only there under its Ethernet type, a type of ICMPv6 under its protocol.
    for field in [Field::EthType, Field::IpProto, Field::Icmp6Type] {
        let wants = |other: Field| -> Option<Vec<u16>> {
            let needs = needs(other);
            match field {
                Field::EthType => needs.types().map(<[u16]>::to_vec),
                Field::IpProto => needs.protocol().map(|protocol| vec![u16::from(protocol)]),
                _ => needs.icmp6_types().map(|types| types.iter().map(|t| u16::from(*t)).collect()),
            }
        };
        let looked: Vec<&Dim> = dims.iter().filter(|dim| wants(dim.field).is_some()).collect();
        let touched: Vec<Field> = touched.iter().copied().filter(|field| wants(*field).is_some()).collect();
        let own = dims.iter().find(|dim| dim.field == field);
        let values: Vec<u16> = match own.map(|dim| (&dim.alternatives, dim.field)) {
            Some((Alternatives::List(list), _)) => {
                // The type of ICMPv6 is told apart for neighbor discovery's fields only: they come with code 0, others need not.
                let alone = match field {
                    Field::EthType => true,
                    Field::IpProto => list.len() == 1,
                    _ => false,
                };
                if !alone && looked.is_empty() && touched.is_empty() {
                    continue;
                }
                list.iter().map(|masked| exact(field, *masked)).collect::<Result<_, _>>()?
            }
            Some((Alternatives::Set(_), _)) => return Err(Unsupported::Prerequisite(field)),
            None => {
                if let Some(field) = touched.first() {
                    return Err(Unsupported::Prerequisite(*field));
                }
                // Packets without the field have 0 there: that must not do.
                let mut values: Option<Vec<u16>> = None;
                for dim in looked {
                    if zero_fits(dim) != Some(false) {
                        return Err(Unsupported::Prerequisite(dim.field));
                    }
                    let wanted = wants(dim.field).unwrap_or_default();
                    values = Some(match values {
                        None => wanted,
                        Some(values) => values.into_iter().filter(|value| wanted.contains(value)).collect(),
                    });
                }
                match values {
                    Some(values) => values,
                    None => continue,
                }
            }
        };
        let mut next = Vec::with_capacity(found.len() * values.len());
        for known in found {
            for value in &values {
                let mut known: Known = known;
                match field {
                    Field::EthType => known.eth_type = Some(*value),
                    Field::IpProto => known.protocol = Some(*value as u8),
                    _ => known.icmp6 = Some(*value as u8),
                }
                // A protocol under an Ethernet type that has none: no such packet, unless 0 is what was asked for.
                let there = match field {
                    Field::EthType => Has::Yes,
                    _ => known.has(needs(field)),
                };
                match there {
                    Has::Yes => next.push(known),
                    Has::No if *value == 0 => next.push(match field {
                        Field::IpProto => Known { protocol: None, ..known },
                        _ => Known { icmp6: None, ..known },
                    }),
                    Has::No => {}
                    Has::Unknown => return Err(Unsupported::Prerequisite(field)),
                }
            }
        }
        found = next;
    }
    Ok(found)
}

fn exact(field: Field, Masked { value, mask }: Masked) -> Result<u16, Unsupported> {
    if mask == ones(width(field)) { Ok(value as u16) } else { Err(Unsupported::Mask { field, value, mask }) }
}

/// Whether a condition holds for 0; `None` when it depends on a set.
fn zero_fits(dim: &Dim) -> Option<bool> {
    match &dim.alternatives {
        Alternatives::List(list) => Some(list.iter().any(|masked| masked.value == 0)),
        Alternatives::Set(_) => None,
    }
}

/// The flows of a rule about packets of which this is known.
fn flows(
    shape: Shape<'_>,
    program: &Program,
    known: Known,
    id: u32,
    only: Option<Only<'_>>,
    all: &mut Vec<Planned>,
) -> Result<(), Unsupported> {
    let mut fixed: Vec<(Field, String)> = Vec::new();
    let mut several: Vec<Column<'_>> = Vec::new();
    for dim in shape.dims {
        let field = storage(dim.field);
        match field {
            Field::EthType => continue,
            Field::IpProto if known.protocol.is_some() => continue,
            Field::Icmp6Type if known.icmp6.is_some() => continue,
            _ => {}
        }
        let oxm = oxm::of(field).ok_or(Unsupported::Field(field))?;
        if several.iter().any(|column| column.field() == field) || fixed.iter().any(|(other, _)| *other == field) {
            return Err(Unsupported::Twice(field));
        }
        match known.has(oxm.needs) {
            Has::Yes => {}
            Has::No => match zero_fits(dim) {
                Some(true) => continue,
                Some(false) => return Ok(()),
                None => return Err(Unsupported::Prerequisite(field)),
            },
            Has::Unknown => return Err(Unsupported::Prerequisite(field)),
        }
        match &dim.alternatives {
            Alternatives::List(list) => {
                let mut texts = Vec::with_capacity(list.len());
                for masked in list.iter() {
                    alternative(field, *masked, &mut texts)?;
                }
                texts.sort_unstable();
                texts.dedup();
                match texts.len() {
                    0 => return Ok(()),
                    1 => fixed.extend(texts.into_iter().map(|text| (field, text))),
                    _ => several.push(Column::List(field, texts)),
                }
            }
            Alternatives::Set(set) => several.push(Column::Set(field, dim, *set)),
        }
    }
    if known.icmp6.is_some() {
        let code = Field::Icmp6Code;
        let zero = |dim: &Dim| matches!(&dim.alternatives, Alternatives::List(list) if **list == [Masked { value: 0, mask: 0xff }]);
        if !shape.dims.iter().any(|dim| dim.field == code && zero(dim)) {
            // With another code the packet has none of those fields: they read as 0, and setting them does nothing.
            let discovery = |field: Field| oxm::of(field).is_some_and(|oxm| oxm.needs.icmp6_types().is_some());
            if let Some(field) = shape.touched.iter().copied().find(|field| discovery(*field)) {
                return Err(Unsupported::Prerequisite(field));
            }
            if let Some(dim) = shape.dims.iter().find(|dim| discovery(dim.field) && zero_fits(dim) != Some(false)) {
                return Err(Unsupported::Prerequisite(dim.field));
            }
            if shape.dims.iter().any(|dim| dim.field == code) {
                // A condition on the code that is not just 0: what is left of it is 0 or nothing.
                return Err(Unsupported::Prerequisite(code));
            }
            let mut texts = Vec::new();
            alternative(code, Masked { value: 0, mask: 0xff }, &mut texts)?;
            fixed.extend(texts.into_iter().map(|text| (code, text)));
        }
        if let Some(icmp6) = known.icmp6 {
            fixed.push((Field::Icmp6Type, format!("icmpv6_type={icmp6}")));
        }
    }
    let text = |conjunction: Option<u32>, extra: Option<(Field, &str)>| {
        assemble(shape.datapath, known, &fixed, conjunction, extra)
    };
    let of = several.len() as u8;
    if of != 1 && only.is_none() {
        let matches = text((of > 1).then_some(id), None);
        all.push(Planned { matches, part: Part::Acts(known) });
    }
    for (n, column) in several.iter().enumerate() {
        let part = if of == 1 { Part::Acts(known) } else { Part::Member { id, n: n as u8 + 1, of } };
        let mut texts = Vec::new();
        match (column, only) {
            (Column::List(_, list), None) => texts.extend(list.iter().cloned()),
            (Column::Set(field, dim, _), None) => {
                for masked in program.alternatives(dim) {
                    alternative(*field, masked, &mut texts)?;
                }
            }
            (Column::Set(field, _, set), Some(only)) if *set == only.set => {
                for masked in only.members {
                    alternative(*field, *masked, &mut texts)?;
                }
            }
            (Column::List(..) | Column::Set(..), Some(_)) => {}
        }
        for alternative in texts {
            all.push(Planned { matches: text(None, Some((column.field(), &alternative))), part });
        }
    }
    Ok(())
}

impl Column<'_> {
    fn field(&self) -> Field {
        match self {
            Column::List(field, _) | Column::Set(field, _, _) => *field,
        }
    }
}

/// The field under its first name.
pub(crate) const fn storage(field: Field) -> Field {
    match field {
        Field::InPortKey => Field::InPort,
        Field::OutPortKey => Field::OutPort,
        other => other,
    }
}

fn assemble(
    datapath: DatapathKey,
    known: Known,
    fixed: &[(Field, String)],
    conjunction: Option<u32>,
    extra: Option<(Field, &str)>,
) -> String {
    let mut out = String::with_capacity(96);
    let written = match conjunction {
        Some(id) => write!(out, "conj_id={id},metadata={datapath:#x}", datapath = datapath.0),
        None => write!(out, "metadata={:#x}", datapath.0),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    known.keyword(&mut out);
    let mut parts: Vec<(Field, &str)> = fixed.iter().map(|(field, text)| (*field, &**text)).chain(extra).collect();
    parts.sort_unstable();
    for (_, text) in parts {
        if !text.is_empty() {
            out.push(',');
            out.push_str(text);
        }
    }
    out
}

/// Adds the ways to write `field == value/mask`: one as a rule, none when no packet can have that.
fn alternative(field: Field, masked: Masked, texts: &mut Vec<String>) -> Result<(), Unsupported> {
    let Masked { value, mask } = masked;
    let oxm = oxm::of(field).ok_or(Unsupported::Field(field))?;
    let full = ones(width(field));
    if mask == 0 {
        texts.push(String::new());
        return Ok(());
    }
    if field == Field::IpFrag {
        // A flow with "yes" is never equal to itself in a comparison by `ovs-ofctl diff-flows`.
        let words: &[&str] = match (value, mask) {
            (0, 2) => &["not_later"],
            (0, _) => &["no"],
            (1, 1) => &["first", "later"],
            (1, _) => &["first"],
            (2, 2) | (3, _) => &["later"],
            // A later fragment is a fragment.
            _ => &[],
        };
        texts.extend(words.iter().map(|word| format!("nw_frag={word}")));
        return Ok(());
    }
    // OpenFlow keeps eight bits of the operation and takes a larger one for 0.
    if field == Field::ArpOp && mask == full && value > 0xff {
        return Ok(());
    }
    if oxm.maskable || mask == full {
        let mut text = format!("{}=", oxm.name);
        oxm.value(&mut text, field, value, mask);
        texts.push(text);
        return Ok(());
    }
    // All values that fit, of a field that is small.
    if full > 0xff {
        return Err(Unsupported::Mask { field, value, mask });
    }
    for candidate in (0..=full).filter(|candidate| candidate & mask == value) {
        texts.push(format!("{}={candidate}", oxm.name));
    }
    Ok(())
}

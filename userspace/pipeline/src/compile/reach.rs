//! Which rules of a datapath a packet can ever reach, by following what registers, flags and connection state can hold.
//!
//! Every bit of the tracked fields is, at the entry of each stage, possibly 0, possibly 1, or both. Packets enter with all of them 0. A rule
//! whose condition no possible state satisfies is dead. The result over-approximates what packets can do, so a rule that is called dead is.

use crate::ir::{Act, Alternatives, Dim, Direction, Field, Masked, Pipeline, Slice, width};
use std::collections::BTreeMap;

/// Fields that packets do not bring along: everything in them was put there by a rule.
const TRACKED: [Field; 7] =
    [Field::XxReg0, Field::XxReg1, Field::XReg4, Field::Flags, Field::CtMark, Field::CtLabel, Field::CtState];

/// `flags.tunnel_rx` (24.03): the only flag that a packet from another chassis comes with.
const FLAG_TUNNEL_RX: u128 = 1 << 16;
/// Flags that the physical side may set on packets of localports: "local only" and "localport" (bits as ovn-controller has them).
const FLAGS_OF_LOCALPORT: u128 = 1 << 4 | 1 << 10;

/// Place of a field in the state.
fn index(field: Field) -> Option<usize> {
    TRACKED.iter().position(|tracked| *tracked == field)
}

/// Whether what the field holds is known from the rules alone.
pub(crate) fn is_tracked(field: Field) -> bool {
    index(field).is_some()
}

/// The lowest `width` bits.
pub(crate) const fn ones(width: u8) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

/// Which bits can be 0 and which can be 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    zero: u128,
    one: u128,
}

/// What the tracked fields can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State([Bits; TRACKED.len()]);

impl State {
    fn zeros() -> State {
        State([Bits { zero: u128::MAX, one: 0 }; TRACKED.len()])
    }

    fn join(&mut self, other: &State) -> bool {
        let before = self.clone();
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.zero |= theirs.zero;
            mine.one |= theirs.one;
        }
        *self != before
    }

    /// As after the step from ingress to egress: flags stay.
    fn entering_egress(&self) -> State {
        let mut state = State::zeros();
        if let Some(flags) = index(Field::Flags) {
            state.0[flags] = self.0[flags];
        }
        state
    }

    fn write(&mut self, dst: Slice, width: u8, bits: Bits) {
        if let Some(i) = index(dst.field) {
            let mask = ones(width) << dst.offset;
            let state = &mut self.0[i];
            state.zero = state.zero & !mask | bits.zero << dst.offset & mask;
            state.one = state.one & !mask | bits.one << dst.offset & mask;
        }
    }

    fn read(&self, src: Slice, width: u8) -> Bits {
        match index(src.field) {
            Some(i) => {
                let mask = ones(width);
                Bits { zero: self.0[i].zero >> src.offset & mask, one: self.0[i].one >> src.offset & mask }
            }
            None => Bits { zero: u128::MAX, one: u128::MAX },
        }
    }

    fn possible(&self, dim: &Dim) -> bool {
        let (Some(i), Alternatives::List(list)) = (index(dim.field), &dim.alternatives) else { return true };
        let Bits { zero, one } = self.0[i];
        list.iter().any(|Masked { value, mask }| value & !one == 0 && !value & mask & !zero == 0)
    }

    /// Whether the condition holds whatever the packet.
    fn certain(&self, dim: &Dim) -> bool {
        let (Some(i), Alternatives::List(list)) = (index(dim.field), &dim.alternatives) else { return false };
        let Bits { zero, one } = self.0[i];
        list.iter().any(|Masked { value, mask }| value & mask & zero == 0 && !value & mask & one == 0)
    }

    /// What is known once the condition holds.
    fn assume(&mut self, dim: &Dim) {
        if let (Some(i), Alternatives::List(list)) = (index(dim.field), &dim.alternatives)
            && let [Masked { value, mask }] = list[..]
        {
            self.0[i].zero &= !(value & mask);
            self.0[i].one &= !(!value & mask);
        }
    }
}

/// What an action list can do to a state: everything else left out, so that lists which differ in packet fields only are equal.
pub(crate) fn reduce(acts: &[Act]) -> Vec<Act> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Set { dst, .. } | Act::Move { dst, .. } => is_tracked(dst.field).then(|| act.clone()),
            Act::Exchange { a, b, .. } => (is_tracked(a.field) || is_tracked(b.field)).then(|| act.clone()),
            Act::CheckPortSecurity { .. } => Some(act.clone()),
            Act::LookupFdb { dst, .. } => Some(Act::LookupFdb { dst: *dst, port: Field::InPort, mac: Field::EthSrc }),
            Act::Next { .. } | Act::Output | Act::Drop(_) | Act::Punt(_) => Some(act.clone()),
            Act::Clone(nested) => Some(Act::Clone(reduce(nested).into())),
            // For the state the same as a copy.
            Act::NdNa { acts, .. } => Some(Act::Clone(reduce(acts).into())),
            Act::DecTtl | Act::PutFdb { .. } | Act::GetFdb { .. } => None,
        })
        .collect()
}

/// What the analysis looks at in a rule.
pub(crate) trait Guarded {
    /// Conditions on tracked fields.
    fn guards(&self) -> &[Dim];
    /// [`reduce`]d actions.
    fn effect(&self) -> &[Act];
    /// Where it stands.
    fn stage(&self) -> (Pipeline, u8);
    /// Whether the rule closes its table: then no other rule of the table is ever reached.
    fn closes(&self) -> bool;
}

/// What can be at the entry of each stage that can be reached.
pub(crate) type Reached = BTreeMap<(Pipeline, u8), State>;

/// Where packets can get to. `secure` says whether the datapath has any port security (in, out): without it every check passes.
pub(crate) fn reached<G: Guarded>(by_stage: &BTreeMap<(Pipeline, u8), Vec<&G>>, secure: [bool; 2]) -> Reached {
    let mut from_port = State::zeros();
    let mut from_tunnel = State::zeros();
    if let Some(flags) = index(Field::Flags) {
        from_port.0[flags].one |= FLAGS_OF_LOCALPORT;
        from_tunnel.0[flags].one |= FLAG_TUNNEL_RX;
    }
    let mut analysis = Analysis { reached: Reached::new(), work: Vec::new(), secure };
    analysis.enter((Pipeline::Ingress, 0), &from_port);
    analysis.enter((Pipeline::Egress, 0), &from_tunnel);
    while let Some(stage) = analysis.work.pop() {
        let Some(state) = analysis.reached.get(&stage).cloned() else { continue };
        for rule in live(by_stage.get(&stage).map_or(&[][..], |rules| rules), &state) {
            let mut state = state.clone();
            for guard in rule.guards() {
                state.assume(guard);
            }
            analysis.execute(rule.effect(), &mut state, stage.0);
        }
    }
    analysis.reached
}

/// The rules that can match in a state.
pub(crate) fn live<'a, G: Guarded>(rules: &[&'a G], state: &State) -> Vec<&'a G> {
    let closing: Vec<&G> = rules.iter().copied().filter(|rule| rule.closes()).collect();
    let candidates = if closing.is_empty() { rules.to_vec() } else { closing };
    candidates.into_iter().filter(|rule| rule.guards().iter().all(|dim| state.possible(dim))).collect()
}

/// Whether the condition holds for every packet that gets to the stage.
pub(crate) fn certain(state: &State, dim: &Dim) -> bool {
    state.certain(dim)
}

struct Analysis {
    reached: Reached,
    work: Vec<(Pipeline, u8)>,
    secure: [bool; 2],
}

impl Analysis {
    fn enter(&mut self, stage: (Pipeline, u8), state: &State) {
        let changed = match self.reached.get_mut(&stage) {
            Some(there) => there.join(state),
            None => {
                self.reached.insert(stage, state.clone());
                true
            }
        };
        if changed && !self.work.contains(&stage) {
            self.work.push(stage);
        }
    }

    fn execute(&mut self, acts: &[Act], state: &mut State, pipeline: Pipeline) {
        let unknown = Bits { zero: u128::MAX, one: u128::MAX };
        for act in acts {
            match act {
                Act::Set { dst, width, value } => state.write(*dst, *width, Bits { zero: !value, one: *value }),
                Act::Move { dst, src, width } => {
                    let bits = state.read(*src, *width);
                    state.write(*dst, *width, bits);
                }
                Act::Exchange { a, b, width } => {
                    let (va, vb) = (state.read(*a, *width), state.read(*b, *width));
                    state.write(*a, *width, vb);
                    state.write(*b, *width, va);
                }
                Act::CheckPortSecurity { direction, dst } => {
                    let secure = self.secure[usize::from(*direction == Direction::Out)];
                    state.write(*dst, 1, if secure { unknown } else { Bits { zero: 1, one: 0 } });
                }
                Act::LookupFdb { dst, .. } => state.write(*dst, 1, unknown),
                Act::GetFdb { dst, .. } => state.write(Slice { field: *dst, offset: 0 }, width(*dst), unknown),
                Act::Next { pipeline, stage } => return self.enter((*pipeline, *stage), state),
                Act::Output => {
                    if pipeline == Pipeline::Ingress {
                        self.enter((Pipeline::Egress, 0), &state.entering_egress());
                    }
                }
                Act::Drop(_) | Act::Punt(_) => return,
                Act::Clone(nested) | Act::NdNa { acts: nested, .. } => {
                    self.execute(nested, &mut state.clone(), pipeline);
                }
                Act::DecTtl | Act::PutFdb { .. } => {}
            }
        }
    }
}

//! Lists of operations that are so frequent that they need no block: what nearly every rule of a switch does.

use super::Compiled;
use oxbow_abi::field::OUTPORT;
use oxbow_abi::op::{CHECK_IN_PORT_SEC, CHECK_OUT_PORT_SEC, NEXT, OUTPUT_END, Op, SET, SET_OPERAND};
use oxbow_abi::op::{SUB_IN_PORT_SEC, SUB_OUT_PORT_SEC};
use oxbow_abi::rule::{check, goto, output, send};

/// The list as [`oxbow_abi::rule::Answer::block`] if it is a short one.
pub fn short(compiled: &Compiled) -> Option<u32> {
    match compiled.ops[..] {
        [Op { code: NEXT, dst, a, .. }] => Some(goto(u32::from(dst), a)),
        [Op { code: OUTPUT_END, .. }] => Some(output()),
        [Op { code, dst: OUTPORT, arg, a: u32::MAX, b, c: 0, .. }, Op { code: OUTPUT_END, .. }] => {
            let port = match code {
                SET => b,
                SET_OPERAND => *compiled.operand.get(usize::from(arg))?,
                _ => return None,
            };
            port.try_into().ok().map(send)
        }
        [Op { code, dst: word, c: bit, .. }, Op { code: NEXT, dst, a, .. }] => {
            let sub = match code {
                CHECK_IN_PORT_SEC => SUB_IN_PORT_SEC,
                CHECK_OUT_PORT_SEC => SUB_OUT_PORT_SEC,
                _ => return None,
            };
            Some(check(sub, word, bit, u32::from(dst), a))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use oxbow_lflow::context::Pipeline;
    use oxbow_lflow::field::Field;
    use oxbow_pipeline::ir::{Act, Direction, Slice};

    fn of(acts: &[Act]) -> Option<u32> {
        short(&compile(acts).unwrap())
    }

    #[test]
    fn what_most_rules_of_a_switch_do_is_short() {
        let next = Act::Next { pipeline: Pipeline::Egress, stage: 8 };
        let outport = |value| Act::Set { dst: Slice { field: Field::OutPort, offset: 0 }, width: 32, value };
        let flag = Slice { field: Field::XxReg0, offset: 15 };
        assert_eq!(of(std::slice::from_ref(&next)), Some(goto(1, 8)));
        assert_eq!(of(&[Act::Output]), Some(output()));
        assert_eq!(of(&[outport(7), Act::Output]), Some(send(7)));
        assert_eq!(of(&[outport(0x8001), Act::Output]), Some(send(0x8001)), "a group as well");
        let checked = of(&[Act::CheckPortSecurity { direction: Direction::Out, dst: flag }, next.clone()]);
        // Bit 15 of xxreg0 is bit 15 of reg3, which is its lowest word.
        assert_eq!(checked, Some(check(SUB_OUT_PORT_SEC, 3, 15, 1, 8)));
        assert_eq!(of(&[outport(7), Act::Output, Act::Output]), None);
        assert_eq!(of(&[outport(7), next]), None);
        assert_eq!(of(&[]), None);
    }
}

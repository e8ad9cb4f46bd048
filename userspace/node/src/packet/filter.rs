//! Which packets somebody wants to see: an expression of OVN's match language (ovn-sb(5), Logical_Flow:match).

use super::describe::fields_of_head;
use oxbow_lflow::context::{MatchContext, Nothing};
use oxbow_lflow::evaluate::{Environment, FieldValues};
use oxbow_lflow::field::Field;
use oxbow_lflow::vocabulary::Vocabulary;
use oxbow_lflow::{Expr, parse_match};
use oxbow_pipeline::reference::Fields;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Filter {
    expression: Expr,
}

/// A packet's headers and ports. Registers and the like are zero: they are not in a packet.
struct Headers<'a> {
    fields: Fields,
    inport: &'a str,
    outport: &'a str,
}

impl FieldValues for Headers<'_> {
    fn integer(&self, field: Field) -> u128 {
        self.fields.get(field)
    }

    fn string(&self, field: Field) -> &str {
        match field {
            Field::InPort => self.inport,
            Field::OutPort => self.outport,
            _ => "",
        }
    }
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, in OVN's words, and what it should look like.
    pub fn parse(text: &str) -> Result<Filter, String> {
        let context = MatchContext {
            symbols: Vocabulary::Accepting.table(),
            address_sets: &Nothing,
            port_groups: &Nothing,
            templates: &Nothing,
        };
        let expression = parse_match(text, &context).map_err(|error| {
            format!(
                "{text}: {}: an expression like that of an ACL is wanted: `ip4.dst == 10.0.0.2 && tcp`",
                error.message
            )
        })?;
        Ok(Filter { expression })
    }

    /// Whether a packet of `len` bytes that begins with `head` is wanted. Ports are empty where they are not known.
    pub fn wants(&self, head: &[u8], len: usize, inport: &str, outport: &str) -> bool {
        let headers = Headers { fields: fields_of_head(head, len), inport, outport };
        self.expression.evaluate(&Environment {
            packet: &headers,
            address_sets: &Nothing,
            port_groups: &Nothing,
            resident: &|_| true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::compose;
    use super::*;
    use oxbow_lflow::microflow::parse_microflow;

    fn frame(text: &str) -> Vec<u8> {
        let context = MatchContext {
            symbols: Vocabulary::Accepting.table(),
            address_sets: &Nothing,
            port_groups: &Nothing,
            templates: &Nothing,
        };
        compose(&parse_microflow(text, &context).unwrap()).unwrap()
    }

    #[test]
    fn packets_are_wanted_by_their_headers_and_ports() {
        let frame =
            frame("eth.src == 02:00:00:00:00:01 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && tcp.dst == 80");
        for (expression, wanted) in [
            ("ip4", true),
            ("ip6", false),
            ("tcp.dst == {80, 443} && ip4.src == 10.0.0.0/24", true),
            ("tcp.dst != 80", false),
            ("udp || arp", false),
            ("inport == \"vm1\" && outport == \"vm2\"", true),
            ("inport == \"vm2\"", false),
            ("eth.src == 02:00:00:00:00:01", true),
        ] {
            let filter = Filter::parse(expression).unwrap();
            assert_eq!(filter.wants(&frame[..60], frame.len(), "vm1", "vm2"), wanted, "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (expression, says) in [("tpc.dst == 80", "tpc"), ("ip4.src == $set", "set"), ("ip4 &&", "Syntax error")] {
            let error = Filter::parse(expression).unwrap_err();
            assert!(error.contains(says) && error.contains("like that of an ACL"), "{error}");
        }
    }
}

//! Actions that start with a field: loads, moves, exchanges, and those that store a result.

use super::ActionParser;
use crate::action::{Action, PutOptsKind, ResultKind, Select};
use crate::constant::{Constant, Integer};
use crate::error::Error;
use crate::expr::FieldRef;
use crate::lexer::Token;

impl ActionParser<'_> {
    pub(super) fn assignment(&mut self) -> Result<Action, Error> {
        let left = self.field()?;
        if self.lexer.matches(&Token::Exchange) {
            return self.copy(left, true);
        }
        if !self.lexer.matches(&Token::Assign) {
            return Err(self.lexer.syntax_error("expecting `=' or `<->'"));
        }
        let name = match self.lexer.token {
            Token::Id(name) => name,
            _ => return self.load(left),
        };
        if !self.is_known(name) {
            return self.copy(left, false);
        }
        if !self.lexer.peek_is_paren() {
            return match name {
                // These two are recognised by name alone and then want their parenthesis.
                "dhcp_relay_req_chk" | "dhcp_relay_resp_chk" => self.dhcp_relay(left, name == "dhcp_relay_req_chk"),
                _ => self.copy(left, false),
            };
        }
        if let Some(kind) = ResultKind::ALL.into_iter().find(|kind| kind.name() == name) {
            return self.result(left, kind);
        }
        match name {
            "select" => self.select(left),
            "put_dhcp_opts" => self.put_opts(left, PutOptsKind::Dhcpv4),
            "put_dhcpv6_opts" => self.put_opts(left, PutOptsKind::Dhcpv6),
            "put_nd_ra_opts" => self.put_opts(left, PutOptsKind::NdRa),
            "check_pkt_larger" => self.check_pkt_larger(left),
            "lookup_arp" | "lookup_nd" | "lookup_arp_ip" | "lookup_nd_ip" => self.lookup_neighbor(left, name),
            "get_fdb" | "get_remote_fdb" => self.get_fdb(left, name == "get_remote_fdb"),
            "lookup_fdb" => self.lookup_fdb(left),
            "dhcp_relay_req_chk" | "dhcp_relay_resp_chk" => self.dhcp_relay(left, name == "dhcp_relay_req_chk"),
            _ => self.copy(left, false),
        }
    }

    /// `field = constant`
    fn load(&mut self, dst: FieldRef) -> Result<Action, Error> {
        self.check_field(&dst, dst.width, true)?;
        let value = match &self.lexer.token {
            Token::Template(_) => return Err(self.lexer.error("Unexpanded template.")),
            Token::AddressSet(_) => return Err(self.lexer.syntax_error("expecting address set name")),
            Token::PortGroup(_) => return Err(self.lexer.syntax_error("expecting port group name")),
            Token::Str(_) | Token::Integer(_) => match self.lexer.take() {
                Token::Str(s) => Constant::String(s.into()),
                Token::Integer(n) => Constant::Integer(n),
                _ => unreachable!("the token was just seen to be a string or an integer"),
            },
            _ => return Err(self.lexer.syntax_error("expecting constant")),
        };
        self.check_load(&dst, &value)?;
        Ok(Action::Load { dst, value })
    }

    fn check_load(&self, dst: &FieldRef, value: &Constant) -> Result<(), Error> {
        let name = dst.symbol.name();
        let (field, constant) = match (dst.is_string(), value) {
            (false, Constant::Integer(n)) => return self.check_load_width(dst, n),
            (true, Constant::String(_)) => return Ok(()),
            (true, _) => ("String", "integer"),
            (false, _) => ("Integer", "string"),
        };
        Err(self.lexer.error(format!("{field} field {name} is not compatible with {constant} constant.")))
    }

    fn check_load_width(&self, dst: &FieldRef, n: &Integer) -> Result<(), Error> {
        let (width, limit) = (n.width(), u16::from(dst.symbol.width()));
        if width <= limit {
            return Ok(());
        }
        let name = dst.symbol.name();
        Err(self.lexer.error(format!("{width}-bit constant is not compatible with {limit}-bit field {name}.")))
    }

    /// `field1 = field2` and `field1 <-> field2`
    fn copy(&mut self, left: FieldRef, exchange: bool) -> Result<Action, Error> {
        let right = self.field()?;
        let (l, r) = (left.symbol.name(), right.symbol.name());
        let type_of = |field: &FieldRef| if field.is_string() { "string" } else { "integer" };
        if left.is_string() != right.is_string() {
            return Err(self.lexer.error(if exchange {
                format!("Can't exchange {} field ({l}) with {} field ({r}).", type_of(&left), type_of(&right))
            } else {
                format!("Can't assign {} field ({r}) to {} field ({l}).", type_of(&right), type_of(&left))
            }));
        }
        if left.width != right.width {
            return Err(self.lexer.error(if exchange {
                format!("Can't exchange {}-bit field with {}-bit field.", left.width, right.width)
            } else {
                format!("Can't assign {}-bit value to {}-bit destination.", right.width, left.width)
            }));
        }
        self.check_field(&left, left.width, true)?;
        self.check_field(&right, right.width, exchange)?;
        Ok(if exchange { Action::Exchange { left, right } } else { Action::Move { dst: left, src: right } })
    }

    /// `R = action()`
    fn result(&mut self, dst: FieldRef, kind: ResultKind) -> Result<Action, Error> {
        self.lexer.advance();
        self.lexer.advance();
        if !self.lexer.matches(&Token::RParen) {
            return Err(self.lexer.error(format!("{} doesn't take any parameters", kind.name())));
        }
        self.check_field(&dst, kind.width(), true)?;
        if kind == ResultKind::DnsLookup {
            self.require("udp");
        }
        Ok(Action::Result { kind, dst })
    }

    /// `R = select(1=20, 2)` or `R = select(values=(1=20, 2); hash_fields="…")`
    fn select(&mut self, dst: FieldRef) -> Result<Action, Error> {
        self.check_field(&dst, dst.width, true)?;
        if dst.width < 16 {
            let (name, width) = (dst.symbol.name(), dst.width);
            // A string has no bits to show; OVN's arithmetic then prints a range that ends at -1.
            let last = i32::from(dst.offset) + i32::from(width) - 1;
            return Err(self.lexer.error(format!(
                "cannot use {width}-bit field {name}[{}..{last}] for \"select\", which requires at least 16 bits.",
                dst.offset
            )));
        }
        self.check_not_last("select")?;
        self.lexer.advance();
        self.lexer.advance();
        let hashed = !self.is_23_03() && self.lexer.matches_id("values");
        if hashed {
            self.equals()?;
            self.lexer.expect(&Token::LParen)?;
        }
        let mut members = Vec::new();
        while !self.lexer.matches(&Token::RParen) {
            let id = self.uint16("id")?;
            let mut weight = 100;
            if self.lexer.matches(&Token::Assign) {
                weight = self.uint16("weight")?;
                if weight == 0 {
                    return Err(self.lexer.syntax_error("weight can't be 0"));
                }
            }
            self.lexer.matches(&Token::Comma);
            members.push((id, weight));
        }
        if members.len() < 2 {
            return Err(self.lexer.syntax_error("expecting at least 2 group members"));
        }
        let mut hash_fields = None;
        if hashed {
            self.lexer.expect(&Token::Semicolon)?;
            if !self.lexer.matches_id("hash_fields") {
                return Err(self.lexer.syntax_error("expecting hash_fields"));
            }
            if !self.lexer.matches(&Token::Assign) || self.lexer.peek() != Token::RParen {
                return Err(self.lexer.syntax_error("invalid hash_fields"));
            }
            hash_fields = Some(self.string("invalid hash_fields")?);
            self.lexer.expect(&Token::RParen)?;
        }
        Ok(Action::Select(Select { dst, members, hash_fields }))
    }

    fn check_pkt_larger(&mut self, dst: FieldRef) -> Result<Action, Error> {
        self.check_field(&dst, 1, true)?;
        self.lexer.advance();
        self.lexer.expect(&Token::LParen)?;
        let length = self.silent_integer()?;
        self.lexer.expect(&Token::RParen)?;
        // OVN keeps 16 bits of it.
        Ok(Action::CheckPktLarger { dst, length: length as u16 })
    }
}

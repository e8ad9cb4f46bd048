//! Actions that carry options: DHCP, router advertisements, events.

use super::ActionParser;
use super::conntrack::parse_endpoint;
use crate::action::{Action, Event, OptionValue, PutOptsKind};
use crate::constant::{Constant, Format};
use crate::context::OptionSpace;
use crate::error::Error;
use crate::expr::{ConstantSet, FieldRef};
use crate::lexer::Token;
use crate::nd_ra_options;
use std::net::Ipv4Addr;

/// Longest name of an event, in bytes.
const MAX_EVENT_NAME: usize = 63;

/// Options of the event `empty_lb_backends`, with the codes OVN gives them.
const EMPTY_LB_OPTIONS: [(&str, u16); 3] = [("vip", 1), ("protocol", 2), ("load_balancer", 3)];

#[derive(Clone, Copy)]
enum Options {
    Put(PutOptsKind),
    Event(Event),
}

impl Options {
    /// What OVN calls them in messages.
    fn name(self) -> &'static str {
        match self {
            Options::Put(PutOptsKind::Dhcpv4) => "DHCPv4",
            Options::Put(PutOptsKind::Dhcpv6) => "DHCPv6",
            Options::Put(PutOptsKind::NdRa) => "IPv6 ND RA",
            Options::Event(event) => event.name(),
        }
    }
}

impl Event {
    /// The event's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Event::EmptyLbBackends => "empty_lb_backends",
        }
    }
}

impl ActionParser<'_> {
    /// Code and type of an option.
    fn find_option(&self, options: Options, name: &str) -> Option<(u16, Box<str>)> {
        let space = match options {
            Options::Put(PutOptsKind::Dhcpv4) => OptionSpace::Dhcpv4,
            Options::Put(PutOptsKind::Dhcpv6) => OptionSpace::Dhcpv6,
            Options::Put(PutOptsKind::NdRa) => {
                return nd_ra_options::find(name).map(|o| (o.code, o.kind.into()));
            }
            Options::Event(Event::EmptyLbBackends) => {
                let (_, code) = EMPTY_LB_OPTIONS.iter().find(|(option, _)| *option == name)?;
                return Some((*code, "str".into()));
            }
        };
        self.context.dhcp_options.option(space, name).map(|o| (o.code, o.kind.into()))
    }

    /// `name = value`
    fn option(&mut self, options: Options) -> Result<OptionValue, Error> {
        let Token::Id(name) = self.lexer.token else {
            return Err(self.lexer.syntax_error(""));
        };
        let Some((code, kind)) = self.find_option(options, name) else {
            return Err(self.lexer.syntax_error(&format!("expecting {} option name", options.name())));
        };
        let name: Box<str> = name.into();
        self.lexer.advance();
        self.equals()?;
        let value = self.constant_set()?;
        let is_string = matches!(value.values.first(), Some(Constant::String(_)));
        let wanted = match &*kind {
            "host_id" => is_string,
            "str" | "domains" | "domain" => true,
            _ => false,
        };
        if is_string != wanted {
            let wanted = if wanted { "string" } else { "numeric" };
            return Err(self.lexer.error(format!("{} option {name} requires {wanted} value.", options.name())));
        }
        Ok(OptionValue { name, code, kind, value })
    }

    /// A constant or several in braces, without sets or groups.
    fn constant_set(&mut self) -> Result<ConstantSet, Error> {
        let mut set = ConstantSet { braces: self.lexer.matches(&Token::LCurly), ..ConstantSet::default() };
        loop {
            let is_string = match &self.lexer.token {
                Token::Template(_) => return Err(self.lexer.error("Unexpanded template.")),
                Token::Str(_) => true,
                Token::Integer(n) if n.excess_width != 0 => {
                    return Err(self.lexer.error("Hexadecimal constant requires more than 128 bits."));
                }
                Token::Integer(_) => false,
                Token::AddressSet(_) => return Err(self.lexer.syntax_error("expecting address set name")),
                Token::PortGroup(_) => return Err(self.lexer.syntax_error("expecting port group name")),
                _ => return Err(self.lexer.syntax_error("expecting constant")),
            };
            match set.values.first() {
                Some(Constant::Integer(_)) if is_string => return Err(self.lexer.syntax_error("expecting integer")),
                Some(Constant::String(_)) if !is_string => return Err(self.lexer.syntax_error("expecting string")),
                _ => {}
            }
            set.values.push(match self.lexer.take() {
                Token::Str(s) => Constant::String(s.into()),
                Token::Integer(n) => Constant::Integer(n),
                _ => unreachable!("the token was just seen to be a string or an integer"),
            });
            if !set.braces {
                return Ok(set);
            }
            self.lexer.matches(&Token::Comma);
            if self.lexer.matches(&Token::RCurly) {
                return Ok(set);
            }
        }
    }

    /// `R = put_dhcp_opts(…)` and its kin
    pub(super) fn put_opts(&mut self, dst: FieldRef, kind: PutOptsKind) -> Result<Action, Error> {
        self.lexer.advance();
        self.lexer.advance();
        self.check_field(&dst, 1, true)?;
        let mut options = Vec::new();
        while !self.lexer.matches(&Token::RParen) {
            options.push(self.option(Options::Put(kind))?);
            self.lexer.matches(&Token::Comma);
        }
        match kind {
            PutOptsKind::Dhcpv4 if !options.iter().any(|o| o.code == 0) => {
                return Err(self.lexer.error("put_dhcp_opts requires offerip to be specified."));
            }
            PutOptsKind::Dhcpv4 | PutOptsKind::Dhcpv6 => {}
            PutOptsKind::NdRa => {
                self.check_nd_ra(&options)?;
                self.require("ip6");
            }
        }
        Ok(Action::PutOpts { kind, dst, options })
    }

    fn check_nd_ra(&self, options: &[OptionValue]) -> Result<(), Error> {
        for option in options {
            if let Err(name) = nd_ra_options::check(option) {
                return Err(self.lexer.error(format!("Invalid value for \"{name}\" option")));
            }
        }
        let has = |name| options.iter().any(|o| &*o.name == name);
        if !has("slla") {
            return Err(self.lexer.error("slla option not present"));
        }
        let stateful = options.iter().any(nd_ra_options::is_stateful);
        if !stateful && !has("prefix") {
            return Err(self.lexer.error("prefix option needs to be set when address mode is slaac/dhcpv6_stateless."));
        }
        Ok(())
    }

    /// `trigger_event(event = "empty_lb_backends", vip = "…", …)`
    pub(super) fn trigger_event(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        if !self.lexer.matches_id("event") {
            return Err(self.lexer.syntax_error("Expecting 'event' option"));
        }
        self.equals()?;
        let event = match &self.lexer.token {
            Token::Str(name) if name.len() <= MAX_EVENT_NAME => {
                [Event::EmptyLbBackends].into_iter().find(|event| event.name() == *name)
            }
            _ => return Err(self.lexer.syntax_error("Expecting string")),
        };
        let Some(event) = event else {
            return Err(self.lexer.syntax_error("Unknown event '-1'"));
        };
        self.lexer.advance();
        self.lexer.matches(&Token::Comma);
        let mut options = Vec::new();
        while !self.lexer.matches(&Token::RParen) {
            options.push(self.option(Options::Event(event))?);
            self.lexer.matches(&Token::Comma);
        }
        for option in &options {
            self.check_empty_lb_option(option)?;
        }
        Ok(Action::TriggerEvent { event, options })
    }

    fn check_empty_lb_option(&self, option: &OptionValue) -> Result<(), Error> {
        let [Constant::String(value)] = &option.value.values[..] else {
            return Err(self.lexer.error(format!("Invalid value for \"{}\" option", option.name)));
        };
        match &*option.name {
            "vip" if parse_endpoint(value).is_none() => {
                Err(self.lexer.error(format!("Invalid load balancer VIP '{value}'")))
            }
            "protocol" if !matches!(&**value, "tcp" | "udp" | "sctp") => {
                Err(self.lexer.error(format!("Load balancer protocol '{value}' is not 'tcp', 'udp', or 'sctp'")))
            }
            "load_balancer" if !is_uuid(value) => {
                Err(self.lexer.error(format!("Load balancer '{value}' is not a UUID")))
            }
            _ => Ok(()),
        }
    }

    /// `R = dhcp_relay_req_chk(relay, server)`, `R = dhcp_relay_resp_chk(relay, server)`
    pub(super) fn dhcp_relay(&mut self, dst: FieldRef, request: bool) -> Result<Action, Error> {
        self.lexer.advance();
        self.lexer.expect(&Token::LParen)?;
        self.check_field(&dst, 1, true)?;
        let Some(relay) = self.ipv4() else {
            return Err(self.lexer.syntax_error("expecting IPv4 dhcp relay and server ips"));
        };
        self.lexer.matches(&Token::Comma);
        let Some(server) = self.ipv4() else {
            return Err(self.lexer.syntax_error("expecting IPv4 dhcp server ip"));
        };
        self.lexer.expect(&Token::RParen)?;
        Ok(if request {
            Action::DhcpRelayReqChk { dst, relay, server }
        } else {
            Action::DhcpRelayRespChk { dst, relay, server }
        })
    }

    fn ipv4(&mut self) -> Option<Ipv4Addr> {
        match &self.lexer.token {
            // IPv4 constants have 32 bits.
            Token::Integer(n) if n.format == Format::Ipv4 => {
                let address = Ipv4Addr::from(n.value as u32);
                self.lexer.advance();
                Some(address)
            }
            _ => None,
        }
    }
}

/// 8-4-4-4-12 hex digits.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

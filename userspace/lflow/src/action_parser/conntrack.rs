//! Connection tracking, NAT and load balancing.

use super::ActionParser;
use crate::action::{Action, Backend, L4Proto, LbAffinity, LbFlag, LbKind, LoadBalance, NatKind, NatTarget, NatZone};
use crate::constant::{Format, Integer};
use crate::error::Error;
use crate::lexer::Token;
use crate::symbol::Writable;
use crate::vocabulary::Vocabulary;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address behind an unmasked constant written as one.
fn address(n: &Integer) -> Option<IpAddr> {
    match n.format {
        // IPv4 constants have 32 bits.
        Format::Ipv4 if !n.masked => Some(Ipv4Addr::from(n.value as u32).into()),
        Format::Ipv6 if !n.masked => Some(Ipv6Addr::from(n.value).into()),
        _ => None,
    }
}

impl ActionParser<'_> {
    fn address(&mut self) -> Option<IpAddr> {
        let Token::Integer(n) = &self.lexer.token else { return None };
        let address = address(n)?;
        self.lexer.advance();
        Some(address)
    }

    /// `ct_next`, `ct_next(dnat)`
    pub(super) fn ct_next(&mut self) -> Result<Action, Error> {
        self.check_not_last("ct_next")?;
        self.require("ip");
        Ok(Action::CtNext(self.optional_zone("ct_next")?))
    }

    fn optional_zone(&mut self, name: &str) -> Result<NatZone, Error> {
        // 23.03 has no argument here.
        if self.is_23_03() || !self.lexer.matches(&Token::LParen) {
            return Ok(NatZone::Dnat);
        }
        let zone = self.nat_zone(name)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(zone)
    }

    /// `ct_commit`, `ct_commit { … }`, `ct_commit(ct_mark=…)`
    pub(super) fn ct_commit(&mut self) -> Result<Action, Error> {
        match self.lexer.token {
            Token::LCurly => Ok(Action::CtCommit(self.nested_list(Some("ip"), Writable::InCtCommit)?)),
            Token::LParen if self.context.symbols.vocabulary() != Vocabulary::V26_03 => self.ct_commit_v1(),
            _ => {
                self.require("ip");
                Ok(Action::CtCommit(Vec::new()))
            }
        }
    }

    fn ct_commit_v1(&mut self) -> Result<Action, Error> {
        self.require("ip");
        self.lexer.advance();
        let (mut mark, mut label) = (None, None);
        while !self.lexer.matches(&Token::RParen) {
            if self.lexer.matches_id("ct_mark") {
                // ct_mark has 32 bits; OVN drops the rest of the constant.
                mark = Some(self.value_and_mask()?).map(|(value, mask)| (value as u32, mask as u32));
            } else if self.lexer.matches_id("ct_label") {
                label = Some(self.value_and_mask()?);
            } else {
                return Err(self.lexer.syntax_error(""));
            }
            self.lexer.matches(&Token::Comma);
        }
        Ok(Action::CtCommitV1 { mark, label })
    }

    fn value_and_mask(&mut self) -> Result<(u128, u128), Error> {
        self.equals()?;
        let Token::Integer(n) = &self.lexer.token else {
            return Err(self.lexer.syntax_error("expecting integer"));
        };
        let pair = (n.value, if n.masked { n.mask } else { u128::MAX });
        self.lexer.advance();
        Ok(pair)
    }

    /// `ct_commit_nat`, `ct_commit_nat(snat)`
    pub(super) fn ct_commit_nat(&mut self) -> Result<Action, Error> {
        self.require("ip");
        // 23.03 calls the action by another name here, later versions by its own.
        self.check_not_last(if self.is_23_03() { "ct_commit_related" } else { "ct_commit_nat" })?;
        Ok(Action::CtCommitNat(self.optional_zone("ct_commit_nat")?))
    }

    /// `ct_commit_to_zone(dnat)`
    pub(super) fn ct_commit_to_zone(&mut self) -> Result<Action, Error> {
        self.require("ip");
        self.check_not_last("ct_commit_to_zone")?;
        self.lexer.expect(&Token::LParen)?;
        let zone = self.nat_zone("ct_commit_to_zone")?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::CtCommitToZone(zone))
    }

    /// `ct_dnat`, `ct_snat(10.0.0.1,1000-2000)`, …
    pub(super) fn ct_nat(&mut self, kind: NatKind) -> Result<Action, Error> {
        self.require("ip");
        self.check_not_last(kind.name())?;
        if !self.lexer.matches(&Token::LParen) {
            return Ok(Action::CtNat { kind, target: None });
        }
        let Some(address) = self.address() else {
            return Err(self.lexer.syntax_error("expecting IPv4 or IPv6 address"));
        };
        let ports = if self.lexer.matches(&Token::Comma) { Some(self.port_range()?) } else { None };
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::CtNat { kind, target: Some(NatTarget { address, ports }) })
    }

    fn port_range(&mut self) -> Result<(u16, Option<u16>), Error> {
        let low = match &self.lexer.token {
            // OVN keeps 16 bits of either number.
            Token::Integer(n) if n.format == Format::Decimal && !n.masked => n.value as u16,
            _ => return Err(self.lexer.syntax_error("expecting Integer for port range")),
        };
        if low == 0 {
            return Err(self.lexer.syntax_error("range can't be 0"));
        }
        self.lexer.advance();
        if !self.lexer.matches(&Token::Hyphen) {
            return Ok((low, None));
        }
        let high = match &self.lexer.token {
            Token::Integer(n) if !n.masked => n.value as u16,
            _ => return Err(self.lexer.syntax_error("expecting Integer for port range")),
        };
        if high <= low {
            return Err(self.lexer.syntax_error("range high should be greater than range low"));
        }
        self.lexer.advance();
        Ok((low, Some(high)))
    }

    /// `ct_lb`, `ct_lb_mark(backends=…; hash_fields="…"; skip_snat)`, `ct_lb_mark_local(…)`
    pub(super) fn ct_lb(&mut self, kind: LbKind) -> Result<Action, Error> {
        self.check_not_last("ct_lb")?;
        self.require("ip");
        let mut lb = LoadBalance { kind, backends: Vec::new(), hash_fields: None, flag: None };
        if !self.lexer.matches(&Token::LParen) || self.lexer.matches(&Token::RParen) {
            return Ok(Action::CtLb(lb));
        }
        if !self.lexer.matches_id("backends") {
            return Err(self.lexer.syntax_error("expecting backends"));
        }
        self.equals()?;
        while !self.lexer.matches(&Token::Semicolon) && !self.lexer.matches(&Token::RParen) {
            lb.backends.push(self.backend(kind)?);
            self.lexer.matches(&Token::Comma);
        }
        self.ct_lb_options(&mut lb)?;
        Ok(Action::CtLb(lb))
    }

    /// What follows the backends. OVN skips any token where the parenthesis should be closed, and looks for options even when it
    /// was closed before.
    fn ct_lb_options(&mut self, lb: &mut LoadBalance) -> Result<(), Error> {
        if self.lexer.matches_id("hash_fields") {
            if !self.lexer.matches(&Token::Assign) {
                return Err(self.lexer.syntax_error("invalid hash_fields"));
            }
            lb.hash_fields = Some(self.string("invalid hash_fields")?);
            if !self.lexer.matches(&Token::Semicolon) {
                self.lexer.advance();
            }
        }
        for (word, flag) in [("skip_snat", LbFlag::SkipSnat), ("force_snat", LbFlag::ForceSnat)] {
            if self.lexer.matches_id(word) {
                lb.flag = Some(flag);
                self.lexer.advance();
                break;
            }
        }
        Ok(())
    }

    fn backend(&mut self, kind: LbKind) -> Result<Backend, Error> {
        let mut logical_port = None;
        if kind == LbKind::MarkLocal {
            logical_port = Some(self.string("expecting logical port name for distributed load balancer")?);
            self.lexer.expect(&Token::Colon)?;
        }
        let bracketed = self.lexer.matches(&Token::LSquare);
        let expectation = if bracketed { "expecting IPv6 address" } else { "expecting IP address" };
        let wanted = match &self.lexer.token {
            Token::Integer(n) => address(n).filter(|a| !bracketed || a.is_ipv6()),
            _ => None,
        };
        let Some(address) = wanted else {
            return Err(self.lexer.syntax_error(expectation));
        };
        self.lexer.advance();
        if bracketed && !self.lexer.matches(&Token::RSquare) {
            return Err(self.lexer.syntax_error("no closing square bracket"));
        }
        let mut port = 0;
        if self.lexer.matches(&Token::Colon) {
            if address.is_ipv6() && !bracketed {
                return Err(self.lexer.syntax_error("IPv6 address needs square brackets if port is included"));
            }
            port = self.uint16("port number")?;
        }
        Ok(Backend { logical_port, address, port })
    }

    /// `tcp`, `udp` or `sctp`
    pub(super) fn l4_proto(&mut self) -> Result<L4Proto, Error> {
        for proto in [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp] {
            if self.lexer.matches_id(proto.name()) {
                return Ok(proto);
            }
        }
        Err(self.lexer.syntax_error("invalid protocol"))
    }

    /// `name =`, where a wrong name is an "invalid parameter".
    pub(super) fn parameter(&mut self, name: &str) -> Result<(), Error> {
        if !self.lexer.matches_id(name) {
            return Err(self.lexer.syntax_error("invalid parameter"));
        }
        self.equals()
    }

    /// `commit_ecmp_nh(ipv6 = true, proto = tcp)`
    pub(super) fn commit_ecmp_nh(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        self.parameter("ipv6")?;
        let ipv6 = self.boolean()?;
        self.lexer.expect(&Token::Comma)?;
        self.parameter("proto")?;
        let proto = self.l4_proto()?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::CommitEcmpNh { ipv6, proto })
    }

    /// `commit_lb_aff(vip = "172.16.0.10:80", backend = "10.0.0.2:8080", proto = tcp, timeout = 120)`
    pub(super) fn commit_lb_aff(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let (vip, vip_port) = self.endpoint("vip")?;
        self.lexer.advance();
        self.lexer.expect(&Token::Comma)?;
        let (backend, backend_port) = self.endpoint("backend")?;
        if backend.is_ipv6() != vip.is_ipv6() {
            return Err(self.lexer.syntax_error("invalid protocol family"));
        }
        self.lexer.advance();
        self.lexer.expect(&Token::Comma)?;
        let mut proto = None;
        if vip_port != 0 {
            self.parameter("proto")?;
            proto = Some(self.l4_proto()?);
            self.lexer.expect(&Token::Comma)?;
        }
        self.parameter("timeout")?;
        let timeout = self.uint16("affinity timeout")?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::CommitLbAff(LbAffinity { vip, vip_port, backend, backend_port, proto, timeout }))
    }

    /// `name = "address:port"`; stays at the string.
    fn endpoint(&mut self, name: &str) -> Result<(IpAddr, u16), Error> {
        self.parameter(name)?;
        let endpoint = match &self.lexer.token {
            Token::Str(text) => parse_endpoint(text),
            _ => None,
        };
        endpoint.ok_or_else(|| self.lexer.syntax_error("invalid parameter"))
    }
}

impl NatKind {
    /// The action's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NatKind::Dnat => "ct_dnat",
            NatKind::Snat => "ct_snat",
            NatKind::DnatInCzone => "ct_dnat_in_czone",
            NatKind::SnatInCzone => "ct_snat_in_czone",
        }
    }
}

/// `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]` or `[fd00::1]:80`; port 0 for none.
pub(super) fn parse_endpoint(text: &str) -> Option<(IpAddr, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => 0,
            None => return None,
        };
        return Some((IpAddr::V6(ip.parse().ok()?), port));
    }
    if let Ok(ip) = text.parse() {
        return Some((ip, 0));
    }
    let (ip, port) = text.rsplit_once(':')?;
    Some((IpAddr::V4(ip.parse().ok()?), port.parse().ok()?))
}

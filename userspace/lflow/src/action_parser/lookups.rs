//! Actions on the tables that controllers fill: neighbours (MAC_Binding) and stations (FDB).

use super::ActionParser;
use crate::action::Action;
use crate::error::Error;
use crate::expr::FieldRef;
use crate::lexer::Token;

impl ActionParser<'_> {
    /// `get_arp(P, A)`, `get_nd(P, A)`
    pub(super) fn get_neighbor(&mut self, ipv6: bool) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let (port, ip) = self.port_and_ip(ipv6)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(if ipv6 { Action::GetNd { port, ip } } else { Action::GetArp { port, ip } })
    }

    /// `put_arp(P, A, E)`, `put_nd(P, A, E)`
    pub(super) fn put_neighbor(&mut self, ipv6: bool) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let (port, ip) = self.port_and_ip(ipv6)?;
        self.lexer.expect(&Token::Comma)?;
        let mac = self.field_of_width(48)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(if ipv6 { Action::PutNd { port, ip, mac } } else { Action::PutArp { port, ip, mac } })
    }

    fn port_and_ip(&mut self, ipv6: bool) -> Result<(FieldRef, FieldRef), Error> {
        let port = self.field_of_width(0)?;
        self.lexer.expect(&Token::Comma)?;
        let ip = self.field_of_width(if ipv6 { 128 } else { 32 })?;
        Ok((port, ip))
    }

    /// `R = lookup_arp(P, A, M)`, `lookup_nd`, `lookup_arp_ip(P, A)`, `lookup_nd_ip`
    pub(super) fn lookup_neighbor(&mut self, dst: FieldRef, name: &str) -> Result<Action, Error> {
        self.check_field(&dst, 1, true)?;
        self.lexer.advance();
        self.lexer.advance();
        let ipv6 = matches!(name, "lookup_nd" | "lookup_nd_ip");
        let (port, ip) = self.port_and_ip(ipv6)?;
        if matches!(name, "lookup_arp_ip" | "lookup_nd_ip") {
            self.lexer.expect(&Token::RParen)?;
            return Ok(if ipv6 { Action::LookupNdIp { dst, port, ip } } else { Action::LookupArpIp { dst, port, ip } });
        }
        self.lexer.expect(&Token::Comma)?;
        let mac = self.field_of_width(48)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(if ipv6 { Action::LookupNd { dst, port, ip, mac } } else { Action::LookupArp { dst, port, ip, mac } })
    }

    /// `put_fdb(P, A)`
    pub(super) fn put_fdb(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let port = self.field_of_width(0)?;
        self.lexer.expect(&Token::Comma)?;
        let mac = self.field_of_width(48)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::PutFdb { port, mac })
    }

    /// `P = get_fdb(A)`, `P = get_remote_fdb(A)`
    pub(super) fn get_fdb(&mut self, dst: FieldRef, remote: bool) -> Result<Action, Error> {
        self.lexer.advance();
        self.lexer.advance();
        if dst.width != 0 {
            self.check_field(&dst, 32, true)?;
        }
        let mac = self.field_of_width(48)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(if remote { Action::GetRemoteFdb { dst, mac } } else { Action::GetFdb { dst, mac } })
    }

    /// `R = lookup_fdb(P, A)`
    pub(super) fn lookup_fdb(&mut self, dst: FieldRef) -> Result<Action, Error> {
        self.lexer.advance();
        self.lexer.advance();
        self.check_field(&dst, 1, true)?;
        let port = self.field_of_width(0)?;
        self.lexer.expect(&Token::Comma)?;
        let mac = self.field_of_width(48)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::LookupFdb { dst, port, mac })
    }
}

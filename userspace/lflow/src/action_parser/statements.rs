//! Actions that start with their own name.

use super::ActionParser;
use crate::action::{Action, LbKind, Log, LogSeverity, LogVerdict, NatKind, ObsPoint, Sample, TableRef};
use crate::constant::Format;
use crate::context::Pipeline;
use crate::error::Error;
use crate::lexer::Token;

/// Highest queue number (ovn-sb(5), `set_queue`).
const MAX_QUEUE_ID: u32 = 61440;

/// Longest name of an ACL in a log, in bytes.
const MAX_LOG_NAME: usize = 63;

impl ActionParser<'_> {
    /// The action called `name`, at which the lexer stands; `None`, and nothing skipped, when there is none.
    pub(super) fn plain_statement(&mut self, name: &str) -> Result<Option<Action>, Error> {
        if !self.is_known(name) {
            return Ok(None);
        }
        type Parse<'a> = fn(&mut ActionParser<'a>) -> Result<Action, Error>;
        let parse: Parse<'_> = match name {
            "output" => |_| Ok(Action::Output),
            "next" => Self::next,
            "push" => |p| p.stack(true),
            "pop" => |p| p.stack(false),
            "ip.ttl" => Self::dec_ttl,
            "ct_next" => Self::ct_next,
            "ct_commit" => Self::ct_commit,
            "ct_commit_to_zone" => Self::ct_commit_to_zone,
            "ct_commit_nat" => Self::ct_commit_nat,
            "ct_dnat" => |p| p.ct_nat(NatKind::Dnat),
            "ct_snat" => |p| p.ct_nat(NatKind::Snat),
            "ct_dnat_in_czone" => |p| p.ct_nat(NatKind::DnatInCzone),
            "ct_snat_in_czone" => |p| p.ct_nat(NatKind::SnatInCzone),
            "ct_lb" => |p| p.ct_lb(LbKind::Label),
            "ct_lb_mark" => |p| p.ct_lb(LbKind::Mark),
            "ct_lb_mark_local" => |p| p.ct_lb(LbKind::MarkLocal),
            "ct_clear" => |_| Ok(Action::CtClear),
            "ct_snat_to_vip" => |_| Ok(Action::CtSnatToVip),
            "igmp" => |_| Ok(Action::Igmp),
            "get_arp" => |p| p.get_neighbor(false),
            "get_nd" => |p| p.get_neighbor(true),
            "put_arp" => |p| p.put_neighbor(false),
            "put_nd" => |p| p.put_neighbor(true),
            "put_fdb" => Self::put_fdb,
            "set_queue" => Self::set_queue,
            "log" => Self::log,
            "set_meter" => Self::set_meter,
            "trigger_event" => Self::trigger_event,
            "bind_vport" => Self::bind_vport,
            "handle_svc_check" => Self::handle_svc_check,
            "fwd_group" => Self::fwd_group,
            "handle_dhcpv6_reply" => |_| Ok(Action::HandleDhcpv6Reply),
            "handle_bfd_msg" => Self::handle_bfd_msg,
            "commit_ecmp_nh" => Self::commit_ecmp_nh,
            "commit_lb_aff" => Self::commit_lb_aff,
            "sample" => Self::sample,
            "mac_cache_use" => |_| Ok(Action::MacCacheUse),
            "flood_remote" => |_| Ok(Action::FloodRemote),
            "mirror" => Self::mirror,
            _ => return Ok(None),
        };
        self.lexer.advance();
        parse(self).map(Some)
    }

    /// `next`, `next(3)`, `next(pipeline=egress, table=2)`
    fn next(&mut self) -> Result<Action, Error> {
        let from = TableRef { pipeline: self.context.pipeline, table: self.context.table };
        if self.n_tables(from.pipeline) == 0 {
            return Err(self.lexer.error("\"next\" action not allowed here."));
        }
        let mut pipeline = from.pipeline;
        let mut table = u32::from(from.table) + 1;
        if self.lexer.matches(&Token::LParen) {
            if let Some(n) = self.lexer.small_integer() {
                self.lexer.advance();
                table = n;
            } else {
                self.next_arguments(&mut pipeline, &mut table)?;
            }
            self.lexer.expect(&Token::RParen)?;
        }
        let n_tables = self.n_tables(pipeline);
        match u8::try_from(table) {
            Ok(table) if table < n_tables => Ok(Action::Next { from, to: TableRef { pipeline, table } }),
            _ => {
                let last = i16::from(n_tables) - 1;
                Err(self.lexer.error(format!("\"next\" action cannot advance beyond table {last}.")))
            }
        }
    }

    fn next_arguments(&mut self, pipeline: &mut Pipeline, table: &mut u32) -> Result<(), Error> {
        loop {
            if self.lexer.matches_id("pipeline") {
                self.equals()?;
                *pipeline = if self.lexer.matches_id("ingress") {
                    Pipeline::Ingress
                } else if self.lexer.matches_id("egress") {
                    Pipeline::Egress
                } else {
                    return Err(self.lexer.syntax_error("expecting \"ingress\" or \"egress\""));
                };
            } else if self.lexer.matches_id("table") {
                self.equals()?;
                *table = self.lexer.expect_small_integer()?;
            } else {
                return Err(self.lexer.syntax_error("expecting \"pipeline\" or \"table\""));
            }
            if !self.lexer.matches(&Token::Comma) {
                return Ok(());
            }
        }
    }

    /// `push(field)`, `pop(field)`
    fn stack(&mut self, push: bool) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let field = self.field()?;
        self.check_field(&field, field.width, !push)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(if push { Action::Push(field) } else { Action::Pop(field) })
    }

    /// `ip.ttl--`
    fn dec_ttl(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::Decrement)?;
        self.require("ip");
        Ok(Action::DecTtl)
    }

    fn set_queue(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let id = self.silent_integer()?;
        self.lexer.expect(&Token::RParen)?;
        match u16::try_from(id) {
            Ok(n) if id <= MAX_QUEUE_ID => Ok(Action::SetQueue(n)),
            _ => {
                Err(self.lexer.error(format!("Queue ID {id} for set_queue is not in valid range 0 to {MAX_QUEUE_ID}.")))
            }
        }
    }

    /// `log(name="…", severity=…, verdict=…, meter="…")`; of an argument given twice the last counts.
    fn log(&mut self) -> Result<Action, Error> {
        let (mut name, mut severity, mut verdict, mut meter) = (None, LogSeverity::Info, None, None);
        if self.lexer.matches(&Token::LParen) {
            while !self.lexer.matches(&Token::RParen) {
                if self.lexer.matches_id("verdict") {
                    verdict = Some(self.log_verdict()?);
                } else if self.lexer.matches_id("name") {
                    self.equals()?;
                    if matches!(&self.lexer.token, Token::Str(s) if s.len() > MAX_LOG_NAME) {
                        return Err(self.lexer.syntax_error("name must be shorter than 64 characters"));
                    }
                    name = Some(self.string("expecting string")?);
                } else if self.lexer.matches_id("severity") {
                    severity = self.log_severity()?;
                } else if self.lexer.matches_id("meter") {
                    self.equals()?;
                    meter = Some(self.string("expecting string")?);
                } else {
                    return Err(self.lexer.syntax_error(""));
                }
                self.lexer.matches(&Token::Comma);
            }
        }
        match verdict {
            Some(verdict) => Ok(Action::Log(Log { name, severity, verdict, meter })),
            None => Err(self.lexer.syntax_error("expecting verdict")),
        }
    }

    fn log_verdict(&mut self) -> Result<LogVerdict, Error> {
        self.equals()?;
        for verdict in LogVerdict::ALL {
            if verdict == LogVerdict::Pass && self.is_23_03() {
                continue;
            }
            if self.lexer.matches_id(verdict.name()) {
                return Ok(verdict);
            }
        }
        Err(self.lexer.syntax_error("unknown verdict"))
    }

    fn log_severity(&mut self) -> Result<LogSeverity, Error> {
        self.equals()?;
        for severity in LogSeverity::ALL {
            if self.lexer.matches_id(severity.name()) {
                return Ok(severity);
            }
        }
        let is_name = matches!(self.lexer.token, Token::Id(_));
        Err(self.lexer.syntax_error(if is_name { "unknown severity" } else { "expecting severity" }))
    }

    /// `set_meter(rate)`, `set_meter(rate, burst)`. Anything that is no decimal number counts as 0.
    fn set_meter(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let rate = self.meter_number();
        let burst = if self.lexer.matches(&Token::Comma) { self.meter_number() } else { 0 };
        self.lexer.expect(&Token::RParen)?;
        if rate == 0 {
            return Err(self.lexer.error(format!("Rate {rate} for set_meter is not in valid.")));
        }
        Ok(Action::SetMeter { rate, burst })
    }

    fn meter_number(&mut self) -> u64 {
        let number = match &self.lexer.token {
            // Decimal constants have 64 bits.
            Token::Integer(n) if n.format == Format::Decimal && !n.masked => n.value as u64,
            _ => 0,
        };
        self.lexer.advance();
        number
    }

    fn bind_vport(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let vport = self.string("expecting port name string")?;
        self.lexer.expect(&Token::Comma)?;
        let parent = self.field_of_width(0)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::BindVport { vport, parent })
    }

    fn handle_svc_check(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let port = self.field_of_width(0)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::HandleSvcCheck(port))
    }

    /// `fwd_group(liveness=true, childports="p1", "p2")`
    fn fwd_group(&mut self) -> Result<Action, Error> {
        let mut liveness = false;
        let mut child_ports = Vec::new();
        if self.lexer.matches(&Token::LParen) {
            if self.lexer.matches_id("liveness") {
                self.equals()?;
                liveness = self.boolean()?;
                self.lexer.expect(&Token::Comma)?;
            }
            if !self.lexer.matches_id("childports") {
                // OVN takes this for a group without ports, parenthesis closed or not.
                return Ok(Action::FwdGroup { liveness, child_ports });
            }
            self.equals()?;
            while !self.lexer.matches(&Token::RParen) {
                child_ports.push(self.string("expecting logical switch port")?);
                self.lexer.matches(&Token::Comma);
            }
        }
        Ok(Action::FwdGroup { liveness, child_ports })
    }

    fn handle_bfd_msg(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::HandleBfdMsg)
    }

    fn mirror(&mut self) -> Result<Action, Error> {
        self.lexer.expect(&Token::LParen)?;
        let port = self.string("expecting port name string")?;
        self.lexer.expect(&Token::RParen)?;
        Ok(Action::Mirror(port))
    }

    /// `sample(probability=…, collector_set=…, obs_domain=…, obs_point=…)`
    fn sample(&mut self) -> Result<Action, Error> {
        let mut sample = Sample { probability: 0, collector_set: 0, obs_domain: 0, obs_point: ObsPoint::Id(0) };
        if self.lexer.matches(&Token::LParen) {
            while !self.lexer.matches(&Token::RParen) {
                self.sample_argument(&mut sample)?;
                self.lexer.matches(&Token::Comma);
            }
        }
        if sample.probability == 0 {
            return Err(self.lexer.error("probability must be greater than zero"));
        }
        Ok(Action::Sample(sample))
    }

    fn sample_argument(&mut self, sample: &mut Sample) -> Result<(), Error> {
        if self.lexer.matches_id("probability") {
            self.equals()?;
            // OVN leaves anything else where it is, and then does not know what argument it may be.
            if matches!(&self.lexer.token, Token::Integer(n) if n.format == Format::Decimal && !n.masked) {
                sample.probability = self.uint16("probability")?;
            }
        } else if self.lexer.matches_id("obs_point") {
            self.equals()?;
            sample.obs_point = if self.lexer.token == Token::AddressSet("cookie") {
                self.lexer.advance();
                ObsPoint::Cookie
            } else if let Some(n) = self.decimal() {
                // The observation point has 32 bits; OVN drops the rest.
                ObsPoint::Id(n as u32)
            } else if self.is_23_03() {
                return Err(self.lexer.syntax_error("malformed sample observation_point_id"));
            } else {
                ObsPoint::Field(self.field_of_width(32)?)
            };
        } else if self.lexer.matches_id("obs_domain") {
            self.equals()?;
            if matches!(&self.lexer.token, Token::Integer(n) if n.format == Format::Decimal && n.value > 255) {
                return Err(self.lexer.syntax_error("obs_domain must be 8-bit long"));
            }
            // At most 255.
            sample.obs_domain = self.sample_number() as u8;
        } else if self.lexer.matches_id("collector_set") {
            self.equals()?;
            // Collector set identifiers have 32 bits; OVN drops the rest.
            sample.collector_set = self.sample_number() as u32;
        } else {
            return Err(self.lexer.syntax_error("unknown argument"));
        }
        Ok(())
    }

    /// A decimal number of up to 64 bits, skipped if there is one.
    fn decimal(&mut self) -> Option<u64> {
        let n = match &self.lexer.token {
            // Decimal constants have 64 bits.
            Token::Integer(n) if n.format == Format::Decimal && !n.masked => n.value as u64,
            _ => return None,
        };
        self.lexer.advance();
        Some(n)
    }

    /// A decimal number. As in OVN, anything else is skipped and counts as 0.
    fn sample_number(&mut self) -> u64 {
        self.decimal().unwrap_or_else(|| {
            self.lexer.advance();
            0
        })
    }
}

impl LogVerdict {
    /// All verdicts.
    pub const ALL: [LogVerdict; 4] = [LogVerdict::Allow, LogVerdict::Drop, LogVerdict::Reject, LogVerdict::Pass];

    /// The verdict's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogVerdict::Allow => "allow",
            LogVerdict::Drop => "drop",
            LogVerdict::Reject => "reject",
            LogVerdict::Pass => "pass",
        }
    }
}

impl LogSeverity {
    /// All severities, the most serious first.
    pub const ALL: [LogSeverity; 5] =
        [LogSeverity::Alert, LogSeverity::Warning, LogSeverity::Notice, LogSeverity::Info, LogSeverity::Debug];

    /// The severity's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogSeverity::Alert => "alert",
            LogSeverity::Warning => "warning",
            LogSeverity::Notice => "notice",
            LogSeverity::Info => "info",
            LogSeverity::Debug => "debug",
        }
    }
}

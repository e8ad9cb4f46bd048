//! Answers: to commands, to listeners, to probes over HTTP.

use super::{HEAR, Node, monotonic_ns, wall_ms};
use crate::commands::{Command, Report};
use crate::engine::Surroundings;
use oxbow_daemon::http::{Probe, Question};
use oxbow_daemon::unixctl::{Reply, Request};
use std::time::Instant;

impl Node {
    pub(super) fn answer(&mut self, request: Request<Command>) {
        let Request { command, reply } = request;
        let synchronized = self.engine.sb_is_synchronized();
        let status = self.sb.as_ref().map(|sb| sb.client.status());
        let text = match command {
            Command::ConnectionStatus => if synchronized { "connected\n" } else { "not connected\n" }.to_owned(),
            Command::Status => {
                let connection = if synchronized { "connected" } else { "not connected" };
                // Between attempts the client is at no remote: then it is the configured list that cannot be reached.
                let configured = self.sb.as_ref().map(|sb| sb.remote.as_str());
                let remote = status.as_ref().and_then(|status| status.remote.as_deref()).or(configured);
                let error = status.as_ref().and_then(|status| status.last_error.as_deref()).filter(|_| !synchronized);
                self.engine.status_text(&self.ovs_remote, connection, remote, error)
            }
            Command::Recompute => {
                self.engine.recompute();
                String::new()
            }
            Command::ZoneList => self.engine.zone_list(),
            Command::LocalBindings => self.engine.bindings_text(),
            Command::LocalDatapaths => self.engine.datapaths_text(),
            Command::Ports => self.engine.ports_text(),
            Command::Problems => self.engine.problems_text(),
            Command::Dataplane => self.engine.dataplane_text(),
            Command::Pause => {
                self.engine.set_paused(true);
                String::new()
            }
            Command::Resume => {
                self.engine.set_paused(false);
                String::new()
            }
            Command::PauseStatus => if self.engine.is_paused() { "paused\n" } else { "running\n" }.to_owned(),
            Command::DelayReport(seconds) => {
                self.engine.delay_report(seconds);
                String::new()
            }
            Command::ClusterStateReset => {
                if let Some(sb) = &mut self.sb {
                    sb.client.reset_cluster_state();
                    sb.client.force_reconnect();
                }
                String::new()
            }
            Command::ShowStats(wanted) => self.engine.stats_text(&wanted),
            Command::ClearStats => {
                self.engine.clear_stats();
                String::new()
            }
            Command::CacheStats => self.engine.cache_text(),
            Command::Content => match self.engine.content_text() {
                Ok(text) => text,
                Err(error) => return reply.error(error),
            },
            Command::Drops => match self.engine.drops_text() {
                Ok(text) => text,
                Err(error) => return reply.error(error),
            },
            Command::Trace { port, packet } => return self.trace(port, packet, reply),
            Command::Report(report) => match self.report(&report) {
                Ok(json) => json,
                Err(error) => return reply.error(error),
            },
            Command::Events(listen) => return self.listen(listen, reply),
            Command::Nothing | Command::Exit { .. } => String::new(),
        };
        reply.ok(text);
    }

    /// A listener asks.
    fn listen(&mut self, listen: oxbow_report::events::Listen, reply: Reply) {
        match self.engine.listen_place(&listen) {
            Ok((place, filter)) => {
                let now_ms = self.now_ms();
                self.audience.ask(listen, place, filter, reply, now_ms);
                self.serve_audience();
            }
            Err(error) => reply.error(error),
        }
    }

    /// Hears what the programs told, answers who waits for it, and lets the programs tell what is wanted now.
    pub(super) fn serve_audience(&mut self) {
        let now_ms = self.now_ms();
        let wanted = self.audience.wanted(now_ms);
        if self.told != wanted {
            self.told = wanted;
            self.engine.tell_listeners(wanted.0, &wanted.1);
        }
        let (events, untold) = self.engine.hear(HEAR, wall_ms(), monotonic_ns());
        // More may be left, which nobody tells again.
        self.hear_again = events.len() == HEAR;
        self.told_after = Instant::now() + self.engine.event_pause();
        let lost = untold.saturating_sub(std::mem::replace(&mut self.untold, untold));
        self.audience.keep(events, lost);
        for (reply, events) in self.audience.answers(now_ms) {
            reply.ok(oxbow_report::json(&events));
        }
    }

    /// A report, as JSON.
    fn report(&mut self, report: &Report) -> Result<String, String> {
        Ok(match report {
            Report::Status => {
                let around = self.surroundings();
                oxbow_report::json(&self.engine.status_report(&around))
            }
            Report::Ports => oxbow_report::json(&self.engine.ports_report()),
            Report::Metrics => self.metrics(),
            Report::Drops => oxbow_report::json(&self.engine.drops_report()?),
            Report::Flows(wanted) => oxbow_report::json(&self.engine.flows_report(wanted)?),
            Report::Verdicts(wanted) => oxbow_report::json(&self.engine.verdicts_report(wanted)?),
        })
    }

    fn metrics(&mut self) -> String {
        let around = self.surroundings();
        self.engine.metrics_text(&around)
    }

    /// A question over HTTP.
    pub(super) fn probe(&mut self, probe: Probe) {
        match probe.question {
            Question::Live => probe.answer(true, "ok\n"),
            Question::Ready => probe.answer_ready(&self.engine.not_ready()),
            Question::Metrics => {
                let text = self.metrics();
                probe.answer(true, text);
            }
        }
    }

    fn surroundings(&self) -> Surroundings {
        let ovs = self.ovs.status();
        let sb = self.sb.as_ref().map(|sb| (sb.client.status(), sb.remote.clone()));
        // An error of a connection that holds is history.
        Surroundings {
            ovs: (self.ovs_remote.clone(), ovs.last_error.filter(|_| !ovs.synchronized)),
            sb: match sb {
                Some((status, remote)) => {
                    (status.remote.or(Some(remote)), status.last_error.filter(|_| !status.synchronized))
                }
                None => (None, None),
            },
            wall_ms: wall_ms(),
        }
    }
}

//! The backend of one hypervisor: a [`Model`] and the switch that follows it.

use crate::desired::{About, Line, group_gone, group_line};
use crate::layout::LEARNED_COOKIE;
use crate::model::{Cookies, Model};
use crate::switch::{Learned, Switch, SwitchError};
use crate::wiring::Wiring;
use oxbow_pipeline::ir::{Changes, LflowId, Problem, Program};
use std::collections::BTreeSet;

/// A commit did not take place: the bridge holds what it held, and the next commit tries again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The bridge did not take the bundle.
    #[error(transparent)]
    Switch(#[from] SwitchError),
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Flows added or replaced.
    pub flows_written: usize,
    /// Flows deleted.
    pub flows_deleted: usize,
    /// Groups added, replaced or deleted.
    pub groups: usize,
}

/// Flows that a switch may refuse in one commit before it is given up.
const REFUSALS: usize = 1000;

/// The OpenFlow backend of one hypervisor.
pub struct Backend {
    model: Model,
    switch: Box<dyn Switch + Send>,
    wiring: Wiring,
    /// The bridge is known to hold what the model has been told it was given.
    in_step: bool,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("model", &self.model).field("in_step", &self.in_step).finish()
    }
}

impl Backend {
    /// A backend that has told the switch nothing yet. What the bridge holds stays in force until the first [`Backend::commit`], which makes the bridge's
    /// tables exactly what the program says, by one bundle of differences: established traffic goes from the old policy to the new one without a gap,
    /// and what has not changed since keeps its counters.
    #[must_use]
    pub fn new(switch: Box<dyn Switch + Send>) -> Self {
        Backend { model: Model::new(), switch, wiring: Wiring::default(), in_step: false }
    }

    /// The port numbers of the bridge. Takes effect with the next [`Backend::commit`]; returns whether something changed.
    pub fn set_wiring(&mut self, wiring: Wiring) -> bool {
        let changed = self.wiring != wiring;
        self.wiring = wiring;
        changed
    }

    /// Puts a difference in force. After an error nothing of it is (unless the connection broke in that moment: then the next call finds out); a later
    /// call, also with an empty difference, tries again.
    ///
    /// # Errors
    /// The switch does not answer, or refuses. A flow that it refuses is reported as a problem and replaced by what closes; only when that does not
    /// help either the commit fails.
    pub fn commit(
        &mut self,
        program: &Program,
        changes: &Changes,
        cookies: Cookies<'_>,
    ) -> Result<Committed, CommitError> {
        self.follow(program, changes, cookies);
        self.flush(program)
    }

    /// The first half of [`Backend::commit`]: the difference is taken over and the bridge told nothing. A node that starts follows until it
    /// knows everything; the bridge forwards by the former policy until then.
    pub fn follow(&mut self, program: &Program, changes: &Changes, cookies: Cookies<'_>) {
        self.model.apply(program, changes, &self.wiring, cookies);
    }

    /// The second half: what was followed and not yet put in force is, by one bundle.
    ///
    /// # Errors
    /// As [`Backend::commit`].
    pub fn flush(&mut self, program: &Program) -> Result<Committed, CommitError> {
        for _ in 0..REFUSALS {
            let lines = if self.in_step { self.model.differences() } else { Vec::new() };
            let result = if self.in_step { self.tell(&lines) } else { self.repair(program) };
            match result {
                Ok(committed) => {
                    self.model.given();
                    self.in_step = true;
                    return Ok(committed);
                }
                Err(SwitchError::Refused { at, reason, .. })
                    if self.in_step
                        && lines.get(at).is_some_and(|line| self.model.refuse(program, &line.about, &reason)) => {}
                Err(SwitchError::Refused { reason, .. }) if !self.in_step && reason == AGAIN => {}
                Err(error) => {
                    self.in_step &= matches!(error, SwitchError::Refused { .. });
                    return Err(error.into());
                }
            }
        }
        Err(SwitchError::Failed { bridge: String::new(), what: format!("more than {REFUSALS} flows refused") }.into())
    }

    fn tell(&mut self, lines: &[Line]) -> Result<Committed, SwitchError> {
        let texts: Vec<String> = lines.iter().map(|line| line.text.clone()).collect();
        self.switch.bundle(&texts)?;
        Ok(count(lines))
    }

    /// Compares what the bridge holds with what it should hold and repairs it. A refused flow is closed and reported as [`AGAIN`].
    fn repair(&mut self, program: &Program) -> Result<Committed, SwitchError> {
        self.switch.prepare()?;
        let flows = self.model.flows();
        let texts: Vec<String> = flows.iter().map(|(_, text)| text.clone()).collect();
        let again = |model: &mut Model, at: usize, error: SwitchError| match &error {
            SwitchError::Refused { bridge, line, reason, .. } => {
                let about = flows.get(at).map(|(key, _)| About::Write(key.clone()));
                if about.is_some_and(|about| model.refuse(program, &about, reason)) {
                    let (bridge, line) = (bridge.clone(), line.clone());
                    return SwitchError::Refused { bridge, at, line, reason: AGAIN.to_owned() };
                }
                error
            }
            _ => error,
        };
        let differences = match self.switch.compare(&texts) {
            Ok(differences) => differences,
            Err(SwitchError::Refused { at, bridge, line, reason }) => {
                return Err(again(&mut self.model, at, SwitchError::Refused { at, bridge, line, reason }));
            }
            Err(error) => return Err(error),
        };
        let held = self.switch.groups()?;
        let wanted = self.model.groups();
        let mut lines: Vec<Line> = wanted
            .iter()
            .filter(|(id, buckets)| held.get(id).map(String::as_str) != Some(buckets))
            .map(|(id, buckets)| group_line(*id, buckets))
            .collect();
        let missing: BTreeSet<&str> = differences.iter().filter(|d| d.missing).map(|d| &*d.key).collect();
        for difference in &differences {
            let (key, cookie, actions) = (&difference.key, difference.cookie, &difference.actions);
            if difference.missing {
                let text = format!("flow add cookie={cookie:#x},{key},actions={actions}");
                lines.push(Line { text, about: About::Other });
            } else if cookie != LEARNED_COOKIE && !missing.contains(&**key) {
                lines.push(Line { text: format!("flow delete_strict {key}"), about: About::Other });
            }
        }
        lines.extend(held.keys().filter(|id| !wanted.contains_key(id)).map(|id| group_gone(*id)));
        match self.tell(&lines) {
            Err(SwitchError::Refused { .. }) => {}
            other => return other,
        }
        // Something is refused: everything anew, so that the line tells whose flow it is.
        let groups: Vec<Line> = self.model.groups().iter().map(|(id, buckets)| group_line(*id, buckets)).collect();
        let mut lines = vec![other("flow delete"), other("group delete")];
        lines.extend(groups);
        let before = lines.len();
        lines.extend(
            flows.iter().map(|(key, text)| Line { text: format!("flow add {text}"), about: About::Write(key.clone()) }),
        );
        match self.tell(&lines) {
            Err(SwitchError::Refused { at, bridge, line, reason }) if at >= before => {
                let error = SwitchError::Refused { at, bridge, line, reason };
                Err(again(&mut self.model, at - before, error))
            }
            other => other,
        }
    }

    /// Makes the next [`Backend::flush`] compare what the bridge holds with what it should hold and repair it: after ovs-vswitchd was restarted
    /// (its tables are empty then), or to be sure.
    pub fn distrust(&mut self) {
        self.in_step = false;
    }

    /// Whether the bridge is known to hold what was committed last.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.in_step
    }

    /// Addresses that the bridge has learned by itself and nobody has confirmed by a row of FDB yet.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn learned(&mut self) -> Result<Vec<Learned>, SwitchError> {
        self.switch.learned()
    }

    /// Packets that took a logical flow since its flows were last written, by its cookie: 0 for one that has none. Parts of conjunctions count nothing.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn flow_packets(&mut self, lflow: LflowId) -> Result<u64, SwitchError> {
        match self.model.cookie(lflow) {
            None | Some(0) => Ok(0),
            Some(cookie) => self.switch.packets(cookie),
        }
    }

    /// What could not be held as it is.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.model.problems()
    }

    /// What the bridge should hold ([`Model::print`]).
    #[must_use]
    pub fn print(&self) -> String {
        self.model.print()
    }

    /// How many flows and groups the bridge should hold.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.model.sizes()
    }

    /// Takes every flow and group out of the bridge: it forwards nothing.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn remove_everything(&mut self) -> Result<(), SwitchError> {
        self.in_step = false;
        self.switch.bundle(&["flow delete".to_owned(), "group delete".to_owned()])
    }
}

/// Stands for the reason of a refusal that was dealt with.
const AGAIN: &str = "closed; once more";

fn other(text: &str) -> Line {
    Line { text: text.to_owned(), about: About::Other }
}

fn count(lines: &[Line]) -> Committed {
    let mut committed = Committed::default();
    for line in lines {
        if line.text.starts_with("flow add") {
            committed.flows_written += 1;
        } else if line.text.starts_with("flow delete") {
            committed.flows_deleted += 1;
        } else {
            committed.groups += 1;
        }
    }
    committed
}

//! An exchange with the bridge: what it is to be told, with everything that takes. Made and judged by [`crate::Follower`], carried out wherever the
//! [`Switch`] is.

use crate::desired::{About, FlowKey, Line, group_gone, group_line};
use crate::layout::LEARNED_COOKIE;
use crate::switch::{Switch, SwitchError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// What is to be told.
#[derive(Debug)]
pub struct Exchange(Kind);

#[derive(Debug)]
enum Kind {
    /// These differences, in one bundle.
    Tell(Vec<Line>),
    /// It is not known what the bridge holds: that is compared with what it should hold, and repaired by one bundle.
    Repair { flows: Vec<(FlowKey, String)>, groups: BTreeMap<u32, Arc<str>>, forget: BTreeSet<String> },
}

/// How it did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// What the line that was refused is about, when it is known.
    pub(crate) about: Option<About>,
    /// What the switch says.
    pub(crate) error: SwitchError,
}

impl Failure {
    fn refusal(about: Option<About>, error: SwitchError) -> Self {
        Failure { about, error }
    }
}

impl From<SwitchError> for Failure {
    fn from(error: SwitchError) -> Self {
        Failure { about: None, error }
    }
}

impl Exchange {
    pub(crate) fn tell(lines: Vec<Line>) -> Self {
        Exchange(Kind::Tell(lines))
    }

    /// `forget`: lines that delete learned addresses.
    pub(crate) fn repair(
        flows: Vec<(FlowKey, String)>,
        groups: BTreeMap<u32, Arc<str>>,
        forget: BTreeSet<String>,
    ) -> Self {
        Exchange(Kind::Repair { flows, groups, forget })
    }

    /// Carries it out.
    ///
    /// # Errors
    /// Nothing of it took effect, unless the connection broke in that moment.
    pub fn execute(&self, switch: &mut dyn Switch) -> Result<Committed, Failure> {
        match &self.0 {
            Kind::Tell(lines) => tell(switch, lines),
            Kind::Repair { flows, groups, forget } => repair(switch, flows, groups, forget),
        }
    }
}

fn tell(switch: &mut dyn Switch, lines: &[Line]) -> Result<Committed, Failure> {
    let texts: Vec<String> = lines.iter().map(|line| line.text.clone()).collect();
    match switch.bundle(&texts) {
        Ok(()) => Ok(count(lines)),
        Err(SwitchError::Refused { at, bridge, line, reason }) => {
            let about = lines.get(at).map(|line| line.about.clone());
            Err(Failure::refusal(about, SwitchError::Refused { at, bridge, line, reason }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Compares what the bridge holds with what it should hold and repairs it.
fn repair(
    switch: &mut dyn Switch,
    flows: &[(FlowKey, String)],
    wanted: &BTreeMap<u32, Arc<str>>,
    forget: &BTreeSet<String>,
) -> Result<Committed, Failure> {
    switch.prepare()?;
    let texts: Vec<String> = flows.iter().map(|(_, text)| text.clone()).collect();
    let differences = match switch.compare(&texts) {
        Ok(differences) => differences,
        Err(SwitchError::Refused { at, bridge, line, reason }) => {
            let about = flows.get(at).map(|(key, _)| About::Write(key.clone()));
            return Err(Failure::refusal(about, SwitchError::Refused { at, bridge, line, reason }));
        }
        Err(error) => return Err(error.into()),
    };
    let held = switch.groups()?;
    let mut lines: Vec<Line> = wanted
        .iter()
        .filter(|(id, buckets)| held.get(id).map(String::as_str) != Some(buckets))
        .map(|(id, buckets)| group_line(*id, buckets))
        .collect();
    let missing: BTreeSet<&str> = differences.iter().filter(|d| d.missing).map(|d| &*d.key).collect();
    for difference in &differences {
        let (key, cookie, actions) = (&difference.key, difference.cookie, &difference.actions);
        if difference.missing {
            lines.push(other(format!("flow add cookie={cookie:#x},{key},actions={actions}")));
        } else if cookie != LEARNED_COOKIE && !missing.contains(&**key) {
            lines.push(other(format!("flow delete_strict {key}")));
        }
    }
    // Learned addresses are nobody's wish, so that a comparison leaves them; but some are known better by now.
    if differences.iter().any(|difference| !difference.missing && difference.cookie == LEARNED_COOKIE) {
        lines.extend(forget.iter().cloned().map(other));
    }
    lines.extend(held.keys().filter(|id| !wanted.contains_key(id)).map(|id| group_gone(*id)));
    match tell(switch, &lines) {
        Err(Failure { error: SwitchError::Refused { .. }, .. }) => {}
        done => return done,
    }
    // Something is refused: everything anew, so that the line tells whose flow it is.
    let mut lines = vec![other("flow delete".to_owned()), other("group delete".to_owned())];
    lines.extend(wanted.iter().map(|(id, buckets)| group_line(*id, buckets)));
    let add =
        |(key, text): &(FlowKey, String)| Line { text: format!("flow add {text}"), about: About::Write(key.clone()) };
    lines.extend(flows.iter().map(add));
    tell(switch, &lines)
}

fn other(text: String) -> Line {
    Line { text, about: About::Other }
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

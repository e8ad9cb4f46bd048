//! Every distinct text is parsed once, however many flows and datapaths share it.

use super::actions::{self, only_passes};
use super::matching::{self, Form};
use super::row::FlowRow;
use crate::ir::{Act, Pipeline};
use oxbow_lflow::constant::Constant;
use oxbow_lflow::{
    ActionContext, Actions, AddressSet, Expr, MatchContext, Normalized, Nothing, PortGroups, Vocabulary, parse_actions,
    parse_match,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Every port group exists; what is in it is looked up per datapath. (In OVN a group without a row for the datapath has no ports there.)
struct EveryGroup;

impl PortGroups for EveryGroup {
    fn port_group(&self, _name: &str) -> Option<&[Box<str>]> {
        Some(&[])
    }
}

/// Address sets by name.
pub(crate) type AddressSets = FxHashMap<Box<str>, AddressSet>;

struct ByName<'a>(&'a AddressSets);

impl oxbow_lflow::AddressSets for ByName<'_> {
    fn address_set(&self, name: &str) -> Option<&AddressSet> {
        self.0.get(name)
    }
}

/// A match, parsed and with the prerequisites of its flow's actions.
#[derive(Debug)]
pub(crate) struct MatchText {
    /// Its clauses, or why there are none, in OVN's words.
    pub(crate) clauses: Result<Vec<Form>, Arc<str>>,
    /// Address sets that it names, whether or not they exist.
    pub(crate) address_sets: Vec<Arc<str>>,
}

/// An action list, parsed.
#[derive(Debug)]
pub(crate) struct ActionText {
    /// The actions (left empty once `shared` holds their translation) with their prerequisites, or why there are none.
    pub(crate) parsed: Result<Actions, Arc<str>>,
    /// The translated list, when it names no ports.
    pub(crate) shared: Option<Arc<[Act]>>,
    /// Why the list as a whole is a drop although it does not say so.
    pub(crate) unsupported: Option<Arc<str>>,
    /// Side effects that are not carried out.
    pub(crate) ignored: Option<Arc<str>>,
    /// Whether leaving the flow out can only lose packets.
    pub(crate) only_passes: bool,
    /// The prerequisites as text: part of the key of the match.
    prerequisites: Option<Arc<str>>,
}

impl ActionText {
    /// What the actions ask of the packets.
    fn condition(&self) -> Option<&Expr> {
        self.parsed.as_ref().ok().and_then(|parsed| parsed.prerequisites.as_ref())
    }
}

/// What an action list's parse depends on.
type ActionKey = (Arc<str>, Pipeline, u8);

/// What a match's parse depends on: its text, and the prerequisites of the actions.
type MatchKey = (Arc<str>, Option<Arc<str>>);

/// The cache.
#[derive(Debug)]
pub(crate) struct Texts {
    vocabulary: Vocabulary,
    stages: (u8, u8),
    matches: FxHashMap<MatchKey, Arc<MatchText>>,
    actions: FxHashMap<ActionKey, Arc<ActionText>>,
    /// Matches by the address sets they name.
    by_set: FxHashMap<Arc<str>, FxHashSet<MatchKey>>,
}

impl Texts {
    /// `stages`: how many an ingress and an egress pipeline may have.
    pub(crate) fn new(vocabulary: Vocabulary, stages: (u8, u8)) -> Self {
        Texts {
            vocabulary,
            stages,
            matches: FxHashMap::default(),
            actions: FxHashMap::default(),
            by_set: FxHashMap::default(),
        }
    }

    /// What it was made with: the vocabulary, and how many stages an ingress and an egress pipeline may have.
    pub(crate) fn settings(&self) -> (Vocabulary, (u8, u8)) {
        (self.vocabulary, self.stages)
    }

    /// Number of distinct matches and action lists held.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.matches.len(), self.actions.len())
    }

    /// Parses what these flows need and is not known, on all processors: a text depends on no other, and most of what a datapath that comes
    /// costs is its texts. Only for many: threads cost, too.
    pub(crate) fn prepare(&mut self, rows: &[Arc<FlowRow>], sets: &AddressSets) {
        let mut new: FxHashSet<ActionKey> = FxHashSet::default();
        for row in rows {
            let key = (Arc::clone(&row.actions), row.pipeline, row.stage);
            if !self.actions.contains_key(&key) {
                new.insert(key);
            }
        }
        let new: Vec<ActionKey> = new.into_iter().collect();
        let parsed = abreast(&new, |(text, pipeline, stage)| self.parse_action(text, *pipeline, *stage));
        self.actions.extend(new.into_iter().zip(parsed.into_iter().map(Arc::new)));
        let mut new: FxHashMap<MatchKey, Arc<ActionText>> = FxHashMap::default();
        for row in rows {
            let action = self.action(&row.actions, row.pipeline, row.stage);
            let key = (Arc::clone(&row.matches), action.prerequisites.clone());
            if !self.matches.contains_key(&key) {
                new.entry(key).or_insert(action);
            }
        }
        let new: Vec<(MatchKey, Arc<ActionText>)> = new.into_iter().collect();
        let parsed = abreast(&new, |((text, _), action)| self.parse_matching(text, action.condition(), sets));
        for ((key, _), parsed) in new.into_iter().zip(parsed) {
            self.keep(key, Arc::new(parsed));
        }
    }

    pub(crate) fn action(&mut self, text: &Arc<str>, pipeline: Pipeline, stage: u8) -> Arc<ActionText> {
        let key = (Arc::clone(text), pipeline, stage);
        if let Some(known) = self.actions.get(&key) {
            return Arc::clone(known);
        }
        let parsed = Arc::new(self.parse_action(text, pipeline, stage));
        self.actions.insert(key, Arc::clone(&parsed));
        parsed
    }

    fn parse_action(&self, text: &str, pipeline: Pipeline, stage: u8) -> ActionText {
        let context = ActionContext {
            symbols: self.vocabulary.table(),
            templates: &Nothing,
            dhcp_options: &Nothing,
            pipeline,
            table: stage,
            n_ingress_tables: self.stages.0,
            n_egress_tables: self.stages.1,
        };
        match parse_actions(text, &context) {
            Ok(mut parsed) => {
                let mut names = 0;
                let lowered = actions::lower(&parsed.actions, &mut |_| {
                    names += 1;
                    1
                });
                if names == 0 {
                    parsed.actions = Vec::new();
                }
                ActionText {
                    only_passes: lowered.unsupported.is_none() && only_passes(&lowered.acts),
                    shared: (names == 0).then_some(lowered.acts),
                    unsupported: lowered.unsupported.map(Arc::from),
                    ignored: (!lowered.ignored.is_empty())
                        .then(|| format!("{} has no effect yet", lowered.ignored.join(", ")).into()),
                    prerequisites: parsed.prerequisites.as_ref().map(|e| e.to_string().into()),
                    parsed: Ok(parsed),
                }
            }
            Err(error) => {
                let text: Arc<str> = error.to_string().into();
                ActionText {
                    parsed: Err(Arc::clone(&text)),
                    shared: Some(Arc::from(vec![Act::Drop(crate::ir::Cause::Unsupported)])),
                    unsupported: Some(text),
                    ignored: None,
                    only_passes: false,
                    prerequisites: None,
                }
            }
        }
    }

    pub(crate) fn matching(&mut self, text: &Arc<str>, action: &ActionText, sets: &AddressSets) -> Arc<MatchText> {
        let key = (Arc::clone(text), action.prerequisites.clone());
        if let Some(known) = self.matches.get(&key) {
            return Arc::clone(known);
        }
        let parsed = Arc::new(self.parse_matching(text, action.condition(), sets));
        self.keep(key, Arc::clone(&parsed));
        parsed
    }

    fn keep(&mut self, key: MatchKey, parsed: Arc<MatchText>) {
        for set in &parsed.address_sets {
            self.by_set.entry(Arc::clone(set)).or_default().insert(key.clone());
        }
        self.matches.insert(key, parsed);
    }

    fn parse_matching(&self, text: &str, prerequisites: Option<&Expr>, sets: &AddressSets) -> MatchText {
        let context = MatchContext {
            symbols: self.vocabulary.table(),
            address_sets: &ByName(sets),
            port_groups: &EveryGroup,
            templates: &Nothing,
        };
        let normalized = parse_match(text, &context)
            .map_err(|error| error.to_string())
            .and_then(|e| Normalized::new(&e, prerequisites).map_err(|error| error.to_string()));
        match normalized {
            Ok(normalized) => {
                let mut names: Vec<Arc<str>> = normalized.address_sets().map(Arc::from).collect();
                names.sort_unstable();
                names.dedup();
                // A name whose every use was simplified away still decides whether the text parses.
                names.extend(names_in(text).filter(|name| !names.contains(name)).collect::<Vec<_>>());
                MatchText { clauses: Ok(matching::forms(normalized)), address_sets: names }
            }
            Err(error) => MatchText { clauses: Err(error.into()), address_sets: names_in(text).collect() },
        }
    }

    /// Forgets matches that depend on whether and how an address set exists; true if there were any.
    pub(crate) fn forget_set(&mut self, name: &str) -> bool {
        let Some(keys) = self.by_set.remove(name) else { return false };
        for key in &keys {
            if let Some(forgotten) = self.matches.remove(key) {
                for other in &forgotten.address_sets {
                    if let Some(keys) = self.by_set.get_mut(other) {
                        keys.remove(key);
                    }
                }
            }
        }
        true
    }

    /// Forgets texts that no flow uses any more.
    pub(crate) fn sweep(&mut self) {
        self.actions.retain(|_, text| Arc::strong_count(text) > 1);
        let by_set = &mut self.by_set;
        self.matches.retain(|key, text| {
            let used = Arc::strong_count(text) > 1;
            if !used {
                for set in &text.address_sets {
                    if let Some(keys) = by_set.get_mut(set) {
                        keys.remove(key);
                    }
                }
            }
            used
        });
        self.by_set.retain(|_, keys| !keys.is_empty());
    }
}

/// The results for all items in order, worked out by as many threads as there are processors, but for each some work.
fn abreast<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    /// Fewer than this are done sooner than a thread is started.
    const SHARE: usize = 128;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(MAX_THREADS).min(items.len() / SHARE).max(1);
    let work = &work;
    let mut shares = items.chunks(items.len().div_ceil(threads).max(1));
    let Some(own) = shares.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let others: Vec<_> =
            shares.map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<R>>())).collect();
        let mut results: Vec<R> = own.iter().map(work).collect();
        for other in others {
            match other.join() {
                Ok(share) => results.extend(share),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

/// A hypervisor's processors are its guests'.
const MAX_THREADS: usize = 4;

/// What follows a `$` in a text.
fn names_in(text: &str) -> impl Iterator<Item = Arc<str>> + '_ {
    text.split('$').skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | ':'))).unwrap_or(rest.len());
        Arc::from(rest[..end].trim_end_matches(['.', ':']))
    })
}

/// The members of an Address_Set row that can be read: constants in any format.
pub(crate) fn address_set<'a>(addresses: impl IntoIterator<Item = &'a str>) -> AddressSet {
    let mut set = AddressSet::default();
    for address in addresses {
        if let Some(member) = address_set_member(address) {
            set.max_width = set.max_width.max(member.width());
            set.members.push(member);
        }
    }
    set
}

/// One member, if it can be read.
pub(crate) fn address_set_member(address: &str) -> Option<oxbow_lflow::constant::Integer> {
    let context = MatchContext {
        symbols: Vocabulary::Accepting.table(),
        address_sets: &Nothing,
        port_groups: &Nothing,
        templates: &Nothing,
    };
    match parse_match(&format!("xxreg0 == {address}"), &context) {
        Ok(Expr::Cmp { values, .. }) => match &values.values[..] {
            [Constant::Integer(integer)] => Some(*integer),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_names_are_found_in_texts_that_do_not_parse() {
        let names: Vec<Arc<str>> = names_in("ip4.src == $as_1 && ip4.dst == {$a.b, $c} ((").collect();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["as_1", "a.b", "c"]);
    }

    #[test]
    fn what_is_worked_out_abreast_is_in_order() {
        for count in [0, 1, 127, 1000, 1001] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(abreast(&items, |n| n + 1), (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn members_are_constants() {
        let set = address_set(["10.0.0.1", "fd00::/64", "nonsense", "00:00:00:00:00:01", "1 && 1"]);
        assert_eq!(set.members.len(), 3);
        assert_eq!(set.max_width, 128);
    }
}

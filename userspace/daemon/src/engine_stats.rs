//! `inc-engine/show-stats` and `inc-engine/clear-stats`: what was computed, under the node names of stock's engine.
//!
//! Stock's engines have nodes, each recomputed as a whole or brought up to date by a handler. Ours have other units; what answers the
//! question behind the command ("was everything computed anew, or only what changed?") is counted under stock's names: a full
//! computation is a *recompute* of every node, a turn that brought a node's content up to date a *compute* of that node. Nothing is ever aborted.

use std::fmt::Write as _;

use crate::unixctl::Commands;

/// One of the three counters of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Computed as a whole.
    Recompute,
    /// Brought up to date.
    Compute,
    /// Begun and given up (`abort` in OVN 23.03, `cancel` later).
    Abort,
}

/// What `inc-engine/show-stats [NODE [COUNTER]]` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One node only.
    pub node: Option<String>,
    /// One counter of it only: its bare number.
    pub counter: Option<Counter>,
}

/// Registers both commands.
pub fn register<C: Clone + Send + Sync + 'static>(
    commands: &mut Commands<C>,
    show: impl Fn(Wanted) -> C + Send + Sync + 'static,
    clear: C,
) {
    commands.add("inc-engine/show-stats", "[NODE [COUNTER]]", 0..=2, move |arguments| {
        let counter = match arguments.get(1).map(String::as_str) {
            None => None,
            Some("recompute") => Some(Counter::Recompute),
            Some("compute") => Some(Counter::Compute),
            Some("abort" | "cancel") => Some(Counter::Abort),
            Some(other) => return Err(format!("Invalid stat type : {other}")),
        };
        Ok(show(Wanted { node: arguments.first().cloned(), counter }))
    });
    commands.add_plain("inc-engine/clear-stats", clear);
}

/// Counts of one node since the start or the last `inc-engine/clear-stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    recompute: u64,
    compute: u64,
}

/// The counters of all nodes.
#[derive(Debug)]
pub struct EngineStats {
    nodes: &'static [&'static str],
    counts: Vec<Counts>,
}

impl EngineStats {
    /// Counters of these nodes, listed in this order.
    pub fn new(nodes: &'static [&'static str]) -> EngineStats {
        EngineStats { nodes, counts: vec![Counts::default(); nodes.len()] }
    }

    /// Counts a computation of everything.
    pub fn full(&mut self) {
        self.counts.iter_mut().for_each(|counts| counts.recompute += 1);
    }

    /// Counts a turn that brought `node` up to date; a name that is no node's is not counted.
    pub fn compute(&mut self, node: &str) {
        if let Some(at) = self.nodes.iter().position(|name| *name == node) {
            self.counts[at].compute += 1;
        }
    }

    /// Counts a turn for the input nodes of tables: stock calls each by the database (`NB`, `SB`, `OVS`), an underscore and the table's name, most of it in
    /// small letters. Tables without a node are not counted.
    pub fn compute_tables<'t>(&mut self, database: &str, tables: impl IntoIterator<Item = &'t str>) {
        let input = |node: &'static str| node.strip_prefix(database)?.strip_prefix('_');
        for table in tables {
            let node =
                self.nodes.iter().position(|node| input(node).is_some_and(|name| name.eq_ignore_ascii_case(table)));
            if let Some(at) = node {
                self.counts[at].compute += 1;
            }
        }
    }

    /// Sets all counters to zero.
    pub fn clear(&mut self) {
        self.counts.fill(Counts::default());
    }

    /// The text of the command; an unknown node gives an empty one, as with stock.
    pub fn show(&self, wanted: &Wanted) -> String {
        let mut text = String::new();
        for (name, counts) in self.nodes.iter().zip(&self.counts) {
            if wanted.node.as_ref().is_some_and(|node| node != name) {
                continue;
            }
            let result = match wanted.counter {
                Some(Counter::Recompute) => writeln!(text, "{}", counts.recompute),
                Some(Counter::Compute) => writeln!(text, "{}", counts.compute),
                Some(Counter::Abort) => writeln!(text, "0"),
                None => writeln!(
                    text,
                    "Node: {name}\n- recompute: {:12}\n- compute:   {:12}\n- abort:     {:12}",
                    counts.recompute, counts.compute, 0
                ),
            };
            // Writing to a String cannot fail.
            debug_assert!(result.is_ok());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stats: &EngineStats, node: Option<&str>, counter: Option<Counter>) -> String {
        stats.show(&Wanted { node: node.map(str::to_owned), counter })
    }

    #[test]
    fn the_text_is_stocks() {
        let mut stats = EngineStats::new(&["SB_logical_DP_group", "northd", "lflow"]);
        stats.full();
        stats.compute("lflow");
        stats.compute_tables("SB", ["Logical_DP_Group", "Chassis"]);
        stats.compute_tables("NB", ["Logical_DP_Group"]);
        stats.compute("no such node");
        assert_eq!(
            shown(&stats, Some("lflow"), None),
            "Node: lflow\n- recompute:            1\n- compute:              1\n- abort:                0\n"
        );
        assert_eq!(shown(&stats, Some("SB_logical_DP_group"), Some(Counter::Compute)), "1\n");
        assert_eq!(shown(&stats, Some("northd"), Some(Counter::Recompute)), "1\n");
        assert_eq!(shown(&stats, Some("northd"), Some(Counter::Abort)), "0\n");
        assert_eq!(shown(&stats, Some("foo"), None), "");
        assert_eq!(shown(&stats, None, None).lines().count(), 4 * 3);
        stats.clear();
        assert_eq!(shown(&stats, Some("northd"), Some(Counter::Recompute)), "0\n");
    }
}

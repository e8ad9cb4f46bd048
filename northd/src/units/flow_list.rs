//! How units write flows down.

use std::cell::RefMut;
use std::panic::Location;

use oxbow_ovsdb::{Text, Uuid};

use crate::profile::{Profile, Stage};
use crate::program::{Compiler, DatapathFlows, Output};
use crate::store::{FlowContent, FlowId, FlowInterner, flow_hash};

/// The flows of one unit on one datapath.
pub(crate) struct FlowList<'a> {
    profile: &'static Profile,
    interner: RefMut<'a, FlowInterner>,
    datapath: Uuid,
    hint: u32,
    flows: Vec<(FlowId, u32)>,
}

impl<'a> FlowList<'a> {
    /// An empty list; flows added to it carry the stage hint `hint` (0 for none). While it lives, no other list can.
    pub(crate) fn new(compiler: &'a Compiler, datapath: Uuid, hint: u32) -> Self {
        Self { profile: compiler.profile, interner: compiler.flows.borrow_mut(), datapath, hint, flows: Vec::new() }
    }

    /// Changes the hint of the flows to come.
    pub(crate) fn hint(&mut self, hint: u32) {
        self.hint = hint;
    }

    /// Adds a flow.
    #[track_caller]
    pub(crate) fn add(&mut self, stage: Stage, priority: u16, matches: &str, actions: &str) {
        self.flow(stage, priority, matches, actions, None, Location::caller());
    }

    /// Adds a flow whose match holds for one port only, which `tags:in_out_port` then names.
    #[track_caller]
    pub(crate) fn add_for_port(&mut self, stage: Stage, priority: u16, matches: &str, actions: &str, port: &Text) {
        self.flow(stage, priority, matches, actions, Some(port), Location::caller());
    }

    fn flow(
        &mut self,
        stage: Stage,
        priority: u16,
        matches: &str,
        actions: &str,
        port: Option<&Text>,
        source: &'static Location<'static>,
    ) {
        let Some(place) = self.profile.place(stage) else { return };
        let hash =
            flow_hash(place.pipeline.name(), i64::from(place.table), i64::from(priority), matches, actions, None);
        let id = self.interner.intern(hash, || FlowContent {
            stage,
            place,
            priority,
            matches: matches.into(),
            actions: actions.into(),
            in_out_port: port.cloned(),
            meter: None,
            source,
        });
        self.flows.push((id, self.hint));
    }

    /// The output of the unit.
    pub(crate) fn finish(mut self) -> Output {
        self.flows.sort_unstable();
        self.flows.dedup();
        if self.flows.is_empty() {
            return Output::Empty;
        }
        Output::Flows(DatapathFlows { datapath: self.datapath, flows: self.flows })
    }
}

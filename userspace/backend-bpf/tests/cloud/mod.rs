//! A small program put together by hand: one logical switch, rules and ports as a test needs them.

use oxbow_backend_bpf::kernel::{Config, HookChoice, Sizes};
use oxbow_pipeline::ir::{
    Act, Alternatives, Changes, Datapath, DatapathKey, Dim, Field, LflowId, Location, LogicalPort, Masked, Pipeline,
    PortKey, PortKind, Program, Rule, RuleId, Slice, Stages, TableId,
};
use std::path::Path;
use std::sync::Arc;

/// The switch's tunnel key.
pub(crate) const SWITCH: DatapathKey = DatapathKey(7);

/// What it takes to load the programs in a test.
pub(crate) fn config(bpffs: &Path, sizes: Sizes) -> Config {
    let path = oxbow_testkit::artifacts::require_ebpf_object().unwrap();
    Config {
        bpffs: bpffs.into(),
        system_id: "hv1.test".into(),
        object: std::fs::read(path).unwrap(),
        sizes,
        hook: HookChoice::Auto,
    }
}

/// Map sizes small enough for many tests at once.
pub(crate) fn small() -> Sizes {
    Sizes {
        vifs: 1 << 10,
        datapaths: 1 << 10,
        rules: 4096,
        wide_rules: 1024,
        blocks: 512,
        tuples: 2048,
        tables: 256,
        lflows: 4096,
        ports: 1024,
        verdicts: 4096,
        exact: 512,
        denied: 512,
        fdb: 1024,
        chunks: 256,
        chassis: 64,
    }
}

/// A program that a test changes step by step.
pub(crate) struct Switch {
    /// The program so far.
    pub(crate) program: Program,
    next: u32,
}

impl Switch {
    /// A switch whose pipelines have `stages` stages each, none of them collapsed.
    pub(crate) fn new(stages: u8) -> (Self, Changes) {
        let mut map = Stages::default();
        for stage in 0..stages {
            map.ingress[usize::from(stage)] = Some(stage);
            map.egress[usize::from(stage)] = Some(stage);
        }
        let mut program = Program::default();
        program.put_datapath(SWITCH, Some(Datapath { name: "sw0".into(), router: false, stages: map }));
        (Self { program, next: 0 }, Changes { datapaths: vec![SWITCH], ..Changes::default() })
    }

    /// A rule, not yet in the program.
    pub(crate) fn rule(
        &mut self,
        pipeline: Pipeline,
        stage: u8,
        priority: u16,
        dims: &[(Field, u128)],
        acts: Vec<Act>,
    ) -> Arc<Rule> {
        self.next += 1;
        let exact = |&(field, value): &(Field, u128)| Dim {
            field,
            alternatives: Alternatives::List([Masked { value, mask: mask(field) }].into()),
        };
        Arc::new(Rule {
            id: RuleId(self.next),
            lflow: LflowId(self.next),
            table: TableId { datapath: SWITCH, pipeline, stage },
            priority,
            dims: dims.iter().map(exact).collect(),
            acts: acts.into(),
        })
    }

    /// A VIF on a local device.
    pub(crate) fn local_port(&mut self, key: u32, ifindex: u32, changes: &mut Changes) {
        let port = LogicalPort {
            datapath: SWITCH,
            key: PortKey(key),
            name: format!("p{key}").into(),
            kind: PortKind::Vif,
            location: Location::Local { ifindex, tag: None },
            additional: Vec::new(),
            port_security: Vec::new(),
        };
        self.program.put_port((SWITCH, PortKey(key)), Some(Arc::new(port)));
        changes.ports.push((SWITCH, PortKey(key)));
    }
}

fn mask(field: Field) -> u128 {
    match oxbow_pipeline::ir::width(field) {
        128 => u128::MAX,
        width => (1 << width) - 1,
    }
}

/// `outport = key;`
pub(crate) fn outport(key: u32) -> Act {
    Act::Set { dst: Slice { field: Field::OutPort, offset: 0 }, width: 32, value: key.into() }
}

/// `next;` into a stage of a pipeline.
pub(crate) fn next(pipeline: Pipeline, stage: u8) -> Act {
    Act::Next { pipeline, stage }
}

//! The deployment as a whole: NB_Global, SB_Global, and what the chassis can do.

use oxbow_incr::Cx;
use oxbow_ovsdb::{Atom, Datum, Uuid};
use oxbow_schema::{nb, sb};

use crate::program::{Compiler, NbColumn, Output};
use crate::source::{Cell, Globals, IndexKey, Members, TableId};
use crate::store::{DesiredRow, Key};

/// Options of NB_Global that flows depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Global {
    /// `ignore_lsp_down`: answer ARP and ND for ports that are down.
    pub(crate) ignore_port_down: bool,
    /// What a flow does that drops: `drop;`, or a sample with `debug_drop_*` set.
    pub(crate) drop: String,
    /// `default_acl_drop`: a switch with ACLs drops what none of them matches.
    pub(crate) default_acl_drop: bool,
    /// `use_ct_inv_match`: flows match `ct.inv`, which some hardware cannot offload.
    pub(crate) match_invalid: bool,
}

impl Default for Global {
    fn default() -> Self {
        Self { ignore_port_down: true, drop: "drop;".into(), default_acl_drop: false, match_invalid: true }
    }
}

/// Capabilities that every chassis announces; true for all while there is no chassis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// `ct-no-masked-label`: connection marks instead of labels, `ct_lb_mark` instead of `ct_lb`.
    pub(crate) connection_mark: bool,
    /// `ovn-ct-lb-related`: packets related to a connection are translated as it is (`ct_commit_nat`).
    pub(crate) related: bool,
}

impl Features {
    /// Where flows keep that a connection is blocked.
    pub(crate) fn mark(&self) -> &'static str {
        if self.connection_mark { "ct_mark" } else { "ct_label" }
    }
}

impl Default for Features {
    fn default() -> Self {
        Self { connection_mark: true, related: true }
    }
}

fn global_row(cx: &mut Cx<'_, '_, Compiler>) -> Option<Uuid> {
    cx.read(&Members(IndexKey::Table(TableId::of(nb::nb_global::TABLE)))).first().copied()
}

/// Unit `global`.
pub(crate) fn global(cx: &mut Cx<'_, '_, Compiler>) -> Output {
    let Some(row) = global_row(cx) else { return Output::Global(Global::default()) };
    let Some(options) = cx.read(&Cell(nb::nb_global::OPTIONS, row)) else { return Output::Global(Global::default()) };
    let number = |key| options.get(key).and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
    let (domain, collector) = (number("debug_drop_domain_id"), number("debug_drop_collector_set"));
    let drop = if domain != 0 && collector != 0 {
        format!("sample(probability=65535,collector_set={collector},obs_domain={domain},obs_point=$cookie); /* drop */")
    } else {
        "drop;".into()
    };
    Output::Global(Global {
        ignore_port_down: options.get_bool("ignore_lsp_down", true),
        drop,
        default_acl_drop: options.get_bool("default_acl_drop", false),
        match_invalid: options.get_bool("use_ct_inv_match", true),
    })
}

/// Unit `features`.
pub(crate) fn features(cx: &mut Cx<'_, '_, Compiler>) -> Output {
    let mut features = Features::default();
    for &chassis in cx.read(&Members(IndexKey::Table(TableId::of(sb::chassis::TABLE)))) {
        let Some(config) = cx.read(&Cell(sb::chassis::OTHER_CONFIG, chassis)) else { continue };
        if config.get_bool("is-remote", false) {
            continue;
        }
        features.connection_mark &= config.get_bool("ct-no-masked-label", false);
        features.related &= config.get_bool("ovn-ct-lb-related", false);
    }
    Output::Features(features)
}

/// NB_Global's options with what northd itself sets in them.
fn options(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, row: Uuid) -> Option<Datum> {
    let options = cx.read(&Cell(nb::nb_global::OPTIONS, row))?;
    let globals = cx.read(&Globals);
    let own = [
        ("mac_prefix", globals.mac_prefix.clone()),
        ("max_tunid", globals.max_datapath_key.to_string()),
        ("northd_internal_version", compiler.profile.internal_version.into()),
        ("svc_monitor_mac", globals.service_monitor_mac.clone()),
    ];
    let mut pairs: Vec<(Atom, Atom)> = options.pairs().to_vec();
    for (key, value) in own {
        pairs.push((key.into(), value.as_str().into()));
    }
    Some(Datum::map(pairs))
}

/// Unit `sb-global`: options and ipsec of SB_Global, and the address set of the service monitor. The sequence number goes
/// with the transaction that brings the flows.
pub(crate) fn sb_global(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>) -> Output {
    let Some(row) = global_row(cx) else { return Output::Empty };
    let Some(mut options) = options(compiler, cx, row) else { return Output::Empty };
    if !crate::units::read_features(cx).connection_mark {
        // Controllers are told to keep hairpinned connections in the label as well.
        let mut pairs = options.pairs().to_vec();
        pairs.push(("lb_hairpin_use_ct_mark".into(), "false".into()));
        options = Datum::map(pairs);
    }
    let ipsec = cx.read(&Cell(nb::nb_global::IPSEC, row)).unwrap_or(false);
    let monitor = cx.read(&Globals).service_monitor_mac.clone();
    Output::Rows(vec![
        DesiredRow::new(sb::sb_global::TABLE, Key::Single)
            .value(sb::sb_global::OPTIONS.any(), crate::store::Value::Datum(options))
            .set(sb::sb_global::IPSEC, ipsec),
        DesiredRow::new(sb::address_set::TABLE, Key::Text("svc_monitor_mac".into()))
            .set(sb::address_set::NAME, "svc_monitor_mac")
            .set(sb::address_set::ADDRESSES, [monitor.as_str()]),
    ])
}

/// Unit `nb-global`: what northd writes back into NB_Global's options.
pub(crate) fn nb_global(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, row: Uuid) -> Output {
    match options(compiler, cx, row) {
        Some(value) => Output::NbColumns(vec![NbColumn {
            table: nb::nb_global::TABLE,
            row,
            column: nb::nb_global::OPTIONS.any(),
            value,
        }]),
        None => Output::Empty,
    }
}

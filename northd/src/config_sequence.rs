//! nb_cfg, sb_cfg, hv_cfg: how a client learns that its change has arrived (ovn-nb(5), NB_Global).

use oxbow_ovsdb::{Datum, Row, ToDatum};
use oxbow_schema::{nb::nb_global as nbg, sb};

use crate::source::Source;

/// Where the sequence stands. History, so it lives here and not in a unit.
#[derive(Debug, Default)]
pub(crate) struct ConfigSequence {
    /// The last nb_cfg seen, and when.
    seen: Option<(i64, i64)>,
    /// The last nb_cfg whose flows are in the southbound database, and since when.
    southbound: Option<(i64, i64)>,
    /// The nb_cfg of the transaction that is under way.
    in_flight: Option<i64>,
}

fn global(source: &Source) -> Option<&Row> {
    source.table(nbg::TABLE).next().map(|row| &**row)
}

impl ConfigSequence {
    /// The nb_cfg now.
    pub(crate) fn look(&mut self, source: &Source, now_ms: i64) -> Option<i64> {
        let row = global(source)?;
        let nb_cfg = row.get(nbg::NB_CFG);
        match self.seen {
            Some((seen, _)) if seen == nb_cfg => {}
            // At start, a sequence that is through already keeps its times.
            None if row.get(nbg::SB_CFG) == nb_cfg && row.get(nbg::NB_CFG_TIMESTAMP) != 0 => {
                self.seen = Some((nb_cfg, row.get(nbg::NB_CFG_TIMESTAMP)));
            }
            _ => self.seen = Some((nb_cfg, now_ms)),
        }
        Some(nb_cfg)
    }

    /// A southbound transaction that brings the flows of `nb_cfg` is on its way.
    pub(crate) fn sent(&mut self, nb_cfg: Option<i64>) {
        self.in_flight = nb_cfg;
    }

    /// It ended.
    pub(crate) fn ended(&mut self, committed: bool, source: &Source, now_ms: i64) {
        let nb_cfg = self.in_flight.take();
        if committed && let Some(nb_cfg) = nb_cfg {
            self.arrived(nb_cfg, source, now_ms);
        }
    }

    /// The southbound database holds all that `nb_cfg` asks for.
    pub(crate) fn arrived(&mut self, nb_cfg: i64, source: &Source, now_ms: i64) {
        if self.southbound.is_some_and(|(cfg, _)| cfg == nb_cfg) {
            return;
        }
        let row = global(source);
        let before = row.filter(|r| r.get(nbg::SB_CFG) == nb_cfg).map(|r| r.get(nbg::SB_CFG_TIMESTAMP));
        let since = match (self.southbound, before) {
            (None, Some(since)) if since != 0 => since,
            _ => now_ms,
        };
        self.southbound = Some((nb_cfg, since));
    }

    /// What the columns of NB_Global should be.
    pub(crate) fn columns(&self, source: &Source) -> Vec<(oxbow_ovsdb::AnyColumn, Datum)> {
        let Some(row) = global(source) else { return Vec::new() };
        let mut columns = Vec::new();
        let mut want = |column: oxbow_ovsdb::Column<i64>, value: i64| {
            if row.get(column) != value {
                columns.push((column.any(), value.to_datum()));
            }
        };
        let Some((nb_cfg, seen)) = self.seen else { return Vec::new() };
        want(nbg::NB_CFG_TIMESTAMP, seen);
        if let Some((sb_cfg, since)) = self.southbound {
            want(nbg::SB_CFG, sb_cfg);
            want(nbg::SB_CFG_TIMESTAMP, since);
        }
        let (hv_cfg, since) = hypervisors(source, nb_cfg);
        want(nbg::HV_CFG, hv_cfg);
        want(nbg::HV_CFG_TIMESTAMP, since);
        columns
    }
}

/// The least sequence number that a chassis reports, and when the last of those that report it did; `nb_cfg` and 0 without
/// a chassis.
fn hypervisors(source: &Source, nb_cfg: i64) -> (i64, i64) {
    use sb::chassis_private as private;
    let (mut hv_cfg, mut since) = (nb_cfg, 0);
    for row in source.table(private::TABLE) {
        let chassis = row.get(private::CHASSIS).and_then(|c| source.row(sb::chassis::TABLE, c));
        if chassis.is_some_and(|c| c.get(sb::chassis::OTHER_CONFIG).get_bool("is-remote", false)) {
            continue;
        }
        let (cfg, at) = (row.get(private::NB_CFG), row.get(private::NB_CFG_TIMESTAMP));
        if cfg < hv_cfg {
            (hv_cfg, since) = (cfg, at);
        } else if cfg == hv_cfg {
            since = since.max(at);
        }
    }
    (hv_cfg, since)
}

//! Rows that are copied from one database to the other: address sets, DNS, meters, mirrors.

use oxbow_incr::Cx;
use oxbow_ovsdb::{AnyColumn, Datum, Uuid};
use oxbow_schema::{nb, sb};

use crate::program::{Compiler, Output};
use crate::source::{Cell, IndexKey, Members, RawCell, references};
use crate::store::{DesiredRow, Key, RowKey, Value};
use crate::units::datapath::datapath_key;

fn raw(cx: &mut Cx<'_, '_, Compiler>, column: AnyColumn, row: Uuid) -> Datum {
    cx.read(&RawCell(column, row)).cloned().unwrap_or_default()
}

/// Unit `address-set`.
pub(crate) fn address_set(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(name) = cx.read(&Cell(nb::address_set::NAME, key)) else { return Output::Empty };
    let addresses = raw(cx, nb::address_set::ADDRESSES.any(), key);
    Output::Rows(vec![
        DesiredRow::new(sb::address_set::TABLE, Key::Text(name.clone()))
            .set(sb::address_set::NAME, name)
            .value(sb::address_set::ADDRESSES.any(), Value::Datum(addresses)),
    ])
}

/// Unit `dns`: present while some switch uses it.
pub(crate) fn dns(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let switches = cx.read(&Members(IndexKey::SwitchesOfDns(key)));
    if switches.is_empty() || cx.read(&Cell(nb::dns::RECORDS, key)).is_none() {
        return Output::Empty;
    }
    let records = raw(cx, nb::dns::RECORDS.any(), key);
    Output::Rows(vec![
        DesiredRow::new(sb::dns::TABLE, Key::Uuid(key))
            .value(sb::dns::RECORDS.any(), Value::Datum(records))
            .set(sb::dns::EXTERNAL_IDS, [("dns_id", key.to_string())])
            .refs(sb::dns::DATAPATHS, switches.iter().map(|s| datapath_key(*s)).collect()),
    ])
}

/// The key of a meter's band: what it says, because bands have no names.
pub(crate) fn band_key(meter: &str, action: &str, rate: i64, burst: i64) -> RowKey {
    RowKey::new(sb::meter_band::TABLE, Key::Text(format!("{meter}/{action}/{rate}/{burst}").as_str().into()))
}

/// Unit `meter`, with its bands.
pub(crate) fn meter(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(name) = cx.read(&Cell(nb::meter::NAME, key)) else { return Output::Empty };
    let (mut rows, mut bands) = (Vec::new(), Vec::new());
    for band in references(cx.read(&Cell(nb::meter::BANDS, key))) {
        let Some(action) = cx.read(&Cell(nb::meter_band::ACTION, band)) else { continue };
        let rate = cx.read(&Cell(nb::meter_band::RATE, band)).unwrap_or(0);
        let burst = cx.read(&Cell(nb::meter_band::BURST_SIZE, band)).unwrap_or(0);
        let own = band_key(name, action, rate, burst);
        rows.push(
            DesiredRow { key: own.clone(), columns: Vec::new() }
                .set(sb::meter_band::ACTION, action)
                .set(sb::meter_band::RATE, rate)
                .set(sb::meter_band::BURST_SIZE, burst),
        );
        bands.push(own);
    }
    rows.push(
        DesiredRow::new(sb::meter::TABLE, Key::Text(name.clone()))
            .set(sb::meter::NAME, name)
            .value(sb::meter::UNIT.any(), Value::Datum(raw(cx, nb::meter::UNIT.any(), key)))
            .refs(sb::meter::BANDS, bands),
    );
    Output::Rows(rows)
}

/// Unit `mirror`.
pub(crate) fn mirror(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(name) = cx.read(&Cell(nb::mirror::NAME, key)) else { return Output::Empty };
    let mut row = DesiredRow::new(sb::mirror::TABLE, Key::Text(name.clone())).set(sb::mirror::NAME, name);
    for (to, from) in [
        (sb::mirror::FILTER.any(), nb::mirror::FILTER.any()),
        (sb::mirror::INDEX.any(), nb::mirror::INDEX.any()),
        (sb::mirror::SINK.any(), nb::mirror::SINK.any()),
        (sb::mirror::TYPE.any(), nb::mirror::TYPE.any()),
    ] {
        row = row.value(to, Value::Datum(raw(cx, from, key)));
    }
    Output::Rows(vec![row])
}

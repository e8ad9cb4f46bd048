use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    AnyColumn, AtomType, ColumnDef, ColumnShape, DatabaseDef, Multiplicity, Replica, TableDef, Uuid, json as writer,
};

const fn column(name: &'static str, key: AtomType, value: Option<AtomType>, multiplicity: Multiplicity) -> ColumnDef {
    ColumnDef { name, shape: ColumnShape { key, value, multiplicity, key_reference: None, value_reference: None } }
}

static TABLE: TableDef = TableDef {
    database: "Types",
    name: "T",
    index: 0,
    is_root: true,
    columns: &[
        column("integer", AtomType::Integer, None, Multiplicity::One),
        column("real", AtomType::Real, None, Multiplicity::One),
        column("boolean", AtomType::Boolean, None, Multiplicity::One),
        column("string", AtomType::String, None, Multiplicity::One),
        column("uuid", AtomType::Uuid, None, Multiplicity::One),
        column("optional", AtomType::String, None, Multiplicity::Optional),
        column("integers", AtomType::Integer, None, Multiplicity::Many),
        column("strings", AtomType::String, None, Multiplicity::Many),
        column("uuids", AtomType::Uuid, None, Multiplicity::Many),
        column("texts", AtomType::String, Some(AtomType::String), Multiplicity::Many),
        column("references", AtomType::Integer, Some(AtomType::Uuid), Multiplicity::Many),
    ],
};
static TABLES: [&TableDef; 1] = [&TABLE];
static DATABASE: DatabaseDef = DatabaseDef { name: "Types", tables: &TABLES };

fn decoder() -> Decoder {
    Decoder::new(DatabaseLayout::full(&DATABASE))
}

fn atom(kind: AtomType) -> BoxedStrategy<Atom> {
    match kind {
        AtomType::Integer => any::<i64>().prop_map(Atom::Integer).boxed(),
        AtomType::Real => prop_oneof![Just(0.0), prop::num::f64::NORMAL].prop_map(Atom::Real).boxed(),
        AtomType::Boolean => any::<bool>().prop_map(Atom::Boolean).boxed(),
        AtomType::String => "([a-c]|\\PC|\"|\\\\|\n){0,6}".prop_map(|text: String| Atom::from(text.as_str())).boxed(),
        AtomType::Uuid => any::<u128>().prop_map(|value| Atom::Uuid(Uuid::from_u128(value))).boxed(),
    }
}

fn datum(column: AnyColumn) -> BoxedStrategy<Datum> {
    let shape = column.definition().shape;
    match (shape.value, shape.multiplicity) {
        (Some(value), _) => prop::collection::vec((atom(shape.key), atom(value)), 0..5).prop_map(Datum::map).boxed(),
        (None, Multiplicity::One) => atom(shape.key).prop_map(Datum::One).boxed(),
        (None, Multiplicity::Optional) => prop::collection::vec(atom(shape.key), 0..2).prop_map(Datum::set).boxed(),
        (None, Multiplicity::Many) => prop::collection::vec(atom(shape.key), 0..5).prop_map(Datum::set).boxed(),
    }
}

fn row() -> impl Strategy<Value = Vec<Datum>> {
    TABLE.all_columns().map(datum).collect::<Vec<_>>()
}

/// A row as JSON, its columns rotated and those at their defaults left out if asked.
fn row_json(row: &[Datum], rotate: usize, sparse: bool) -> Vec<u8> {
    let mut out = vec![b'{'];
    for place in 0..row.len() {
        let index = (place + rotate) % row.len();
        let column = AnyColumn::new(&TABLE, index as u16);
        if sparse && row[index] == column.default_datum() {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        writer::write_string(&mut out, column.name());
        out.push(b':');
        writer::write_datum(&mut out, &row[index], Some(column.definition().shape), &Default::default());
    }
    out.push(b'}');
    out
}

fn update(kind: &str, row: &[u8]) -> Vec<u8> {
    let head = format!("{{\"T\":{{\"{}\":{{\"{kind}\":", Uuid::from_u128(1));
    [head.as_bytes(), row, b"}}}"].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rows_of_every_type_read_as_they_were_written(rows in prop::collection::vec((row(), 0usize..11, any::<bool>()), 1..4)) {
        // One decoder for all, so that what it remembers of one row meets the next.
        let mut decoder = decoder();
        for (row, rotate, sparse) in rows {
            for (kind, notation) in [("initial", Notation::Update2), ("insert", Notation::Update2), ("new", Notation::Update)] {
                let json = update(kind, &row_json(&row, rotate, sparse));
                let updates = decoder.decode(notation, &json).unwrap();
                let [RowUpdate { kind: UpdateKind::Whole(data), table: 0, uuid }] = &updates[..] else { panic!("{updates:?}") };
                prop_assert_eq!(*uuid, Uuid::from_u128(1));
                prop_assert_eq!(&data[..], &row[..]);
            }
        }
    }

    #[test]
    fn any_json_is_decoded_or_refused_without_panic(text in "[\\[\\]{}\",:0-9.eE+-]{0,40}|\\PC{0,40}", place in 0u8..5) {
        let json = match place {
            0 => text.into_bytes(),
            1 => format!("{{\"T\":{text}}}").into_bytes(),
            2 => update("insert", text.as_bytes()),
            3 => update("modify", format!("{{\"integers\":{text}}}").as_bytes()),
            _ => update("modify", format!("{{\"texts\":[\"map\",{text}]}}").as_bytes()),
        };
        for notation in [Notation::Update, Notation::Update2, Notation::File] {
            let _ = decoder().decode(notation, &json);
        }
    }

    #[test]
    fn a_damaged_update_is_decoded_or_refused_without_panic(row in row(), position: prop::sample::Index, byte: u8) {
        let mut json = update("insert", &row_json(&row, 0, false));
        let position = position.index(json.len());
        json[position] = byte;
        if let Ok(rows) = decoder().decode(Notation::Update2, &json) {
            let mut replica = Replica::new(&DATABASE);
            let _ = replica.apply(crate::update::UpdateBatch { reset: None, rows });
        }
    }
}

fn refused(column: &str, value: &Value) -> String {
    let json = update("insert", json!({ column: value }).to_string().as_bytes());
    match decoder().decode(Notation::Update2, &json) {
        Ok(rows) => panic!("{column} took {value}: {rows:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn values_of_the_wrong_type_are_refused_by_name() {
    for (column, value, text) in [
        ("integer", json!("x"), "string where type integer belongs"),
        ("integer", json!(1.5), "real where type integer belongs"),
        ("integer", json!(u64::MAX), "integer beyond 64 bits where type integer belongs"),
        ("boolean", json!(1), "integer where type boolean belongs"),
        ("string", json!(true), "boolean where type string belongs"),
        ("string", json!(["uuid", Uuid::ZERO.to_string()]), "UUID where type string belongs"),
        ("uuid", json!(["uuid", "x"]), "\"x\" is not a valid UUID"),
        ("uuids", json!(["set", [["set", []]]]), "a UUID"),
        ("strings", json!(["map", []]), "map in a column that is none"),
        ("texts", json!(["map", [["key"]]]), "incomplete pair"),
        ("optional", json!(["named-uuid", "x"]), "unknown variant `named-uuid`"),
        ("optional", json!(["set"]), "value array without content"),
        ("optional", json!({}), "a value of type string"),
    ] {
        let error = refused(column, &value);
        assert!(error.contains(text), "{column} {value}: {error}");
    }
}

#[test]
fn unknown_tables_and_columns_are_skipped_and_an_integer_is_a_real() {
    let json = json!({"Other": {"x": [1, {"y": "}"}]}, "T": {Uuid::ZERO.to_string(): {"insert": {"later": ["map", []], "real": 3}}}});
    let rows = decoder().decode(Notation::Update2, json.to_string().as_bytes()).unwrap();
    let UpdateKind::Whole(data) = &rows[0].kind else { panic!("{rows:?}") };
    assert_eq!(data[1], Datum::One(Atom::Real(3.0)));
}

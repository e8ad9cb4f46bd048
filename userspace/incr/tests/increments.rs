//! A small program over a toy database: people in rooms, and what each room says.
//!
//! `Person` (stratum 0) reads two columns of a row, `Room` (1) an index and its people, `House` (2) all
//! rooms of a floor. That is enough to show misses, index keys, early cut-off, and units without holder.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_incr::{Aspects, Cx, Engine, Kind, Program, Query};
use proptest::prelude::*;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    name: u8,
    room: u8,
    mood: u8,
}

const NAME: Aspects = Aspects::bit(0);
const ROOM: Aspects = Aspects::bit(1);
const MOOD: Aspects = Aspects::bit(2);

#[derive(Default)]
struct Db {
    rows: BTreeMap<u8, Row>,
    by_room: BTreeMap<u8, BTreeSet<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Fact {
    Row(u8),
    InRoom(u8),
}

impl Db {
    /// Applies a change of one row and tells the engine what it touches.
    fn set(&mut self, engine: &mut Engine<Toy>, id: u8, new: Option<Row>) {
        let old = self.rows.get(&id).cloned();
        let mut aspects = Aspects::NONE;
        match (&old, &new) {
            (Some(o), Some(n)) => {
                for (differs, aspect) in [(o.name != n.name, NAME), (o.room != n.room, ROOM), (o.mood != n.mood, MOOD)]
                {
                    if differs {
                        aspects = aspects.with(aspect);
                    }
                }
            }
            (None, None) => {}
            _ => aspects = Aspects::ALL,
        }
        engine.touch(&Fact::Row(id), aspects);
        let (old_room, new_room) = (old.as_ref().map(|r| r.room), new.as_ref().map(|r| r.room));
        if old_room != new_room {
            for room in [old_room, new_room].into_iter().flatten() {
                engine.touch(&Fact::InRoom(room), Aspects::ALL);
            }
            if let Some(room) = old_room {
                self.by_room.entry(room).or_default().remove(&id);
            }
            if let Some(room) = new_room {
                self.by_room.entry(room).or_default().insert(id);
            }
        }
        match new {
            Some(row) => self.rows.insert(id, row),
            None => self.rows.remove(&id),
        };
    }
}

struct GetRow(u8, Aspects);
impl Query<Toy> for GetRow {
    type Answer<'s> = Option<&'s Row>;
    fn fact(&self) -> Fact {
        Fact::Row(self.0)
    }
    fn aspects(&self) -> Aspects {
        self.1
    }
    fn answer<'s>(&self, source: &'s Db) -> Option<&'s Row> {
        source.rows.get(&self.0)
    }
}

struct InRoom(u8);
impl Query<Toy> for InRoom {
    type Answer<'s> = Vec<u8>;
    fn fact(&self) -> Fact {
        Fact::InRoom(self.0)
    }
    fn answer(&self, source: &Db) -> Vec<u8> {
        source.by_room.get(&self.0).map(|s| s.iter().copied().collect()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Toy;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Unit {
    Person(u8),
    Room(u8),
    House,
}

impl Program for Toy {
    type Unit = Unit;
    type Fact = Fact;
    type Output = Vec<u8>;
    type Source = Db;

    const KINDS: &'static [Kind] =
        &[Kind { name: "person", stratum: 0 }, Kind { name: "room", stratum: 1 }, Kind { name: "house", stratum: 2 }];

    fn kind(unit: &Unit) -> usize {
        match unit {
            Unit::Person(_) => 0,
            Unit::Room(_) => 1,
            Unit::House => 2,
        }
    }

    fn compute(&self, cx: &mut Cx<'_, '_, Self>, unit: &Unit) -> Vec<u8> {
        match unit {
            // A good mood (>= 128) shows; the others look alike, which is where waves stop early.
            Unit::Person(id) => match cx.read(&GetRow(*id, NAME.with(MOOD))) {
                Some(row) => vec![row.name, u8::from(row.mood >= 128)],
                None => Vec::new(),
            },
            Unit::Room(room) => {
                let people = cx.read(&InRoom(*room));
                people.iter().flat_map(|p| cx.unit(&Unit::Person(*p)).to_vec()).collect()
            }
            Unit::House => (0..4).map(|room| cx.unit(&Unit::Room(room)).iter().fold(0, |a, b| a ^ b)).collect(),
        }
    }
}

fn house() -> (Engine<Toy>, Db) {
    let (mut engine, mut db) = (Engine::new(), Db::default());
    for id in 0..8 {
        db.set(&mut engine, id, Some(Row { name: id + 10, room: id % 4, mood: 0 }));
    }
    engine.activate(Unit::House);
    engine.run(&Toy, &db);
    (engine, db)
}

#[test]
fn a_change_runs_the_units_that_read_it_and_no_others() {
    let (mut engine, mut db) = house();
    assert_eq!(engine.stats().total().run, 8 + 4 + 1);
    engine.reset_stats();

    db.set(&mut engine, 3, Some(Row { name: 99, room: 3, mood: 0 }));
    let wave = engine.run(&Toy, &db);
    assert_eq!(wave.run, 3, "one person, one room, the house: {wave:?}");
    let units: Vec<_> = wave.changes.iter().map(|c| c.unit.clone()).collect();
    assert_eq!(units, [Unit::Person(3), Unit::Room(3), Unit::House]);
}

#[test]
fn an_equal_output_stops_the_wave() {
    let (mut engine, mut db) = house();
    db.set(&mut engine, 3, Some(Row { name: 13, room: 3, mood: 7 }));
    let wave = engine.run(&Toy, &db);
    assert_eq!((wave.run, wave.changes.len()), (1, 0), "moods 0 and 7 look alike: {wave:?}");
}

#[test]
fn a_column_nobody_read_runs_nothing_but_the_index() {
    let (mut engine, mut db) = house();
    // The person's unit does not read the room; the two rooms read the index.
    db.set(&mut engine, 3, Some(Row { name: 13, room: 2, mood: 0 }));
    let wave = engine.run(&Toy, &db);
    assert_eq!(wave.run, 3, "rooms 2 and 3, and the house: {wave:?}");
}

#[test]
fn touching_twice_computes_once() {
    let (mut engine, mut db) = house();
    for name in 20..30 {
        db.set(&mut engine, 3, Some(Row { name, room: 3, mood: 0 }));
    }
    assert_eq!(engine.run(&Toy, &db).run, 3);
    assert_eq!(engine.stats().kind("person").map(|s| s.dirty), Some(1), "the others were computed for their readers");
}

#[test]
fn a_miss_is_a_read() {
    let (mut engine, mut db) = (Engine::new(), Db::default());
    engine.activate(Unit::Person(5));
    engine.activate(Unit::Room(1));
    assert_eq!(engine.run(&Toy, &db).changes.len(), 0);
    db.set(&mut engine, 5, Some(Row { name: 1, room: 1, mood: 0 }));
    assert_eq!(engine.run(&Toy, &db).run, 2, "the row and the index key appeared");
    assert_eq!(engine.output(&Unit::Room(1)).map(|o| o.to_vec()), Some(vec![1, 0]));
}

#[test]
fn units_without_holder_leave_with_an_empty_output() {
    let (mut engine, mut db) = house();
    db.set(&mut engine, 3, None);
    let wave = engine.run(&Toy, &db);
    let first = wave.changes.first().expect("the person is empty before it leaves");
    assert_eq!((first.unit.clone(), first.old.to_vec(), first.new.to_vec()), (Unit::Person(3), vec![13, 0], vec![]));
    assert_eq!(engine.stats().kind("person").map(|s| s.live), Some(7));

    engine.retire(&Unit::House);
    engine.run(&Toy, &db);
    let total = engine.stats().total();
    assert_eq!((total.live, total.reads), (0, 0), "nothing is left behind");
}

#[test]
fn a_full_recompute_changes_nothing() {
    let (mut engine, db) = house();
    engine.touch_all();
    let wave = engine.run(&Toy, &db);
    assert_eq!((wave.run, wave.changes.len()), (13, 0));
}

#[test]
fn audit_and_sampling_find_a_change_nobody_told_about() {
    let (mut engine, mut db) = house();
    assert!(engine.audit(&Toy, &db).is_empty());
    assert!(engine.sample(&Toy, &db, 100).is_empty());
    if let Some(row) = db.rows.get_mut(&2) {
        row.name = 200;
    }
    let found: Vec<_> = engine.audit(&Toy, &db).into_iter().map(|d| d.unit).collect();
    assert_eq!(found, [Unit::Person(2), Unit::Room(2), Unit::House]);
    let sampled: Vec<_> = engine.sample(&Toy, &db, 100).into_iter().map(|d| d.unit).collect();
    assert_eq!(sampled, [Unit::Person(2)], "sampling looks at one unit with the kept outputs of the others");
    assert_eq!(engine.stats().discrepancies, 4);
}

type Step = Vec<(u8, Option<Row>)>;

fn step() -> impl Strategy<Value = Step> {
    let row = (0u8..4, 0u8..4, any::<u8>()).prop_map(|(name, room, mood)| Row { name, room, mood });
    prop::collection::vec((0u8..10, prop::option::weighted(0.7, row)), 1..4)
}

fn play(steps: &[Step]) -> Result<Vec<u8>, TestCaseError> {
    let (mut engine, mut db) = (Engine::new(), Db::default());
    engine.activate(Unit::House);
    for step in steps {
        for (id, row) in step {
            db.set(&mut engine, *id, row.clone());
        }
        engine.run(&Toy, &db);
        let found = engine.audit(&Toy, &db);
        prop_assert!(found.is_empty(), "after {:?}: {:?}", step, found);
        let sampled = engine.sample(&Toy, &db, 3);
        prop_assert!(sampled.is_empty(), "after {:?}: {:?}", step, sampled);
    }
    Ok(engine.output(&Unit::House).map(|o| o.to_vec()).unwrap_or_default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// After every step of a random walk the state equals the one computed from nothing; and splitting,
    /// squashing, repeating and undoing the steps ends in the same state.
    #[test]
    fn random_walks_equal_from_scratch(steps in prop::collection::vec(step(), 1..8)) {
        let end = play(&steps)?;
        let split: Vec<Step> = steps.iter().flatten().map(|one| vec![one.clone()]).collect();
        prop_assert_eq!(&end, &play(&split)?, "split");
        let squashed: Step = steps.iter().flatten().cloned().collect();
        prop_assert_eq!(&end, &play(&[squashed])?, "squashed");
        let doubled: Vec<Step> = steps.iter().flat_map(|s| [s.clone(), s.clone()]).collect();
        prop_assert_eq!(&end, &play(&doubled)?, "doubled");
        // There and back again: every row is removed in reverse order, then the walk is repeated.
        let mut around = steps.clone();
        around.extend(steps.iter().rev().map(|s| s.iter().rev().map(|(id, _)| (*id, None)).collect::<Step>()));
        around.extend(steps.iter().cloned());
        prop_assert_eq!(&end, &play(&around)?, "reversed");
    }
}

//! A session that believes whatever it is told: what fuzzing and the replay of its corpora run.
//!
//! Nothing a server says may bring the client down, or make its replica and the changes that it tells disagree.

use std::time::Duration;

use super::{Action, LockRequest, Session, SessionConfig, SessionEvent};
use crate::layout::DatabaseLayout;
use crate::{
    AtomType, ColumnDef, ColumnShape, DatabaseDef, Framer, Multiplicity, Reference, Replica, RowDraft, TableDef,
};

const fn shape(key: AtomType, multiplicity: Multiplicity, key_reference: Option<Reference>) -> ColumnShape {
    ColumnShape { key, value: None, multiplicity, key_reference, value_reference: None }
}

pub(crate) static TABLE: TableDef = TableDef {
    database: "Test",
    name: "T",
    index: 0,
    is_root: true,
    columns: &[
        ColumnDef { name: "i", shape: shape(AtomType::Integer, Multiplicity::One, None) },
        ColumnDef {
            name: "refs",
            shape: shape(AtomType::Uuid, Multiplicity::Many, Some(Reference { table: "T", strong: false })),
        },
        ColumnDef { name: "s", shape: shape(AtomType::String, Multiplicity::One, None) },
    ],
};
static TABLES: [&TableDef; 1] = [&TABLE];
pub(crate) static DATABASE: DatabaseDef = DatabaseDef { name: "Test", tables: &TABLES };

/// The byte at which the connection breaks; it is in no UTF-8 text.
const CUT: u8 = 0xff;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Messages received whole.
    pub messages: usize,
    /// Times that the session was up to date.
    pub synchronized: usize,
    /// Changes of rows.
    pub changes: usize,
}

/// Lets a session hear `stream`, a connection after the other, parted by bytes 255; the first byte of each says how it is chopped up.
///
/// # Panics
/// When the session does, or when a change does not begin where its consumer last was.
#[must_use]
pub fn hear(stream: &[u8]) -> Heard {
    let config = SessionConfig {
        database: &DATABASE,
        remotes: vec!["hearsay:0".to_owned()],
        leader_only: false,
        columns: TABLE.all_columns().collect(),
        conditions: Vec::new(),
        lock: Some(LockRequest { name: "lock".to_owned(), steal: false }),
        probe_interval: Duration::from_secs(5),
        cluster_id: None,
        seed: 1,
    };
    let mut listener = Listener {
        session: Session::new(config),
        replica: Replica::with_layout(DatabaseLayout::empty(&DATABASE)),
        shadow: Replica::new(&DATABASE),
        now: Duration::ZERO,
        connected: false,
        diverged: false,
        heard: Heard::default(),
    };
    for connection in stream.split(|byte| *byte == CUT) {
        let Some((chop, bytes)) = connection.split_first() else { continue };
        listener.connection(usize::from(*chop).max(1), bytes);
    }
    listener.heard
}

struct Listener {
    session: Session,
    replica: Replica,
    shadow: Replica,
    now: Duration,
    connected: bool,
    diverged: bool,
    heard: Heard,
}

impl Listener {
    fn connection(&mut self, chop: usize, bytes: &[u8]) {
        // Waits between attempts grow to 8 s.
        for _ in 0..4 {
            if !self.connected {
                self.now = self.session.deadline().map_or(self.now, |deadline| deadline.max(self.now));
                self.session.tick(self.now);
                self.settle();
            }
        }
        let mut framer = Framer::default();
        for chunk in bytes.chunks(chop) {
            framer.buffer().extend_from_slice(chunk);
            self.session.heard(self.now);
            loop {
                match framer.next_frame() {
                    Ok(Some(frame)) if self.connected => {
                        self.heard.messages += 1;
                        self.session.received(self.now, &frame);
                        self.settle();
                    }
                    Ok(_) => break,
                    Err(error) => return self.cut(&error.to_string()),
                }
            }
        }
        self.cut("cut");
    }

    fn cut(&mut self, reason: &str) {
        if self.connected {
            self.connected = false;
            self.session.connection_lost(self.now, reason);
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(action) = self.session.next_action() {
            match action {
                Action::Connect(_) => {
                    self.connected = true;
                    self.session.connected(self.now);
                }
                Action::Send(bytes) => assert!(!bytes.is_empty(), "nothing is sent"),
                Action::Close => self.connected = false,
            }
        }
        while let Some(event) = self.session.next_event() {
            match event {
                // As the client does: what does not fit is answered by asking for everything, and nothing else fits until that comes.
                SessionEvent::Update(batch) if self.diverged && batch.reset.is_none() => {}
                SessionEvent::Update(batch) => match self.replica.apply(batch) {
                    Ok(changes) => {
                        self.diverged = false;
                        for change in changes {
                            self.heard.changes += 1;
                            let seen = self.shadow.row(change.table, change.uuid);
                            assert_eq!(seen, change.old.as_ref(), "{change:?}");
                            match &change.new {
                                Some(new) => drop(self.shadow.put(RowDraft::from_row(new))),
                                None => drop(self.shadow.remove(change.table, change.uuid)),
                            }
                        }
                    }
                    Err(error) => {
                        self.diverged = true;
                        self.session.resynchronize(self.now, &error.to_string());
                    }
                },
                SessionEvent::Synchronized { .. } => self.heard.synchronized += 1,
                _ => {}
            }
        }
    }
}

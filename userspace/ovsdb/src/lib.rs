//! Client for the Open vSwitch Database (OVSDB) management protocol: RFC 7047 with the extensions of ovsdb-server(7).
//!
//! The crate is cut in four layers, each usable without the ones above it:
//!
//! - the data model: [`Uuid`], [`Text`], [`Atom`], [`Datum`], typed [`Column`]s of a [`DatabaseDef`], immutable [`Row`]s;
//! - the [`Replica`]: the in-memory copy of the monitored part of a database, which turns updates into [`RowChange`]s;
//! - the session: a state machine that speaks the protocol without touching a socket or a clock;
//! - the [`Client`]: a tokio task that owns the connection and feeds the session.
//!
//! Typed column constants for OVN's databases are generated into the crate `oxbow-schema`.

mod client;
mod column;
mod condition;
mod database_file;
mod datum;
mod decode;
mod definition;
mod driver;
mod framer;
mod json;
mod layout;
mod remote;
mod replica;
mod row;
mod server_schema;
mod session;
mod stream;
mod text;
mod tls;
mod transaction;
mod update;
mod uuid;

pub use client::{Client, ClientConfig, ConnectionStatus, Event, LockState};
pub use column::{AnyColumn, Column, ColumnType, Element, Map, MapView, Set, SetView, ToDatum};
pub use condition::{Clause, Condition, Function};
pub use database_file::{DatabaseFileError, load_database_file, parse_database_file};
pub use datum::{Atom, AtomType, Datum};
pub use definition::{ColumnDef, ColumnShape, DatabaseDef, Multiplicity, Reference, TableDef};
pub use framer::{Frame, FrameError, Framer};
pub use replica::{ColumnSet, Referrers, Replica, ReplicaError, RowChange};
pub use row::{Row, RowDraft};
#[doc(hidden)]
pub use session::hearsay;
pub use text::Text;
pub use tls::TlsFiles;
pub use transaction::{
    InsertBuilder, MutateBuilder, Outcome, Transaction, TransactionError, TransactionId, UpdateBuilder, WaitBuilder,
};
pub use uuid::{ParseUuidError, Uuid};

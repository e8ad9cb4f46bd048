//! The `_Server` database, in which a server tells about the databases it serves (ovsdb-server(5)).

use crate::{AtomType, Column, ColumnDef, ColumnShape, DatabaseDef, Multiplicity, Replica, Row, TableDef, Text, Uuid};

const fn column(name: &'static str, key: AtomType, multiplicity: Multiplicity) -> ColumnDef {
    let shape = ColumnShape { key, value: None, multiplicity, key_reference: None, value_reference: None };
    ColumnDef { name, shape }
}

static TABLE: TableDef = TableDef {
    database: "_Server",
    name: "Database",
    index: 0,
    is_root: true,
    columns: &[
        column("cid", AtomType::Uuid, Multiplicity::Optional),
        column("connected", AtomType::Boolean, Multiplicity::One),
        column("index", AtomType::Integer, Multiplicity::Optional),
        column("leader", AtomType::Boolean, Multiplicity::One),
        column("model", AtomType::String, Multiplicity::One),
        column("name", AtomType::String, Multiplicity::One),
        column("sid", AtomType::Uuid, Multiplicity::Optional),
    ],
};

static TABLES: [&TableDef; 1] = [&TABLE];

/// The part of `_Server` that matters to a client.
pub(super) static DATABASE: DatabaseDef = DatabaseDef { name: "_Server", tables: &TABLES };

const CID: Column<Option<Uuid>> = Column::new(&TABLE, 0);
const CONNECTED: Column<bool> = Column::new(&TABLE, 1);
const INDEX: Column<Option<i64>> = Column::new(&TABLE, 2);
const LEADER: Column<bool> = Column::new(&TABLE, 3);
const MODEL: Column<Text> = Column::new(&TABLE, 4);
const NAME: Column<Text> = Column::new(&TABLE, 5);
const SID: Column<Option<Uuid>> = Column::new(&TABLE, 6);

/// What a client asks of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands<'a> {
    pub(super) database: &'a str,
    pub(super) leader_only: bool,
    /// The cluster it has to be, when that is known.
    pub(super) cluster_id: Option<Uuid>,
    /// The log index that a server of the cluster must have reached, so that the client never goes back in time.
    pub(super) min_index: i64,
}

/// What the server told, when it will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The log index it has reached; `None` unless the database is clustered.
    pub(super) index: Option<i64>,
    /// The server's identifier in the cluster.
    pub(super) server_id: Option<Uuid>,
}

/// Decides whether a server will do. The error is the reason why not, in the words that operators search logs for.
pub(super) fn check(server: &Replica, demands: Demands<'_>) -> Result<Accepted, String> {
    let is_ours = |row: &&std::sync::Arc<Row>| row.get(NAME).as_str() == demands.database;
    let Some(row) = server.rows(&TABLE).find(is_ours) else {
        return Err(format!("server does not have {} database; trying another server", demands.database));
    };
    let model = row.get(MODEL).as_str();
    if model == "standalone" {
        return Ok(Accepted { index: None, server_id: None });
    }
    if let (Some(wanted), found) = (demands.cluster_id, row.get(CID))
        && found != Some(wanted)
    {
        let found = found.map_or("none".to_owned(), |cid| cid.to_string());
        return Err(format!("server is in cluster {found}, not {wanted}; trying another server"));
    }
    if !row.get(CONNECTED) {
        return Err(format!("{model} database server is disconnected from cluster; trying another server"));
    }
    if demands.leader_only && !row.get(LEADER) {
        return Err(format!("{model} database server is not cluster leader; trying another server"));
    }
    let index = row.get(INDEX);
    if index.is_some_and(|index| index < demands.min_index) {
        return Err(format!("{model} database server has stale data; trying another server"));
    }
    Ok(Accepted { index, server_id: row.get(SID) })
}

/// Whether the server is a member of the database's cluster and does not lead it, for whatever reason [`check`] refuses it.
pub(super) fn follows(server: &Replica, database: &str) -> bool {
    server
        .rows(&TABLE)
        .any(|row| row.get(NAME).as_str() == database && row.get(MODEL).as_str() == "clustered" && !row.get(LEADER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowDraft;

    fn server(model: &str, connected: bool, leader: bool, index: Option<i64>) -> Replica {
        let mut replica = Replica::new(&DATABASE);
        replica.put(RowDraft::new(&TABLE).set(NAME, "_Server").set(MODEL, "standalone").set(CONNECTED, true));
        let row = RowDraft::new(&TABLE).set(NAME, "OVN_Southbound").set(MODEL, model).set(CONNECTED, connected);
        replica.put(row.set(LEADER, leader).set(INDEX, index).set(CID, Some(Uuid::from_u128(7))));
        replica
    }

    fn verdict(server: &Replica, leader_only: bool, min_index: i64, cluster_id: Option<Uuid>) -> String {
        let demands = Demands { database: "OVN_Southbound", leader_only, cluster_id, min_index };
        match check(server, demands) {
            Ok(accepted) => format!("accepted at {:?}", accepted.index),
            Err(reason) => reason,
        }
    }

    #[test]
    fn servers_are_refused_for_what_they_say_of_the_database() {
        let stale = "clustered database server has stale data; trying another server";
        let follower = "clustered database server is not cluster leader; trying another server";
        let alone = "clustered database server is disconnected from cluster; trying another server";
        assert_eq!(verdict(&server("clustered", true, true, Some(5)), true, 5, None), "accepted at Some(5)");
        assert_eq!(verdict(&server("clustered", true, true, Some(5)), true, 6, None), stale);
        assert_eq!(verdict(&server("clustered", true, false, Some(5)), true, 0, None), follower);
        assert_eq!(verdict(&server("clustered", true, false, Some(5)), false, 0, None), "accepted at Some(5)");
        assert_eq!(verdict(&server("clustered", false, true, Some(5)), false, 0, None), alone);
        assert_eq!(verdict(&server("standalone", true, false, None), true, 9, None), "accepted at None");
        let seven = Some(Uuid::from_u128(7));
        assert_eq!(verdict(&server("clustered", true, true, Some(5)), true, 0, seven), "accepted at Some(5)");
        let other = verdict(&server("clustered", true, true, Some(5)), true, 0, Some(Uuid::from_u128(8)));
        assert!(other.starts_with("server is in cluster 00000000-0000-0000-0000-000000000007, not"), "{other}");
        let none = verdict(&Replica::new(&DATABASE), false, 0, None);
        assert_eq!(none, "server does not have OVN_Southbound database; trying another server");
    }
}

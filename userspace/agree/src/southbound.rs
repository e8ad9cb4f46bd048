//! What a Southbound database says, as the compiler wants it.

use anyhow::{Context as _, Result, bail};
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow};
use oxbow_pipeline::ir::{
    DatapathKey, FlowUuid, Group, GroupKey, Location, LogicalPort, Mac, Pipeline, PortKey, PortKind,
};
use oxbow_testkit::OvsdbServer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

/// A row of Port_Binding.
#[derive(Clone, Debug)]
pub struct PortRow {
    /// The port as the compiler takes it, unbound.
    pub port: LogicalPort,
    /// `mac`: what addresses it has.
    pub addresses: Vec<String>,
    /// `parent_port` and `tag` of a nested port.
    pub parent: Option<(String, u16)>,
}

/// Rows of the tables that forwarding depends on.
#[derive(Clone, Debug, Default)]
pub struct Southbound {
    /// Datapath_Binding: name by key.
    pub datapaths: BTreeMap<DatapathKey, DatapathInfo>,
    /// Logical_Flow.
    pub flows: Vec<FlowRow>,
    /// Port_Binding by name.
    pub ports: BTreeMap<String, PortRow>,
    /// Multicast_Group.
    pub groups: Vec<Group>,
    /// Address_Set.
    pub address_sets: BTreeMap<String, Vec<String>>,
    /// Port_Group.
    pub port_groups: BTreeMap<String, Vec<String>>,
    /// FDB.
    pub fdb: Vec<(DatapathKey, Mac, PortKey)>,
}

/// A table as `ovsdb-client --format=json dump` prints it.
struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    fn column<'a>(&self, row: &'a [Value], name: &str) -> Result<&'a Value> {
        let at = self.headings.iter().position(|heading| heading == name);
        at.and_then(|at| row.get(at)).with_context(|| format!("no column {name}"))
    }

    fn text(&self, row: &[Value], name: &str) -> Result<String> {
        self.column(row, name)?.as_str().map(str::to_owned).with_context(|| format!("column {name} is no string"))
    }

    fn number(&self, row: &[Value], name: &str) -> Result<u32> {
        let number = self.column(row, name)?.as_u64().and_then(|n| u32::try_from(n).ok());
        number.with_context(|| format!("column {name} is no number"))
    }

    fn uuid(&self, row: &[Value], name: &str) -> Result<String> {
        let id = uuid(self.column(row, name)?);
        id.with_context(|| format!("column {name} is no UUID"))
    }
}

fn uuid(value: &Value) -> Option<String> {
    match value.as_array()?.as_slice() {
        [kind, id] if kind == "uuid" => id.as_str().map(str::to_owned),
        _ => None,
    }
}

/// The members of a set; a single value is a set of one (RFC 7047, section 5.1).
fn set(value: &Value) -> Vec<&Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::Array(members)]) if kind == "set" => members.iter().collect(),
        _ => vec![value],
    }
}

fn strings(value: &Value) -> Vec<String> {
    set(value).into_iter().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

fn map_get(value: &Value, key: &str) -> Option<String> {
    let pairs = value.as_array()?.get(1)?.as_array()?;
    pairs.iter().find(|pair| pair[0] == key).and_then(|pair| pair[1].as_str().map(str::to_owned))
}

impl Southbound {
    /// Reads a running server.
    ///
    /// # Errors
    /// When the server cannot be asked or its answer not be read.
    pub fn read(server: &OvsdbServer) -> Result<Southbound> {
        let mut command = Command::new("ovsdb-client");
        command.args(["--format=json", "--data=json", "dump", &server.remote(), "OVN_Southbound"]);
        let output = command.output().context("cannot start ovsdb-client")?;
        if !output.status.success() {
            bail!("ovsdb-client dump: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8(output.stdout)?;
        let mut tables = BTreeMap::new();
        for table in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            let table = table?;
            let caption = table["caption"].as_str().unwrap_or_default().trim_end_matches(" table").to_owned();
            let headings = table["headings"].as_array().into_iter().flatten();
            let headings = headings.map(|h| h.as_str().unwrap_or_default().to_owned()).collect();
            let rows = table["data"].as_array().into_iter().flatten().filter_map(|row| row.as_array().cloned());
            tables.insert(caption, Table { headings, rows: rows.collect() });
        }
        Self::from_tables(&tables)
    }

    fn from_tables(tables: &BTreeMap<String, Table>) -> Result<Southbound> {
        let table = |name: &str| tables.get(name).with_context(|| format!("no table {name}"));
        let mut south = Southbound::default();
        let mut keys: BTreeMap<String, DatapathKey> = BTreeMap::new();
        let bindings = table("Datapath_Binding")?;
        for row in &bindings.rows {
            let key = DatapathKey(bindings.number(row, "tunnel_key")?);
            let ids = bindings.column(row, "external_ids")?;
            let name = map_get(ids, "name").unwrap_or_default();
            let router = map_get(ids, "logical-router").is_some();
            keys.insert(bindings.uuid(row, "_uuid")?, key);
            south.datapaths.insert(key, DatapathInfo { name: name.into(), router });
        }
        let key_of = |id: &str| keys.get(id).copied().with_context(|| format!("no datapath {id}"));
        let groups = table("Logical_DP_Group")?;
        let mut members: BTreeMap<String, Vec<DatapathKey>> = BTreeMap::new();
        for row in &groups.rows {
            let ids = set(groups.column(row, "datapaths")?).into_iter().filter_map(uuid);
            members.insert(groups.uuid(row, "_uuid")?, ids.map(|id| key_of(&id)).collect::<Result<_>>()?);
        }
        south.read_flows(table("Logical_Flow")?, &key_of, &members)?;
        let port_keys = south.read_ports(table("Port_Binding")?, &key_of)?;
        let multicast = table("Multicast_Group")?;
        for row in &multicast.rows {
            let ids = set(multicast.column(row, "ports")?).into_iter().filter_map(uuid);
            south.groups.push(Group {
                datapath: key_of(&multicast.uuid(row, "datapath")?)?,
                key: GroupKey(multicast.number(row, "tunnel_key")?),
                name: multicast.text(row, "name")?.into(),
                members: ids.filter_map(|id| port_keys.get(&id).copied()).collect(),
            });
        }
        for (name, column, into) in
            [("Address_Set", "addresses", &mut south.address_sets), ("Port_Group", "ports", &mut south.port_groups)]
        {
            let rows = table(name)?;
            for row in &rows.rows {
                into.insert(rows.text(row, "name")?, strings(rows.column(row, column)?));
            }
        }
        let fdb = table("FDB")?;
        for row in &fdb.rows {
            let mac = fdb.text(row, "mac")?;
            let mac = mac
                .split(':')
                .try_fold(0, |n, byte| Ok::<_, anyhow::Error>(n << 8 | u64::from_str_radix(byte, 16)?))?;
            south.fdb.push((DatapathKey(fdb.number(row, "dp_key")?), Mac(mac), PortKey(fdb.number(row, "port_key")?)));
        }
        Ok(south)
    }

    fn read_flows(
        &mut self,
        table: &Table,
        key_of: &dyn Fn(&str) -> Result<DatapathKey>,
        groups: &BTreeMap<String, Vec<DatapathKey>>,
    ) -> Result<()> {
        for row in &table.rows {
            let mut datapaths = Vec::new();
            for id in set(table.column(row, "logical_datapath")?).into_iter().filter_map(uuid) {
                datapaths.push(key_of(&id)?);
            }
            for id in set(table.column(row, "logical_dp_group")?).into_iter().filter_map(uuid) {
                datapaths.extend(groups.get(&id).into_iter().flatten());
            }
            datapaths.sort_unstable();
            datapaths.dedup();
            let ids = table.column(row, "external_ids")?;
            let pipeline = match table.text(row, "pipeline")?.as_str() {
                "ingress" => Pipeline::Ingress,
                _ => Pipeline::Egress,
            };
            let uuid = u128::from_str_radix(&table.uuid(row, "_uuid")?.replace('-', ""), 16)?;
            self.flows.push(FlowRow {
                uuid: FlowUuid(uuid),
                datapaths,
                pipeline,
                stage: u8::try_from(table.number(row, "table_id")?)?,
                priority: u16::try_from(table.number(row, "priority")?)?,
                matches: table.text(row, "match")?.into(),
                actions: table.text(row, "actions")?.into(),
                stage_name: map_get(ids, "stage-name").unwrap_or_default().into(),
            });
        }
        self.flows.sort_by_key(|flow| flow.uuid);
        Ok(())
    }

    fn read_ports(
        &mut self,
        table: &Table,
        key_of: &dyn Fn(&str) -> Result<DatapathKey>,
    ) -> Result<BTreeMap<String, PortKey>> {
        let mut keys = BTreeMap::new();
        for row in &table.rows {
            let name = table.text(row, "logical_port")?;
            let key = PortKey(table.number(row, "tunnel_key")?);
            keys.insert(table.uuid(row, "_uuid")?, key);
            let security = strings(table.column(row, "port_security")?);
            let port = LogicalPort {
                datapath: key_of(&table.uuid(row, "datapath")?)?,
                key,
                name: name.as_str().into(),
                kind: PortKind::from_type(&table.text(row, "type")?),
                location: Location::Unbound,
                additional: Vec::new(),
                port_security: security.into_iter().map(Arc::from).collect(),
            };
            let tag = set(table.column(row, "tag")?).first().and_then(|tag| tag.as_u64());
            let parent = strings(table.column(row, "parent_port")?).pop();
            let parent = parent.zip(tag.and_then(|tag| u16::try_from(tag).ok()));
            let addresses = strings(table.column(row, "mac")?);
            self.ports.insert(name, PortRow { port, addresses, parent });
        }
        Ok(keys)
    }

    /// Feeds everything but ports to a compiler.
    pub fn feed(&self, compiler: &mut Compiler) {
        for (key, info) in &self.datapaths {
            compiler.set_datapath(*key, Some(info.clone()));
        }
        for (name, addresses) in &self.address_sets {
            compiler.set_address_set(name, Some(addresses.iter().map(String::as_str)));
        }
        for (name, ports) in &self.port_groups {
            compiler.set_port_group(name, Some(ports.iter().map(String::as_str)));
        }
        for group in &self.groups {
            compiler.set_group(group.clone());
        }
        for flow in &self.flows {
            compiler.set_flow(flow.clone());
        }
        for (datapath, mac, port) in &self.fdb {
            compiler.set_fdb(*datapath, *mac, Some(*port));
        }
    }
}

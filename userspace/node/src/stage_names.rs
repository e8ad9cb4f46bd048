//! What northd calls the stages, for people: `external_ids:stage-name` of logical flows (ovn-sb(5), Logical_Flow).
//!
//! The external_ids of flows are a good part of what is composed, sent and read of them, and a hypervisor's first port on a switch waits for all
//! flows of the switch. So they are not monitored. A name is the stage's and not the flow's: one flow of each stage is asked for it, once, when
//! nothing else is to be written, and every row of the stage shows it from then on, since all have the same [`StageName`].

use crate::rows::Uuid;
use oxbow_ovsdb::{AnyColumn, Datum, Map, Row, Text, Transaction};
use oxbow_pipeline::compile::StageName;
use oxbow_pipeline::ir::Pipeline;
use oxbow_schema::sb;
use std::collections::{HashMap, HashSet};

/// What a stage is told apart by: whether it is a router's, the pipeline, the table.
pub type Place = (bool, Pipeline, u8);

/// Key of external_ids that has the name.
const KEY: &str = "stage-name";

/// The column that tells names.
pub fn column() -> AnyColumn {
    sb::logical_flow::EXTERNAL_IDS.any()
}

/// Names by place.
#[derive(Debug, Default)]
pub struct StageNames {
    stages: HashMap<Place, Stage>,
    /// How many have not been told.
    untold: usize,
}

#[derive(Debug)]
struct Stage {
    name: StageName,
    is_told: bool,
    /// A flow there: the one to ask while it is there.
    flow: Uuid,
}

impl StageNames {
    /// The name of a place, which may be told later, for a flow there.
    pub fn name(&mut self, place: Place, flow: Uuid) -> StageName {
        let untold = &mut self.untold;
        let stage = self.stages.entry(place).or_insert_with(|| {
            *untold += 1;
            Stage { name: StageName::default(), is_told: false, flow }
        });
        stage.name.clone()
    }

    /// Whether there are places whose name nobody has told.
    pub fn is_incomplete(&self) -> bool {
        self.untold > 0
    }

    /// Asks, for each place without a name, one of the flows there: the one that it is known by, or if that is not at the place any more one of `flows`, which
    /// are all there are. Places that have none any more are forgotten.
    pub fn ask(
        &mut self,
        is_at: impl Fn(Place, Uuid) -> bool,
        flows: impl IntoIterator<Item = (Place, Uuid)>,
        transaction: &mut Transaction,
    ) {
        let mut left: HashSet<Place> = HashSet::new();
        for (place, stage) in self.stages.iter().filter(|(_, stage)| !stage.is_told) {
            if is_at(*place, stage.flow) {
                transaction.select(stage.flow, column());
            } else {
                left.insert(*place);
            }
        }
        if left.is_empty() {
            return;
        }
        for (place, flow) in flows {
            if left.remove(&place) {
                transaction.select(flow, column());
                if let Some(stage) = self.stages.get_mut(&place) {
                    stage.flow = flow;
                }
                if left.is_empty() {
                    break;
                }
            }
        }
        self.untold -= left.len();
        self.stages.retain(|place, _| !left.contains(place));
    }

    /// What a flow of that place said. A flow without a name leaves the place without.
    pub fn told(&mut self, place: Place, external_ids: &Datum) {
        let Some(stage) = self.stages.get_mut(&place) else { return };
        if !std::mem::replace(&mut stage.is_told, true) {
            self.untold -= 1;
        }
        let ids = <Map<Text, Text> as oxbow_ovsdb::ColumnType>::view(external_ids);
        stage.name.set(ids.get(KEY).map_or("", |name| name.as_str()));
    }

    /// Another northd may call the stages otherwise: what is known is shown until it is told anew.
    pub fn ask_anew(&mut self) {
        for stage in self.stages.values_mut() {
            stage.is_told = false;
        }
        self.untold = self.stages.len();
    }
}

/// The name as it stands in a row whose external_ids are monitored; `None` in any other.
pub fn of_row(row: &Row) -> Option<StageName> {
    let is_monitored = row.columns().any(|(present, _)| present == column());
    is_monitored.then(|| row.get(sb::logical_flow::EXTERNAL_IDS).get(KEY).map_or("", |name| name.as_str()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_ovsdb::ToDatum;

    fn ids(name: &str) -> Datum {
        ToDatum::<Map<Text, Text>>::to_datum([("source", "northd.c:1"), (KEY, name)])
    }

    #[test]
    fn one_flow_of_each_stage_is_asked_and_all_show_its_answer() {
        let mut names = StageNames::default();
        let (acl, lookup) = ((false, Pipeline::Ingress, 8), (false, Pipeline::Ingress, 24));
        let flows = [(acl, Uuid::from_u128(1)), (acl, Uuid::from_u128(2)), (lookup, Uuid::from_u128(3))];
        let shown = flows.map(|(place, flow)| names.name(place, flow));
        let asked = |names: &mut StageNames| {
            let mut transaction = Transaction::new(sb::DATABASE);
            names.ask(|place, flow| flows.contains(&(place, flow)), flows, &mut transaction);
            transaction.to_json().matches("select").count()
        };
        assert_eq!((asked(&mut names), names.is_incomplete()), (2, true));
        names.told(acl, &ids("ls_in_acl"));
        assert_eq!((asked(&mut names), names.is_incomplete()), (1, true));
        names.told(lookup, &Datum::Empty);
        assert_eq!(
            (asked(&mut names), names.is_incomplete()),
            (0, false),
            "a flow without a name is asked no second time"
        );
        assert_eq!(shown.map(|name| name.to_string()), ["ls_in_acl", "ls_in_acl", ""]);
        let _ = names.name((true, Pipeline::Ingress, 0), Uuid::from_u128(4));
        assert_eq!((asked(&mut names), names.is_incomplete()), (0, false), "there is no flow that could be asked");
    }

    #[test]
    fn where_a_flow_is_gone_another_one_is_asked() {
        let mut names = StageNames::default();
        let place = (false, Pipeline::Ingress, 8);
        let _ = names.name(place, Uuid::from_u128(1));
        let asked = |names: &mut StageNames, there: &[u128]| {
            let mut transaction = Transaction::new(sb::DATABASE);
            let flows: Vec<(Place, Uuid)> = there.iter().map(|flow| (place, Uuid::from_u128(*flow))).collect();
            names.ask(|place, flow| flows.contains(&(place, flow)), flows.clone(), &mut transaction);
            transaction.to_json()
        };
        let is_asked = |json: &str, flow: u128| json.contains(&Uuid::from_u128(flow).to_string());
        let first = asked(&mut names, &[2, 1]);
        assert!(is_asked(&first, 1) && !is_asked(&first, 2), "{first}");
        let second = asked(&mut names, &[3, 2]);
        assert!(is_asked(&second, 3) && !is_asked(&second, 1), "{second}");
        let third = asked(&mut names, &[2, 3]);
        assert!(is_asked(&third, 3) && !is_asked(&third, 2), "the place is known by another flow now: {third}");
    }

    #[test]
    fn names_stay_until_another_northd_has_told_its_own() {
        let mut names = StageNames::default();
        let place = (true, Pipeline::Egress, 3);
        let shown = names.name(place, Uuid::from_u128(1));
        names.told(place, &ids("lr_out_snat"));
        names.ask_anew();
        assert_eq!((names.is_incomplete(), shown.to_string()), (true, "lr_out_snat".to_owned()));
        names.told(place, &ids("lr_out_post_snat"));
        assert_eq!((names.is_incomplete(), shown.to_string()), (false, "lr_out_post_snat".to_owned()));
    }
}

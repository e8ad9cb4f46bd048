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

#[derive(Debug, Default)]
struct Stage {
    name: StageName,
    is_told: bool,
}

impl StageNames {
    /// The name of a place, which may be told later.
    pub fn name(&mut self, place: Place) -> StageName {
        let untold = &mut self.untold;
        let stage = self.stages.entry(place).or_insert_with(|| {
            *untold += 1;
            Stage::default()
        });
        stage.name.clone()
    }

    /// Whether there are places whose name nobody has told.
    pub fn is_incomplete(&self) -> bool {
        self.untold > 0
    }

    /// Asks, for each place without a name, one of the flows there; `flows` are all there are. Places that have none any more are forgotten.
    pub fn ask(&mut self, flows: impl IntoIterator<Item = (Place, Uuid)>, transaction: &mut Transaction) {
        let untold = self.stages.iter().filter(|(_, stage)| !stage.is_told);
        let mut left: HashSet<Place> = untold.map(|(place, _)| *place).collect();
        for (place, flow) in flows {
            if left.is_empty() {
                break;
            }
            if left.remove(&place) {
                transaction.select(flow, column());
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
        let shown = [names.name(acl), names.name(acl), names.name(lookup)];
        let flows = [(acl, Uuid::from_u128(1)), (acl, Uuid::from_u128(2)), (lookup, Uuid::from_u128(3))];
        let asked = |names: &mut StageNames| {
            let mut transaction = Transaction::new(sb::DATABASE);
            names.ask(flows, &mut transaction);
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
        let _ = names.name((true, Pipeline::Ingress, 0));
        assert_eq!((asked(&mut names), names.is_incomplete()), (0, false), "there is no flow that could be asked");
    }

    #[test]
    fn names_stay_until_another_northd_has_told_its_own() {
        let mut names = StageNames::default();
        let place = (true, Pipeline::Egress, 3);
        let shown = names.name(place);
        names.told(place, &ids("lr_out_snat"));
        names.ask_anew();
        assert_eq!((names.is_incomplete(), shown.to_string()), (true, "lr_out_snat".to_owned()));
        names.told(place, &ids("lr_out_post_snat"));
        assert_eq!((names.is_incomplete(), shown.to_string()), (false, "lr_out_post_snat".to_owned()));
    }
}

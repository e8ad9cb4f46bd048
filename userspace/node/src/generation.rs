//! When a generation of the northbound configuration may be reported as installed here.

use crate::rows::{ChassisPrivate, SbGlobal, is_not_false};

/// What the report depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every row that was received is in the dataplane, acknowledged.
    pub is_programmed: bool,
    /// The server has answered every request for rows.
    pub has_all_rows: bool,
    /// A VIF whose device exists is still on its way.
    pub vif_under_way: bool,
    /// The Chassis row exists.
    pub is_registered: bool,
}

/// What was reported, and the delay that people asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// Seconds by which reports are held back (`debug/delay-nb-cfg-report`).
    pub delay_s: u64,
    ready: Option<(i64, u64)>,
}

/// A report that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Generation.
    pub nb_cfg: i64,
    /// When it was installed, milliseconds since the epoch.
    pub at_ms: u64,
    /// Write Chassis_Private too (`SB_Global.options:enable_chassis_nb_cfg_update` is not false).
    pub southbound: bool,
}

/// The report, or when to ask again (monotonic milliseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing to report.
    No,
    /// Held back until then.
    At(u64),
    /// This.
    Now(Report),
}

impl Generations {
    /// Looks whether the generation in `global` can be reported now. `noted` is what the integration bridge says (`ovn-nb-cfg`).
    pub fn due(
        &mut self,
        global: &SbGlobal,
        private: Option<&ChassisPrivate>,
        noted: Option<i64>,
        progress: Progress,
        now_ms: u64,
        wall_ms: u64,
    ) -> Due {
        let southbound = is_not_false(global.options.get("enable_chassis_nb_cfg_update"));
        let behind =
            noted != Some(global.nb_cfg) || (southbound && private.is_some_and(|row| row.nb_cfg != global.nb_cfg));
        let ready =
            progress.is_programmed && progress.has_all_rows && !progress.vif_under_way && progress.is_registered;
        if !behind {
            self.ready = None;
            return Due::No;
        }
        if !ready {
            return Due::No;
        }
        let since = match self.ready {
            Some((nb_cfg, since)) if nb_cfg == global.nb_cfg => since,
            _ => {
                self.ready = Some((global.nb_cfg, now_ms));
                now_ms
            }
        };
        let until = since + self.delay_s * 1000;
        if now_ms < until {
            return Due::At(until);
        }
        Due::Now(Report { nb_cfg: global.nb_cfg, at_ms: wall_ms, southbound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Progress =
        Progress { is_programmed: true, has_all_rows: true, vif_under_way: false, is_registered: true };

    fn global(nb_cfg: i64) -> SbGlobal {
        SbGlobal { nb_cfg, ..Default::default() }
    }

    #[test]
    fn a_generation_is_reported_once_everything_of_it_is_in() {
        let mut generations = Generations::default();
        let private = ChassisPrivate { nb_cfg: 3, ..Default::default() };
        for hole in [
            Progress { is_programmed: false, ..READY },
            Progress { has_all_rows: false, ..READY },
            Progress { vif_under_way: true, ..READY },
            Progress { is_registered: false, ..READY },
        ] {
            assert_eq!(generations.due(&global(4), Some(&private), Some(3), hole, 5, 50), Due::No, "{hole:?}");
        }
        let due = generations.due(&global(4), Some(&private), Some(3), READY, 5, 50);
        assert_eq!(due, Due::Now(Report { nb_cfg: 4, at_ms: 50, southbound: true }));
        let private = ChassisPrivate { nb_cfg: 4, ..Default::default() };
        assert_eq!(generations.due(&global(4), Some(&private), Some(4), READY, 5, 50), Due::No);
    }

    #[test]
    fn an_existing_vif_holds_the_report_back() {
        let mut generations = Generations::default();
        let under_way = Progress { vif_under_way: true, ..READY };
        assert_eq!(generations.due(&global(1), None, None, under_way, 0, 0), Due::No);
        assert!(matches!(generations.due(&global(1), None, None, READY, 0, 0), Due::Now(_)));
    }

    #[test]
    fn the_southbound_report_can_be_switched_off() {
        let mut generations = Generations::default();
        let mut off = global(4);
        off.options.insert("enable_chassis_nb_cfg_update".into(), "false".into());
        let private = ChassisPrivate { nb_cfg: 3, ..Default::default() };
        let due = generations.due(&off, Some(&private), Some(3), READY, 0, 9);
        assert_eq!(due, Due::Now(Report { nb_cfg: 4, at_ms: 9, southbound: false }));
        assert_eq!(generations.due(&off, Some(&private), Some(4), READY, 0, 9), Due::No);
    }

    #[test]
    fn a_delay_that_was_asked_for_is_kept() {
        let mut generations = Generations { delay_s: 2, ..Default::default() };
        assert_eq!(generations.due(&global(4), None, None, READY, 1000, 0), Due::At(3000));
        assert_eq!(generations.due(&global(4), None, None, READY, 2999, 0), Due::At(3000));
        assert!(matches!(generations.due(&global(4), None, None, READY, 3000, 0), Due::Now(_)));
        assert_eq!(generations.due(&global(5), None, None, READY, 3000, 0), Due::At(5000));
    }
}

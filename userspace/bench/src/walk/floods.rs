//! Many flows.
use super::rig::Rig;
use crate::session::Session;
use anyhow::Result;

/// Frames that the table must hold.
pub(super) fn frames(flows: u32, verdicts: u32) -> usize {
    flows.max(verdicts * 2) as usize
}

pub(super) fn run(_session: &mut Session, _rig: &mut Rig, _many: u32, _verdicts: u32) -> Result<()> {
    Ok(())
}

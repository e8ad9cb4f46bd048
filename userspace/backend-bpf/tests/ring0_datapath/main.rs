//! Ring 0: the kernel programs, loaded, with maps filled by hand, run by BPF_PROG_TEST_RUN and, where a copy really leaves, seen on the wire.
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]

mod costs;
mod empty;
mod fanout;
mod forwarding;
mod operations;
mod packets;
mod parsing;
mod rig;
mod tunnels;

use rig::Rig;

#[test]
fn the_programs_load() {
    let _rig = Rig::new();
}

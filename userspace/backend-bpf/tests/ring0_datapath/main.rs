//! Ring 0: the kernel programs, loaded, with maps filled by hand, run by BPF_PROG_TEST_RUN and, where a copy really leaves, seen on the wire.
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]

mod costs;
mod empty;
mod exact;
mod fanout;
mod forwarding;
mod monitor;
mod operations;
mod packets;
mod parsing;
mod rig;
mod tunnels;

use rig::Rig;

/// The verifier's limit is a million; what is far below it stays loadable on kernels that look at more states.
#[test]
fn the_programs_load_with_little_work_for_the_verifier() {
    let rig = Rig::new();
    for program in ["oxbow_vif", "oxbow_underlay"] {
        let verified = rig.verified(program);
        println!("{program}: {verified} instructions verified");
        assert!(verified < 150_000, "{program}: {verified}");
    }
}

//! `oxbow-northd`: the daemon around the northd library. It takes ovn-northd(8)'s options, files and appctl commands, and
//! under the name `ovn-northd` (a link) its names too.

mod daemon;

use std::process::ExitCode;

use oxbow_daemon::{Daemon, Dirs, Identity, Role, options};

use daemon::Options;

fn main() -> ExitCode {
    let identity = Identity::of_process(Role::Northd);
    let options: Options = options::parse(&identity, |options: &Options| &options.daemon.information);
    let dirs = Dirs::from_env();
    let mut shell =
        Daemon::start_or_exit(identity, dirs, &options.daemon, daemon::LOG_MODULES, daemon::FOREIGN_LOG_MODULES);
    // One thread for the event loop, one beside it that keeps answering appctl and database probes while it computes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(target: "ovn_northd", "could not start the runtime ({error})");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(daemon::run(&mut shell, &options));
    runtime.shutdown_background();
    match ended {
        Ok(why) => shell.finish(why),
        Err(error) => {
            tracing::error!(target: "ovn_northd", "{error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `oxbow-node`, or, started under that name, `ovn-controller`.

use oxbow_daemon::{Daemon, Dirs, Identity, Role, options};
use oxbow_node::daemon::{FOREIGN_MODULES, MODULES, Options, run};
use oxbow_node::export;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == export::WORD) {
        return export::main(std::env::args_os().skip(2));
    }
    let identity = Identity::of_process(Role::Controller);
    let options: Options = options::parse(&identity, |options: &Options| &options.daemon.information);
    let daemon = Daemon::start_or_exit(identity, Dirs::from_env(), &options.daemon, MODULES, FOREIGN_MODULES);
    match run(daemon, &options) {
        Ok((daemon, why)) => daemon.finish(why),
        Err(error) => {
            tracing::error!(target: "main", "{error:#}");
            ExitCode::FAILURE
        }
    }
}

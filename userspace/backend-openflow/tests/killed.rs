//! What a process that was killed leaves behind: no `ovs-ofctl` that commits what the dead one wished beside the next one's flows, and no files.

use oxbow_backend_openflow::{OvsOfctl, Switch as _};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::wait_until;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

/// Makes this test the process that is going to be killed: the directory of its command.
const DIRECTORY: &str = "OXBOW_TEST_OF_A_KILLED_PROCESS";

/// Says who it is when it runs and has its lines, and ends with its directory.
const OFCTL: &str = r#"#!/bin/sh
cat > "$DIRECTORY/lines"
echo $$ > "$DIRECTORY/new"
mv "$DIRECTORY/new" "$DIRECTORY/pid"
while test -e "$DIRECTORY/pid"; do sleep 0.1; done
"#;

/// The state letter of a process (proc(5)), none when there is no such process.
fn state(pid: &str) -> Option<char> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_command_ends_with_the_process_that_started_it_and_leaves_no_file() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        let program = Path::new(&directory).join("ovs-ofctl");
        let result = OvsOfctl::with_program(program, "br-int").bundle(&["flow delete".to_owned()]);
        panic!("the command ended before its process: {result:?}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("ovs-ofctl"), OFCTL.replace("$DIRECTORY", &directory.path().display().to_string())).expect("written");
    fs::set_permissions(at("ovs-ofctl"), fs::Permissions::from_mode(0o755)).expect("executable");
    fs::create_dir(at("tmp")).expect("a directory");
    let mut process = Command::new(env::current_exe().expect("this program's file"))
        .args(["--exact", "a_command_ends_with_the_process_that_started_it_and_leaves_no_file"])
        .env(DIRECTORY, directory.path())
        .env("TMPDIR", at("tmp"))
        // What its runner says is not ours to say.
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let started = wait_until("the command runs", PATIENCE, || {
        Ok(match fs::read_to_string(at("pid")) {
            Ok(pid) => Look::Held(pid.trim().to_owned()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    });
    // SIGKILL; whatever came of the command.
    process.kill().expect("it is killed");
    process.wait().expect("it ends");
    let pid = started.expect("the command runs");
    assert_eq!(fs::read_to_string(at("lines")).expect("its lines"), "flow delete\n");
    wait_until("the command has ended, too", PATIENCE, || {
        let state = state(&pid);
        Ok(Look::when(matches!(state, None | Some('Z' | 'X')), || format!("process {pid} is in state {state:?}")))
    })
    .expect("ended");
    let left: Vec<_> = fs::read_dir(at("tmp")).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}

//! Building what runs in the machines.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace};

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }
}

/// An executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Executable {
    /// Of the binary or the test.
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// How cargo optimises what it builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// Not at all, with debug assertions: as `cargo xtask test` has built it already.
    Dev,
    /// As `cargo xtask bench` has built it: several times fewer instructions for a translated processor. Debug assertions are left out; the
    /// same tests run with them on this machine.
    Release,
}

/// Builds with cargo, as `arguments` say, and returns the executables among what was built, in order of their names.
pub(super) fn build(arguments: &[&str], profile: Profile) -> Result<Vec<Executable>> {
    let mut command = process::cargo();
    command
        .current_dir(workspace::root())
        .args(arguments)
        .args(["--locked", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    println!("building ({}): cargo {}", profile.name(), arguments.join(" "));
    // Diagnostics go to standard error as they come.
    command.stdout(std::process::Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start `{}`", process::line(&command)))?;
    let output = child.wait_with_output().with_context(|| format!("cannot wait for `{}`", process::line(&command)))?;
    ensure!(output.status.success(), "`{}` failed: {}", process::line(&command), output.status);
    let mut found = executables(&String::from_utf8_lossy(&output.stdout))?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Builds one binary of one package.
pub(super) fn binary(package: &str, name: &str, profile: Profile) -> Result<PathBuf> {
    let built = build(&["build", "--package", package, "--bin", name], profile)?;
    let found = built.into_iter().find(|executable| executable.name == name);
    Ok(found.with_context(|| format!("{package} has no binary {name}"))?.path)
}

/// Reads cargo's messages, one JSON object a line.
fn executables(messages: &str) -> Result<Vec<Executable>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's message is not JSON")?;
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str()) {
            found.push(Executable { name: name.to_owned(), path: path.into() });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargo_s_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"y"},"executable":"/t/y-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#
        );
        assert_eq!(executables(messages).unwrap(), [Executable { name: "y".to_owned(), path: "/t/y-1".into() }]);
    }
}

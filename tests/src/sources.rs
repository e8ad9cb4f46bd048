//! The files of the checkout, for the tests that read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use oxbow_testkit::artifacts::workspace_root;
use serde_json::Value;

/// A text file of the checkout.
#[derive(Debug)]
pub struct Source {
    /// Its path below the root, with `/`.
    pub path: String,
    /// Its contents.
    pub text: String,
}

impl Source {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its lines with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Its lines that are not comments, with their numbers from 1.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Directories that hold nothing anybody wrote.
const NOT_SOURCE: &[&str] = &["target", ".git"];

/// Every text file of the checkout that a person wrote, in order of paths. Generated lock files are left out.
pub fn sources() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    walk(workspace_root(), &mut found)?;
    found.sort();
    let mut sources = Vec::new();
    for path in found {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // What is not UTF-8 is not text.
        if let Ok(text) = String::from_utf8(bytes) {
            let path = path.strip_prefix(workspace_root())?.to_string_lossy().into_owned();
            sources.push(Source { path, text });
        }
    }
    if sources.len() < 20 {
        bail!("only {} files found below {}", sources.len(), workspace_root().display());
    }
    Ok(sources)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let name = name.to_string_lossy();
        if kind.is_dir() && !NOT_SOURCE.contains(&name.as_ref()) {
            walk(&entry.path(), found)?;
        } else if kind.is_file() && name != "Cargo.lock" && name != ".git" {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// What cargo says about the workspace whose manifest is at `manifest` (below the root).
pub fn cargo_metadata(manifest: &str, arguments: &[&str]) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--locked", "--manifest-path"]);
    command.arg(workspace_root().join(manifest)).args(arguments);
    let output = command.output().context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata for {manifest}: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

/// Fails with all `complaints` at once, so that one run shows everything that is to be done.
///
/// # Panics
///
/// When there are any.
#[track_caller]
pub fn no_complaints(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}\n{} times broken:\n  {}\n", complaints.len(), complaints.join("\n  "));
}

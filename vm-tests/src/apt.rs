//! Debian's archive, read through an apt of its own: no line in `/etc/apt` and no list in `/var/lib/apt` changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use oxbow_testkit::process::{checked, line};

/// The keys that sign Debian's archive (package debian-archive-keyring, essential in practice).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of the mirror that this machine's apt is configured with, e.g. `bookworm-backports`.
#[derive(Debug)]
pub struct Suite {
    name: String,
    root: PathBuf,
}

impl Suite {
    /// Fetches the suite's package list into `root`, a directory of its own.
    ///
    /// # Errors
    ///
    /// When the machine's apt knows no Debian mirror, or the mirror has no such suite, or cannot be reached.
    pub fn open(name: &str, root: &Path) -> Result<Self> {
        for dir in ["state/lists/partial", "cache/archives/partial"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let sources = root.join("sources.list");
        let text = format!("deb {signed}{} {name} main\n", mirror()?);
        fs::write(&sources, text).with_context(|| format!("cannot write {}", sources.display()))?;
        let suite = Self { name: name.to_owned(), root: root.to_owned() };
        // Errors of fetching are warnings to apt-get, unless told otherwise.
        tool(suite.command("apt-get").args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]))
            .with_context(|| format!("the package list of {name} cannot be had"))?;
        Ok(suite)
    }

    /// What `package` depends on first: what a meta-package stands for.
    pub fn first_dependency(&self, package: &str) -> Result<String> {
        let text = tool(self.command("apt-cache").args(["depends", package]))
            .with_context(|| format!("{} has no {package}", self.name))?;
        let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let found = found.with_context(|| format!("{package} of {} depends on nothing:\n{text}", self.name))?;
        Ok(found.trim().to_owned())
    }

    /// Fetches a package into `dir` and returns its file.
    pub fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        tool(self.command("apt-get").args(["-q", "download", package]).current_dir(dir))?;
        let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                return Ok(path);
            }
        }
        bail!("apt-get download {package} left nothing in {}", dir.display())
    }

    /// A command of apt's that sees this suite only and writes below the root only.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        for option in [
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State={root}/state"),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={root}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // The directories are below the target directory, where apt's unprivileged user need not get to.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// The mirror that the machine's apt has Debian itself from (not its security updates, nor other vendors' packages).
fn mirror() -> Result<String> {
    let format = "$(REPO_URI) $(ORIGIN)|$(LABEL)";
    let text = tool(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    choose_mirror(&text).map(str::to_owned).with_context(|| {
        format!("apt knows no mirror of Debian (`apt-get update` first, or give a kernel's package with --kernel FILE):\n{text}")
    })
}

fn choose_mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_suffix(" Debian|Debian"))
}

fn tool(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    checked(&line, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debian_s_own() {
        let targets =
            "http://a/security/ Debian|Debian-Security\nhttp://b/x/ Somebody|Debian\nhttp://c/debian/ Debian|Debian\n";
        assert_eq!(choose_mirror(targets), Some("http://c/debian/"));
        assert_eq!(choose_mirror("http://b/x/ Ubuntu|Ubuntu\n"), None);
    }
}

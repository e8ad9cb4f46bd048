//! The files of a guest: what its initramfs holds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::artifacts::require_program;
use oxbow_testkit::process::{checked, line};

use crate::initramfs::Initramfs;
use crate::kernel::Module;

/// A file system to be: paths without the leading slash, parents made as needed.
#[derive(Debug, Default)]
pub struct GuestRoot {
    entries: BTreeMap<String, Entry>,
    modules: usize,
}

#[derive(Debug)]
enum Entry {
    Directory,
    File { permissions: u32, contents: Vec<u8> },
    Symlink(String),
}

/// Directories that every guest has, most of them to mount something on.
const DIRECTORIES: &[&str] = &["dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "var/tmp", "usr/sbin"];

/// Names that programs look up; Debian's tcpdump wants to become its user.
const ETC: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/:/bin/sh\ntcpdump:x:100:100::/:/bin/false\n"),
    ("etc/group", "root:x:0:\ntcpdump:x:100:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

impl GuestRoot {
    /// busybox, `/init` and what belongs to them.
    pub fn new() -> Result<Self> {
        let mut root = Self::default();
        for name in DIRECTORIES {
            root.directory(name);
        }
        root.file("bin/busybox", 0o755, read(&require_program("busybox")?)?);
        root.file("init", 0o755, include_bytes!("init.sh").to_vec());
        for (name, contents) in ETC {
            root.file(name, 0o644, contents.as_bytes().to_vec());
        }
        Ok(root)
    }

    /// Adds a directory.
    pub fn directory(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
        self.entries.entry(name.to_owned()).or_insert(Entry::Directory);
    }

    /// Adds a file with these permission bits.
    pub fn file(&mut self, name: &str, permissions: u32, contents: Vec<u8>) {
        self.add(name, Entry::File { permissions, contents });
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &str) {
        self.add(name, Entry::Symlink(target.to_owned()));
    }

    fn add(&mut self, name: &str, entry: Entry) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
        self.entries.insert(name.to_owned(), entry);
    }

    /// Adds a file of this machine under another name, with its permissions.
    pub fn copy_as(&mut self, source: &Path, name: &str) -> Result<()> {
        let metadata = fs::metadata(source).with_context(|| format!("cannot look at {}", source.display()))?;
        self.file(name, metadata.permissions().mode() & 0o777, read(source)?);
        Ok(())
    }

    /// Adds a file of this machine (or what a link leads to) under its own name.
    pub fn copy(&mut self, source: &Path) -> Result<()> {
        let name = inside(source)?;
        self.copy_as(source, &name)
    }

    /// Adds an installed program with the libraries it needs, all under their own names.
    pub fn program(&mut self, name: &str) -> Result<()> {
        let path = require_program(name)?;
        let inside = inside(&path)?;
        self.executable(&path, &inside)
    }

    /// Adds an installed program under another name, with the libraries it needs. busybox's shell takes its own `ip`, whatever `PATH` says: scripts that mean the
    /// real one call it by a name of its own.
    pub fn program_as(&mut self, name: &str, inside: &str) -> Result<()> {
        self.executable(&require_program(name)?, inside)
    }

    /// Adds an executable that was built here: without its debugging information, and with the libraries it needs.
    pub fn built(&mut self, source: &Path, name: &str) -> Result<()> {
        let stripped = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        let mut command = Command::new("strip");
        command.arg("--strip-debug").arg("-o").arg(stripped.path()).arg(source);
        let line = line(&command);
        checked(&line, command.output().with_context(|| format!("cannot start `{line}`"))?)?;
        self.executable(source, name)?;
        self.file(name, 0o755, read(stripped.path())?);
        Ok(())
    }

    fn executable(&mut self, source: &Path, name: &str) -> Result<()> {
        self.copy_as(source, name)?;
        for library in libraries(source)? {
            if !self.entries.contains_key(&inside(&library)?) {
                self.copy(&library)?;
            }
        }
        Ok(())
    }

    /// Adds modules, which `/init` inserts in this order.
    pub fn modules(&mut self, modules: &[Module]) {
        for module in modules {
            self.modules += 1;
            self.file(&format!("modules/{:03}-{}.ko", self.modules, module.name), 0o644, module.contents.clone());
        }
    }

    /// The archive that the kernel unpacks.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Initramfs::new(Vec::new());
        // In the order of names a directory comes before what is in it.
        for (name, entry) in &self.entries {
            match entry {
                Entry::Directory => archive.directory(name)?,
                Entry::File { permissions, contents } => archive.file(name, *permissions, contents)?,
                Entry::Symlink(target) => archive.symlink(name, target)?,
            }
        }
        archive.character_device("dev/console", 5, 1)?;
        Ok(archive.finish()?)
    }
}

/// What a dynamic executable needs, the loader included, as this machine's loader finds it. Empty for static ones.
fn libraries(executable: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("ldd");
    command.arg(executable).env("LC_ALL", "C");
    let line = line(&command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    read_ldd(&checked(&line, output)?).with_context(|| format!("`{line}`"))
}

/// Reads `ldd`'s lines: `libm.so.6 => /lib/…/libm.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, `linux-vdso.so.1 (0x…)`, `statically linked`.
fn read_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        ensure!(!line.contains("not found"), "a library is missing: {}", line.trim());
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        if let Some(path) = path.split(" (").next().filter(|path| path.starts_with('/')) {
            found.push(path.into());
        }
    }
    Ok(found)
}

/// An absolute path as the archive names it.
fn inside(path: &Path) -> Result<String> {
    let name = path.strip_prefix("/").with_context(|| format!("{} is not an absolute path", path.display()))?;
    Ok(name.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_comes_with_its_libraries_and_their_directories() {
        let mut root = GuestRoot::default();
        root.program("tc").unwrap();
        let loaders: Vec<&String> = root.entries.keys().filter(|name| name.contains("/ld-linux")).collect();
        assert_eq!(loaders.len(), 1, "{:?}", root.entries.keys());
        assert!(root.entries.keys().any(|name| name.ends_with("/libc.so.6")));
        for name in root.entries.keys() {
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(matches!(root.entries[parent], Entry::Directory), "{parent}");
            }
        }
    }

    #[test]
    fn libraries_are_read_off_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(read_ldd(text).unwrap(), [PathBuf::from("/lib/x/libm.so.6"), "/lib64/ld.so".into()]);
        assert!(read_ldd("\tstatically linked\n").unwrap().is_empty());
        assert!(read_ldd("\tlibx.so => not found\n").is_err());
    }
}

//! Debian's kernels, unpacked from their packages without being installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use oxbow_testkit::artifacts::target_dir;
use oxbow_testkit::process::{checked, line};

/// The package that depends on the current kernel of the distribution.
const META_PACKAGE: &str = "linux-image-amd64";

/// An unpacked kernel with its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The compressed image, as QEMU's `-kernel` takes it.
    pub image: PathBuf,
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// Every module by name, with `_` for `-`.
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Debian's current kernel, fetched by apt-get the first time (70 MB).
    pub fn debian() -> Result<Self> {
        let package = current_package()?;
        let dir = target_dir().join("vm").join(&package);
        if !dir.exists() {
            unpack(&package, &dir)?;
        }
        Self::at(&dir)
    }

    /// The kernel below a directory into which a package was unpacked.
    fn at(dir: &Path) -> Result<Self> {
        let boot = dir.join("boot");
        let mut images = names(&boot)?.into_iter().filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
        let release = images.next().with_context(|| format!("no kernel in {}", boot.display()))?;
        let mut modules = BTreeMap::new();
        // Debian 13 moved /lib into /usr.
        for lib in ["lib/modules", "usr/lib/modules"] {
            let root = dir.join(lib).join(&release).join("kernel");
            if root.exists() {
                find_modules(&root, &mut modules)?;
            }
        }
        Ok(Self { image: boot.join(format!("vmlinuz-{release}")), release, modules })
    }

    /// The files of the modules `names` and of all they depend on, in an order in which they can be inserted.
    ///
    /// # Errors
    ///
    /// When a module is not there, or is compressed in a way that the kernel's `insmod` does not take.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut ordered = Vec::new();
        for name in names {
            self.insert(name, &mut ordered, 0)?;
        }
        Ok(ordered)
    }

    fn insert(&self, name: &str, ordered: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
        let file = self.modules.get(name).with_context(|| format!("kernel {} has no module {name}", self.release))?;
        if ordered.contains(file) {
            return Ok(());
        }
        if depth > 32 {
            bail!("module {name} depends on itself");
        }
        let contents = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for dependency in dependencies(&contents) {
            self.insert(&dependency, ordered, depth + 1)?;
        }
        ordered.push(file.clone());
        Ok(())
    }
}

/// The names in the field `depends=` of a module's `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find_modules(dir: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for name in names(dir)? {
        let path = dir.join(&name);
        if path.is_dir() {
            find_modules(&path, modules)?;
        } else if let Some(module) = name.strip_suffix(".ko") {
            modules.insert(module.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The package that holds the kernel itself.
fn current_package() -> Result<String> {
    let text = tool(Command::new("apt-cache").args(["depends", META_PACKAGE]))?;
    let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let found = found.with_context(|| format!("{META_PACKAGE} depends on nothing: `apt-get update` first?\n{text}"))?;
    Ok(found.trim().to_owned())
}

/// Fetches a package and unpacks it into `dir`, which appears only when it is complete.
fn unpack(package: &str, dir: &Path) -> Result<()> {
    let parent = dir.parent().context("a directory without a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let work = tempfile::Builder::new().prefix("unpacking-").tempdir_in(parent);
    let work = work.with_context(|| format!("cannot make a directory in {}", parent.display()))?;
    tool(Command::new("apt-get").args(["download", "-q", package]).current_dir(work.path()))?;
    let archive = names(work.path())?.into_iter().find(|name| name.ends_with(".deb"));
    let archive = archive.with_context(|| format!("apt-get download {package} left nothing"))?;
    let root = work.path().join("root");
    tool(Command::new("dpkg-deb").arg("-x").arg(work.path().join(archive)).arg(&root))?;
    fs::rename(&root, dir).with_context(|| format!("cannot move the kernel to {}", dir.display()))
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
    fn dependencies_are_read_from_modinfo() {
        let module = b"ELF...\0license=GPL\0depends=virtio_ring,virtio,net-failover\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["virtio_ring", "virtio", "net_failover"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("lib/modules/6.1/kernel/net");
        fs::create_dir_all(&kernel).unwrap();
        fs::create_dir_all(dir.path().join("boot")).unwrap();
        fs::write(dir.path().join("boot/vmlinuz-6.1"), "").unwrap();
        for (name, contents) in [("a-b", "\0depends=c\0"), ("c", "\0depends=\0"), ("d", "\0depends=a-b,c\0")] {
            fs::write(kernel.join(format!("{name}.ko")), contents).unwrap();
        }
        let kernel = Kernel::at(dir.path()).unwrap();
        assert_eq!(kernel.release, "6.1");
        let order = kernel.modules(&["d", "a_b"]).unwrap();
        let order: Vec<_> = order.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
        assert_eq!(order, ["c", "a-b", "d"]);
        assert!(format!("{:#}", kernel.modules(&["nosuch"]).unwrap_err()).contains("nosuch"));
    }
}

//! Debian's kernels, unpacked from their packages without being installed.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::artifacts::{require_program, target_dir};
use oxbow_testkit::process::{checked, line};

use crate::apt::Suite;

/// The package that depends on the current kernel of a suite.
const META_PACKAGE: &str = "linux-image-amd64";

/// Which kernel a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Debian 12's own: Linux 6.1, the oldest that Oxbow supports.
    Stable,
    /// A newer one that Debian has for Debian 12 (backports), else that of the next release.
    Newer,
    /// That of a suite, e.g. `sid`.
    Suite(String),
    /// A kernel package (`….deb`), a directory into which one was unpacked, or an image with its modules where such a package puts
    /// them (`D/boot/vmlinuz-R` and `D/lib/modules/R`, so `/boot/vmlinuz-R` too).
    File(PathBuf),
}

impl FromStr for Choice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "6.1" => Self::Stable,
            "new" => Self::Newer,
            file if file.contains('/') || file.contains(".deb") || Path::new(file).exists() => Self::File(file.into()),
            suite => Self::Suite(suite.to_owned()),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str("6.1"),
            Self::Newer => f.write_str("new"),
            Self::Suite(suite) => f.write_str(suite),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

/// An unpacked kernel with its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The compressed image, as QEMU's `-kernel` takes it.
    pub image: PathBuf,
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// Every module by name, with `_` for `-`.
    modules: BTreeMap<String, PathBuf>,
    /// Names of modules that are part of the image.
    builtin: BTreeSet<String>,
}

/// A module to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// The object, not compressed.
    pub contents: Vec<u8>,
}

impl Kernel {
    /// The kernel that was chosen, fetched by apt-get the first time (70 to 110 MB) and then kept below the target directory.
    ///
    /// # Errors
    ///
    /// When it cannot be had; the error says from where it was tried.
    pub fn find(choice: &Choice) -> Result<Self> {
        let suites: &[&str] = match choice {
            Choice::Stable => &["bookworm"],
            Choice::Newer => &["bookworm-backports", "trixie"],
            Choice::Suite(suite) => &[suite],
            Choice::File(file) => return Self::of_file(file),
        };
        let kept = target_dir().join("vm").join(format!("kernel-{choice}"));
        if !kept.exists() {
            fetch(suites, &kept).with_context(|| format!("kernel {choice} cannot be had"))?;
        }
        Self::at(&kept, None)
    }

    fn of_file(file: &Path) -> Result<Self> {
        ensure!(file.exists(), "{} does not exist", file.display());
        if file.is_dir() {
            return Self::at(file, None);
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some(stem) = name.strip_suffix(".deb") {
            let kept = target_dir().join("vm").join(stem);
            if !kept.exists() {
                unpack(&kept, |_| Ok(file.to_owned()))?;
            }
            return Self::at(&kept, None);
        }
        let root = file.parent().and_then(Path::parent);
        let (Some(release), Some(root)) = (name.strip_prefix("vmlinuz-"), root) else {
            bail!("{}: neither a package (.deb) nor an image named vmlinuz-RELEASE in a directory boot", file.display())
        };
        Self::at(root, Some(release))
    }

    /// The kernel (of a release, or the only one) below a directory into which a package was unpacked.
    fn at(dir: &Path, release: Option<&str>) -> Result<Self> {
        let boot = dir.join("boot");
        let release = match release {
            Some(release) => release.to_owned(),
            None => {
                let mut images =
                    names(&boot)?.into_iter().filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
                images.next().with_context(|| format!("no kernel in {}", boot.display()))?
            }
        };
        let (mut modules, mut builtin) = (BTreeMap::new(), BTreeSet::new());
        // Debian 13 moved /lib into /usr.
        for lib in ["lib/modules", "usr/lib/modules"] {
            let root = dir.join(lib).join(&release);
            if root.join("kernel").exists() {
                find_modules(&root.join("kernel"), &mut modules)?;
                // Lines such as `kernel/net/core/failover.ko`.
                let list = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
                builtin.extend(list.lines().filter_map(|line| module_name(line.rsplit('/').next()?)));
            }
        }
        Ok(Self { image: boot.join(format!("vmlinuz-{release}")), release, modules, builtin })
    }

    /// The numbers of its release: `(6, 1)`.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// The modules `names` and all they depend on, in an order in which they can be inserted. Those that are built in are left out.
    ///
    /// # Errors
    ///
    /// When a module is not there, or cannot be decompressed.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut ordered = Vec::new();
        for name in names {
            self.insert(name, &mut ordered, 0)?;
        }
        Ok(ordered)
    }

    fn insert(&self, name: &str, ordered: &mut Vec<Module>, depth: usize) -> Result<()> {
        if self.builtin.contains(name) || ordered.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let file = self.modules.get(name).with_context(|| format!("kernel {} has no module {name}", self.release))?;
        if depth > 32 {
            bail!("module {name} depends on itself");
        }
        let contents = read_module(file)?;
        for dependency in dependencies(&contents) {
            self.insert(&dependency, ordered, depth + 1)?;
        }
        // `pre: crc32c` is an algorithm that the module asks the kernel's crypto for; the plain implementation of it will do.
        for wanted in wanted_before(&contents) {
            let names = [wanted.clone(), format!("{wanted}_generic")];
            if let Some(name) = names.iter().find(|name| self.modules.contains_key(*name)) {
                self.insert(name, ordered, depth + 1)?;
            }
        }
        ordered.push(Module { name: name.to_owned(), contents });
        Ok(())
    }
}

/// A module's object. Debian's newer kernels have them compressed, and their loader in the guest should not have to know.
fn read_module(file: &Path) -> Result<Vec<u8>> {
    let contents = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if file.extension().is_none_or(|extension| extension != "xz") {
        return Ok(contents);
    }
    let mut command = Command::new(require_program("busybox")?);
    command.args(["unxz", "-c"]).arg(file);
    let line = line(&command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The names in the field `depends=` of a module's `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    let value = modinfo(module, b"\0depends=").unwrap_or_default();
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The names that its first `softdep=` wants before it: `pre: a b post: c`.
fn wanted_before(module: &[u8]) -> Vec<String> {
    let value = modinfo(module, b"\0softdep=").unwrap_or_default();
    let before = value.split("post:").next().unwrap_or_default().trim().strip_prefix("pre:").unwrap_or_default();
    before.split_whitespace().map(|name| name.replace('-', "_")).collect()
}

/// The value of a field, whose name is given with the NUL before and the `=` behind it.
fn modinfo(module: &[u8], field: &[u8]) -> Option<String> {
    let at = module.windows(field.len()).position(|window| window == field)?;
    let value = module[at + field.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The module's name if `file` is the name of a module's file.
fn module_name(file: &str) -> Option<String> {
    let name = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

fn find_modules(dir: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for name in names(dir)? {
        let path = dir.join(&name);
        if path.is_dir() {
            find_modules(&path, modules)?;
        } else if let Some(module) = module_name(&name) {
            modules.insert(module, path);
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Fetches the kernel of the first of the suites that has one.
fn fetch(suites: &[&str], kept: &Path) -> Result<()> {
    let mut failures = String::new();
    for suite in suites {
        let fetched = Suite::open(suite, &target_dir().join("vm/apt").join(suite)).and_then(|suite| {
            let package = suite.first_dependency(META_PACKAGE)?;
            unpack(kept, |dir| suite.download(&package, dir))
        });
        match fetched {
            Ok(()) => return Ok(()),
            Err(error) => failures.push_str(&format!("\nfrom {suite}: {error:#}")),
        }
    }
    bail!("tried {}:{failures}", suites.join(", "))
}

/// Unpacks the package whose file `get` returns (it may put it into the directory it is given) into `kept`, which appears
/// only when it is complete.
fn unpack(kept: &Path, get: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<()> {
    let parent = kept.parent().context("a directory without a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let work = tempfile::Builder::new().prefix("unpacking-").tempdir_in(parent);
    let work = work.with_context(|| format!("cannot make a directory in {}", parent.display()))?;
    let package = get(work.path())?;
    let root = work.path().join("root");
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(package).arg(&root);
    let line = line(&command);
    checked(&line, command.output().with_context(|| format!("cannot start `{line}`"))?)?;
    fs::rename(&root, kept).with_context(|| format!("cannot move the kernel to {}", kept.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_as_it_is_written() {
        for text in ["6.1", "new", "sid", "/boot/vmlinuz-6.1", "linux-image_6.deb"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("sid".parse(), Ok(Choice::Suite("sid".to_owned())));
        assert_eq!("x.deb".parse(), Ok(Choice::File("x.deb".into())));
    }

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"ELF...\0license=GPL\0depends=virtio_ring,virtio,net-failover\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["virtio_ring", "virtio", "net_failover"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
        assert_eq!(wanted_before(b"\0softdep=pre: crc32c a-b post: d\0"), ["crc32c", "a_b"]);
        assert!(wanted_before(b"\0softdep=post: d\0").is_empty() && wanted_before(b"").is_empty());
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("lib/modules/6.1-2/kernel/net");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(dir.path().join("boot")).unwrap();
        let image = dir.path().join("boot/vmlinuz-6.1-2");
        fs::write(&image, "").unwrap();
        fs::write(dir.path().join("lib/modules/6.1-2/modules.builtin"), "kernel/net/e-f.ko\n").unwrap();
        for (name, contents) in [("a-b", "\0depends=c,e-f\0"), ("c", "\0depends=\0"), ("d", "\0depends=a-b,c\0")] {
            fs::write(modules.join(format!("{name}.ko")), contents).unwrap();
        }
        for choice in [Choice::File(dir.path().into()), Choice::File(image)] {
            let kernel = Kernel::find(&choice).unwrap();
            assert_eq!((kernel.release.as_str(), kernel.version()), ("6.1-2", (6, 1)));
            let order: Vec<String> =
                kernel.modules(&["d", "a_b"]).unwrap().into_iter().map(|module| module.name).collect();
            assert_eq!(order, ["c", "a_b", "d"]);
            assert!(format!("{:#}", kernel.modules(&["nosuch"]).unwrap_err()).contains("nosuch"));
        }
    }
}

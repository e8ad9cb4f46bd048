//! Runs inside a virtual machine: does this kernel take the programs?
//!
//! `oxbow-vm-probe OBJECT DEVICE` mounts a bpffs, loads the object as the daemon would, says what the verifier and the compiler made of every
//! program, attaches the programs to the device by what the kernel has (tcx or clsact), removes everything again, and prints one
//! line for each.
#![allow(clippy::print_stdout, reason = "what it prints is what the host reads")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use nix::mount::{MsFlags, mount};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use oxbow_backend_bpf::kernel::{Config, HookChoice, Instance, Role, Sizes};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let object = arguments.next().context("the first argument is the object")?;
    let device = arguments.next().context("the second argument is a device")?;
    let bpffs = PathBuf::from("/sys/fs/bpf");
    let none: Option<&str> = None;
    mount(Some("bpffs"), &bpffs, Some("bpf"), MsFlags::empty(), none).context("cannot mount a bpffs")?;
    let object = std::fs::read(&object).with_context(|| format!("cannot read {object}"))?;
    let programs = programs_of(&object)?;
    let config =
        Config { bpffs, system_id: "probe".to_owned(), object, sizes: Sizes::default(), hook: HookChoice::Auto };
    let mut instance = Instance::load(&config)?;
    println!("loaded; programs are attached by {:?}", instance.hook());
    for name in &programs {
        describe(name)?;
    }
    let ifindex = std::fs::read_to_string(Path::new("/sys/class/net").join(&device).join("ifindex"));
    let ifindex = ifindex.with_context(|| format!("there is no device {device}"))?.trim().parse()?;
    for role in [Role::Vif, Role::Underlay] {
        instance.attach(&device, ifindex, role)?;
        println!("attached to {device} as {role:?}");
        instance.detach(ifindex, role)?;
    }
    instance.remove_everything()?;
    println!("removed");
    Ok(())
}

/// The names of all programs in the object: functions in sections other than that of the subprograms.
fn programs_of(object: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(object).context("the object is no ELF file")?;
    let mut programs = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_global()) {
        let Some(section) = symbol.section_index() else { continue };
        if file.section_by_index(section)?.name()? != ".text" {
            programs.push(symbol.name()?.to_owned());
        }
    }
    programs.sort();
    ensure!(!programs.is_empty(), "the object has no program");
    Ok(programs)
}

/// Bytes of a program's name that the kernel keeps (`BPF_OBJ_NAME_LEN` without the NUL).
const NAME: usize = 15;

/// Prints what the kernel says about a loaded program.
fn describe(name: &str) -> Result<()> {
    let kept = &name[..name.len().min(NAME)];
    for program in loaded_programs() {
        let program = program.context("cannot list loaded programs")?;
        if program.name_as_str() == Some(kept) {
            let verified = program.verified_instruction_count().context("the kernel does not say what it verified")?;
            let translated = program.size_translated().context("the kernel does not say what it translated")?;
            println!(
                "program {name}: verified {verified} instructions, {} translated, {} bytes of machine code",
                translated / 8,
                program.size_jitted()
            );
            return Ok(());
        }
    }
    anyhow::bail!("program {name} of the object is not loaded")
}

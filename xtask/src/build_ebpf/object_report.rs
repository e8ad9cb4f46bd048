//! What is in an eBPF object: its functions' sizes, and the traces that panics leave.

use std::fmt;

use anyhow::{Context as _, Result};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

/// An eBPF instruction is 8 bytes; the 64-bit load counts as two, as it does for the kernel's limits.
const INSTRUCTION: u64 = 8;

/// One function of the object.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    /// The ELF section: a program type for an entry point, `.text` for a function that programs call.
    section: String,
    name: String,
    instructions: u64,
}

/// The functions of an object, and whatever says that it can panic.
#[derive(Debug)]
pub(crate) struct ObjectReport {
    functions: Vec<Function>,
    /// Names of symbols that only a panic needs; empty in a good object.
    pub(crate) panics: Vec<String>,
}

impl ObjectReport {
    /// Reads a 64-bit little-endian eBPF ELF object.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let elf = ElfFile64::<object::Endianness>::parse(bytes).context("not an ELF object")?;
        let mut functions = Vec::new();
        let mut panics = Vec::new();
        for symbol in elf.symbols() {
            let name = symbol.name().context("a symbol's name")?;
            if name.contains("panic") {
                panics.push(name.to_owned());
            }
            let Some(section) = symbol.section_index() else { continue };
            let section = elf.section_by_index(section).with_context(|| format!("the section of {name}"))?;
            if symbol.kind() == SymbolKind::Text && section.kind() == SectionKind::Text && symbol.size() > 0 {
                let section = section.name().context("a section's name")?.to_owned();
                // Without the crates' hashes, in which is where they were built.
                let name = format!("{:#}", rustc_demangle::demangle(name));
                functions.push(Function { section, name, instructions: symbol.size() / INSTRUCTION });
            }
        }
        functions.sort();
        panics.sort();
        panics.dedup();
        Ok(Self { functions, panics })
    }
}

impl fmt::Display for ObjectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.functions.iter().map(|function| function.section.len()).max().unwrap_or(0);
        for function in &self.functions {
            writeln!(f, "{:>7}  {:width$}  {}", function.instructions, function.section, function.name)?;
        }
        let total: u64 = self.functions.iter().map(|function| function.instructions).sum();
        writeln!(f, "{total:>7}  instructions in {} functions", self.functions.len())
    }
}

//! `gen-idl`: the typed table and column constants of `oxbow-schema`.
//!
//! The source is `userspace/schema/definitions/*.txt`, a list of tables and columns with their types: the union of the
//! schema versions that Oxbow works with. `--import` merges an `.ovsschema` file into its list, which is how the lists
//! were made and how they grow when a new version comes out.

mod definition;
mod rust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace;
use definition::Database;

/// Generates the column constants of oxbow-schema from its table definitions.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// First merge the tables and columns of this .ovsschema file into the definitions (repeatable, oldest first).
    #[arg(long, value_name = "FILE")]
    import: Vec<PathBuf>,
    /// Write nothing; fail if what is there is not what would be written.
    #[arg(long)]
    check: bool,
}

/// The databases: name in the protocol, name of definition file and module.
const DATABASES: [(&str, &str); 3] = [("OVN_Northbound", "nb"), ("OVN_Southbound", "sb"), ("Open_vSwitch", "ovs")];

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let schema = workspace::root().join("userspace/schema");
    if args.check && !args.import.is_empty() {
        bail!("--check and --import exclude each other");
    }
    for file in &args.import {
        import(&schema, file)?;
    }
    let files = generate(&schema)?;
    if args.check {
        return check(&schema, &files);
    }
    for (_, module) in DATABASES {
        let directory = schema.join("src").join(module);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    }
    for (path, text) in &files {
        let path = schema.join("src").join(path);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    println!("gen-idl: {} files written to {}", files.len(), schema.join("src").display());
    Ok(())
}

fn definition_path(schema: &Path, module: &str) -> PathBuf {
    schema.join("definitions").join(format!("{module}.txt"))
}

fn import(schema: &Path, file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let newer = Database::from_ovsschema(&text).with_context(|| file.display().to_string())?;
    let Some((_, module)) = DATABASES.into_iter().find(|(name, _)| *name == newer.name) else {
        bail!("{}: database {} is none of ours", file.display(), newer.name);
    };
    let path = definition_path(schema, module);
    let mut database = if path.exists() { load(&path)? } else { Database::empty(&newer.name) };
    database.merge(newer);
    std::fs::write(&path, database.to_text()).with_context(|| path.display().to_string())
}

fn load(path: &Path) -> Result<Database> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Database::from_text(&text).with_context(|| path.display().to_string())
}

/// Every generated file, by path below `src/`.
fn generate(schema: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for (name, module) in DATABASES {
        let path = definition_path(schema, module);
        let database = load(&path)?;
        if database.name != name {
            bail!("{}: defines {} instead of {name}", path.display(), database.name);
        }
        for (file, text) in rust::files(&database) {
            files.insert(Path::new(module).join(file), text);
        }
    }
    Ok(files)
}

fn check(schema: &Path, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    let source = schema.join("src");
    let mut wrong = Vec::new();
    for (path, text) in files {
        if std::fs::read_to_string(source.join(path)).ok().as_ref() != Some(text) {
            wrong.push(path.display().to_string());
        }
    }
    for (_, module) in DATABASES {
        for entry in std::fs::read_dir(source.join(module)).with_context(|| module.to_owned())? {
            let path = Path::new(module).join(entry?.file_name());
            if !files.contains_key(&path) {
                wrong.push(format!("{} (not generated)", path.display()));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("userspace/schema/src is not what `cargo xtask gen-idl` writes: {}", wrong.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_constants_are_what_the_definitions_generate() {
        let schema = workspace::root().join("userspace/schema");
        check(&schema, &generate(&schema).unwrap()).unwrap();
    }

    #[test]
    fn definitions_read_back_as_they_are_written() {
        for (_, module) in DATABASES {
            let path = definition_path(&workspace::root().join("userspace/schema"), module);
            assert_eq!(load(&path).unwrap().to_text(), std::fs::read_to_string(&path).unwrap(), "{}", path.display());
        }
    }

    #[test]
    fn installed_schemas_have_no_table_or_column_that_the_definitions_lack() {
        let schema = workspace::root().join("userspace/schema");
        for (module, file) in [
            ("nb", oxbow_testkit::ovsdb::NB_SCHEMA),
            ("sb", oxbow_testkit::ovsdb::SB_SCHEMA),
            ("ovs", oxbow_testkit::ovsdb::VSWITCH_SCHEMA),
        ] {
            let text =
                std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file} of Debian's packages: {error}"));
            let mut database = load(&definition_path(&schema, module)).unwrap();
            let before = database.to_text();
            database.merge(Database::from_ovsschema(&text).unwrap());
            // A server of another version adds itself to the list of versions and nothing else.
            let tables = |text: &str| text.split_once("\n\n").map(|(_, tables)| tables.to_owned());
            assert_eq!(
                tables(&database.to_text()),
                tables(&before),
                "import {file} with `cargo xtask gen-idl --import`"
            );
        }
    }
}

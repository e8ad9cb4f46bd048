//! The earlier states of a database that its file still holds.
//!
//! A standalone database file is a log (ovsdb(5), "Database Log"): records of a line `OVSDB JSON LENGTH HASH` and LENGTH
//! bytes, the first being the schema and each other one a transaction. A prefix that ends between records is a valid file,
//! of the state after its last transaction.

use anyhow::{Context as _, Result, bail};

/// Each prefix of `file` that has at least one transaction.
pub(super) fn states(file: &[u8]) -> Result<Vec<&[u8]>> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let rest = &file[at..];
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let words: Vec<&str> = std::str::from_utf8(line).unwrap_or_default().split(' ').collect();
        let ["OVSDB", "JSON", length, _hash] = words.as_slice() else {
            bail!("at byte {at}: not a record of a standalone database file");
        };
        let length: usize = length.parse().with_context(|| format!("at byte {at}: bad length {length}"))?;
        at += line.len() + 1 + length;
        if at > file.len() {
            bail!("the last record is cut off");
        }
        ends.push(at);
    }
    Ok(ends.into_iter().skip(1).map(|end| &file[..end]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transaction_ends_a_state() {
        let file = b"OVSDB JSON 3 aa\n{}\nOVSDB JSON 5 bb\n[1]\n\nOVSDB JSON 2 cc\n1\n";
        let states = states(file).unwrap();
        assert_eq!(states.iter().map(|state| state.len()).collect::<Vec<_>>(), [40, 58]);
        assert!(super::states(b"OVSDB CLUSTER 2 aa\n1\n").is_err());
        assert!(super::states(&file[..57]).is_err());
    }
}

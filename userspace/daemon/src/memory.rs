//! What `memory/show` prints: gauges that the daemon's parts keep up to date.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static GAUGES: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Sets the gauge `name` (`idl-cells-OVN_Southbound`, `lflow-cache-entries-expr`, …), making it known on first use.
pub fn set(name: &str, value: u64) {
    let mut gauges = GAUGES.lock().unwrap_or_else(PoisonError::into_inner);
    match gauges.get_mut(name) {
        Some(gauge) => *gauge = value,
        None => {
            gauges.insert(name.to_owned(), value);
        }
    }
}

/// The gauges in `memory/show` form: `name:value` words in order of name, on one line, zeros left out.
pub fn show() -> String {
    let gauges = GAUGES.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<String> =
        gauges.iter().filter(|(_, value)| **value != 0).map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{}\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn gauges_print_on_one_line() {
        super::set("test-b", 4);
        super::set("test-a", 3);
        super::set("test-b", 5);
        super::set("test-zero", 0);
        let shown = super::show();
        assert!(shown.contains("test-a:3 test-b:5"), "{shown}");
        assert!(!shown.contains("zero"), "{shown}");
        assert_eq!(shown.lines().count(), 1);
    }
}

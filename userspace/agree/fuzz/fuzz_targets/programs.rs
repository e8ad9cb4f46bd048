//! Any frame at any device of a cloud: the loaded programs do what the reference says, for the reason it gives. As root, with OXBOW_BPF_OBJECT.

#![no_main]

use std::sync::{Mutex, OnceLock, PoisonError};

use libfuzzer_sys::fuzz_target;
use oxbow_agree::hostile::Entry;

static ENTRY: OnceLock<Mutex<Entry>> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let entry = ENTRY.get_or_init(|| Mutex::new(Entry::start(1).expect("a cloud")));
    let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = entry.judge(input).expect("a judgement");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
});

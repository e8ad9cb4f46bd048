//! Any frame: the programs' parser reads what the reference reads.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| oxbow_agree::parsers::frame(frame));

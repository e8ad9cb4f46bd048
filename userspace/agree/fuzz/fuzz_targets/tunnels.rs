//! Any frame on the underlay: the programs' parser of outer headers says what the judge's says.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| oxbow_agree::parsers::tunnel(frame));

//! Whatever a server says: the session lives, and the changes it tells fit its replica.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let _ = oxbow_ovsdb::hearsay::hear(stream);
});

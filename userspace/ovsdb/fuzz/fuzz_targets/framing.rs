//! Any stream: cut into the same messages however it arrives, and where a JSON parser finds objects, into those.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oxbow_ovsdb::Framer;

fn cut(stream: &[u8], chop: usize) -> (Vec<Vec<u8>>, bool) {
    let mut framer = Framer::default();
    let mut messages = Vec::new();
    for chunk in stream.chunks(chop) {
        framer.buffer().extend_from_slice(chunk);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => messages.push(frame.bytes().to_vec()),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    (messages, true)
}

fuzz_target!(|stream: &[u8]| {
    let whole = cut(stream, stream.len().max(1));
    for chop in [1, 2, 7, 64] {
        assert_eq!(cut(stream, chop), whole);
    }
    let mut parser = serde_json::Deserializer::from_slice(stream).into_iter::<serde_json::Map<String, serde_json::Value>>();
    let (mut n, mut start) = (0, 0);
    while let Some(Ok(_)) = parser.next() {
        let end = parser.byte_offset();
        let object = stream[start..end].trim_ascii_start();
        let message = whole.0.get(n).map(|message| message.trim_ascii_start());
        // Depth and duplicate keys are the parsers' own business; bytes are not.
        assert_eq!(message, Some(object));
        (n, start) = (n + 1, end);
    }
});

//! Cutting a byte stream into JSON-RPC messages.
//!
//! OVSDB puts JSON objects on the stream one after the other with nothing in between. The framer looks at every byte once,
//! however the stream is chopped up, and only at braces, brackets, quotes and (at the top) colons and commas; it notes
//! where the members of the message object are, so that a message's `id` is known before its `result` is decoded.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// How deeply values may nest; OVS's own parser has the same limit.
const DEPTH_LIMIT: u32 = 1000;
/// After a message of this size its buffer is given back instead of being kept for the next.
const KEEP_LIMIT: usize = 1 << 20;

/// A whole message and where its top-level members are.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    members: SmallVec<[Member; 4]>,
}

#[derive(Clone, Debug)]
struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

impl Frame {
    /// The text of the value of a member; `None` when there is no such member.
    pub(crate) fn member(&self, name: &str) -> Option<&[u8]> {
        let member = self.members.iter().find(|member| self.bytes[member.key.clone()] == *name.as_bytes())?;
        Some(&self.bytes[member.value.clone()])
    }

    /// The whole message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A stream that is not a sequence of JSON objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message starts with something else than a brace.
    #[error("message starts with byte 0x{0:02x} instead of \"{{\"")]
    NotAnObject(u8),
    /// A closing bracket where the message object would be closed.
    #[error("unbalanced brackets in message")]
    Unbalanced,
    /// More than 1000 values inside each other.
    #[error("message nests too deeply")]
    TooDeep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Outside strings.
    Structure,
    /// Inside a string.
    String,
    /// Behind a backslash inside a string.
    Escape,
}

/// Cuts a byte stream into [`Frame`]s.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// How far `buffer` was looked at.
    scanned: usize,
    at: At,
    depth: u32,
    string_start: usize,
    key: Option<Range<usize>>,
    value_start: Option<usize>,
    members: SmallVec<[Member; 4]>,
}

impl Default for Framer {
    fn default() -> Self {
        Framer {
            buffer: BytesMut::new(),
            scanned: 0,
            at: At::Structure,
            depth: 0,
            string_start: 0,
            key: None,
            value_start: None,
            members: SmallVec::new(),
        }
    }
}

impl Framer {
    /// Where to put the bytes that arrive, at the end.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message; `None` until more bytes arrive. After an error the stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while self.scanned < self.buffer.len() {
            match self.at {
                At::String => match memchr::memchr2(b'"', b'\\', &self.buffer[self.scanned..]) {
                    None => self.scanned = self.buffer.len(),
                    Some(offset) => {
                        let quote = self.scanned + offset;
                        self.scanned = quote + 1;
                        if self.buffer[quote] == b'\\' {
                            self.at = At::Escape;
                            continue;
                        }
                        self.at = At::Structure;
                        if self.depth == 1 && self.value_start.is_none() {
                            self.key = Some(self.string_start..quote);
                        }
                    }
                },
                At::Escape => {
                    self.scanned += 1;
                    self.at = At::String;
                }
                At::Structure => {
                    if self.scan_structure()? {
                        return Ok(Some(self.take()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Runs to the next string or the end of the message; true at the latter.
    fn scan_structure(&mut self) -> Result<bool, FrameError> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            let position = self.scanned;
            if self.depth == 0 && byte != b'{' {
                if !byte.is_ascii_whitespace() {
                    return Err(FrameError::NotAnObject(byte));
                }
                self.scanned += 1;
                continue;
            }
            self.scanned += 1;
            match byte {
                b'"' => {
                    self.at = At::String;
                    self.string_start = self.scanned;
                    return Ok(false);
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth > DEPTH_LIMIT {
                        return Err(FrameError::TooDeep);
                    }
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        if byte == b']' {
                            return Err(FrameError::Unbalanced);
                        }
                        self.end_member(position);
                        return Ok(true);
                    }
                }
                b':' if self.depth == 1 && self.value_start.is_none() => self.value_start = Some(self.scanned),
                b',' if self.depth == 1 => self.end_member(position),
                _ => {}
            }
        }
        Ok(false)
    }

    fn end_member(&mut self, end: usize) {
        if let (Some(key), Some(start)) = (self.key.take(), self.value_start.take()) {
            self.members.push(Member { key, value: start..end });
        }
        self.value_start = None;
    }

    fn take(&mut self) -> Frame {
        let length = std::mem::take(&mut self.scanned);
        let bytes = self.buffer.split_to(length).freeze();
        if length > KEEP_LIMIT {
            // The rest shares the message's allocation, which would otherwise live as long as the connection.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        // Whitespace before the message is part of `bytes`, so that positions need no correction.
        Frame { bytes, members: std::mem::take(&mut self.members) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn frames(framer: &mut Framer) -> Vec<Frame> {
        std::iter::from_fn(|| framer.next_frame().unwrap()).collect()
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\{}\\[\\],:é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z{}\\[\\],: ]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn objects_come_out_as_they_went_in_however_the_stream_is_cut(
            objects in prop::collection::vec(prop::collection::btree_map("[a-z]{0,6}", json_value(), 0..4), 1..5),
            chunk in 1usize..40,
            pretty: bool,
        ) {
            let texts: Vec<String> = objects
                .iter()
                .map(|object| if pretty { serde_json::to_string_pretty(object) } else { serde_json::to_string(object) }.unwrap())
                .collect();
            let stream = texts.join(if pretty { "\n" } else { "" });
            let mut framer = Framer::default();
            let mut found = Vec::new();
            for bytes in stream.as_bytes().chunks(chunk) {
                framer.buffer().extend_from_slice(bytes);
                found.extend(frames(&mut framer));
            }
            prop_assert_eq!(found.len(), objects.len());
            for (frame, object) in found.iter().zip(&objects) {
                let whole: Value = serde_json::from_slice(frame.bytes()).unwrap();
                prop_assert_eq!(&whole, &Value::Object(object.clone().into_iter().collect()));
                prop_assert_eq!(frame.members.len(), object.len());
                for (key, value) in object {
                    let member: Value = serde_json::from_slice(frame.member(key).unwrap()).unwrap();
                    prop_assert_eq!(&member, value);
                }
            }
        }

        #[test]
        fn any_bytes_are_framed_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let mut framer = Framer::default();
            for part in [&bytes[..cut.min(bytes.len())], &bytes[cut.min(bytes.len())..]] {
                framer.buffer().extend_from_slice(part);
                while let Ok(Some(frame)) = framer.next_frame() {
                    prop_assert_eq!(frame.bytes().last(), Some(&b'}'));
                }
            }
        }

        #[test]
        fn any_brackets_and_quotes_are_framed_or_refused_without_panic(text in "[{}\\[\\]\",:\\\\a ]{0,60}") {
            let mut framer = Framer::default();
            framer.buffer().extend_from_slice(text.as_bytes());
            while let Ok(Some(frame)) = framer.next_frame() {
                for member in &frame.members {
                    prop_assert!(member.value.end <= frame.bytes.len() && member.key.end <= member.value.start);
                }
            }
        }
    }

    #[test]
    fn a_stream_that_is_not_json_objects_is_refused() {
        for (stream, error) in [
            ("[1]", FrameError::NotAnObject(b'[')),
            ("{}x", FrameError::NotAnObject(b'x')),
            ("{]", FrameError::Unbalanced),
            (&format!("{{\"a\":{}", "[".repeat(1000)), FrameError::TooDeep),
        ] {
            let mut framer = Framer::default();
            framer.buffer().extend_from_slice(stream.as_bytes());
            let mut last = framer.next_frame();
            while let Ok(Some(_)) = last {
                last = framer.next_frame();
            }
            assert_eq!(last.unwrap_err(), error, "{stream}");
        }
    }

    #[test]
    fn a_large_message_gives_its_buffer_back() {
        let mut framer = Framer::default();
        framer.buffer().extend_from_slice(format!("{{\"a\":\"{}\"}}{{\"b", "x".repeat(3 << 20)).as_bytes());
        assert!(framer.next_frame().unwrap().is_some());
        assert!(framer.buffer().capacity() < KEEP_LIMIT, "{}", framer.buffer().capacity());
        framer.buffer().extend_from_slice(b"\":1}");
        assert_eq!(framer.next_frame().unwrap().unwrap().member("b"), Some(&b"1"[..]));
    }
}

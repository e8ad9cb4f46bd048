//! Damage done to a frame systematically: cut at every byte, every byte of its headers changed, tags put around it, bytes put behind it.

/// How far into a frame its headers reach at most; what follows is payload, which nothing looks at.
const HEADERS: usize = 130;

/// One way to damage a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// None.
    Whole,
    /// Only so many bytes of it.
    Cut(usize),
    /// A byte, by what it is changed (exclusive or).
    Flip(usize, u8),
    /// A byte, and what it becomes.
    Put(usize, u8),
    /// So many zeros behind it.
    Grow(usize),
    /// So many tags in front of its Ethernet type, the bits of the second number say which are 802.1ad; cut after so many bytes.
    Tags(usize, u8, usize),
}

impl Damage {
    /// Every damage without tags that can be done from byte `from` on.
    pub fn untagged(frame: &[u8], from: usize) -> impl Iterator<Item = Damage> + use<> {
        let length = frame.len();
        let end = length.min(from + HEADERS);
        let cuts = (from..length).map(Damage::Cut);
        let flips = (from..end).flat_map(|at| [1, 0x08, 0x20, 0x40, 0x80, 0xff].map(|bits| Damage::Flip(at, bits)));
        let puts = (from..end).flat_map(|at| [0, 0xff].map(|value| Damage::Put(at, value)));
        let more = [1, 3, 46, 700].into_iter().map(Damage::Grow);
        std::iter::once(Damage::Whole).chain(cuts).chain(flips).chain(puts).chain(more)
    }

    /// One to four tags of either kind around it, whole and cut at every byte of the tags and of the header behind them.
    pub fn tagged(frame: &[u8]) -> impl Iterator<Item = Damage> + use<> {
        let length = frame.len();
        (1..=4usize).flat_map(move |tags| {
            (0..1u8 << tags).flat_map(move |kinds| {
                let whole = length + tags * 4;
                (14..whole.min(14 + tags * 4 + 48)).chain([whole]).map(move |cut| Damage::Tags(tags, kinds, cut))
            })
        })
    }

    /// Does it.
    #[must_use]
    pub fn apply(self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        match self {
            Damage::Whole => {}
            Damage::Cut(length) => frame.truncate(length),
            Damage::Flip(at, bits) => frame[at] ^= bits,
            Damage::Put(at, value) => frame[at] = value,
            Damage::Grow(more) => frame.resize(frame.len() + more, 0),
            Damage::Tags(tags, kinds, length) => {
                let all = (0..tags).flat_map(|n| {
                    let [a, b] = if kinds >> n & 1 == 1 { [0x88, 0xa8] } else { [0x81, 0x00] };
                    // Priority 0 and a different identifier each.
                    [a, b, 0, 5 + n as u8]
                });
                frame.splice(12..12, all);
                frame.truncate(length);
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_cut_at_and_changed() {
        let frame = [7u8; 60];
        let all: Vec<Damage> = Damage::untagged(&frame, 14).collect();
        for at in 14..60 {
            assert!(all.contains(&Damage::Cut(at)), "{at}");
            assert!(all.iter().any(|damage| matches!(damage, Damage::Flip(n, _) if *n == at)), "{at}");
        }
        for damage in all {
            let changed = damage.apply(&frame);
            assert!(changed[..12] == frame[..12], "the addresses stay: {damage:?}");
            assert!(changed != frame || damage == Damage::Whole || damage == Damage::Flip(0, 0), "{damage:?}");
        }
    }

    #[test]
    fn tags_are_put_behind_the_addresses() {
        let frame = [7u8; 20];
        let tagged = Damage::Tags(2, 0b01, 28).apply(&frame);
        assert_eq!(tagged[12..22], [0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 7, 7]);
        assert!(Damage::tagged(&frame).any(|damage| damage == Damage::Tags(4, 0b1111, 36)));
    }
}

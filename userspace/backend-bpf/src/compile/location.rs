//! Where a field of the language lives in the kernel's field vector.

use oxbow_abi::field as f;
use oxbow_lflow::field::Field;

/// Some bits of a field in one word: `width` bits from bit `offset` of the field stand from bit `shift` of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index into the field vector.
    pub word: u8,
    /// Lowest bit of the word.
    pub shift: u8,
    /// Lowest bit of the field.
    pub offset: u8,
    /// How many bits.
    pub width: u8,
}

const fn piece(word: u8, shift: u8, offset: u8, width: u8) -> Piece {
    Piece { word, shift, offset, width }
}

macro_rules! wide {
    ($first:expr) => {
        const {
            &[
                piece($first, 0, 96, 32),
                piece($first + 1, 0, 64, 32),
                piece($first + 2, 0, 32, 32),
                piece($first + 3, 0, 0, 32),
            ]
        }
    };
}
macro_rules! mac {
    ($first:expr) => {
        const { &[piece($first, 0, 32, 16), piece($first + 1, 0, 0, 32)] }
    };
}
macro_rules! one {
    ($word:expr, $shift:expr, $width:expr) => {
        const { &[piece($word, $shift, 0, $width)] }
    };
}

/// The pieces of a field, most significant first; `None` for a field that the field vector does not carry (conntrack's original tuple,
/// fields of ICMP errors being made, EVPN ports), so that whatever uses it is reported by name.
pub const fn pieces(field: Field) -> Option<&'static [Piece]> {
    Some(match field {
        Field::InPort | Field::InPortKey => one!(f::INPORT, 0, 32),
        Field::OutPort | Field::OutPortKey => one!(f::OUTPORT, 0, 32),
        Field::XxReg0 => wide!(f::REG),
        Field::XxReg1 => wide!(f::REG + 4),
        Field::XReg4 => const { &[piece(f::REG + 8, 0, 32, 32), piece(f::REG + 9, 0, 0, 32)] },
        Field::Flags => one!(f::FLAGS, 0, 32),
        Field::CtMark => one!(f::CT_MARK, 0, 32),
        Field::CtLabel => wide!(f::CT_LABEL),
        Field::CtState => one!(f::CT_STATE, 0, 32),
        Field::EthSrc => mac!(f::ETH_SRC),
        Field::EthDst => mac!(f::ETH_DST),
        Field::EthType => one!(f::ETH_TYPE, 0, 16),
        Field::VlanTci => one!(f::ETH_TYPE, 16, 16),
        Field::IpProto => one!(f::IP_META, 24, 8),
        Field::IpDscp => one!(f::IP_META, 18, 6),
        Field::IpEcn => one!(f::IP_META, 16, 2),
        Field::IpTtl => one!(f::IP_META, 8, 8),
        Field::IpFrag => one!(f::IP_META, 0, 2),
        Field::Ip4Src | Field::ArpSpa => one!(f::IP_SRC, 0, 32),
        Field::Ip4Dst | Field::ArpTpa => one!(f::IP_DST, 0, 32),
        Field::Ip6Src => wide!(f::IP_SRC),
        Field::Ip6Dst => wide!(f::IP_DST),
        Field::Ip6Label => one!(f::IP6_LABEL, 0, 20),
        Field::Icmp4Type | Field::Icmp6Type => one!(f::L4, 16, 8),
        Field::Icmp4Code | Field::Icmp6Code => one!(f::L4, 0, 8),
        Field::ArpOp => one!(f::ARP_OP, 0, 16),
        Field::ArpSha | Field::NdSll => mac!(f::HW_SRC),
        Field::ArpTha | Field::NdTll => mac!(f::HW_DST),
        Field::NdTarget => wide!(f::ND_TARGET),
        Field::TcpSrc | Field::UdpSrc | Field::SctpSrc => one!(f::L4, 16, 16),
        Field::TcpDst | Field::UdpDst | Field::SctpDst => one!(f::L4, 0, 16),
        Field::TcpFlags => one!(f::TCP_FLAGS, 0, 12),
        Field::PktMark => one!(f::PKT_MARK, 0, 32),
        Field::RemoteOutPort
        | Field::CtProto
        | Field::CtTpSrc
        | Field::CtTpDst
        | Field::Icmp4FragMtu
        | Field::Icmp6FragMtu => return None,
    })
}

/// Whether bits of a word are not in the verdict key, so that a verdict may not rest on them. Registers, ports, flags and connection
/// state are: a walk derives them from the key.
pub const fn outside_key(word: u8, mask: u32) -> bool {
    mask & !within_key(word) != 0
}

/// The bits of a word that are in the verdict key or follow from it.
pub const fn within_key(word: u8) -> u32 {
    match word {
        // All but the TTL.
        f::IP_META => 0xffff_00ff,
        f::TCP_FLAGS | f::ARP_OP | f::IP6_LABEL | f::PKT_MARK => 0,
        _ if word >= f::ND_TARGET && word < f::ND_TARGET + 4 => 0,
        _ if word >= f::HW_SRC && word < f::HW_DST + 2 => 0,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_each_field_once_and_stay_in_their_words() {
        for &field in Field::ALL {
            let Some(pieces) = pieces(field) else { continue };
            let width = if field.is_string() { 32 } else { field.width() };
            let covered: u32 = pieces.iter().map(|p| u32::from(p.width)).sum();
            assert_eq!(covered, u32::from(width), "{field}");
            for pair in pieces.windows(2) {
                assert_eq!(
                    pair[0].offset,
                    pair[1].offset + pair[1].width,
                    "{field}: pieces are in falling order without gaps"
                );
                assert_eq!(pair[0].word + 1, pair[1].word, "{field}: words follow each other");
            }
            for p in pieces {
                assert!(p.shift + p.width <= 32 && usize::from(p.word) < oxbow_abi::field::WORDS, "{field}");
            }
        }
    }
}

//! A conjunction of dimensions as keys for tuple-space search.
//!
//! A dimension with several alternatives needs one key each; several such dimensions multiply. Products are bounded
//! ([`MAX_KEYS`]): a rule beyond that is refused by name rather than allowed to fill the maps.

use super::location::{outside_key, pieces};
use oxbow_abi::field::WORDS;
use oxbow_abi::rule::{NARROW, WIDE};
use oxbow_lflow::field::Field;
use oxbow_lflow::normal::Masked;
use smallvec::SmallVec;

/// Most keys that one rule may take.
pub const MAX_KEYS: usize = 65_536;

/// A mask over the field vector: the words looked at, in ascending order, none of them with an empty mask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape(pub SmallVec<[(u8, u32); 8]>);

impl Shape {
    /// Whether the rules go to the wide map.
    pub fn is_wide(&self) -> bool {
        self.0.len() > NARROW
    }

    /// Whether it looks at something that is not in the verdict key.
    pub fn outside_key(&self) -> bool {
        self.0.iter().any(|&(word, mask)| outside_key(word, mask))
    }
}

/// A key: the masked words in the order of its shape.
pub type Key = SmallVec<[u32; 8]>;

/// A match could not be turned into keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// The kernel's field vector does not carry the field.
    #[error("field {0} is not supported by the eBPF backend")]
    Field(Field),
    /// The dimensions multiply to too many keys.
    #[error("the match needs {keys} keys, more than {MAX_KEYS}: split its sets over several flows")]
    TooManyKeys {
        /// How many it would take.
        keys: usize,
    },
    /// More words than a key holds.
    #[error("the match looks at {words} words of the packet, more than {WIDE}")]
    TooWide {
        /// How many it looks at.
        words: usize,
    },
}

/// Word values and masks of one alternative.
type Constraint = SmallVec<[(u8, u32, u32); 4]>;

/// The keys of a conjunction: each with its shape. A conjunction that contradicts itself has none.
pub fn keys<'a>(dims: impl Iterator<Item = (Field, &'a [Masked])>) -> Result<Vec<(Shape, Key)>, MatchError> {
    let mut columns: Vec<Vec<Constraint>> = Vec::new();
    let mut product = 1usize;
    for (field, alternatives) in dims {
        let places = pieces(field).ok_or(MatchError::Field(field))?;
        let column: Vec<Constraint> = alternatives
            .iter()
            .map(|alternative| {
                places
                    .iter()
                    .filter_map(|p| {
                        let ones = if p.width == 32 { u32::MAX } else { (1 << p.width) - 1 };
                        let mask = ((alternative.mask >> p.offset) as u32) & ones;
                        let value = ((alternative.value >> p.offset) as u32) & mask;
                        (mask != 0).then_some((p.word, mask << p.shift, value << p.shift))
                    })
                    .collect()
            })
            .collect();
        product = product.saturating_mul(column.len());
        columns.push(column);
    }
    if product > MAX_KEYS {
        return Err(MatchError::TooManyKeys { keys: product });
    }
    let mut found = Vec::with_capacity(product);
    let mut choice = vec![0usize; columns.len()];
    if product == 0 {
        return Ok(found);
    }
    loop {
        if let Some(entry) = combine(columns.iter().zip(&choice).map(|(column, &i)| &column[i]))? {
            found.push(entry);
        }
        // The next choice, like an odometer.
        let mut wheel = columns.len();
        loop {
            if wheel == 0 {
                return Ok(found);
            }
            wheel -= 1;
            choice[wheel] += 1;
            if choice[wheel] < columns[wheel].len() {
                break;
            }
            choice[wheel] = 0;
        }
    }
}

/// Joins constraints on the same words; `None` when two of them contradict each other.
fn combine<'a>(constraints: impl Iterator<Item = &'a Constraint>) -> Result<Option<(Shape, Key)>, MatchError> {
    let mut masks = [0u32; WORDS];
    let mut values = [0u32; WORDS];
    for &(word, mask, value) in constraints.flatten() {
        let w = usize::from(word);
        if (values[w] ^ value) & masks[w] & mask != 0 {
            return Ok(None);
        }
        masks[w] |= mask;
        values[w] |= value;
    }
    let mut shape = Shape::default();
    let mut key = Key::new();
    for (word, (&mask, &value)) in masks.iter().zip(&values).enumerate() {
        if mask != 0 {
            shape.0.push((word as u8, mask));
            key.push(value);
        }
    }
    if shape.0.len() > WIDE {
        return Err(MatchError::TooWide { words: shape.0.len() });
    }
    Ok(Some((shape, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(value: u128, field: Field) -> Masked {
        Masked { value, mask: field.full_mask() }
    }

    #[test]
    fn dimensions_of_one_word_join_and_sets_multiply() {
        let eth_type = [exact(0x800, Field::EthType)];
        let proto = [exact(6, Field::IpProto)];
        let ports = [exact(80, Field::TcpDst), exact(443, Field::TcpDst)];
        let dims = [(Field::EthType, &eth_type[..]), (Field::IpProto, &proto[..]), (Field::TcpDst, &ports[..])];
        let keys = keys(dims.into_iter()).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0].0.0.as_slice(), &[(23, 0xffff), (24, 0xff00_0000), (33, 0xffff)]);
        assert_eq!(keys[0].1.as_slice(), &[0x800, 6 << 24, 80]);
        assert_eq!(keys[1].1.as_slice(), &[0x800, 6 << 24, 443]);
    }

    #[test]
    fn no_dimension_is_one_key_without_words_and_an_empty_set_is_none() {
        assert_eq!(keys([].into_iter()).unwrap(), vec![(Shape::default(), Key::new())]);
        assert_eq!(keys([(Field::Ip4Src, &[][..])].into_iter()).unwrap(), vec![]);
    }

    #[test]
    fn contradictions_vanish() {
        let a = [exact(5, Field::InPortKey)];
        let b = [exact(6, Field::InPortKey)];
        let dims = [(Field::InPortKey, &a[..]), (Field::InPortKey, &b[..])];
        assert_eq!(keys(dims.into_iter()).unwrap(), vec![]);
    }

    #[test]
    fn a_product_beyond_the_bound_is_refused() {
        let many: Vec<Masked> = (0..300).map(|n| exact(n, Field::Ip4Src)).collect();
        let dims = [(Field::Ip4Src, &many[..]), (Field::Ip4Dst, &many[..])];
        assert_eq!(keys(dims.into_iter()), Err(MatchError::TooManyKeys { keys: 90_000 }));
    }

    #[test]
    fn an_ipv6_pair_needs_the_wide_class_and_ttl_leaves_the_key() {
        let a = [exact(1, Field::Ip6Src)];
        let b = [exact(2, Field::Ip6Dst)];
        let found = keys([(Field::Ip6Src, &a[..]), (Field::Ip6Dst, &b[..])].into_iter()).unwrap();
        assert!(found[0].0.is_wide() && !found[0].0.outside_key());
        let ttl = [exact(255, Field::IpTtl)];
        assert!(keys([(Field::IpTtl, &ttl[..])].into_iter()).unwrap()[0].0.outside_key());
    }
}

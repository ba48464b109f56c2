//! A set of dense numbers in pages: which destinations a peer has paths of.
//!
//! A peer's destinations are numbered as they arrive, so they lie close together; a page exists only where
//! one of them is. A thousand peers with a few routes each in a large table cost a few pages each.

/// A set of numbers.
#[derive(Clone, Debug, Default)]
pub struct Bitmap {
    pages: Vec<Option<Box<Page>>>,
}

type Page = [u64; WORDS];

impl Bitmap {
    /// Whether it was not there before.
    pub fn insert(&mut self, number: u32) -> bool {
        let Place { page, word, bit } = place(number);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let word = &mut self.pages[page].get_or_insert_with(|| Box::new([0; WORDS]))[word];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether it was there.
    pub fn remove(&mut self, number: u32) -> bool {
        let Place { page, word, bit } = place(number);
        let Some(Some(words)) = self.pages.get_mut(page) else { return false };
        let had = words[word] & bit != 0;
        words[word] &= !bit;
        had
    }

    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let pages = self.pages.iter().enumerate();
        let words =
            pages.filter_map(|(n, page)| Some((n, page.as_deref()?))).flat_map(|(n, page)| {
                page.iter().enumerate().map(move |(word, bits)| (n * WORDS + word, *bits))
            });
        words.flat_map(|(word, bits)| Ones(bits).map(move |bit| number(word, bit)))
    }
}

/// The positions of a word's ones.
struct Ones(u64);

impl Iterator for Ones {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let lowest = self.0.trailing_zeros();
        (self.0 != 0).then(|| {
            self.0 &= self.0 - 1;
            lowest
        })
    }
}

struct Place {
    page: usize,
    word: usize,
    bit: u64,
}

fn place(number: u32) -> Place {
    let word = number as usize / 64;
    Place { page: word / WORDS, word: word % WORDS, bit: 1 << (number % 64) }
}

/// The number at a bit of a word; both came from a number of 32 bits.
fn number(word: usize, bit: u32) -> u32 {
    u32::try_from(word * 64).unwrap_or(u32::MAX) | bit
}

/// Words of a page: 512 octets, 4,096 numbers.
const WORDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bitmap_is_a_set(ops in proptest::collection::vec((any::<bool>(), 0_u32..20_000), 0..400)) {
            let (mut bitmap, mut set) = (Bitmap::default(), BTreeSet::new());
            for (insert, number) in ops {
                if insert {
                    prop_assert_eq!(bitmap.insert(number), set.insert(number));
                } else {
                    prop_assert_eq!(bitmap.remove(number), set.remove(&number));
                }
            }
            prop_assert!(bitmap.iter().eq(set));
        }
    }

    #[test]
    fn numbers_far_apart_cost_a_page_each_and_not_what_lies_between() {
        let mut bitmap = Bitmap::default();
        bitmap.insert(0);
        bitmap.insert(1_000_000);
        assert_eq!(bitmap.pages.iter().flatten().count(), 2);
        assert!(bitmap.iter().eq([0, 1_000_000]));
    }
}

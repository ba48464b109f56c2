//! How large a packet a path carries: pure.

use std::io;

/// The largest of `least..most` that `carries` says yes to, given that `least` is carried and `most` is not. `None`
/// when `carries` wants no more questions.
pub(super) fn largest(
    least: u16,
    most: u16,
    mut carries: impl FnMut(u16) -> io::Result<Option<bool>>,
) -> io::Result<Option<u16>> {
    let (mut yes, mut no) = (least, most);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        match carries(middle)? {
            Some(true) => yes = middle,
            Some(false) => no = middle,
            None => return Ok(None),
        }
    }
    Ok(Some(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_found_with_few_questions() {
        for size in [68, 69, 576, 1_280, 1_399, 1_400, 1_498, 1_499] {
            let mut asked = 0;
            let found = largest(68, 1_500, |octets| {
                asked += 1;
                Ok(Some(octets <= size))
            });
            assert_eq!(found.unwrap(), Some(size));
            assert!(asked <= 11, "{asked}");
        }
    }

    #[test]
    fn a_path_at_its_least_and_a_stop_end_it() {
        assert_eq!(largest(1_280, 1_281, |_| unreachable!()).unwrap(), Some(1_280));
        assert_eq!(largest(68, 1_500, |_| Ok(None)).unwrap(), None);
        assert!(largest(68, 1_500, |_| Err(io::Error::other("gone"))).is_err());
    }
}

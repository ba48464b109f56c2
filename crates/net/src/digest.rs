//! SHA-1, for names that others derive by it: Calico's links and tunnel MAC addresses. Nothing here trusts it.

use sha1::{Digest, Sha1};

/// The SHA-1 digest of a text.
pub fn sha1(text: &str) -> [u8; 20] {
    Sha1::digest(text).into()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    #[test]
    fn the_digest_is_the_standard_s() {
        let hex = super::sha1("abc").iter().fold(String::new(), |mut hex, octet| {
            let _ = write!(hex, "{octet:02x}");
            hex
        });
        assert_eq!(hex, "a9993e364706816aba3e25717850c26c9cd0d89d", "(FIPS 180-4, example)");
    }
}

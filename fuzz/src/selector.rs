//! Texts that may be selectors.

use russet_net::{Labels, Selector};

/// Reads a text, and holds what was read to its canonical text.
///
/// # Panics
///
/// When the two differ.
pub fn net_selector(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(selector) = text.parse::<Selector>() else { return };
    let again: Selector = selector.to_string().parse().expect("canonical text is a selector");
    assert_eq!(again, selector);
    assert_eq!(again.id(), selector.id());
    let labels = Labels::from_iter([("a", "b"), ("c", "")]);
    assert_eq!(again.matches(&labels), selector.matches(&labels));
}

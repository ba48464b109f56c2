//! Why a text or a number is not one of our values.

/// A text that is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}: {reason}")]
pub struct ParseError {
    pub text: String,
    /// What was expected, with its article: `a MAC address`.
    pub wanted: &'static str,
    pub reason: String,
}

impl ParseError {
    pub fn new(text: &str, wanted: &'static str, reason: impl Into<String>) -> Self {
        Self { text: text.to_owned(), wanted, reason: reason.into() }
    }
}

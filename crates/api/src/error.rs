//! Why a text is not the form that it should be.

use russet_core::Fault;

/// A serialised form that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{form}: {reason}")]
pub struct FormError {
    /// What was read, as a user calls it: `subnet.env`.
    pub form: &'static str,
    pub reason: String,
}

impl FormError {
    pub fn new(form: &'static str, reason: impl Into<String>) -> Self {
        Self { form, reason: reason.into() }
    }
}

impl From<FormError> for Fault {
    fn from(err: FormError) -> Self {
        Self::Unreadable { what: err.form, reason: err.reason }
    }
}

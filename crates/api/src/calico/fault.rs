//! What is wrong with an object, field by field.

use std::fmt;

use russet_core::Fault;

/// A field that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// `spec.importV4[0].cidr`; empty for the whole.
    pub path: String,
    /// What is there, and what would be right.
    pub reason: String,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

/// All faults of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFault {
    /// What it should be: `IPPool`.
    pub kind: &'static str,
    pub faults: Vec<FieldFault>,
}

impl ObjectFault {
    /// The whole is unreadable.
    pub(super) fn whole(kind: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, faults: vec![FieldFault { path: String::new(), reason: reason.into() }] }
    }

    fn joined(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        faults.join("; ")
    }
}

impl fmt::Display for ObjectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.joined())
    }
}

impl std::error::Error for ObjectFault {}

impl From<ObjectFault> for Fault {
    fn from(fault: ObjectFault) -> Self {
        Self::Unreadable { what: fault.kind, reason: fault.joined() }
    }
}

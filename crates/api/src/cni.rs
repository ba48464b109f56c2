//! The Container Network Interface, as far as a plugin meets it (CNI specification 1.1.0), and what our
//! plugin and our agent say to each other.
//!
//! ```text
//!   runtime ── environment, network configuration ──▶ russet-cni ── wire::Request ──▶ agent
//!           ◀─ result or error object ──────────────              ◀─ wire::Reply ───
//! ```
//!
//! `env` reads the environment, `conf` the network configuration on standard input, `result` writes what a
//! runtime reads and reads it back as a previous result, `wire` has the messages between plugin and agent,
//! `spool` the form of a DEL that waits in a file for the agent, `flannel` the configuration of flannel's plugin, `calico` that of
//! Calico's two, `annotation` what a pod asks in Calico's words. Every reader tells all faults at once.

mod annotation;
pub mod calico;
pub mod conf;
pub mod env;
pub mod flannel;
pub mod result;
pub mod spool;
mod text;
pub mod wire;

use std::fmt::{self, Write as _};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::text::Text;

/// The versions of the specification, the oldest first (CNI: VERSION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    #[default]
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// Those that we speak under our own name.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// Those that Calico's plugins speak, and the newest.
    pub const CALICO: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads one of those that are spoken.
    pub fn parse(text: &str, spoken: &[Self]) -> Option<Self> {
        spoken.iter().copied().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An error's number: 1 to 99 are the specification's, 100 and above the plugin's own (CNI: Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u32);

impl Code {
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container does not exist, or the agent knows nothing of it.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    pub const BAD_ENVIRONMENT: Self = Self(4);
    pub const IO: Self = Self(5);
    pub const DECODE: Self = Self(6);
    pub const BAD_CONFIG: Self = Self(7);
    pub const TRY_AGAIN: Self = Self(11);
    /// ADD cannot be served now (CNI: STATUS).
    pub const NOT_AVAILABLE: Self = Self(50);
    /// ADD cannot be served now, and existing containers may have lost their connection (CNI: STATUS).
    pub const LIMITED: Self = Self(51);
    /// The interface exists and is not of our making.
    pub const INTERFACE_EXISTS: Self = Self(100);
    /// No free address, or the one asked for is taken.
    pub const NO_ADDRESS: Self = Self(101);
    /// What is there is not what was made (CHECK).
    pub const CHECK_FAILED: Self = Self(102);
    /// The kernel refused.
    pub const KERNEL: Self = Self(103);
    /// The pod's records on disk cannot be read or written.
    pub const RECORDS: Self = Self(104);
}

/// Why a call was not served, as the runtime gets to see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    pub code: Code,
    pub msg: String,
    pub details: String,
}

impl CniError {
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// Makes one error of many faults; the weightiest gives its code. `None` without a fault.
    pub fn from_faults(faults: &[Fault]) -> Option<Self> {
        let code = faults.iter().map(|fault| fault.code).max_by_key(|code| weight(*code))?;
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let subject = match lines.len() {
            1 => lines.concat(),
            n => format!("{n} faults: {}", lines.join("; ")),
        };
        Some(Self::new(code, subject))
    }

    /// The error object of the specification, as one line of JSON.
    pub fn to_json(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Object<'a> {
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let Self { code, msg, details } = self;
        let object = Object { cni_version: version.as_str(), code: code.0, msg, details };
        // Strings and a number: nothing in it can fail to become JSON.
        serde_json::to_string(&object).unwrap_or_default()
    }
}

/// Which of several codes says most: a configuration that is no JSON before one with a wrong field.
fn weight(code: Code) -> u8 {
    match code {
        Code::INCOMPATIBLE_VERSION => 5,
        Code::BAD_ENVIRONMENT => 4,
        Code::DECODE => 3,
        Code::BAD_CONFIG => 2,
        _ => 1,
    }
}

/// One thing that is wrong with what we were given: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// `CNI_IFNAME`, `mtu`, `runtimeConfig.ips[1]`.
    pub place: String,
    pub reason: String,
}

impl Fault {
    pub fn new(code: Code, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code, place: place.into(), reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// The answer to VERSION (CNI: VERSION).
pub fn version_json(asked: Version, spoken: &[Version]) -> String {
    let supported: Vec<_> = spoken.iter().copied().map(Version::as_str).collect();
    serde_json::json!({ "cniVersion": asked.as_str(), "supportedVersions": supported }).to_string()
}

/// Checks a container's id or a network's name: it becomes part of a file's name, so nothing else is let
/// through (CNI: container ID, network name). A plugin's name becomes a path as well.
///
/// # Errors
///
/// With what is wrong with it.
pub fn check_name(text: &str) -> Result<(), &'static str> {
    let first = text.bytes().next().ok_or("it is empty")?;
    if !first.is_ascii_alphanumeric() {
        return Err("it must begin with a letter or a digit");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err("only letters, digits, '_', '.' and '-' are allowed");
    }
    if text.len() > NAME_MAX { Err("it is longer than 200 octets") } else { Ok(()) }
}

/// The SHA-256 digest of a text in hex: 64 digits. Names of a fixed length are made from it.
pub fn digest(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for octet in Sha256::digest(text) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{octet:02x}");
    }
    hex
}

/// Leaves room in a file's name of 255 octets for what we put beside it.
const NAME_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_has_the_specification_s_fields() {
        let err = CniError::new(Code::TRY_AGAIN, "no agent").with_details("start it");
        assert_eq!(
            err.to_json(Version::V1_0_0),
            r#"{"cniVersion":"1.0.0","code":11,"msg":"no agent","details":"start it"}"#
        );
    }

    #[test]
    fn all_faults_are_told_at_once_under_the_weightiest_code() {
        let faults = [
            Fault::new(Code::UNSUPPORTED_FIELD, "ipam", "not supported"),
            Fault::new(Code::BAD_ENVIRONMENT, "CNI_IFNAME", "is not set"),
        ];
        let err = CniError::from_faults(&faults).unwrap();
        assert_eq!(err.code, Code::BAD_ENVIRONMENT);
        assert_eq!(err.msg, "2 faults: ipam: not supported; CNI_IFNAME: is not set");
        assert_eq!(CniError::from_faults(&[]), None);
    }

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a b", "a\0", &"x".repeat(201)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_name("cbr0"), Ok(()));
    }

    #[test]
    fn version_lists_what_we_speak() {
        assert_eq!(
            version_json(Version::V1_1_0, &Version::ALL),
            r#"{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }
}

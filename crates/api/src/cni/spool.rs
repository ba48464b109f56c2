//! A DEL that waits in a file until there is an agent to do it.
//!
//! The plugin writes one file for each, under a name that only this attachment has: a second DEL of the same
//! replaces the first. The agent reads every file whose name ends in `.del`, does what it says, and removes
//! it. What does not end so is half written and nobody's.

use serde::{Deserialize, Serialize};

use super::wire::Pod;

/// The ending of a complete file.
pub const SUFFIX: &str = ".del";

/// Why a spooled file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("it is no spooled DEL")]
    Json(#[from] serde_json::Error),
    #[error("spool version {0} is not known, only {VERSION}")]
    Version(u32),
    #[error("{0}")]
    Pod(String),
}

#[derive(Serialize, Deserialize)]
struct Spooled {
    version: u32,
    del: Pod,
}

/// The name of a DEL's file: a digest, because an id of 200 octets and a network's name would not fit.
pub fn file_name(pod: &Pod) -> String {
    let Pod { network, container, ifname } = pod;
    let hex = super::digest(&format!("{network}/{container}/{}", ifname.0));
    format!("{}{SUFFIX}", &hex[..NAME_LEN])
}

/// What the file holds.
pub fn encode(pod: &Pod) -> Vec<u8> {
    // Text and a number: nothing in it can fail to become JSON.
    serde_json::to_vec(&Spooled { version: VERSION, del: pod.clone() }).unwrap_or_default()
}

/// Reads what a file holds.
///
/// # Errors
///
/// When it is not a DEL of our version.
pub fn decode(octets: &[u8]) -> Result<Pod, SpoolError> {
    let spooled: Spooled = serde_json::from_slice(octets)?;
    if spooled.version != VERSION {
        return Err(SpoolError::Version(spooled.version));
    }
    spooled.del.check().map_err(SpoolError::Pod)?;
    Ok(spooled.del)
}

const VERSION: u32 = 1;
/// Hex digits of the 64 that a digest has: enough for no two attachments ever to meet.
const NAME_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Text;

    #[test]
    fn a_spooled_del_is_read_again_and_a_torn_one_is_not() {
        let octets = encode(&pod("c1"));
        assert_eq!(decode(&octets).unwrap(), pod("c1"));
        for len in 0..octets.len() {
            assert!(decode(&octets[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn each_attachment_has_a_file_of_its_own() {
        assert_ne!(file_name(&pod("c1")), file_name(&pod("c2")));
        assert_eq!(file_name(&pod("c1")), file_name(&pod("c1")));
        assert!(decode(&encode(&pod("../c"))).is_err());
    }

    fn pod(container: &str) -> Pod {
        let ifname = Text("eth0".parse().unwrap());
        Pod { network: "net".into(), container: container.into(), ifname }
    }
}

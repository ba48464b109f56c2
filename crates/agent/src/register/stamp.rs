//! The time and the random identifiers of objects, as Kubernetes writes them.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use russet_api::calico::{Born, moment};

/// What an object is given that comes to be now.
///
/// # Errors
///
/// When the kernel gives no random identifier.
pub fn born() -> io::Result<Born> {
    Ok(Born { uid: uuid()?, created: now() })
}

/// Now, in UTC (RFC 3339).
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    moment(since.as_secs())
}

/// A random identifier (RFC 9562 §5.4).
pub(super) fn uuid() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_born_with_a_random_uid_of_version_4_and_the_time() {
        let Born { uid, created } = born().unwrap();
        let lengths: Vec<_> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(uid[14..].starts_with('4') && uid[19..].starts_with(['8', '9', 'a', 'b']), "{uid}");
        assert_ne!(uid, born().unwrap().uid);
        assert!(created.ends_with('Z'), "{created}");
    }
}

//! The time and the random identifiers of objects, as Kubernetes writes them.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use russet_api::calico::moment;

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
    fn identifiers_are_random() {
        assert_ne!(uuid().unwrap(), uuid().unwrap());
        assert_eq!(uuid().unwrap().len(), 36);
    }
}

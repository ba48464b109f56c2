//! What an object is born with: a random uid, and the time.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use russet_api::calico::{Born, moment};
use serde_json::Value;

/// What a new object is given; what the operator's document says already stays, as with calicoctl.
pub fn now(said: &Value) -> Result<Born> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A random one (RFC 9562 §5.4), another with each reading.
    let uid = fs::read_to_string(UUID).with_context(|| format!("read {UUID}"))?;
    Ok(kept(said, &Born { uid: uid.trim().to_owned(), created: moment(since.as_secs()) }))
}

/// What an object keeps of another that it takes the place of.
pub fn kept(there: &Value, else_: &Born) -> Born {
    let text = |name| {
        let text = there.get("metadata").and_then(|meta| meta.get(name)).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Born {
        uid: text("uid").unwrap_or_else(|| else_.uid.clone()),
        created: text("creationTimestamp").unwrap_or_else(|| else_.created.clone()),
    }
}

const UUID: &str = "/proc/sys/kernel/random/uuid";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_uid_has_the_form_of_version_4() {
        let uid = now(&json!({})).unwrap().uid;
        let lengths: Vec<_> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(uid[14..].starts_with('4') && uid[19..].starts_with(['8', '9', 'a', 'b']), "{uid}");
        assert_ne!(uid, now(&json!({})).unwrap().uid);
    }

    #[test]
    fn what_is_said_stays() {
        let born = now(&json!({"metadata": {"uid": "u", "creationTimestamp": null}})).unwrap();
        assert_eq!(born.uid, "u");
        assert!(born.created.ends_with('Z'));
    }
}

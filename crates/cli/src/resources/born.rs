//! What an object is born with: a random uid, and the time.

use anyhow::{Context, Result};
use russet_agent::register;
use russet_api::calico::Born;
use serde_json::Value;

/// What a new object is given; what the operator's document says already stays, as with calicoctl.
pub fn now(said: &Value) -> Result<Born> {
    Ok(kept(said, &register::born().context("make an object's uid")?))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_stays() {
        let born = now(&json!({"metadata": {"uid": "u", "creationTimestamp": null}})).unwrap();
        assert_eq!(born.uid, "u");
        assert!(born.created.ends_with('Z'));
    }
}

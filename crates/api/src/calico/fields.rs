//! Fields that Calico does not have. They are kept, but in a file that somebody just wrote they are slips.

use serde_json::{Map, Value};

use super::{
    document::{ENVELOPE, MAPS, METADATA},
    kind::Kind,
    resource::fields_of,
    stored::Fields,
};

/// A field that is not Calico's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// `spec.ipipmode`.
    pub path: String,
    pub name: String,
    /// The field that was meant, if one is near.
    pub near: Option<&'static str>,
}

/// More are not told of one object.
const MOST: usize = 32;

/// The fields of an object that Calico does not have. Of a kind with fields that are nobody's business here it
/// is only those that are near to one of ours.
pub fn strangers(kind: Kind, object: &Value) -> Vec<Stranger> {
    let mut found = Vec::new();
    let Value::Object(envelope) = object else { return found };
    note(&mut found, "", envelope, Fields::All(ENVELOPE));
    if let Some(Value::Object(metadata)) = envelope.get("metadata") {
        note(&mut found, "metadata", metadata, Fields::All(METADATA));
    }
    let fields = fields_of(kind);
    for part in ["spec", "status"] {
        if let Some(value) = envelope.get(part) {
            walk(&mut found, part, value, fields);
        }
    }
    found.truncate(MOST);
    found
}

fn walk(found: &mut Vec<Stranger>, path: &str, value: &Value, fields: Fields) {
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(found, &format!("{path}[{i}]"), item, fields);
            }
        }
        Value::Object(object) if found.len() < MOST => {
            note(found, path, object, fields);
            // The names in a map are data.
            for (name, value) in object.iter().filter(|(name, _)| !MAPS.contains(&name.as_str())) {
                walk(found, &format!("{path}.{name}"), value, fields);
            }
        }
        _ => {}
    }
}

fn note(found: &mut Vec<Stranger>, path: &str, object: &Map<String, Value>, fields: Fields) {
    let (Fields::All(known) | Fields::Some(known)) = fields;
    for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
        let near = nearest(name, fields);
        if near.is_some() || matches!(fields, Fields::All(_)) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            found.push(Stranger { path, name: super::cut(name), near });
        }
    }
}

fn nearest(name: &str, fields: Fields) -> Option<&'static str> {
    // Where there are other fields than these, one of them may be near.
    let (known, most) = match fields {
        Fields::All(known) => (known, 2),
        Fields::Some(known) => (known, 1),
    };
    if name.len() > LONGEST {
        return None;
    }
    let lower = name.to_lowercase();
    let far = |field: &str| strsim::damerau_levenshtein(&field.to_lowercase(), &lower);
    let fits = |field: &&&str| far(field) <= most.min(field.len() / 3);
    known.iter().filter(fits).min_by_key(|field| far(field)).copied()
}

/// No field's name is longer; the distance of long texts takes time.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(kind: Kind, object: &Value) -> Vec<String> {
        let show =
            |stranger: Stranger| format!("{}→{}", stranger.path, stranger.near.unwrap_or("?"));
        strangers(kind, object).into_iter().map(show).collect()
    }

    #[test]
    fn slips_are_found_at_every_depth_and_names_that_are_data_are_none() {
        let pool = json!({
            "kind": "IPPool", "apiversion": "x",
            "metadata": {"name": "n", "lables": {}, "labels": {"cdir": "1"}},
            "spec": {"cidr": "c", "ipipmode": "Always", "blocksize": 26, "zeal": 7},
        });
        assert_eq!(
            told(Kind::IpPool, &pool),
            [
                "apiversion→apiVersion",
                "metadata.lables→labels",
                "spec.blocksize→blockSize",
                "spec.ipipmode→ipipMode",
                "spec.zeal→?"
            ]
        );
        let filter = json!({"spec": {"importV4": [{"action": "Accept", "matchOperater": "In"}]}});
        assert_eq!(
            told(Kind::BgpFilter, &filter),
            ["spec.importV4[0].matchOperater→matchOperator"]
        );
    }

    #[test]
    fn felix_has_more_fields_than_we_know_so_only_slips_are_told() {
        let felix =
            json!({"spec": {"bpfEnabled": true, "vxlanvni": 1, "chainInsertMode": "Insert"}});
        assert_eq!(told(Kind::FelixConfiguration, &felix), ["spec.vxlanvni→vxlanVNI"]);
    }

    #[test]
    fn strangers_are_bounded() {
        let many: Map<_, _> = (0..10_000).map(|n| (format!("x{n}"), json!({"y": 1}))).collect();
        assert_eq!(strangers(Kind::IpPool, &json!({"spec": many})).len(), MOST);
        let long = json!({"spec": {"x".repeat(100_000): 1}});
        assert!(strangers(Kind::IpPool, &long)[0].name.chars().count() < 70);
    }
}

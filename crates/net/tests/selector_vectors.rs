//! Calico's own rows for selectors, and what must hold of any.
//!
//! The vectors are another project's data and lie beside the repository. Where `CI` is `true` a missing file
//! is a failure; elsewhere the test says by name that it was skipped.

use proptest::prelude::*;
use russet_net::{Labels, Selector};
use serde_json::Value;

#[test]
fn selectors_choose_what_calico_s_choose() {
    let Some(vectors) = vectors() else { return };
    let rows = vectors["eval"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let text = row["sel"].as_str().unwrap();
        let selector: Selector = text.parse().unwrap();
        for (key, want) in [("match", true), ("nomatch", false)] {
            for set in row[key].as_array().unwrap() {
                assert_eq!(selector.matches(&labels(set)), want, "{text} of {set}");
            }
        }
    }
}

#[test]
fn what_calico_refuses_is_refused() {
    let Some(vectors) = vectors() else { return };
    for row in vectors["bad"].as_array().unwrap() {
        let text = row.as_str().unwrap();
        assert!(text.parse::<Selector>().is_err(), "{text}");
    }
}

#[test]
fn canonical_texts_and_ids_are_calico_s() {
    let Some(vectors) = vectors() else { return };
    for row in vectors["canon"].as_array().unwrap() {
        let selector: Selector = row["in"].as_str().unwrap().parse().unwrap();
        assert_eq!(selector.to_string(), row["out"].as_str().unwrap());
        let id = row["uid"].as_str().unwrap();
        assert!(id.is_empty() || selector.id() == id, "{selector}: {}", selector.id());
    }
}

proptest! {
    #[test]
    fn canonical_text_reads_as_itself_and_chooses_the_same(
        text in texts(),
        sets in prop::collection::vec(prop::collection::btree_map("[a-c]", "[a-c'\"]{0,2}", 0..3), 8),
    ) {
        let selector: Selector = text.parse().unwrap();
        let again: Selector = selector.to_string().parse().unwrap();
        prop_assert_eq!(again.to_string(), selector.to_string());
        prop_assert_eq!(again.id(), selector.id());
        prop_assert_eq!(&again, &selector);
        for set in sets {
            let labels: Labels = set.into_iter().collect();
            prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-c!=&|(){}'\", \thasin]{0,40}|\\PC{0,40}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }
}

/// Texts of selectors, with all that is optional in them.
fn texts() -> impl Strategy<Value = String> {
    let value = prop_oneof!["\"[a-c']{0,2}\"", "'[a-c\"]{0,2}'"];
    let set = prop::collection::vec(value.clone(), 0..4).prop_map(|values| values.join(" ,"));
    let leaf = prop_oneof![
        Just("all( )".to_owned()),
        Just("global()".to_owned()),
        "has\\( ?[a-c]\\)",
        ("[a-c] ?(==|!=| contains| starts with|\tstarts  with| startswith| endswith)", value)
            .prop_map(|(head, value)| format!("{head}{value}")),
        ("[a-c] (in|not in|notin) ?", set).prop_map(|(head, set)| format!("{head}{{{set}}}")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            ("(! ?){0,3}", inner).prop_map(|(not, part)| format!("{not}({part})")),
            parts.clone().prop_map(|parts| format!("({})", parts.join("&& "))),
            parts.prop_map(|parts| parts.join(" ||")),
        ]
    })
}

fn labels(set: &Value) -> Labels {
    let set = set.as_object().unwrap();
    set.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

fn vectors() -> Option<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/selectors.json");
    match std::fs::read(file) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(err) if std::env::var("CI").as_deref() == Ok("true") => panic!("{file}: {err}"),
        Err(err) => {
            eprintln!("skipped: {file}: {err}");
            None
        }
    }
}

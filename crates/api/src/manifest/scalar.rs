//! What a bare word of YAML means (YAML 1.2, core schema).
//!
//! `yes`, `on` and their like are texts, and so is a number with a leading zero: half of all readers take them
//! for something else, so whoever wants a flag or a number there is told, and nothing is guessed.

use serde_json::{Number, Value};

/// Reads a word without quotes.
pub(super) fn plain(word: &str) -> Value {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(word).map_or_else(|| Value::String(word.to_owned()), Value::Number),
    }
}

fn number(word: &str) -> Option<Number> {
    if let Some(digits) = word.strip_prefix("0x") {
        return u64::from_str_radix(unsigned(digits)?, 16).ok().map(Number::from);
    }
    if let Some(digits) = word.strip_prefix("0o") {
        return u64::from_str_radix(unsigned(digits)?, 8).ok().map(Number::from);
    }
    let body = word.strip_prefix('+').unwrap_or(word);
    // JSON's grammar is the rest of YAML's, less `.5`, `5.` and infinities, which no field takes.
    let is_number = body.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    is_number.then(|| serde_json::from_str(body).ok()).flatten()
}

/// A sign behind the prefix is none of YAML's.
fn unsigned(digits: &str) -> Option<&str> {
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_what_yaml_1_2_says_and_nothing_is_guessed() {
        for (word, value) in [
            ("~", json!(null)),
            ("True", json!(true)),
            ("yes", json!("yes")),
            ("26", json!(26)),
            ("+26", json!(26)),
            ("-26", json!(-26)),
            ("0x1f", json!(31)),
            ("0o17", json!(15)),
            ("0x-1", json!("0x-1")),
            ("010", json!("010")),
            ("1.10", json!(1.1)),
            ("1e3", json!(1000.0)),
            ("- 1", json!("- 1")),
            ("1.1.1", json!("1.1.1")),
            ("64512:100", json!("64512:100")),
            ("2026-03-01T08:00:00Z", json!("2026-03-01T08:00:00Z")),
            ("18446744073709551615", json!(u64::MAX)),
            (".inf", json!(".inf")),
        ] {
            assert_eq!(plain(word), value, "{word}");
        }
    }
}

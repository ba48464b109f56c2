//! What a topology leaves open: words in its text that whoever runs it may change.
//!
//! `vars` gives each word its usual value, and `<word>` stands for it anywhere in the file. They are filled in
//! before anything else looks at the text, so one file can be run over several backends, or a break can last
//! longer than a test has time for. No value has a line break: every line keeps its number.

use std::str::FromStr;

use super::{Fault, Faults, tree::Node, tree::Tree};

/// A word and its value, for one run: `outage=5m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub word: String,
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((word, value)) if !word.is_empty() && !value.contains('\n') => {
                Ok(Self { word: word.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("{text:?} is no setting: wanted is WORD=VALUE")),
        }
    }
}

/// The text with every word filled in: by a setting, else as the file says.
///
/// # Errors
///
/// When a setting names no word of the file. A text that is no YAML is left for those who tell its faults.
pub(super) fn fill_in(file: &str, text: &str, settings: &[Setting]) -> Result<String, Faults> {
    let mut words = words(text);
    let mut faults = Vec::new();
    for setting in settings {
        match words.iter_mut().find(|(word, _)| *word == setting.word) {
            Some((_, value)) => value.clone_from(&setting.value),
            None => faults.push(unknown(setting, &words)),
        }
    }
    if !faults.is_empty() {
        return Err(Faults { file: file.to_owned(), faults });
    }
    let fill =
        |text: String, (word, value): &(String, String)| text.replace(&format!("<{word}>"), value);
    Ok(words.iter().fold(text.to_owned(), fill))
}

fn words(text: &str) -> Vec<(String, String)> {
    let Ok(tree) = Tree::parse(text) else { return Vec::new() };
    let Some(Node::Map(entries)) = tree.get("vars").map(|vars| &vars.node) else {
        return Vec::new();
    };
    let word = |(word, at): &(String, Tree)| Some((word.clone(), at.text()?.to_owned()));
    entries.iter().filter_map(word).collect()
}

fn unknown(setting: &Setting, words: &[(String, String)]) -> Fault {
    let known: Vec<_> = words.iter().map(|(word, _)| word.as_str()).collect();
    let reason = format!("there is no word {:?}; known are: {}", setting.word, known.join(", "));
    Fault { line: 0, place: "vars".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: t-<kind>\nvars: {kind: vxlan, far: '{a: 1}'}\nconfig: {Type: <kind>, Far: <far>, Not: <other>}\n";

    #[test]
    fn a_word_has_the_file_s_value_unless_it_is_set() {
        let usual = fill_in("t", TEXT, &[]).unwrap();
        assert!(usual.contains("name: t-vxlan\n") && usual.contains("Far: {a: 1}, Not: <other>"));
        let set = fill_in("t", TEXT, &["kind=host-gw".parse().unwrap()]).unwrap();
        assert!(set.contains("name: t-host-gw\n") && set.contains("{Type: host-gw,"), "{set}");
    }

    #[test]
    fn a_word_that_the_file_does_not_have_is_refused() {
        let err = fill_in("t", TEXT, &["kin=a".parse().unwrap()]).unwrap_err().to_string();
        assert!(err.contains("no word \"kin\"; known are: kind, far"), "{err}");
        assert!("kind".parse::<Setting>().is_err() && "=a".parse::<Setting>().is_err());
    }
}

//! A command line without a shell: words split on blanks, and variables put into each word.
//!
//! The split comes first, so a variable's value never becomes two words, let alone a command. There are no quotes and
//! no other signs: whoever needs a shell names one, or a script.

/// The words of a command. What `variable` does not know is empty.
pub fn words(command: &str, variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    command.split_whitespace().map(|word| expand(word, &variable)).collect()
}

/// Puts in variables as Go's `os.Expand` does: `$NAME` and `${NAME}`. A dollar without a name stays, and a brace
/// that nothing closes goes.
fn expand(word: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let (name, left) = name(after);
        match name {
            Some(name) => text.push_str(&variable(name).unwrap_or_default()),
            None if left.len() == after.len() => text.push('$'),
            None => {}
        }
        rest = left;
    }
    text.push_str(rest);
    text
}

/// The name that follows a dollar, and what follows the name.
fn name(after: &str) -> (Option<&str>, &str) {
    if let Some(braced) = after.strip_prefix('{') {
        return match braced.split_once('}') {
            Some(("", left)) => (None, left),
            Some((name, left)) => (Some(name), left),
            None => (None, braced),
        };
    }
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = after.find(|c| !is_of_name(c)).unwrap_or(after.len());
    match after.split_at_checked(end) {
        Some((name, left)) if !name.is_empty() => (Some(name), left),
        _ => (None, after),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_split_on_any_blanks() {
        assert_eq!(read(" ip  route\tadd\n10.0.0.0/8 "), ["ip", "route", "add", "10.0.0.0/8"]);
        assert!(read(" \t\n").is_empty());
    }

    #[test]
    fn variables_are_put_in_with_and_without_braces() {
        assert_eq!(read("add $SUBNET via ${IP}x"), ["add", "10.1.2.0/24", "via", "192.0.2.1x"]);
        assert_eq!(read("$IP/$IP"), ["192.0.2.1/192.0.2.1"]);
        assert_eq!(read("$NOBODY a$NOBODY"), ["", "a"]);
    }

    #[test]
    fn a_value_with_blanks_and_signs_stays_one_word() {
        assert_eq!(read("echo $EVIL"), ["echo", "x; rm -rf / $(y) $IP"]);
    }

    #[test]
    fn what_is_no_name_stays_or_goes_as_in_go() {
        for (command, wanted) in
            [("a$", "a$"), ("$/x", "$/x"), ("$$IP", "$192.0.2.1"), ("${}x", "x"), ("${IP", "IP")]
        {
            assert_eq!(read(command), [wanted], "{command}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_gives_more_words_than_it_has(command in ".{0,80}") {
            let count = command.split_whitespace().count();
            prop_assert_eq!(read(&command).len(), count);
        }
    }

    fn read(command: &str) -> Vec<String> {
        words(command, |name| match name {
            "SUBNET" => Some("10.1.2.0/24".to_owned()),
            "IP" => Some("192.0.2.1".to_owned()),
            "EVIL" => Some("x; rm -rf / $(y) $IP".to_owned()),
            _ => None,
        })
    }
}

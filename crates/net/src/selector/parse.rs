//! Reads a selector's text, by hand and in one pass.
//!
//! The text is a list of characters and a place in it; each function reads one rule of the grammar. Only
//! parentheses recurse, and they are counted.

use std::collections::BTreeSet;

use super::{Node, Op};

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector, column {column}: {reason}")]
pub struct SelectorError {
    column: usize,
    reason: String,
}

impl SelectorError {
    pub(super) fn too_long(octets: usize, most: usize) -> Self {
        Self { column: 1, reason: format!("{octets} octets are more than {most}") }
    }

    pub(super) fn too_deep() -> Self {
        Self { column: 1, reason: format!("groups lie more than {MOST_OPEN} deep in each other") }
    }

    /// Where it went wrong, in characters from 1.
    pub const fn column(&self) -> usize {
        self.column
    }
}

pub(super) fn parse(text: &str) -> Result<Node, SelectorError> {
    let mut parser = Parser { chars: text.chars().collect(), at: 0, open: 0 };
    parser.blanks();
    if parser.peek().is_none() {
        return Ok(Node::All);
    }
    let node = parser.either()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.wanted("&& or || or the end")),
    }
}

/// The most parentheses that may be open at one place.
pub(super) const MOST_OPEN: usize = 100;
/// The most characters of a label's name.
const MOST_LABEL: usize = 512;

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// How many parentheses are open here.
    open: usize,
}

impl Parser {
    fn either(&mut self) -> Result<Node, SelectorError> {
        let mut parts = vec![self.both()?];
        while self.take("||") {
            parts.push(self.both()?);
        }
        Ok(one_or(parts, Node::Or))
    }

    fn both(&mut self) -> Result<Node, SelectorError> {
        let mut parts = vec![self.operation()?];
        while self.take("&&") {
            parts.push(self.operation()?);
        }
        Ok(one_or(parts, Node::And))
    }

    /// Two negations are none.
    fn operation(&mut self) -> Result<Node, SelectorError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let node = self.term()?;
        Ok(match node {
            // What was in parentheses may be a negation itself.
            Node::Not(part) if negated => *part,
            node if negated => Node::Not(Box::new(node)),
            node => node,
        })
    }

    fn term(&mut self) -> Result<Node, SelectorError> {
        if self.take("(") {
            return self.parenthesis();
        }
        if self.take("has(") {
            let name = self.label()?;
            self.close()?;
            return Ok(Node::Has(name));
        }
        if self.take("all(") {
            return self.close().map(|()| Node::All);
        }
        if self.take("global(") {
            return self.close().map(|()| Node::Global);
        }
        let name = self.label()?;
        self.comparison(name)
    }

    fn parenthesis(&mut self) -> Result<Node, SelectorError> {
        if self.open == MOST_OPEN {
            return Err(self.error(&format!("more than {MOST_OPEN} parentheses are open")));
        }
        self.open += 1;
        let node = self.either()?;
        self.close()?;
        self.open -= 1;
        Ok(node)
    }

    fn comparison(&mut self, name: String) -> Result<Node, SelectorError> {
        if self.take("==") {
            return self.value().map(|value| Node::Compare(name, Op::Equal, value));
        }
        if self.take("!=") {
            return self.value().map(|value| Node::Compare(name, Op::NotEqual, value));
        }
        let start = self.at;
        let word = self.word();
        let op = match word.as_str() {
            "contains" => Op::Contains,
            "startswith" => Op::StartsWith,
            "endswith" => Op::EndsWith,
            "starts" if self.second("with") => Op::StartsWith,
            "ends" if self.second("with") => Op::EndsWith,
            "in" => return self.set().map(|set| Node::OneOf(name, set)),
            "notin" => return self.set().map(|set| Node::NoneOf(name, set)),
            "not" if self.second("in") => return self.set().map(|set| Node::NoneOf(name, set)),
            _ => {
                self.at = start;
                return Err(self.wanted(OPERATORS));
            }
        };
        self.value().map(|value| Node::Compare(name, op, value))
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if !self.take("{") {
            return Err(self.wanted("{"));
        }
        let mut set = BTreeSet::new();
        while !self.take("}") {
            set.insert(self.value()?);
            if !self.take(",") && self.peek() != Some('}') {
                return Err(self.wanted(", or }"));
            }
        }
        Ok(set)
    }

    /// There is no way to write a quote inside its own kind.
    fn value(&mut self) -> Result<String, SelectorError> {
        let Some(quote @ ('"' | '\'')) = self.peek() else {
            return Err(self.wanted("a value in quotes"));
        };
        let rest = self.chars.get(self.at + 1..).unwrap_or_default();
        let Some(len) = rest.iter().position(|c| *c == quote) else {
            return Err(self.error("the quote is never closed"));
        };
        let value = rest.iter().take(len).collect();
        self.at += len + 2;
        self.blanks();
        Ok(value)
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        self.blanks();
        let start = self.at;
        let name = self.word();
        if name.is_empty() {
            return Err(self.wanted("a label, has(), all(), global(), ! or ("));
        }
        if name.len() > MOST_LABEL {
            self.at = start;
            return Err(self.error(&format!("the label has more than {MOST_LABEL} characters")));
        }
        Ok(name)
    }

    fn close(&mut self) -> Result<(), SelectorError> {
        if self.take(")") { Ok(()) } else { Err(self.wanted(")")) }
    }

    /// Takes a word's second half, which blanks may set apart.
    fn second(&mut self, wanted: &str) -> bool {
        let start = self.at;
        let found = self.word() == wanted;
        if !found {
            self.at = start;
        }
        found
    }

    /// The letters of a label from here on, and the blanks behind them.
    fn word(&mut self) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let word: String = rest.iter().copied().take_while(|c| is_label(*c)).collect();
        // All of them are of one octet.
        self.at += word.len();
        self.blanks();
        word
    }

    /// Takes what is written here, and the blanks behind it.
    fn take(&mut self, wanted: &str) -> bool {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let here = wanted.chars().eq(rest.iter().copied().take(wanted.len()));
        // `!` and `!=` begin alike, and the latter may not stand where the former may.
        let here = here && !(wanted == "!" && rest.get(1) == Some(&'='));
        if here {
            self.at += wanted.len();
            self.blanks();
        }
        here
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn wanted(&self, what: &str) -> SelectorError {
        match self.peek() {
            Some(found) => self.error(&format!("{found:?} is not {what}")),
            None => self.error(&format!("it ends where {what} is wanted")),
        }
    }

    fn error(&self, reason: &str) -> SelectorError {
        SelectorError { column: self.at + 1, reason: reason.to_owned() }
    }
}

const OPERATORS: &str = "==, !=, contains, starts with, ends with, in or not in";

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

fn one_or(mut parts: Vec<Node>, more: fn(Vec<Node>) -> Node) -> Node {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            more(parts)
        }
        // The callers begin with one.
        None => Node::All,
    }
}

#[cfg(test)]
mod tests {
    use crate::Selector;

    #[test]
    fn an_error_names_its_column_and_what_would_be_right() {
        for (text, column, part) in [
            ("b == b", 6, "a value in quotes"),
            ("a b", 3, "=="),
            ("foo == \"bar\" &", 14, "&& or ||"),
            ("'FOO", 1, "a label"),
            ("a == 'x", 6, "never closed"),
            ("é == 'x'", 1, "'é' is not a label"),
            ("a == 'é' x", 10, "the end"),
            ("(a == \"foo\"", 12, ")"),
            ("has (a)", 5, "=="),
            ("a in {\"b\" \"c\"}", 11, ", or }"),
            ("a in {,}", 7, "a value"),
            ("! != 'a'", 3, "a label"),
            ("all() all()", 7, "the end"),
        ] {
            let err = text.parse::<Selector>().unwrap_err();
            assert_eq!(err.column(), column, "{text}: {err}");
            assert!(err.to_string().contains(part), "{text}: {err}");
        }
    }

    #[test]
    fn words_of_the_language_may_be_labels() {
        for text in ["in in {\"in\"}", "has == \"all\"", "contains contains \"x\"", "not not in {}"]
        {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let nested = |n: usize| format!("{}all(){}", "(".repeat(n), ")".repeat(n));
        assert!(nested(100).parse::<Selector>().is_ok());
        assert!(nested(101).parse::<Selector>().is_err());
        assert!("(".repeat(60_000).parse::<Selector>().is_err());
        // Its canonical text would have twice as many parentheses.
        let mixed = format!("{}all(){}", "(all() || all() && ".repeat(60), ")".repeat(60));
        assert!(mixed.parse::<Selector>().is_err());
        assert!("!".repeat(60_000).parse::<Selector>().is_err());
        assert!(format!("has({})", "a".repeat(512)).parse::<Selector>().is_ok());
        assert!(format!("has({})", "a".repeat(513)).parse::<Selector>().is_err());
        assert!(" ".repeat(70_000).parse::<Selector>().is_err());
    }
}

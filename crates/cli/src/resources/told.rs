//! What is wrong in a text, shown with the line and a mark under the place.
//!
//! ```text
//!   pools.yaml:7:14: IPPool web: spec.blockSize: a block of 33 bits is not within 20 to 32 for IPv4
//!      7 |   blockSize: 33
//!        |              ^^
//! ```

use std::fmt::{self, Write};

use russet_api::manifest::{Complaint, Span};

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Fault,
    /// It may be meant.
    Warning,
}

/// One complaint about one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The text's place in the order of reading.
    pub source: usize,
    /// `IPPool web`; empty for what is no object.
    pub subject: String,
    pub grade: Grade,
    pub complaint: Complaint,
}

/// Objects that cannot be used as they are; what is wrong has been shown by the time it is displayed.
#[derive(Debug, thiserror::Error)]
#[error("{shown}{count}; {after}")]
pub struct Refused {
    pub shown: String,
    pub count: String,
    /// What did not happen for it.
    pub after: &'static str,
}

impl Told {
    /// Writes it with its line.
    pub fn show(&self, out: &mut String, name: &str, lines: &[&str]) -> fmt::Result {
        let Span { line, column, .. } = self.complaint.span;
        let grade = if self.grade == Grade::Warning { "warning: " } else { "" };
        let subject =
            if self.subject.is_empty() { String::new() } else { format!("{}: ", self.subject) };
        let reason = clean(&self.complaint.reason);
        writeln!(out, "{name}:{line}:{column}: {grade}{}{reason}", clean(&subject))?;
        let Some(shown) = lines.get(line.saturating_sub(1)) else { return Ok(()) };
        let (window, before) = window(shown, column);
        writeln!(out, "{line:>5} | {}", clean(&window))?;
        let room = window.chars().count().saturating_sub(before).max(1);
        let marks = "^".repeat(self.complaint.span.width.min(room));
        writeln!(out, "      | {}{marks}", " ".repeat(before))
    }
}

/// The part of a line around a column, and how much of it stands before that.
fn window(line: &str, column: usize) -> (String, usize) {
    let at = column.saturating_sub(1);
    let skip = if at > WINDOW * 2 / 3 { at - WINDOW / 2 } else { 0 };
    let part: String = line.chars().skip(skip).take(WINDOW).collect();
    let before = (at - skip).min(part.chars().count());
    (part, before)
}

/// More of a line is not shown.
const WINDOW: usize = 100;

/// Text from a file, with nothing in it that a terminal obeys or that turns letters round. As many characters.
pub fn clean(text: &str) -> String {
    let bad =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if bad(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// How many complaints there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub faults: usize,
    warnings: usize,
}

impl Counts {
    /// Counts one more, and says how many of its grade there are now.
    pub const fn add(&mut self, grade: Grade) -> usize {
        let count = match grade {
            Grade::Fault => &mut self.faults,
            Grade::Warning => &mut self.warnings,
        };
        *count += 1;
        *count
    }

    pub const fn warnings_are_faults(&mut self) {
        self.faults += self.warnings;
        self.warnings = 0;
    }

    pub const fn all(self) -> usize {
        self.faults + self.warnings
    }
}

/// `1 fault`, `2 faults and 1 warning`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, warnings } = *self;
        write!(f, "{faults} fault{}", if faults == 1 { "" } else { "s" })?;
        if warnings > 0 {
            write!(f, " and {warnings} warning{}", if warnings == 1 { "" } else { "s" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: usize, column: usize, width: usize) -> String {
        let complaint = Complaint::new(Span { line, column, width }, "what is wrong");
        let told = Told { source: 0, subject: "IPPool web".into(), grade: Grade::Fault, complaint };
        let mut out = String::new();
        told.show(&mut out, "f.yaml", &text.lines().collect::<Vec<_>>()).unwrap();
        out
    }

    #[test]
    fn the_mark_stands_under_the_place() {
        assert_eq!(
            shown("spec:\n  blockSize: 33\n", 2, 14, 2),
            "f.yaml:2:14: IPPool web: what is wrong\n    2 |   blockSize: 33\n      |              ^^\n"
        );
    }

    #[test]
    fn a_place_behind_the_end_has_no_line_and_one_behind_a_line_a_mark() {
        assert_eq!(shown("a", 7, 1, 1), "f.yaml:7:1: IPPool web: what is wrong\n");
        assert!(shown("abc", 1, 4, 9).ends_with("    1 | abc\n      |    ^\n"));
    }

    #[test]
    fn long_lines_are_shown_around_the_place() {
        let line = format!("{}X{}", "a".repeat(100_000), "b".repeat(100_000));
        let out = shown(&line, 1, 100_001, 500);
        assert!(out.len() < 500, "{out}");
        let (line, marks) = out.split_once('\n').unwrap().1.split_once('\n').unwrap();
        let at = line.find('X').unwrap();
        assert_eq!(marks.find('^'), Some(at));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        let out = shown("a: \u{1b}[31m\u{202e}x\ty", 1, 1, 1);
        assert!(out.contains("a: \u{fffd}[31m\u{fffd}x y"), "{out:?}");
    }
}

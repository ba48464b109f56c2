//! The report for people: a table in the terminal, or Markdown for the documentation.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

use crate::{
    report::{Figure, Report, Row},
    stats::Spread,
};

const HEAD: [&str; 6] =
    ["what", "Russet: median, p99", "baseline: median, p99", "ratio (quartiles)", "A/A", "wanted"];

/// A table for each figure, as a terminal shows it.
pub fn terminal(report: &Report) -> String {
    let mut out = format!("{}\n", report.machine);
    for figure in &report.figures {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(HEAD);
        table.add_rows(figure.rows.iter().map(|row| cells(row).map(|lines| lines.join("\n"))));
        let _ = write!(out, "\n{}\n{table}\n", title(figure));
        notes(&mut out, figure);
    }
    out
}

/// The same for docs/bench.md.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("{}\n", report.machine);
    for figure in &report.figures {
        let _ = write!(
            out,
            "\n## {}\n\n| {} |\n|{}\n",
            figure.name,
            HEAD.join(" | "),
            "---|".repeat(HEAD.len())
        );
        for row in &figure.rows {
            let _ = writeln!(out, "| {} |", cells(row).map(|lines| lines.join("<br>")).join(" | "));
        }
        out.push('\n');
        notes(&mut out, figure);
    }
    out
}

fn title(figure: &Figure) -> String {
    format!("── {} ──", figure.name)
}

fn notes(out: &mut String, figure: &Figure) {
    for note in &figure.notes {
        let _ = writeln!(out, "- {note}");
    }
}

/// The cells of a row, each of lines; a row with two baselines has two lines in the cells of these.
fn cells(row: &Row) -> [Vec<String>; HEAD.len()] {
    let show = |value| row.unit.show(value);
    let ours = format!("{}, {}  n={}", show(row.ours.median), show(row.ours.p99), row.ours.n);
    let baselines = row.baselines.iter();
    let beside = baselines
        .clone()
        .map(|b| format!("{}: {}, {}", b.name, show(b.summary.median), show(b.summary.p99)));
    let noise = row.noise.as_ref().map(Spread::to_string);
    [
        vec![row.what.clone()],
        vec![ours],
        beside.collect(),
        baselines.map(|b| b.ratio.to_string()).collect(),
        noise.into_iter().collect(),
        row.wants.iter().map(ToString::to_string).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::Machine,
        report::{Bound, Unit},
    };

    #[test]
    fn a_row_shows_ours_the_baseline_the_noise_and_the_verdict() {
        let row = Row::of("ADD", Unit::Seconds, &[0.002, 0.004])
            .and_then(|row| row.versus("bridge", &[0.002, 0.004], &[0.01, 0.01]))
            .and_then(|row| row.noise(&[0.01, 0.01], &[0.01, 0.01]))
            .unwrap()
            .must(Bound::RatioAtMost(0.5));
        let figure = Figure { name: "cni", rows: vec![row], notes: vec!["A note.".into()] };
        let machine = Machine::default();
        let text = markdown(&Report { machine, mode: "quick", figures: vec![figure] });

        assert!(text.contains(
            "| ADD | 3.00 ms, 4.00 ms  n=2 | bridge: 10.00 ms, 10.00 ms | 0.30 (0.25 to 0.35) | \
             1.00 (1.00 to 1.00) | ratio ≤ 0.50: met |"
        ), "{text}");
        assert!(text.contains("- A note."), "{text}");
    }
}

//! What was found: figures, each of rows, each with its baseline, its A/A ratio and what was wanted of it.
//!
//! A figure module makes [`Row`]s through [`Row::of`], [`Row::versus`] and [`Row::wants`]; `table` shows
//! them to people, serde to programs.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::{
    machine::Machine,
    stats::{Spread, Summary},
};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// `full` or `quick`.
    pub mode: &'static str,
    pub figures: Vec<Figure>,
}

/// One subject of measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub rows: Vec<Row>,
    /// What a reader needs to know, each a sentence.
    pub notes: Vec<String>,
}

/// One quantity.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub what: String,
    pub unit: Unit,
    pub ours: Summary,
    pub baselines: Vec<Baseline>,
    /// The first baseline measured twice: how far from 1 a ratio is by chance.
    pub noise: Option<Spread>,
    pub wants: Vec<Want>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Baseline {
    pub name: String,
    pub summary: Summary,
    /// Ours to this, pair by pair.
    pub ratio: Spread,
}

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Seconds,
    BitsPerSecond,
    /// Requests in a second.
    PerSecond,
    Octets,
    /// Of one core.
    Share,
    /// How many differences.
    Count,
}

/// What is wanted of a row, and whether it came true.
#[derive(Clone, Debug, Serialize)]
pub struct Want {
    pub text: String,
    pub met: bool,
    pub weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    Must,
    Aim,
}

/// A bound on what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The median ratio to the first baseline.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    MedianAtMost(f64),
    MedianAtLeast(f64),
    /// Every single sample.
    AllAtMost(f64),
}

impl Row {
    /// # Errors
    ///
    /// When nothing was measured.
    pub fn of(what: impl Into<String>, unit: Unit, samples: &[f64]) -> Result<Self> {
        let ours = Summary::of(samples)?;
        Ok(Self {
            what: what.into(),
            unit,
            ours,
            baselines: Vec::new(),
            noise: None,
            wants: Vec::new(),
        })
    }

    /// Puts a baseline beside it, measured in the same rounds.
    ///
    /// # Errors
    ///
    /// When it was not measured as often.
    pub fn versus(mut self, name: &str, ours: &[f64], baseline: &[f64]) -> Result<Self> {
        let summary = Summary::of(baseline)?;
        let ratio = Spread::of_ratios(ours, baseline)?;
        self.baselines.push(Baseline { name: name.to_owned(), summary, ratio });
        Ok(self)
    }

    /// Tells the noise: the baseline's second measurement of each round against its first.
    ///
    /// # Errors
    ///
    /// When it was not measured as often.
    pub fn noise(mut self, again: &[f64], baseline: &[f64]) -> Result<Self> {
        self.noise = Some(Spread::of_ratios(again, baseline)?);
        Ok(self)
    }

    #[must_use]
    pub fn must(self, bound: Bound) -> Self {
        self.wants(bound, Weight::Must)
    }

    #[must_use]
    pub fn aim(self, bound: Bound) -> Self {
        self.wants(bound, Weight::Aim)
    }

    fn wants(mut self, bound: Bound, weight: Weight) -> Self {
        let ratio = self.baselines.first().map(|baseline| baseline.ratio.median);
        let met = match bound {
            Bound::RatioAtMost(limit) => ratio.is_some_and(|ratio| ratio <= limit),
            Bound::RatioAtLeast(limit) => ratio.is_some_and(|ratio| ratio >= limit),
            Bound::MedianAtMost(limit) => self.ours.median <= limit,
            Bound::MedianAtLeast(limit) => self.ours.median >= limit,
            Bound::AllAtMost(limit) => self.ours.max <= limit,
        };
        self.wants.push(Want { text: bound.text(self.unit), met, weight });
        self
    }
}

impl Bound {
    fn text(self, unit: Unit) -> String {
        match self {
            Self::RatioAtMost(limit) => format!("ratio ≤ {limit:.2}"),
            Self::RatioAtLeast(limit) => format!("ratio ≥ {limit:.2}"),
            Self::MedianAtMost(limit) => format!("median ≤ {}", unit.show(limit)),
            Self::MedianAtLeast(limit) => format!("median ≥ {}", unit.show(limit)),
            Self::AllAtMost(limit) => format!("each ≤ {}", unit.show(limit)),
        }
    }
}

impl Unit {
    /// A value with its unit, three digits or so.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 1e-3 => format!("{:.1} µs", value * 1e6),
            Self::Seconds if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::BitsPerSecond => format!("{:.2} Gbit/s", value / 1e9),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Octets => format!("{:.1} MB", value / 1e6),
            Self::Share => format!("{:.3} %", value * 100.0),
            Self::Count => format!("{value:.0}"),
        }
    }
}

impl Report {
    /// The rows that something was wanted of that must be and is not.
    pub fn missed(&self) -> impl Iterator<Item = (&Figure, &Row, &Want)> {
        self.figures.iter().flat_map(|figure| {
            figure.rows.iter().flat_map(move |row| {
                let missed = |want: &&Want| !want.met && want.weight == Weight::Must;
                row.wants.iter().filter(missed).map(move |want| (figure, row, want))
            })
        })
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.met, self.weight) {
            (true, _) => "met",
            (false, Weight::Must) => "MISSED",
            (false, Weight::Aim) => "not yet",
        };
        let aim = if self.weight == Weight::Aim { "aim " } else { "" };
        write!(f, "{aim}{}: {verdict}", self.text)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.q1, self.q3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_held_against_the_median_the_ratio_or_every_sample() {
        let ours = [1.0, 2.0, 9.0];
        let row = Row::of("x", Unit::Seconds, &ours).unwrap();
        let row = row.versus("slow", &ours, &[4.0, 4.0, 9.0]).unwrap();
        let row = row
            .must(Bound::MedianAtMost(2.0))
            .must(Bound::AllAtMost(2.0))
            .must(Bound::RatioAtMost(0.5))
            .must(Bound::RatioAtLeast(0.6));
        let met: Vec<_> = row.wants.iter().map(|want| want.met).collect();
        assert_eq!(met, [true, false, true, false]);
    }

    #[test]
    fn a_ratio_without_a_baseline_is_not_met() {
        let row = Row::of("x", Unit::Seconds, &[1.0]).unwrap().must(Bound::RatioAtMost(9.0));
        assert!(!row.wants[0].met);
        assert_eq!(row.wants[0].to_string(), "ratio ≤ 9.00: MISSED");
    }

    #[test]
    fn values_are_shown_with_a_fitting_unit() {
        assert_eq!(Unit::Seconds.show(0.000_012_34), "12.3 µs");
        assert_eq!(Unit::Seconds.show(0.003), "3.00 ms");
        assert_eq!(Unit::Octets.show(13_500_000.0), "13.5 MB");
        assert_eq!(Unit::BitsPerSecond.show(2.5e10), "25.00 Gbit/s");
        assert_eq!(Unit::Share.show(0.0005), "0.050 %");
    }
}

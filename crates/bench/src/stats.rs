//! Medians, tails and ratios of samples.
//!
//! A shared machine is noisy, so nothing here is a mean. A ratio is formed pair by pair, from two samples
//! that were taken one right after the other, and its median and quartiles are told: whatever slowed the
//! machine down slowed both of a pair. The A/A ratio is the same computation on one thing measured twice;
//! what lies within its quartiles is noise.

use anyhow::{Result, ensure};
use serde::Serialize;

/// What many samples of one quantity come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub n: usize,
    pub min: f64,
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

/// A median with the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub q1: f64,
    pub q3: f64,
}

impl Summary {
    /// # Errors
    ///
    /// Without a sample there is nothing to tell.
    pub fn of(samples: &[f64]) -> Result<Self> {
        let sorted = sorted(samples)?;
        Ok(Self {
            n: sorted.len(),
            min: quantile(&sorted, 0.0),
            median: quantile(&sorted, 0.5),
            p99: nearest_rank(&sorted, 0.99),
            max: quantile(&sorted, 1.0),
        })
    }
}

impl Spread {
    /// # Errors
    ///
    /// Without a sample there is nothing to tell.
    pub fn of(samples: &[f64]) -> Result<Self> {
        let sorted = sorted(samples)?;
        Ok(Self {
            median: quantile(&sorted, 0.5),
            q1: quantile(&sorted, 0.25),
            q3: quantile(&sorted, 0.75),
        })
    }

    /// The ratio of `ours` to `baseline`, pair by pair.
    ///
    /// # Errors
    ///
    /// When the two were not measured equally often, or not at all.
    pub fn of_ratios(ours: &[f64], baseline: &[f64]) -> Result<Self> {
        ensure!(ours.len() == baseline.len(), "{} samples against {}", ours.len(), baseline.len());
        let ratios: Vec<_> = ours.iter().zip(baseline).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}

fn sorted(samples: &[f64]) -> Result<Vec<f64>> {
    ensure!(!samples.is_empty(), "no samples");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

/// Interpolates between the two samples beside the place of `p`, which is in 0..=1. Not for no samples.
#[expect(clippy::cast_precision_loss, reason = "a bench has thousands of samples, not 2^52")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= p <= 1")]
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let last = sorted.len() - 1;
    let place = p * last as f64;
    let below = (place as usize).min(last);
    let above = (below + 1).min(last);
    let part = place - below as f64;
    sorted[below] + (sorted[above] - sorted[below]) * part
}

/// A sample that really occurred: the smallest that `p` of all do not exceed. Not for no samples.
#[expect(clippy::cast_precision_loss, reason = "a bench has thousands of samples, not 2^52")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= p <= 1")]
fn nearest_rank(sorted: &[f64], p: f64) -> f64 {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.n, summary.min, summary.median, summary.max), (4, 1.0, 2.5, 4.0));
    }

    #[test]
    fn the_99th_percentile_is_a_sample_that_occurred() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        let of = |samples| Summary::of(samples).map(|summary| summary.p99).ok();
        assert_eq!(of(&samples), Some(198.0));
        assert_eq!(of(&[7.0]), Some(7.0));
    }

    #[test]
    fn a_ratio_is_formed_pair_by_pair_so_that_drift_cancels() {
        let baseline = [1.0, 2.0, 4.0, 8.0, 16.0];
        let ours = baseline.map(|b| b * 0.5);
        let ratio = Spread::of_ratios(&ours, &baseline).unwrap();
        assert_eq!(ratio, Spread { median: 0.5, q1: 0.5, q3: 0.5 });
    }

    #[test]
    fn quartiles_tell_the_spread() {
        let spread = Spread::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, q1: 2.0, q3: 4.0 });
    }

    #[test]
    fn no_samples_and_unequal_pairs_are_refused() {
        assert!(Summary::of(&[]).is_err());
        assert!(Spread::of(&[]).is_err());
        assert!(Spread::of_ratios(&[1.0], &[1.0, 2.0]).is_err());
    }
}

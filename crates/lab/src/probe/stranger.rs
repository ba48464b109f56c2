//! A stranger that deletes a route and looks how long it stays away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use russet_net::Prefix;
use serde::Serialize;

use crate::rtnl::Rtnl;

/// What became of the route.
#[derive(Clone, Debug, Serialize)]
pub struct CutSummary {
    pub route: String,
    /// Milliseconds from its deletion until the kernel had it again.
    pub back_after_ms: f64,
}

impl std::fmt::Display for CutSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "route {} deleted, back after {:.1} ms", self.route, self.back_after_ms)
    }
}

/// Deletes the route and waits for its return.
pub(super) fn run(dst: Prefix, patience: Duration) -> Result<CutSummary> {
    let mut rtnl = Rtnl::open()?;
    if !has(&mut rtnl, dst)? {
        bail!("there is no route {dst}");
    }
    rtnl.delete_route(dst).with_context(|| format!("delete route {dst}"))?;
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if has(&mut rtnl, dst)? {
            let back_after_ms = begun.elapsed().as_secs_f64() * 1_000.0;
            return Ok(CutSummary { route: dst.to_string(), back_after_ms });
        }
        // A look costs a fraction of this.
        std::thread::sleep(STEP);
    }
    bail!("route {dst} did not come back within {patience:?}")
}

fn has(rtnl: &mut Rtnl, dst: Prefix) -> Result<bool> {
    Ok(rtnl.routes()?.iter().any(|route| route.dst == dst))
}

const STEP: Duration = Duration::from_micros(200);

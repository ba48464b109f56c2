//! `russet ipam check`: what does not add up, for people and in a report that `release` takes.

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use russet_api::calico::{Kind, Resource};
use russet_core::model::calico::{IpamFacts, IpamProblem, TakenFacts};
use serde::{Deserialize, Serialize};

use super::{
    At,
    model::{Seen, holder},
};
use crate::resources::{Datastore, clean};

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Lists every address that is taken, and who uses it
    #[arg(long)]
    show_all_ips: bool,
    /// Lists the addresses that something is wrong with
    #[arg(long)]
    show_problem_ips: bool,
    /// Writes a report, in JSON, for `russet ipam release --from-report`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

/// What was found; fields that calicoctl's report has, too, have its names.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    pub version: String,
    #[serde(rename = "clusterGUID")]
    pub cluster_guid: String,
    pub revision: u64,
    /// By address.
    pub allocations: BTreeMap<String, Vec<Allocation>>,
    pub problems: Vec<String>,
}

/// An address that is taken.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allocation {
    pub handle: String,
    pub sequence_number: Option<u64>,
    /// Whether anybody may still use it; what is in doubt is in use.
    pub in_use: bool,
    pub owners: Vec<String>,
    pub attributes: BTreeMap<String, String>,
}

pub async fn run(args: &CheckArgs) -> Result<ExitCode> {
    let store = args.at.datastore()?;
    let guid = cluster_guid(&store).await?;
    let Seen { facts, revision, bad } = Seen::look(&store).await?;
    let problems = facts.problems();
    print!("{}", summary(&facts));
    if args.show_all_ips {
        print!("{}", all_addresses(&facts));
    }
    for problem in
        problems.iter().filter(|problem| args.show_problem_ips || problem.addr().is_none())
    {
        println!("  {}", clean(&problem.to_string()));
    }
    let of_addresses = problems.iter().filter(|problem| problem.addr().is_some()).count();
    if of_addresses > 0 && !args.show_problem_ips {
        println!("  {of_addresses} problems of addresses; --show-problem-ips lists them");
    }
    for told in &bad {
        println!("  cannot be read: {}", clean(told));
    }
    if let Some(file) = &args.output {
        let report = Report::of(&facts, &problems, guid, revision.get());
        let text = serde_json::to_string_pretty(&report).context("write the report")?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    let all = problems.len() + bad.len();
    println!("Check complete; found {all} problems.");
    Ok(if all == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub async fn cluster_guid(store: &Datastore) -> Result<String> {
    let listed = store.list(Kind::ClusterInformation, None).await?;
    let guid = listed.found.iter().find_map(|found| match &found.resource {
        Resource::ClusterInformation(stored) => stored.value().guid.clone(),
        _ => None,
    });
    Ok(guid.unwrap_or_default())
}

fn summary(facts: &IpamFacts) -> String {
    let taken: usize = facts.blocks.iter().map(|block| block.taken.len()).sum();
    let releasable = taken_addresses(facts).filter(|taken| facts.may_go(taken)).count();
    format!(
        "{} pools, {} blocks, {} claims, {} handles, {} nodes\n{taken} addresses are taken, {} are used by \
         workloads and nodes, {releasable} can be released\n",
        facts.pools.len(),
        facts.blocks.len(),
        facts.affinities.len(),
        facts.handles.len(),
        facts.nodes.len(),
        facts.users.len(),
    )
}

fn all_addresses(facts: &IpamFacts) -> String {
    let line = |taken: &TakenFacts| {
        let users = facts.users.get(&taken.addr).map(|users| users.join(", "));
        let handle = taken.handle.as_ref().map_or("no handle", |handle| handle.as_str());
        let who = users.unwrap_or_else(|| format!("given to {}", holder(taken)));
        format!("  {}: {handle}; {}\n", taken.addr, clean(&who))
    };
    taken_addresses(facts).map(line).collect::<Vec<_>>().concat()
}

fn taken_addresses(facts: &IpamFacts) -> impl Iterator<Item = &TakenFacts> {
    facts.blocks.iter().flat_map(|block| &block.taken)
}

impl Report {
    fn of(facts: &IpamFacts, problems: &[IpamProblem], guid: String, revision: u64) -> Self {
        let allocation = |taken: &TakenFacts| Allocation {
            handle: taken.handle.as_ref().map(ToString::to_string).unwrap_or_default(),
            sequence_number: Some(taken.sequence),
            in_use: !facts.may_go(taken),
            owners: facts.users.get(&taken.addr).cloned().unwrap_or_default(),
            attributes: taken.attributes.clone(),
        };
        let mut allocations: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for taken in taken_addresses(facts) {
            allocations.entry(taken.addr.to_string()).or_default().push(allocation(taken));
        }
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_guid: guid,
            revision,
            allocations,
            problems: problems.iter().map(ToString::to_string).collect(),
        }
    }
}

//! `russet ipam release`: gives addresses back, each in one transaction of its block and its handle.

use std::{fs::File, io::Read, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use russet_api::calico::Key;
use russet_store::{
    Expect, KeyValue,
    client::{Guard, Write},
};

use super::{
    At,
    check::{Report, cluster_guid},
    model::{Seen, count_down, give_back, holder},
};
use crate::resources::{Datastore, clean};
use russet_core::model::calico::{IpamFacts, TakenFacts};
use russet_net::Prefix;

#[derive(Args, Debug)]
pub struct ReleaseArgs {
    /// An address to give back that nobody uses; may be given again
    #[arg(long, value_name = "ADDRESS", required_unless_present = "from_report")]
    ip: Vec<IpAddr>,
    /// Gives back what a report of `russet ipam check -o` says that nobody uses, as far as it is still as it was
    #[arg(long, value_name = "FILE", conflicts_with = "ip")]
    from_report: Option<PathBuf>,
    /// Gives an address back although a workload or a node uses it or may, and takes a report of another cluster
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    at: At,
}

/// What was seen of an address when it was decided to give it back.
#[derive(Clone, Debug)]
struct Wanted {
    addr: IpAddr,
    /// Handle and sequence number; `None` where the operator says so and nobody looked.
    was: Option<(String, Option<u64>)>,
}

/// What became of an address.
enum Released {
    Done,
    Left(String),
}

pub async fn run(args: &ReleaseArgs) -> Result<ExitCode> {
    let store = args.at.datastore()?;
    let wanted = match &args.from_report {
        Some(file) => of_report(&store, file, args.force).await?,
        None => args.ip.iter().map(|addr| Wanted { addr: *addr, was: None }).collect(),
    };
    let facts = Seen::look(&store).await?.facts;
    let (mut done, mut left) = (0, 0);
    for one in &wanted {
        let outcome = match decide(&facts, one, args.force) {
            Err(why) => Released::Left(why),
            // One that cannot be done does not stop the rest.
            Ok(block) => release(&store, one, block)
                .await
                .unwrap_or_else(|err| Released::Left(format!("{err:#}"))),
        };
        match outcome {
            Released::Done => {
                done += 1;
                println!("{}: released", one.addr);
            }
            Released::Left(why) => {
                left += 1;
                eprintln!("{}: not released: {}", one.addr, clean(&why));
            }
        }
    }
    println!("Successfully released {done} of {} IP addresses", wanted.len());
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The block that an address is to be given back to, or why it stays. What the report said is asked again: a node
/// that was gone may be back.
fn decide(facts: &IpamFacts, wanted: &Wanted, force: bool) -> Result<Prefix, String> {
    let block = facts.blocks.iter().find(|block| block.cidr.contains(wanted.addr));
    let taken = block.and_then(|block| block.taken.iter().find(|had| had.addr == wanted.addr));
    if let Some(users) = facts.users.get(&wanted.addr).filter(|_| !force) {
        return Err(format!("{} uses it; --force releases it", users.join(", ")));
    }
    let block = block.ok_or("it lies in no block")?.cidr;
    match taken {
        Some(had) if !wanted.is_still(had) => Err(GIVEN_ANEW.to_owned()),
        Some(had) if !force && !facts.may_go(had) => {
            let again = if wanted.was.is_some() { " again" } else { "" };
            Err(format!("{} has it{again}; --force releases it", holder(had)))
        }
        _ => Ok(block),
    }
}

async fn of_report(store: &Datastore, file: &PathBuf, force: bool) -> Result<Vec<Wanted>> {
    let told = || format!("read the report {}", file.display());
    let mut text = String::new();
    File::open(file)
        .with_context(told)?
        .take(MOST_REPORT)
        .read_to_string(&mut text)
        .with_context(told)?;
    let report: Report = serde_json::from_str(&text).with_context(told)?;
    let guid = cluster_guid(store).await?;
    ensure!(
        force || report.cluster_guid == guid,
        "the report is of cluster {:?} and the store of {guid:?}; --force takes it all the same",
        report.cluster_guid
    );
    let mut wanted = Vec::new();
    for (addr, allocations) in report.allocations {
        for allocation in allocations.into_iter().filter(|allocation| !allocation.in_use) {
            let addr = addr.parse().with_context(|| format!("{}: {addr:?}", told()))?;
            wanted
                .push(Wanted { addr, was: Some((allocation.handle, allocation.sequence_number)) });
        }
    }
    Ok(wanted)
}

/// Gives one address back, and lowers its handle's count in the same transaction.
async fn release(store: &Datastore, wanted: &Wanted, block: Prefix) -> Result<Released> {
    let key = Key::Block(block);
    for _ in 0..TRIES {
        let Some(there) = store.entry(&key).await? else {
            return Ok(Released::Left("its block is gone".to_owned()));
        };
        let Some((text, had)) = give_back(&there.value, wanted.addr)? else {
            return Ok(Released::Left("nobody has it".to_owned()));
        };
        if !wanted.is_still(&had) {
            return Ok(Released::Left(GIVEN_ANEW.to_owned()));
        }
        let mut guards = vec![at(&there)];
        let mut writes = vec![Write::Put { key: there.key, value: text.into_bytes(), lease: None }];
        if let Some(handle) = had.handle {
            count_handle_down(store, &Key::Handle(handle), block, &mut guards, &mut writes).await?;
        }
        if store.write(guards, writes).await?.is_some() {
            return Ok(Released::Done);
        }
    }
    bail!("block {block} changes faster than it can be written")
}

async fn count_handle_down(
    store: &Datastore,
    key: &Key,
    block: Prefix,
    guards: &mut Vec<Guard>,
    writes: &mut Vec<Write>,
) -> Result<()> {
    let Some(there) = store.entry(key).await? else { return Ok(()) };
    guards.push(at(&there));
    let key = there.key;
    writes.push(match count_down(&there.value, block)? {
        Some(text) => Write::Put { key, value: text.into_bytes(), lease: None },
        None => Write::Delete { key },
    });
    Ok(())
}

fn at(there: &KeyValue) -> Guard {
    Guard::Key { key: there.key.clone(), expect: Expect::At(there.modified) }
}

impl Wanted {
    /// Whether whoever has the address now is who had it when the report was made.
    fn is_still(&self, had: &TakenFacts) -> bool {
        let handle = had.handle.as_ref().map(ToString::to_string).unwrap_or_default();
        self.was.as_ref().is_none_or(|was| *was == (handle, Some(had.sequence)))
    }
}

const TRIES: usize = 8;
const GIVEN_ANEW: &str = "it was given to another since the report";
/// 256 MiB: a million addresses.
const MOST_REPORT: u64 = 256 << 20;

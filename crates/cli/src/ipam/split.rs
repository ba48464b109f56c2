//! `russet ipam split`: one pool becomes several, in one transaction. Blocks and addresses stay as they are.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use russet_api::calico::{Key, Kind, Resource, ResourceId};
use russet_core::model::calico::{Name, split};
use russet_net::Prefix;
use russet_store::{
    Expect,
    client::{Guard, Write},
};

use super::At;
use crate::resources::{Blocks, Datastore, Found, born_now, pool_keys};

#[derive(Args, Debug)]
pub struct SplitArgs {
    /// The pool, by its cidr
    #[arg(long, required_unless_present = "name")]
    cidr: Option<Prefix>,
    /// The pool, by its name
    #[arg(long, conflicts_with = "cidr")]
    name: Option<Name>,
    /// How many pools become of it: a power of two, none smaller than a block
    pieces: u64,
    #[command(flatten)]
    at: At,
}

pub async fn run(args: &SplitArgs) -> Result<ExitCode> {
    let store = args.at.datastore()?;
    for _ in 0..TRIES {
        let pools = store.list(Kind::IpPool, None).await?;
        let what = format!("pool {}", args.pool());
        let pool = pools.one(&what, |found| args.means(&found.resource))?;
        let mut plan = Plan::new(pool, args.pieces)?;
        check_blocks(&store, &plan.pieces).await?;
        plan.guards.push(Guard::Unwritten { prefix: pool_keys(), since: pools.revision });
        if store.write(plan.guards, plan.writes).await?.is_some() {
            for (name, cidr) in plan.names.iter().zip(&plan.pieces) {
                println!("IPPool {name}: {cidr}");
            }
            println!("Successfully split IPPool {} into {} pools", plan.name, plan.pieces.len());
            return Ok(ExitCode::SUCCESS);
        }
    }
    bail!("pools change faster than they can be written")
}

impl SplitArgs {
    fn means(&self, resource: &Resource) -> bool {
        let Resource::IpPool(pool) = resource else { return false };
        let named = pool.meta().map(|meta| &meta.name) == self.name.as_ref();
        self.cidr.map_or(named, |cidr| pool.value().cidr() == cidr)
    }

    fn pool(&self) -> String {
        let cidr = self.cidr.map(|cidr| cidr.to_string());
        cidr.or_else(|| self.name.as_ref().map(ToString::to_string)).unwrap_or_default()
    }
}

/// One transaction.
struct Plan {
    name: Name,
    names: Vec<Name>,
    pieces: Vec<Prefix>,
    guards: Vec<Guard>,
    writes: Vec<Write>,
}

impl Plan {
    fn new(found: &Found, count: u64) -> Result<Self> {
        let Resource::IpPool(pool) = &found.resource else { bail!("it is no pool") };
        let name = pool.meta().context("the pool has no name")?.name.clone();
        let pieces = split(pool.value().cidr(), pool.value().block_len(), count)?;
        let entry = &found.entry;
        let mut plan = Self {
            names: Vec::new(),
            guards: vec![Guard::Key { key: entry.key.clone(), expect: Expect::At(entry.modified) }],
            writes: vec![Write::Delete { key: entry.key.clone() }],
            name,
            pieces,
        };
        for (i, cidr) in plan.pieces.clone().iter().enumerate() {
            plan.add(&found.resource, i, *cidr)?;
        }
        Ok(plan)
    }

    /// A piece is the pool with another cidr, name and birth; its name is calicoctl's.
    fn add(&mut self, pool: &Resource, i: usize, cidr: Prefix) -> Result<()> {
        let name: Name = format!("split-{}-{i}", self.name).parse()?;
        let mut object = pool.object().clone();
        russet_api::calico::export(&mut object);
        object["metadata"]["name"] = name.as_str().into();
        object["spec"]["cidr"] = cidr.to_string().into();
        let born = born_now(&object)?;
        let piece = Resource::read(Kind::IpPool, object)?;
        let id = ResourceId { kind: Kind::IpPool, namespace: None, name: name.clone() };
        let key = Key::Resource(id).to_string().into_bytes();
        let value = piece.stored(&born, None)?.into_bytes();
        self.guards.push(Guard::Key { key: key.clone(), expect: Expect::Absent });
        self.writes.push(Write::Put { key, value, lease: None });
        self.names.push(name);
        Ok(())
    }
}

/// A block that was made when blocks were larger may not lie in one piece. One that is claimed meanwhile does: it is
/// of the pool's own size, which stays while the pool is as it was read.
async fn check_blocks(store: &Datastore, pieces: &[Prefix]) -> Result<()> {
    let blocks = Blocks::read(store).await?;
    let torn = blocks
        .cidrs()
        .find(|block| pieces.iter().any(|piece| piece.overlaps(*block) && !piece.covers(*block)));
    match torn {
        Some(block) => bail!("block {block} would lie in several pools; split into fewer"),
        None => Ok(()),
    }
}

const TRIES: usize = 8;

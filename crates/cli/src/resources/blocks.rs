//! What pools' blocks say to a change of their pools. All blocks are a large read, so it is done only where the
//! change is one that they may forbid.

use anyhow::{Result, bail};
use russet_api::calico::{Key, Kind, Resource};
use russet_core::model::calico::{IpPool, IpamBlock, PoolUse, check_change};
use russet_net::Prefix;
use russet_store::{KeyValue, client::Guard};

use super::datastore::{Datastore, Listed};

/// All blocks at one revision, every one of them read.
#[derive(Debug)]
pub struct Blocks(Listed);

impl Blocks {
    /// # Errors
    ///
    /// When one cannot be read, too: it may lie in any pool, and anybody may have its addresses.
    pub async fn read(store: &Datastore) -> Result<Self> {
        let listed = store.list(Kind::IpamBlock, None).await?;
        if let Some(bad) = listed.bad.first() {
            bail!("a block cannot be read, so nobody knows who has its addresses: {bad}");
        }
        Ok(Self(listed))
    }

    /// What is taken of a pool.
    pub fn of(&self, pool: &IpPool) -> PoolUse {
        PoolUse::of(pool.cidr(), self.all())
    }

    pub fn cidrs(&self) -> impl Iterator<Item = Prefix> {
        self.all().map(IpamBlock::cidr)
    }

    fn all(&self) -> impl Iterator<Item = &IpamBlock> {
        self.0.found.iter().filter_map(|found| match &found.resource {
            Resource::IpamBlock(block) => Some(block.value()),
            _ => None,
        })
    }

    /// Holds while no block was written since they were read.
    pub fn guard(&self) -> Guard {
        let prefix = format!("{}assignment/", Key::IPAM).into_bytes();
        Guard::Unwritten { prefix, since: self.0.revision }
    }
}

/// Whether a change of a pool is one that its blocks may forbid.
pub fn moves(before: &IpPool, after: &IpPool) -> bool {
    before.cidr() != after.cidr() || before.block_len() != after.block_len()
}

/// Checks that a pool may take the place of what is there, and says what must stay so until it does.
pub async fn may_replace(
    store: &Datastore,
    key: &Key,
    there: Option<&KeyValue>,
    after: &IpPool,
) -> Result<Option<Guard>> {
    let before = there.and_then(|there| Resource::at_key(key, &there.value));
    // Of what cannot be read nobody knows what it was.
    let Some(Ok(Resource::IpPool(before))) = before else { return Ok(None) };
    if !moves(before.value(), after) {
        return Ok(None);
    }
    let blocks = Blocks::read(store).await?;
    match check_change(before.value(), after, &blocks.of(before.value())).into_iter().next() {
        Some(fault) => Err(fault.into()),
        None => Ok(Some(blocks.guard())),
    }
}

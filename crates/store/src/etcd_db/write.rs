//! Writing: the buckets in the order of their names, each in the order of its keys.

use std::io::Write;

use prost::Message;

use super::{EtcdDbError, FINISHED, KEY, LEASE, LeasePb, META, SCHEDULED};
use crate::{
    bolt::{self, Contents, Layout, Pages, Tree},
    contract::{LeaseId, Revision},
    proto::mvccpb,
    server::{
        image::{Image, ImageVersion},
        mvcc::What,
        txn::to_wire,
    },
};

/// Finds out how large a database gets.
pub(crate) fn lay_out(image: &Image) -> Result<Layout, EtcdDbError> {
    bolt::lay_out(image)
}

/// Writes a database from its first byte to its last.
pub(crate) fn write(
    image: &Image,
    layout: Layout,
    out: &mut impl Write,
) -> Result<(), EtcdDbError> {
    bolt::write(image, layout, out)
}

impl Contents for Image {
    type Error = EtcdDbError;

    fn buckets<W: Write>(&self, root: &mut Tree, pages: &mut Pages<W>) -> Result<(), EtcdDbError> {
        for name in ["alarm", "auth", "authRoles", "authUsers"] {
            root.put_bucket(name.as_bytes(), Tree::default(), pages)?;
        }
        let mut cluster = Tree::default();
        cluster.put(b"clusterVersion", VERSION, pages)?;
        root.put_bucket(b"cluster", cluster, pages)?;
        let keys = keys(self, pages)?;
        root.put_bucket(KEY, keys, pages)?;
        let leases = leases(self, pages)?;
        root.put_bucket(LEASE, leases, pages)?;
        for name in ["members", "members_removed"] {
            root.put_bucket(name.as_bytes(), Tree::default(), pages)?;
        }
        let meta = meta(self, pages)?;
        root.put_bucket(META, meta, pages)?;
        Ok(())
    }
}

fn keys<W: Write>(image: &Image, pages: &mut Pages<W>) -> Result<Tree, EtcdDbError> {
    let mut tree = Tree::default();
    for version in &image.versions {
        tree.put(&key_of(version), &value_of(version), pages)?;
    }
    Ok(tree)
}

/// Returns the key under which etcd keeps a version.
pub(crate) fn key_of(version: &ImageVersion) -> Vec<u8> {
    let mut key = revision(version.revision, version.sub);
    if matches!(version.what, What::Delete(_)) {
        key.push(b't');
    }
    key
}

/// Returns what etcd keeps of a version.
pub(crate) fn value_of(version: &ImageVersion) -> Vec<u8> {
    match &version.what {
        What::Put(kv) => to_wire(kv).encode_to_vec(),
        What::Delete(key) => {
            mvccpb::KeyValue { key: key.clone(), ..mvccpb::KeyValue::default() }.encode_to_vec()
        }
    }
}

fn leases<W: Write>(image: &Image, pages: &mut Pages<W>) -> Result<Tree, EtcdDbError> {
    let mut all: Vec<_> = image.leases.iter().map(|(id, ttl)| (bytes(*id), *id, *ttl)).collect();
    // A negative number comes after every positive one.
    all.sort_unstable();
    let mut tree = Tree::default();
    for (key, id, ttl) in all {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        tree.put(&key, &LeasePb { id: id.to_wire(), ttl }.encode_to_vec(), pages)?;
    }
    Ok(tree)
}

fn meta<W: Write>(image: &Image, pages: &mut Pages<W>) -> Result<Tree, EtcdDbError> {
    let mut tree = Tree::default();
    // How much of etcd's log is in the database: there is no log with it.
    tree.put(b"consistent_index", &0_u64.to_be_bytes(), pages)?;
    if image.compacted != Revision::ZERO {
        let compacted = revision(image.compacted, 0);
        tree.put(FINISHED, &compacted, pages)?;
        tree.put(SCHEDULED, &compacted, pages)?;
    }
    Ok(tree)
}

fn revision(main: Revision, sub: u32) -> Vec<u8> {
    let mut bytes = main.get().to_be_bytes().to_vec();
    bytes.push(b'_');
    bytes.extend(u64::from(sub).to_be_bytes());
    bytes
}

fn bytes(id: LeaseId) -> [u8; 8] {
    id.to_wire().to_be_bytes()
}

const VERSION: &[u8] = b"3.4.0";

//! `IPAMHandle`: in etcd the key names the handle, in Kubernetes the object does.

use russet_core::{
    addressing::blocks::Handle,
    model::calico::{HandleId, IpamHandle},
};
use russet_net::Prefix;
use serde_json::Value;

use super::{
    at::At,
    kind::{Group, Kind},
    meta::Meta,
    stored::{Form, Layout, Patch, Stored, Written, spec},
};

impl Form for IpamHandle {
    const KIND: Kind = Kind::IpamHandle;
    const ORDER: &'static [&'static str] = &["handleID", "block", "deleted"];

    fn read(root: &At<'_>, layout: Layout) -> Option<Self> {
        let spec = spec(root, layout);
        if layout == Layout::Resource {
            spec.at("handleID").required().parsed::<HandleId>();
        }
        let blocks = spec.at("block");
        let blocks = blocks.entries().into_iter().filter_map(|(cidr, at)| {
            let cidr = cidr.parse::<Prefix>().map_err(|err| at.refuse(err.to_string())).ok();
            Some((cidr?, count(&at)?))
        });
        let counts = Handle::new(blocks);
        Some(Self { counts, deleted: spec.at("deleted").flag().unwrap_or(false) })
    }
}

/// None at all is as if the block were not there.
fn count(at: &At<'_>) -> Option<u32> {
    let count = u32::try_from(at.number()?);
    if count.is_err() {
        at.wanted("a count of addresses");
    }
    count.ok()
}

impl Written for IpamHandle {
    fn patch(&self, object: &mut Patch<'_>) {
        let blocks = self.counts.blocks().map(|(cidr, n)| (cidr.to_string(), n.into()));
        object.set(&["block"], Value::Object(blocks.collect()));
        object.set(&["deleted"], self.deleted);
    }
}

impl Stored<IpamHandle> {
    /// A handle as Kubernetes has it.
    pub fn named(meta: Meta, id: &HandleId, value: IpamHandle, group: Group) -> Self {
        let mut stored = Self::new(meta, value, group);
        stored.patch_with(|object| object.set(&["handleID"], id.as_str()));
        stored
    }

    /// Its id, where the object says it and not its key.
    pub fn id(&self) -> Option<HandleId> {
        self.whole().get("spec")?.get("handleID")?.as_str()?.parse().ok()
    }
}

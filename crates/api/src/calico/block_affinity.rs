//! `BlockAffinity`: in etcd the key says whose and which, in Kubernetes the object does.

use russet_core::model::calico::{Affinity, AffinityState, BlockAffinity, Name};
use russet_net::Prefix;
use serde_json::Value;

use super::{
    at::{At, Notes},
    kind::{Group, Kind},
    meta::Meta,
    pool::word,
    stored::{Form, Layout, Patch, Stored, Written, spec},
};

impl Form for BlockAffinity {
    const KIND: Kind = Kind::BlockAffinity;
    const ORDER: &'static [&'static str] = &["state", "node", "type", "cidr", "deleted"];

    fn read(root: &At<'_>, layout: Layout) -> Option<Self> {
        let spec = spec(root, layout);
        let deleted = spec.at("deleted");
        if layout == Layout::Resource {
            claim(&spec);
        }
        // Releases of old made it a text, and so it stayed in the group that the manifests store.
        let deleted = match deleted.value().and_then(Value::as_str) {
            Some(_) => deleted.one_of(&[("true", true), ("false", false)]),
            None => deleted.flag(),
        };
        let state = spec.at("state");
        Some(Self { state: state.required().one_of(STATES)?, deleted: deleted.unwrap_or(false) })
    }
}

fn claim(spec: &At<'_>) -> Option<(Affinity, Prefix)> {
    let cidr = spec.at("cidr").required().parsed();
    let name = spec.at("node").required().parsed::<Name>();
    let make: fn(Name) -> Affinity =
        match spec.at("type").one_of(&[("host", true), ("virtual", false)]) {
            Some(false) => Affinity::Virtual,
            Some(true) | None => Affinity::Host,
        };
    Some((make(name?), cidr?))
}

impl Written for BlockAffinity {
    fn patch(&self, object: &mut Patch<'_>) {
        object.set(&["state"], word(STATES, self.state));
        let version = object.document.get(&["apiVersion"]).and_then(Value::as_str);
        if version == Some(Group::CrdV1.api_version()) {
            object.set(&["deleted"], self.deleted.to_string());
        } else {
            object.set(&["deleted"], self.deleted);
        }
    }
}

impl Stored<BlockAffinity> {
    /// A claim as Kubernetes has it.
    pub fn claimed(
        meta: Meta,
        whose: &Affinity,
        cidr: Prefix,
        value: BlockAffinity,
        group: Group,
    ) -> Self {
        let mut stored = Self::new(meta, value, group);
        stored.patch_with(|object| {
            object.set(&["node"], whose.name().as_str());
            object.set(&["type"], whose.kind());
            object.set(&["cidr"], cidr.to_string());
        });
        stored
    }

    /// Whose claim of which block it is, where the object says it and not its key.
    pub fn claim(&self) -> Option<(Affinity, Prefix)> {
        self.meta()?;
        let notes = Notes::default();
        claim(&At::root(self.whole(), &notes).at("spec"))
    }
}

const STATES: &[(&str, AffinityState)] = &[
    ("pending", AffinityState::Pending),
    ("confirmed", AffinityState::Confirmed),
    ("pendingDeletion", AffinityState::PendingDeletion),
];

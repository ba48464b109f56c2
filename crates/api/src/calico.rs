//! Calico's forms: keys in etcd, and JSON in both API groups.
//!
//! ```text
//!   bytes ─▶ Stored::read ─▶ Stored { value: core's checked type, document: all that was there }
//!                               │ set(value)                         ▲
//!                               └──── only what is ours is patched ──┘ ─▶ Stored::text ─▶ bytes
//! ```
//!
//! What is not ours in an object stays in it, so that Calico loses nothing when we write. All faults of an
//! object are told at once, each with its path. `keys` has the keys, `kind` the kinds, `meta` the envelope,
//! `document` what is kept and the order in which it is written, `at` the reader that walks it, `stored` both
//! together, `resource` any of the kinds that commands handle, `names` what commands call a kind, `fields` what
//! is in an object and should not be; every other file converts one kind by hand. `node_annotations` is a node as Kubernetes has it.

mod at;
mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
mod block;
mod block_affinity;
mod cluster_information;
mod document;
mod duration;
mod fault;
mod felix;
mod fields;
mod ipam_configuration;
mod ipam_handle;
mod keys;
mod kind;
mod meta;
mod moment;
mod names;
mod node;
mod node_annotations;
mod node_status;
mod pool;
mod reservation;
mod resource;
mod stored;
mod workload;

pub(crate) use self::at::cut;
pub use self::{
    block::{Glance, Other},
    fault::{FieldFault, ObjectFault},
    fields::{Stranger, strangers},
    keys::{Key, ResourceId, StoreKey},
    kind::{Group, Kind},
    meta::Meta,
    moment::{moment, shown_moment},
    node_annotations::{KubernetesNode, node_annotations, read_kubernetes_node},
    node_status::write_report,
    resource::{Born, Resource, export},
    stored::{Fields, Form, Layout, Stored, Written},
};

//! `ClusterInformation`.

use russet_core::model::calico::ClusterInformation;

use super::{
    at::At,
    kind::Kind,
    stored::{Form, Layout, Patch, Written},
};

impl Form for ClusterInformation {
    const KIND: Kind = Kind::ClusterInformation;
    const ORDER: &'static [&'static str] =
        &["clusterGUID", "clusterType", "calicoVersion", "datastoreReady", "variant"];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        Some(Self {
            guid: spec.at("clusterGUID").owned(),
            cluster_type: spec.at("clusterType").owned(),
            calico_version: spec.at("calicoVersion").owned(),
            datastore_ready: spec.at("datastoreReady").flag(),
        })
    }
}

impl Written for ClusterInformation {
    fn patch(&self, object: &mut Patch<'_>) {
        object.set_or_remove(&["clusterGUID"], self.guid.as_deref());
        object.set_or_remove(&["clusterType"], self.cluster_type.as_deref());
        object.set_or_remove(&["calicoVersion"], self.calico_version.as_deref());
        object.set_or_remove(&["datastoreReady"], self.datastore_ready);
    }
}

//! What the cluster says of itself.

/// The cluster's one `ClusterInformation`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInformation {
    pub guid: Option<String>,
    /// Comma-separated: `kubeadm,bgp`.
    pub cluster_type: Option<String>,
    pub calico_version: Option<String>,
    /// Whether the store may be used; `None` is as yes. It is off while a migration goes on.
    pub datastore_ready: Option<bool>,
}

impl ClusterInformation {
    pub fn is_ready(&self) -> bool {
        self.datastore_ready.unwrap_or(true)
    }
}

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
    /// Whether all that writes blocks knows an address that rests (`releasedAt`, v3.33; projectcalico/calico#12638). An older
    /// Calico drops the word with its next write of the block, and the address is taken for ever, by nobody.
    pub fn knows_rest(&self) -> bool {
        let Some(version) = self.version() else { return true };
        let mut parts = version.trim_start_matches('v').split(['.', '-']).map(str::parse::<u32>);
        matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (3, 33))
    }

    /// Whether programs of Calico's are in the cluster, or were.
    pub fn has_calico(&self) -> bool {
        self.version().is_some()
    }

    fn version(&self) -> Option<&str> {
        self.calico_version.as_deref().filter(|text| !text.is_empty())
    }

    pub fn is_ready(&self) -> bool {
        self.datastore_ready.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_calico_knows_no_rest_and_no_calico_hinders_none() {
        let of = |version: &str| ClusterInformation {
            calico_version: Some(version.to_owned()),
            ..ClusterInformation::default()
        };
        assert!(ClusterInformation::default().knows_rest() && of("").knows_rest());
        for (version, knows) in [
            ("v3.28.5", false),
            ("v3.32.0-0.dev-12-gabc", false),
            ("v3.33.0", true),
            ("v4.0.1", true),
            ("master", false),
            ("v3", false),
        ] {
            assert_eq!(of(version).knows_rest(), knows, "{version}");
        }
    }
}

//! The kinds of Calico's objects, and what each is called where.

use std::fmt;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    BgpConfiguration,
    BgpFilter,
    BgpPeer,
    BlockAffinity,
    CalicoNodeStatus,
    ClusterInformation,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IpPool,
    IpReservation,
    IpamBlock,
    IpamConfiguration,
    IpamHandle,
    KubeControllersConfiguration,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
    WorkloadEndpoint,
}

/// The API group and version that an object is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What users write, and what etcd holds.
    V3,
    /// What the default manifests store in Kubernetes.
    CrdV1,
}

impl Group {
    pub const BOTH: [Self; 2] = [Self::V3, Self::CrdV1];

    /// As `apiVersion` has it.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V3 => "projectcalico.org/v3",
            Self::CrdV1 => "crd.projectcalico.org/v1",
        }
    }
}

impl Kind {
    /// Kind, plural in keys and paths, and whether objects of it lie in namespaces.
    const fn row(self) -> (&'static str, &'static str, bool) {
        match self {
            Self::BgpConfiguration => ("BGPConfiguration", "bgpconfigurations", false),
            Self::BgpFilter => ("BGPFilter", "bgpfilters", false),
            Self::BgpPeer => ("BGPPeer", "bgppeers", false),
            Self::BlockAffinity => ("BlockAffinity", "blockaffinities", false),
            Self::CalicoNodeStatus => ("CalicoNodeStatus", "caliconodestatuses", false),
            Self::ClusterInformation => ("ClusterInformation", "clusterinformations", false),
            Self::FelixConfiguration => ("FelixConfiguration", "felixconfigurations", false),
            Self::GlobalNetworkPolicy => ("GlobalNetworkPolicy", "globalnetworkpolicies", false),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets", false),
            Self::HostEndpoint => ("HostEndpoint", "hostendpoints", false),
            Self::IpPool => ("IPPool", "ippools", false),
            Self::IpReservation => ("IPReservation", "ipreservations", false),
            Self::IpamBlock => ("IPAMBlock", "ipamblocks", false),
            Self::IpamConfiguration => ("IPAMConfiguration", "ipamconfigurations", false),
            Self::IpamHandle => ("IPAMHandle", "ipamhandles", false),
            Self::KubeControllersConfiguration => {
                ("KubeControllersConfiguration", "kubecontrollersconfigurations", false)
            }
            Self::NetworkPolicy => ("NetworkPolicy", "networkpolicies", true),
            Self::NetworkSet => ("NetworkSet", "networksets", true),
            Self::Node => ("Node", "nodes", false),
            Self::Profile => ("Profile", "profiles", false),
            Self::StagedGlobalNetworkPolicy => {
                ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", false)
            }
            Self::StagedKubernetesNetworkPolicy => {
                ("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", true)
            }
            Self::StagedNetworkPolicy => ("StagedNetworkPolicy", "stagednetworkpolicies", true),
            Self::Tier => ("Tier", "tiers", false),
            Self::WorkloadEndpoint => ("WorkloadEndpoint", "workloadendpoints", true),
        }
    }

    pub(super) const ALL: [Self; 25] = [
        Self::BgpConfiguration,
        Self::BgpFilter,
        Self::BgpPeer,
        Self::BlockAffinity,
        Self::CalicoNodeStatus,
        Self::ClusterInformation,
        Self::FelixConfiguration,
        Self::GlobalNetworkPolicy,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
        Self::IpPool,
        Self::IpReservation,
        Self::IpamBlock,
        Self::IpamConfiguration,
        Self::IpamHandle,
        Self::KubeControllersConfiguration,
        Self::NetworkPolicy,
        Self::NetworkSet,
        Self::Node,
        Self::Profile,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::Tier,
        Self::WorkloadEndpoint,
    ];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// As an object of a group has it in `kind`.
    pub const fn name_in(self, group: Group) -> &'static str {
        match (self, group) {
            (Self::IpamConfiguration, Group::CrdV1) => IPAM_CONFIG,
            _ => self.name(),
        }
    }

    /// In keys, and in the paths of a group.
    pub const fn plural_in(self, group: Group) -> &'static str {
        match (self, group) {
            (Self::IpamConfiguration, Group::CrdV1) => "ipamconfigs",
            _ => self.row().1,
        }
    }

    pub const fn is_namespaced(self) -> bool {
        self.row().2
    }

    /// Whether `kind` says that an object is of this kind. Calico's own client writes `IPAMConfig` in v3 too.
    pub fn is_called(self, name: &str) -> bool {
        name == self.name() || self == Self::IpamConfiguration && name == IPAM_CONFIG
    }

    /// By the plural, as keys have it.
    pub fn of_plural(plural: &str) -> Option<Self> {
        let called = |kind: &Self| Group::BOTH.iter().any(|group| kind.plural_in(*group) == plural);
        Self::ALL.into_iter().find(called)
    }
}

const IPAM_CONFIG: &str = "IPAMConfig";

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_plural_in_both_groups() {
        for kind in Kind::ALL {
            for group in Group::BOTH {
                assert_eq!(Kind::of_plural(kind.plural_in(group)), Some(kind));
                assert!(kind.is_called(kind.name_in(group)));
            }
        }
        assert_eq!(Kind::of_plural("pods"), None);
    }
}

//! What commands call a kind: calicoctl's words, and `IPAMBlock` and `IPAMHandle`, which it has none for.

use super::kind::Kind;

impl Kind {
    /// The kinds that commands handle, in the order in which help lists them.
    pub const HANDLED: [Self; 14] = [
        Self::IpPool,
        Self::IpReservation,
        Self::IpamConfiguration,
        Self::IpamBlock,
        Self::IpamHandle,
        Self::BlockAffinity,
        Self::Node,
        Self::WorkloadEndpoint,
        Self::BgpConfiguration,
        Self::BgpPeer,
        Self::BgpFilter,
        Self::FelixConfiguration,
        Self::ClusterInformation,
        Self::CalicoNodeStatus,
    ];

    /// What commands call it, the plural first; none for a kind that they do not handle.
    pub const fn words(self) -> &'static [&'static str] {
        match self {
            Self::IpPool => &["ippools", "ippool", "ipp", "ipps", "pool", "pools"],
            Self::IpReservation => {
                &["ipreservations", "ipreservation", "reservation", "reservations"]
            }
            Self::IpamConfiguration => {
                &["ipamconfigurations", "ipamconfiguration", "ipamconfig", "ipamconfigs"]
            }
            Self::IpamBlock => &["ipamblocks", "ipamblock", "block", "blocks"],
            Self::IpamHandle => &["ipamhandles", "ipamhandle", "handle", "handles"],
            Self::BlockAffinity => &["blockaffinities", "blockaffinity", "affinity", "affinities"],
            Self::Node => &["nodes", "node", "no", "nos"],
            Self::WorkloadEndpoint => &["workloadendpoints", "workloadendpoint", "wep", "weps"],
            Self::BgpConfiguration => {
                &["bgpconfigurations", "bgpconfiguration", "bgpconfig", "bgpconfigs"]
            }
            Self::BgpPeer => &["bgppeers", "bgppeer", "bgpp", "bgpps", "bp", "bps"],
            Self::BgpFilter => &["bgpfilters", "bgpfilter", "bgpf", "bgpfs"],
            Self::FelixConfiguration => {
                &["felixconfigurations", "felixconfiguration", "felixconfig", "felixconfigs"]
            }
            Self::ClusterInformation => {
                &["clusterinformations", "clusterinformation", "clusterinfo", "clusterinfos"]
            }
            Self::CalicoNodeStatus => {
                &["caliconodestatuses", "caliconodestatus", "nodestatus", "nodestatuses"]
            }
            _ => &[],
        }
    }

    /// The kind that a word of a command means, in any case.
    pub fn of_word(word: &str) -> Option<Self> {
        let means = |kind: &Self| kind.words().iter().any(|name| name.eq_ignore_ascii_case(word));
        Self::HANDLED.into_iter().find(means)
    }

    /// The kind that an object's own `kind` means, handled by commands or not.
    pub fn of_object(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.is_called(name))
    }

    pub fn is_handled(self) -> bool {
        Self::HANDLED.contains(&self)
    }

    /// Whether an operator may write it; the others are written by whoever hands out addresses, and one that is
    /// changed by hand may give an address to two pods.
    pub const fn is_written_by_hand(self) -> bool {
        !matches!(self, Self::IpamBlock | Self::IpamHandle | Self::BlockAffinity)
    }

    /// Whether objects of it say who may talk to whom; one that is not enforced lets everybody.
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy | Self::GlobalNetworkPolicy | Self::Tier | Self::HostEndpoint
        )
    }

    /// The handled kind whose name is nearest to one that is none.
    pub fn nearest(name: &str) -> Option<Self> {
        let name = name.chars().take(60).collect::<String>().to_lowercase();
        let far = |kind: &Self| strsim::damerau_levenshtein(&kind.name().to_lowercase(), &name);
        Self::HANDLED.into_iter().filter(|kind| far(kind) <= 3).min_by_key(far)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_means_one_kind_in_any_case() {
        let mut seen = BTreeSet::new();
        for kind in Kind::HANDLED {
            for word in kind.words() {
                assert!(seen.insert(*word), "{word} means two kinds");
                assert_eq!(Kind::of_word(&word.to_uppercase()), Some(kind));
            }
            assert_eq!(Kind::of_word(kind.name()), Some(kind));
            assert_eq!(Kind::of_object(kind.name()), Some(kind));
        }
        assert_eq!(Kind::of_word("networkpolicy"), None);
    }

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        assert_eq!(Kind::nearest("IPPol"), Some(Kind::IpPool));
        assert_eq!(Kind::nearest("bgppear"), Some(Kind::BgpPeer));
        assert_eq!(Kind::nearest("Deployment"), None);
        assert_eq!(Kind::nearest(&"x".repeat(100_000)), None);
    }
}

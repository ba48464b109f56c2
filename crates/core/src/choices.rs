//! Which values of the four choices go together.
//!
//! The design's table as a pure function: every rule is a row that refuses by name. Values that no
//! configuration of this version can ask for stand here all the same, because the table is what keeps
//! the next transport or distribution from being combined with what cannot carry it.

use std::fmt;

use russet_net::Family;

/// Who hands out pod addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    NodeSubnet,
    Blocks,
    Segment,
}

/// How a pod meets its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    Bridge,
    Routed,
    Segment,
}

/// How a packet crosses the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Direct,
    Vxlan,
    Ipip,
    Udp,
    Wireguard,
}

/// When the transport is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Only to peers that share no link with this node.
    CrossSubnet,
}

/// How a node learns where the others' addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    Store,
    Bgp,
    Evpn,
    Flood,
}

/// One value of each choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    pub addressing: Addressing,
    pub attachment: Attachment,
    pub transport: Transport,
    pub when: When,
    pub distribution: Distribution,
}

/// A combination that makes no sense, and because of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("cross-subnet needs an encapsulation for the peers of other subnets; direct has none")]
    CrossSubnetWithoutEncapsulation,
    #[error("vxlan needs distribution store, evpn or flood; plain bgp carries no VTEP MAC")]
    VxlanOverBgp,
    #[error("ipip carries IPv4 only; leave IPv6 out or use vxlan")]
    IpipOverIpv6,
    #[error("flood needs attachment segment and transport vxlan; nothing else can flood")]
    FloodOutsideSegment,
    #[error("a bridge has one subnet per block and needs a gateway address in each; {0} has none")]
    BridgeWithoutGateway(Addressing),
    #[error(
        "attachment segment and addressing segment go together: a tenant's port needs the tenant's subnet"
    )]
    SegmentHalf,
}

impl Choices {
    /// What flannel picks, with one of its transports.
    pub const fn flannel(transport: Transport, when: When) -> Self {
        Self {
            addressing: Addressing::NodeSubnet,
            attachment: Attachment::Bridge,
            transport,
            when,
            distribution: Distribution::Store,
        }
    }

    /// Checks the combination against every row of the table.
    ///
    /// # Errors
    ///
    /// Every row that it breaks.
    pub fn check(self, families: impl IntoIterator<Item = Family>) -> Result<(), Vec<Refusal>> {
        let v6 = families.into_iter().any(|family| family == Family::V6);
        let rows = [
            (self.cross_subnet_without_encapsulation(), Refusal::CrossSubnetWithoutEncapsulation),
            (self.vxlan_over_bgp(), Refusal::VxlanOverBgp),
            (self.transport == Transport::Ipip && v6, Refusal::IpipOverIpv6),
            (self.flood_outside_segment(), Refusal::FloodOutsideSegment),
            (self.bridge_without_gateway(), Refusal::BridgeWithoutGateway(self.addressing)),
            (self.segment_half(), Refusal::SegmentHalf),
        ];
        let broken: Vec<_> =
            rows.into_iter().filter_map(|(broken, refusal)| broken.then_some(refusal)).collect();
        if broken.is_empty() { Ok(()) } else { Err(broken) }
    }

    fn cross_subnet_without_encapsulation(self) -> bool {
        self.when == When::CrossSubnet && self.transport == Transport::Direct
    }

    fn vxlan_over_bgp(self) -> bool {
        self.transport == Transport::Vxlan && self.distribution == Distribution::Bgp
    }

    fn flood_outside_segment(self) -> bool {
        self.distribution == Distribution::Flood
            && (self.attachment != Attachment::Segment || self.transport != Transport::Vxlan)
    }

    /// A subnet and a block each bring the address after their base; a tenant's segment does not.
    fn bridge_without_gateway(self) -> bool {
        self.attachment == Attachment::Bridge && self.addressing == Addressing::Segment
    }

    fn segment_half(self) -> bool {
        self.attachment == Attachment::Segment && self.addressing != Addressing::Segment
    }
}

impl fmt::Display for Addressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NodeSubnet => "node-subnet",
            Self::Blocks => "blocks",
            Self::Segment => "segment",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLANNEL: Choices = Choices::flannel(Transport::Vxlan, When::Always);
    const FABRIC: Choices = Choices {
        addressing: Addressing::Segment,
        attachment: Attachment::Segment,
        transport: Transport::Vxlan,
        when: When::Always,
        distribution: Distribution::Flood,
    };

    #[test]
    fn what_the_three_systems_pick_is_accepted() {
        let calico = Choices {
            addressing: Addressing::Blocks,
            attachment: Attachment::Routed,
            transport: Transport::Ipip,
            when: When::CrossSubnet,
            distribution: Distribution::Bgp,
        };
        let evpn = Choices { distribution: Distribution::Evpn, ..FABRIC };
        assert_eq!(calico.check([Family::V4]), Ok(()));
        for choices in [FLANNEL, FABRIC, evpn] {
            assert_eq!(choices.check(Family::BOTH), Ok(()), "{choices:?}");
        }
    }

    #[test]
    fn cross_subnet_needs_an_encapsulation() {
        let direct = Choices::flannel(Transport::Direct, When::CrossSubnet);
        assert_eq!(refused(direct), [Refusal::CrossSubnetWithoutEncapsulation]);
        assert_eq!(refused(Choices::flannel(Transport::Direct, When::Always)), []);
        assert_eq!(refused(Choices::flannel(Transport::Vxlan, When::CrossSubnet)), []);
    }

    #[test]
    fn vxlan_is_never_over_plain_bgp() {
        let bgp = Choices { distribution: Distribution::Bgp, ..FLANNEL };
        assert_eq!(refused(bgp), [Refusal::VxlanOverBgp]);
        let evpn = Choices { distribution: Distribution::Evpn, ..FLANNEL };
        assert_eq!(refused(evpn), []);
    }

    #[test]
    fn ipip_is_ipv4_only() {
        let ipip = Choices::flannel(Transport::Ipip, When::Always);
        assert_eq!(ipip.check([Family::V6]), Err(vec![Refusal::IpipOverIpv6]));
        assert_eq!(ipip.check([Family::V4]), Ok(()));
    }

    #[test]
    fn flood_is_only_for_segments_over_vxlan() {
        let bridge = Choices { distribution: Distribution::Flood, ..FLANNEL };
        assert_eq!(refused(bridge), [Refusal::FloodOutsideSegment]);
        let direct = Choices { transport: Transport::Direct, ..FABRIC };
        assert_eq!(refused(direct), [Refusal::FloodOutsideSegment]);
    }

    #[test]
    fn a_bridge_needs_a_gateway_per_block() {
        let blocks = Choices { addressing: Addressing::Blocks, ..FLANNEL };
        assert_eq!(refused(blocks), []);
        let segment = Choices { addressing: Addressing::Segment, ..FLANNEL };
        assert_eq!(refused(segment), [Refusal::BridgeWithoutGateway(Addressing::Segment)]);
    }

    #[test]
    fn a_segment_port_needs_the_segment_s_subnet() {
        let half = Choices { addressing: Addressing::Blocks, ..FABRIC };
        assert_eq!(refused(half), [Refusal::SegmentHalf]);
    }

    fn refused(choices: Choices) -> Vec<Refusal> {
        choices.check([Family::V4]).err().unwrap_or_default()
    }
}

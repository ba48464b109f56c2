//! What we say in our OPEN, and what it amounts to together with the peer's.

use std::time::Duration;

use russet_net::Asn;

use super::{DownReason, Opening};
use crate::wire::{
    AddPathMode, AfiSafi, AsWidth, Capabilities, ExtendedNextHop, Family, FamilySet,
    GracefulRestart, HoldTime, MessageLimit, Open, Peering, Reason, Reset, RouterId, Terms,
};

/// Who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSpeaker {
    pub asn: Asn,
    pub id: RouterId,
}

/// Which AS a peer may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    Is(Asn),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
}

/// What one session is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    pub local: LocalSpeaker,
    pub remote: RemoteAs,
    pub opening: Opening,
    pub hold: HoldTime,
    /// The longest between two attempts to dial.
    pub retry: Duration,
    pub families: FamilySet,
    /// Families of which we take several paths.
    pub add_path_in: FamilySet,
    /// Families of which we send several paths.
    pub add_path_out: FamilySet,
    /// Families of IPv4 that may lead over IPv6.
    pub extended_next_hop: FamilySet,
    pub limit: MessageLimit,
    /// What is said of graceful restart; `None`: nothing is.
    pub restart: Option<GracefulRestart>,
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub terms: Terms,
    pub hold: HoldTime,
    pub peer_asn: Asn,
    pub peer_id: RouterId,
    pub refresh: Agreed,
    /// The answer to a refresh is marked at its begin and end (RFC 7313).
    pub enhanced_refresh: Agreed,
    /// What the peer said of its restart, when both sides do it.
    pub restart: Option<GracefulRestart>,
    /// A NOTIFICATION is no reason to forget routes (RFC 8538).
    pub survives_notification: Agreed,
}

/// Whether both sides have said that they can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    Yes,
    No,
}

impl Agreed {
    const fn when(both: bool) -> Self {
        if both { Self::Yes } else { Self::No }
    }

    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }
}

impl SessionConfig {
    /// What we say of ourselves.
    pub(super) fn open(&self) -> Open {
        let (asn, id) = (self.local.asn, self.local.id);
        Open { asn, hold: self.hold, id, capabilities: self.capabilities() }
    }

    fn capabilities(&self) -> Capabilities {
        let wire = |set: FamilySet| set.iter().map(Family::wire);
        Capabilities {
            families: wire(self.families).collect(),
            four_octet_as: Some(self.local.asn),
            refresh: true,
            enhanced_refresh: true,
            extended_messages: self.limit == MessageLimit::Extended,
            graceful_restart: self.restart.clone(),
            add_path: self.families.iter().filter_map(|family| self.add_path(family)).collect(),
            extended_next_hop: wire(self.extended_next_hop.both(self.families))
                .map(|routes| ExtendedNextHop { routes, next_hop_afi: AFI_IPV6 })
                .collect(),
            others: Vec::new(),
        }
    }

    fn add_path(&self, family: Family) -> Option<(AfiSafi, AddPathMode)> {
        let mode = match (self.add_path_in.contains(family), self.add_path_out.contains(family)) {
            (true, true) => AddPathMode::Both,
            (true, false) => AddPathMode::Receive,
            (false, true) => AddPathMode::Send,
            (false, false) => return None,
        };
        Some((family.wire(), mode))
    }

    /// What our OPEN and the peer's amount to (RFC 4271 §6.2).
    pub(super) fn negotiate(&self, open: &Open) -> Result<Negotiated, Reset> {
        self.check_peer(open)?;
        let (ours, theirs) = (self.capabilities(), &open.capabilities);
        let families = self.families.both(theirs.family_set());
        if families.is_empty() {
            let mut data = Vec::new();
            for family in &ours.families {
                let [a, b] = family.afi.to_be_bytes();
                data.extend([CAPABILITY_MULTIPROTOCOL, 4, a, b, 0, family.safi]);
            }
            let what = "the peer speaks none of our address families";
            return Err(Reset::with(Reason::UNSUPPORTED_CAPABILITY, what, &data));
        }
        let terms = Terms {
            peering: self.peering(open.asn),
            as_width: theirs.four_octet_as.map_or(AsWidth::Two, |_| AsWidth::Four),
            families,
            add_path_in: families
                .both(self.add_path_in)
                .both(theirs.add_path_set(AddPathMode::sends)),
            add_path_out: families
                .both(self.add_path_out)
                .both(theirs.add_path_set(AddPathMode::receives)),
            extended_next_hop: families
                .both(self.extended_next_hop)
                .both(theirs.extended_next_hop_set()),
            limit: self.limit_with(theirs),
        };
        Ok(self.agree(terms, open))
    }

    fn agree(&self, terms: Terms, open: &Open) -> Negotiated {
        let theirs = &open.capabilities;
        let restart = theirs.graceful_restart.clone().filter(|_| self.restart.is_some());
        let says_notification = |restart: &Option<GracefulRestart>| {
            restart.as_ref().is_some_and(|r| r.flags.notification)
        };
        let survives = says_notification(&self.restart) && says_notification(&restart);
        Negotiated {
            terms,
            hold: self.hold.min(open.hold),
            peer_asn: open.asn,
            peer_id: open.id,
            refresh: Agreed::when(theirs.refresh),
            enhanced_refresh: Agreed::when(theirs.enhanced_refresh),
            restart,
            survives_notification: Agreed::when(survives),
        }
    }

    fn check_peer(&self, open: &Open) -> Result<(), Reset> {
        let expected = match self.remote {
            RemoteAs::Is(asn) => open.asn == asn,
            RemoteAs::Internal => open.asn == self.local.asn,
            RemoteAs::External => open.asn != self.local.asn,
        };
        if !expected {
            return Err(Reset::new(
                Reason::BAD_PEER_AS,
                "the peer is in another AS than configured",
            ));
        }
        // Two of one AS must differ; across ASes only the pair of both has to (RFC 6286 §2.2).
        if open.id == self.local.id && open.asn == self.local.asn {
            return Err(Reset::new(Reason::BAD_IDENTIFIER, "the peer has our own BGP identifier"));
        }
        Ok(())
    }

    fn peering(&self, peer: Asn) -> Peering {
        if peer == self.local.asn { Peering::Internal } else { Peering::External }
    }

    fn limit_with(&self, theirs: &Capabilities) -> MessageLimit {
        if theirs.extended_messages { self.limit } else { MessageLimit::Usual }
    }
}

impl Negotiated {
    /// The families whose routes are kept for a while when the session ends like this (RFC 4724 §4.2, RFC 8538
    /// §4), until the peer is back or its time is over.
    pub fn kept_after(&self, reason: &DownReason) -> FamilySet {
        let Some(restart) = &self.restart else { return FamilySet::EMPTY };
        let kept = match reason {
            DownReason::ConnectionLost | DownReason::PeerRestarted => true,
            DownReason::Sent(notification) | DownReason::Received(notification) => {
                self.survives_notification.is_yes() && notification.reason != Reason::HARD_RESET
            }
        };
        if !kept {
            return FamilySet::EMPTY;
        }
        let named = restart.families.iter().filter_map(|restart| restart.family.family());
        named.collect::<FamilySet>().both(self.terms.families)
    }
}

const AFI_IPV6: u16 = 2;
const CAPABILITY_MULTIPROTOCOL: u8 = 1;

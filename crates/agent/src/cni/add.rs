//! ADD: addresses first, then the link, and an answer when both are safe.

use std::{net::IpAddr, os::fd::OwnedFd, os::unix::net::UnixStream};

use russet_api::cni::{
    CniError, Code, Text,
    wire::{self, Above, Add, Answer, Attached, Call, PodIp},
};
use russet_core::{
    attachment::routed,
    ipam::Assigned,
    model::{PodFact, PodNetwork, PodSide},
};
use russet_kernel::pod::{Inside, LinkState, NodeSide, PodAddress, PodError, PodLink};
use russet_net::{Family, IfName, Mac, Mtu, Prefix};

use super::{
    Key,
    blocks::Held,
    lane::{Job, Lane, checked, records_error, send},
    name,
    note::Asked,
    one_line,
    spool::key_of,
    sync::Pending,
};

/// An ADD whose addresses are taken.
pub(super) struct Begun {
    pub(super) key: Key,
    pub(super) asked: Asked,
    pub(super) inside: Inside,
    pub(super) want: PodLink,
    pub(super) made: Made,
}

/// How far an ADD has come.
enum Step {
    Begun(Box<Begun>),
    /// Its addresses are to be asked for.
    Asking(Box<Asking>),
}

struct Asking {
    key: Key,
    inside: Inside,
    network: PodNetwork,
    host: IfName,
    mtu: Mtu,
}

pub(super) enum Made {
    /// By an earlier ADD, whole.
    Before,
    /// Not yet; the record is on its way to the disk.
    Now(Pending),
}

impl Lane {
    /// Serves ADDs of different pods: the addresses of all, then one link after the other.
    pub(super) fn add_all(&mut self, jobs: Vec<Job>) {
        self.drain_spool();
        let mut begun = Vec::with_capacity(jobs.len());
        for job in jobs {
            let Call::Add(add) = &job.call else { continue };
            let key = key_of(&add.pod);
            let Held::No(Job { call: Call::Add(add), descriptors, stream }) =
                self.hold_back(&key, job)
            else {
                continue;
            };
            match self.begin(&add, descriptors) {
                Ok(Step::Begun(one)) => begun.push((Ok(*one), stream)),
                Ok(Step::Asking(asking)) => {
                    let Asking { key, inside, network, host, mtu } = *asking;
                    let wanted = Wanted { key: &key, network: &network, host, mtu, mac: add.mac };
                    self.park(&wanted, &add, inside, stream);
                }
                Err(err) => begun.push((Err(err), stream)),
            }
        }
        for (one, stream) in begun {
            self.conclude(one, &stream);
        }
    }

    pub(super) fn conclude(&mut self, begun: Result<Begun, CniError>, stream: &UnixStream) {
        let answer = begun.and_then(|begun| self.attach(begun));
        send(stream, answer);
    }

    fn begin(&mut self, add: &Add, descriptors: Vec<OwnedFd>) -> Result<Step, CniError> {
        checked(add.check())?;
        let inside = inside(descriptors)?;
        let network = self.network()?;
        let mtu = mtu(add, &network)?;
        let key = key_of(&add.pod);
        self.finish_going(&key)?;
        let found = self.records.find(&key.network, &key.pod).map_err(|err| records_error(&err))?;
        let host = self.choose_link(&key, &network, &add.asks);
        let pod = Wanted { key: &key, network: &network, host, mtu, mac: add.mac };
        if found.is_empty() {
            return self.begin_fresh(&pod, add, inside);
        }
        self.begin_again(&pod, &found, add, inside)
    }

    /// The pod has no address yet, or none that is in use.
    fn begin_fresh(&mut self, pod: &Wanted, add: &Add, inside: Inside) -> Result<Step, CniError> {
        if self.blocks.is_some() {
            // What it has in the datastore it gets again.
            let (key, network) = (pod.key.clone(), pod.network.clone());
            let asking = Asking { key, inside, network, host: pod.host, mtu: pod.mtu };
            return Ok(Step::Asking(Box::new(asking)));
        }
        let Key { network, pod: id } = pod.key;
        let reserved = self.records.reserve(network, id, &pod.network.subnets, &add.ips);
        let (assigned, mut unsynced) = reserved.map_err(|err| records_error(&err))?;
        let asked = Asked::of(add);
        match self.take_link(pod, asked.clone()) {
            Ok(note) => unsynced.files.extend(note),
            Err(err) => {
                self.release(pod.key)?;
                return Err(err);
            }
        }
        let made = Made::Now(self.syncer.begin(unsynced));
        let want = pod.link(&assigned);
        let key = pod.key.clone();
        Ok(Step::Begun(Box::new(Begun { key, asked, inside, want, made })))
    }

    /// The pod has a record: from an ADD that was served, or from one that was cut off.
    fn begin_again(
        &mut self,
        pod: &Wanted,
        found: &[IpAddr],
        add: &Add,
        mut inside: Inside,
    ) -> Result<Step, CniError> {
        // It was made under a name that may be another today.
        let made = Wanted { host: self.notes.host_link(pod.key), ..*pod };
        let link = self.kernel.host_link(made.host);
        let link = link.map_err(|err| CniError::new(Code::KERNEL, one_line(&err)))?;
        if link.is_none_or(|link| link.state == LinkState::Marked) {
            let there = inside.has_link(pod.key.pod.ifname);
            if there.map_err(|err| CniError::new(Code::KERNEL, one_line(&err)))? {
                // Another plugin's attachment, on record as ours are: its address is in use.
                return Err(refused(&PodError::Exists(pod.key.pod.ifname)));
            }
            // Nothing uses the addresses, so a fresh choice is as good, and fits the subnets of today.
            if self.blocks.is_none() {
                self.release(pod.key)?;
            }
            return self.begin_fresh(pod, add, inside);
        }
        let want = made.link(&self.assigned(pod.network, found));
        let faults = if want.addresses.len() == found.len() {
            self.kernel.check(&mut inside, &want)
        } else {
            Ok(vec!["its addresses are of another lease of this node".to_owned()])
        };
        let faults = faults.map_err(|err| CniError::new(Code::KERNEL, one_line(&err)))?;
        if faults.is_empty() {
            let asked = self.notes.asked(pod.key);
            let (key, made) = (pod.key.clone(), Made::Before);
            return Ok(Step::Begun(Box::new(Begun { key, asked, inside, want, made })));
        }
        let msg =
            format!("{} is attached already, and not as this ADD would: DEL it first", pod.key);
        Err(CniError::new(Code::INTERFACE_EXISTS, msg).with_details(faults.join("; ")))
    }

    fn attach(&mut self, begun: Begun) -> Result<Answer, CniError> {
        let Begun { key, asked, mut inside, want, made } = begun;
        let bridge_mac = match made {
            Made::Before => {
                want.bridge().and_then(|bridge| self.kernel.mac_of(bridge).unwrap_or_default())
            }
            Made::Now(pending) => match self.attach_now(&key, &mut inside, &want, pending) {
                Ok(mac) => mac,
                Err(refusal) => return refusal,
            },
        };
        let addresses: Vec<_> = want.addresses.iter().map(|one| one.addr).collect();
        self.list(&key, &addresses);
        let fact = PodFact {
            network: key.network.clone(),
            host_link: want.host,
            addresses,
            mtu: want.mtu,
            allowed_sources: asked.allowed_sources,
        };
        self.core.attached(key.pod, fact);
        Ok(Answer::Attached(told(&want, bridge_mac)))
    }

    /// Makes the link and waits for the record. If either fails, both go.
    fn attach_now(
        &mut self,
        key: &Key,
        inside: &mut Inside,
        want: &PodLink,
        pending: Pending,
    ) -> Result<Option<Mac>, Result<Answer, CniError>> {
        let attached = self.kernel.attach(inside, want);
        let synced = pending.wait();
        let answer = match (attached, synced) {
            (Ok(mac), Ok(())) => return Ok(mac),
            // It is asked again at once, and gets the same from the datastore.
            (Err(PodError::Ipv6Disabled), _) if self.blocks.is_some() => {
                return Err(Ok(Answer::Ipv6Disabled));
            }
            (Err(PodError::Ipv6Disabled), _) => Ok(Answer::Ipv6Disabled),
            (Err(err), _) => Err(refused(&err)),
            (Ok(_), Err(reason)) => {
                // The link goes as by a DEL, and its record with it.
                let undone = self.del(key);
                let msg = format!("the pod's record is not safe on disk: {reason}");
                return Err(Err(CniError::new(Code::RECORDS, msg)
                    .with_details(undone.err().map(|err| err.msg).unwrap_or_default())));
            }
        };
        if let Err(err) = self.release(key) {
            tracing::warn!(pod = %key, error = err.msg, op = "release pod address");
        }
        Err(answer)
    }

    pub(super) fn network(&self) -> Result<PodNetwork, CniError> {
        self.core.pod_network().map_err(|not_ready| {
            CniError::new(Code::TRY_AGAIN, format!("no pod can be added yet: {}", not_ready.reason))
        })
    }
}

/// What an attachment is to be made of, but for its addresses.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a Key,
    pub(super) network: &'a PodNetwork,
    /// The node's end.
    pub(super) host: IfName,
    pub(super) mtu: Mtu,
    pub(super) mac: Option<Text<Mac>>,
}

impl Wanted<'_> {
    pub(super) fn link(&self, assigned: &[Assigned]) -> PodLink {
        let host = self.host;
        let own = assigned.first().map_or(Mac::local([0; 6]), |one| name::pod_mac(one.addr));
        let (side, host_mac) = match self.network.side {
            PodSide::Bridge { bridge, hairpin } => {
                (NodeSide::Bridge { bridge, hairpin }, name::host_mac(host))
            }
            PodSide::Routed { proxy_arp } => (NodeSide::Routed { proxy_arp }, routed::HOST_MAC),
        };
        let address = |one: &Assigned| match side {
            NodeSide::Bridge { .. } => {
                PodAddress { addr: one.addr, len: one.len, gateway: one.gateway }
            }
            NodeSide::Routed { .. } => {
                let family = Family::of(one.addr);
                let gateway = routed::gateway(family);
                PodAddress { addr: one.addr, len: family.bits(), gateway }
            }
        };
        PodLink {
            host,
            host_mac,
            name: self.key.pod.ifname,
            mac: self.mac.map_or(own, |mac| mac.0),
            mtu: self.mtu,
            side,
            addresses: assigned.iter().map(address).collect(),
        }
    }
}

/// Recorded addresses as they were assigned, those of today's subnets.
pub(super) fn in_subnets(subnets: &[Prefix], addresses: &[IpAddr]) -> Vec<Assigned> {
    let assigned = |addr: &IpAddr| {
        let subnet = subnets.iter().find(|subnet| subnet.contains(*addr))?;
        Some(Assigned { addr: *addr, len: subnet.len(), gateway: subnet.nth(1)? })
    };
    // In the order of the subnets: the first one's address gives the MAC address.
    let mut found: Vec<_> = addresses.iter().filter_map(assigned).collect();
    found.sort_by_key(|one| subnets.iter().position(|subnet| subnet.contains(one.addr)));
    found
}

/// The two descriptors that come with an ADD and a CHECK.
pub(super) fn inside(descriptors: Vec<OwnedFd>) -> Result<Inside, CniError> {
    let missing = || {
        let msg = format!(
            "{} descriptors are wanted: the namespace and a netlink socket",
            wire::DESCRIPTORS
        );
        CniError::new(Code::DECODE, msg)
    };
    let [netns, netlink]: [OwnedFd; wire::DESCRIPTORS] =
        descriptors.try_into().map_err(|_| missing())?;
    Inside::new(netns, netlink).map_err(|err| {
        CniError::new(Code::DECODE, "the second descriptor is no netlink socket")
            .with_details(one_line(&err))
    })
}

/// The pod's MTU: the network's, or less when the configuration says so.
fn mtu(add: &Add, network: &PodNetwork) -> Result<Mtu, CniError> {
    let Some(asked) = add.mtu else { return Ok(network.mtu) };
    let bad = |reason: String| CniError::new(Code::BAD_CONFIG, format!("mtu: {reason}"));
    let mtu = Mtu::try_from(asked).map_err(|err| bad(err.to_string()))?;
    if mtu > network.mtu {
        if add.above == Above::Lowered {
            return Ok(network.mtu);
        }
        return Err(bad(format!("{mtu} is above the network's {}", network.mtu)));
    }
    let has_v6 = network.subnets.iter().any(|subnet| subnet.family() == Family::V6);
    if has_v6 && mtu < Mtu::MIN_V6 {
        return Err(bad(format!("{mtu} is below the {} that IPv6 needs", Mtu::MIN_V6)));
    }
    Ok(mtu)
}

fn refused(err: &PodError) -> CniError {
    let code = match err {
        PodError::Exists(_) | PodError::HostExists(_) => Code::INTERFACE_EXISTS,
        PodError::NoBridge(_) => Code::TRY_AGAIN,
        PodError::Ipv6Disabled | PodError::Kernel(_) => Code::KERNEL,
    };
    CniError::new(code, one_line(err))
}

fn told(want: &PodLink, bridge_mac: Option<Mac>) -> Attached {
    let ip = |one: &PodAddress| PodIp { addr: one.addr, len: one.len, gateway: one.gateway };
    Attached {
        bridge: want.bridge().map(Text),
        bridge_mac: bridge_mac.map(Text),
        host_link: Text(want.host),
        host_mac: Text(want.host_mac),
        mac: Text(want.mac),
        mtu: want.mtu.get(),
        ips: want.addresses.iter().map(ip).collect(),
    }
}

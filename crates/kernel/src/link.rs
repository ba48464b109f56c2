//! Links of ours: the bridge, VXLAN devices, and the host's ends of pods' veths.
//!
//! Ours is what is in our link group and bears our alias. A link of a wanted name that is not ours is left
//! alone and named, unless the wish inherits what bears nobody's mark; one in our group without any alias was left half made (a pod's veth is handed over
//! that way) and becomes ours when it is wished for. What the kernel cannot change in place (a VNI, an underlay) is removed and made again;
//! all that lay behind it is gone then, and whoever calls us reads it back (`Host::links` says so by its
//! indices). `observed` is what the kernel tells, `plan` is pure, `apply` writes the messages.

mod apply;
mod observed;
mod plan;

use std::collections::BTreeMap;

use russet_desired::{Link, LinkKind, LinkSpec, Table};
use russet_net::IfName;

pub use self::observed::{
    ALIAS_PREFIX, GROUP, LinkChange, Links, ObservedIpip, ObservedKind, ObservedLink,
    ObservedVxlan, REAP_GROUP,
};
use self::plan::{Aspect, Step};
use crate::{
    Host, KernelError,
    netlink::{Batch, Message, NetlinkError, Refusal, rt},
    reconcile::{Change, Driver, Events, Refused, Seen, refuse_all},
    tun::Tun,
};

/// Keeps links.
#[derive(Debug, Default)]
pub struct LinkDriver;

impl Driver<Link> for LinkDriver {
    type Context = Host;
    type Actual = ObservedLink;
    const EVENTS: Events = Events::Hint;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _desired: &Table<Link>,
    ) -> Result<BTreeMap<IfName, ObservedLink>, KernelError> {
        host.links.refresh_if_old(&mut host.socket)?;
        let ours = host.links.iter().filter(|link| link.is_ours());
        Ok(ours.map(|link| (link.name, link.clone())).collect())
    }

    fn is_met(&self, host: &Host, _: &IfName, wanted: &LinkSpec, actual: &ObservedLink) -> bool {
        plan::is_met(wanted, actual, &host.links)
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<Link, ObservedLink>],
    ) -> Vec<Refused<Link>> {
        let mut refused = Vec::new();
        let mut alter = Vec::new();
        let create = plan_all(host, changes, &mut alter, &mut refused);
        // A port needs its bridge's number, so what is new is made first and put together after.
        let made = make_all(host, create, &mut refused);
        alter.extend(made.into_iter().map(|c| (c, plan::after_creation(&c.wanted))));
        alter_all(host, &alter, &mut refused);
        refused
    }

    fn remove(&mut self, host: &mut Host, names: &[IfName]) -> Vec<Refused<Link>> {
        let ours = |name: &&IfName| host.links.by_name(**name).is_some_and(ObservedLink::is_ours);
        let names: Vec<IfName> = names.iter().filter(ours).copied().collect();
        let mut batch = Batch::new();
        for index in names.iter().filter_map(|name| host.links.index(*name)) {
            apply::remove(&mut batch, index);
        }
        let mut refused = send(host, "remove link", &names, &mut batch);
        refresh(host, names.iter().copied());
        // The kernel says that its own device (`tunl0`) is removed, and keeps it.
        let is_left = |name: &IfName| host.links.by_name(*name).is_some_and(ObservedLink::is_ours);
        let is_refused = |name: &IfName| refused.iter().any(|(other, _)| other == name);
        let left: Vec<IfName> =
            names.iter().filter(|name| is_left(name) && !is_refused(name)).copied().collect();
        for index in left.iter().filter_map(|name| host.links.index(*name)) {
            apply::give_back(&mut batch, index);
        }
        refused.extend(send(host, "give back link", &left, &mut batch));
        refresh(host, left.into_iter());
        refused.into_iter().filter(|(_, err)| !is_not_found(err)).collect()
    }

    fn settled(&self, host: &Host, name: &IfName, _: &LinkSpec) -> Option<ObservedLink> {
        host.links.by_name(*name).cloned()
    }

    fn decode(&self, host: &Host, message: &Message<'_>) -> Option<Seen<Link, ObservedLink>> {
        if message.u8(0) != rt::AF_UNSPEC {
            return None;
        }
        match message.kind {
            rt::RTM_NEWLINK => {
                let link = ObservedLink::parse(message)?;
                let name = link.name;
                Some(if link.is_ours() { Seen::Ours(name, link) } else { Seen::Foreign(name) })
            }
            rt::RTM_DELLINK => {
                let link = ObservedLink::parse(message)?;
                // A newer link may have taken the name already.
                host.links.by_name(link.name).is_none().then_some(Seen::Gone(link.name))
            }
            _ => None,
        }
    }
}

type LinkChanges<'a> = Vec<&'a Change<Link, ObservedLink>>;
type Alterations<'a> = Vec<(&'a Change<Link, ObservedLink>, Vec<Aspect>)>;

/// Plans every link; removes what must be made again. Returns what is to be made.
fn plan_all<'a>(
    host: &mut Host,
    changes: &'a [Change<Link, ObservedLink>],
    alter: &mut Alterations<'a>,
    refused: &mut Vec<Refused<Link>>,
) -> LinkChanges<'a> {
    let mut create = Vec::new();
    let mut replace = Vec::new();
    for change in changes {
        match plan::plan(change.key, &change.wanted, &host.links) {
            Ok(Step::Keep) => {}
            Ok(Step::Create) => create.push(change),
            Ok(Step::Alter(what)) => alter.push((change, what)),
            Ok(Step::Replace) => replace.push(change),
            Err(err) => refused.push((change.key, err.into())),
        }
    }
    let mut batch = Batch::new();
    for index in replace.iter().filter_map(|change| host.links.index(change.key)) {
        apply::remove(&mut batch, index);
    }
    let names: Vec<_> = replace.iter().map(|change| change.key).collect();
    let kept = send(host, "replace link", &names, &mut batch);
    refresh(host, names.into_iter());
    replace.retain(|change| !kept.iter().any(|(name, _)| *name == change.key));
    refused.extend(kept);
    create.extend(replace);
    create
}

/// Makes links, and returns the ones that are there now.
fn make_all<'a>(
    host: &mut Host,
    mut create: LinkChanges<'a>,
    refused: &mut Vec<Refused<Link>>,
) -> LinkChanges<'a> {
    let mut batch = Batch::new();
    // They vanish again with these, should we die before they bear our mark.
    let mut tuns = Vec::new();
    create.retain(|change| {
        match make_tun(change, &mut tuns)
            .and_then(|()| Ok(apply::create(&mut batch, change.key, &change.wanted, &host.links)?))
        {
            Ok(()) => true,
            Err(err) => {
                refused.push((change.key, err));
                false
            }
        }
    });
    let names: Vec<_> = create.iter().map(|change| change.key).collect();
    let mut failed = send(host, "add link", &names, &mut batch);
    failed.extend(keep_tuns(tuns, &failed));
    refresh(host, names.into_iter());
    create.retain(|change| !failed.iter().any(|(name, _)| *name == change.key));
    refused.extend(failed);
    create
}

/// A TUN device is made by a control call and not by a message.
fn make_tun(
    change: &Change<Link, ObservedLink>,
    tuns: &mut Vec<(IfName, Tun)>,
) -> Result<(), KernelError> {
    if change.wanted.kind == LinkKind::Tun {
        let made = Tun::create(change.key);
        tuns.push((change.key, made.map_err(|err| refused_tun(change.key, &err))?));
    }
    Ok(())
}

/// Has those devices live on that bear our mark now.
fn keep_tuns(tuns: Vec<(IfName, Tun)>, failed: &[Refused<Link>]) -> Vec<Refused<Link>> {
    let marked = |name: &IfName| !failed.iter().any(|(other, _)| other == name);
    tuns.into_iter()
        .filter(|(name, _)| marked(name))
        .filter_map(|(name, tun)| Some((name, refused_tun(name, &tun.persist().err()?))))
        .collect()
}

fn refused_tun(name: IfName, err: &std::io::Error) -> KernelError {
    let refusal = Refusal::new(err.raw_os_error().unwrap_or_default());
    NetlinkError::refused("add TUN link", name, refusal).into()
}

fn alter_all(host: &mut Host, alter: &Alterations<'_>, refused: &mut Vec<Refused<Link>>) {
    let mut batch = Batch::new();
    let mut names = Vec::new();
    for (change, what) in alter {
        match apply::alter(&mut batch, change.key, &change.wanted, what, &host.links) {
            Ok(()) => names.push(change.key),
            Err(err) => refused.push((change.key, err.into())),
        }
    }
    refused.extend(send(host, "set link", &names, &mut batch));
    refresh(host, names.into_iter());
}

/// Sends one message for each name.
fn send(
    host: &mut Host,
    op: &'static str,
    names: &[IfName],
    batch: &mut Batch,
) -> Vec<Refused<Link>> {
    match host.socket.batch(batch) {
        Ok(outcomes) => {
            let pairs = names.iter().zip(outcomes);
            pairs
                .filter_map(|(name, outcome)| {
                    let refusal = outcome.err()?;
                    Some((*name, NetlinkError::refused(op, name, refusal).into()))
                })
                .collect()
        }
        Err(err) => refuse_all::<Link>(names.iter().copied(), &err.into()),
    }
}

/// Reads the links anew that we touched. A failure shows at the next read-back.
fn refresh(host: &mut Host, names: impl Iterator<Item = IfName>) {
    for name in names {
        if let Err(error) = host.links.refresh_one(&mut host.socket, name) {
            tracing::debug!(link = %name, %error, "link not read back");
        }
    }
}

fn is_not_found(err: &KernelError) -> bool {
    matches!(err, KernelError::Netlink(err) if err.is_not_found())
}

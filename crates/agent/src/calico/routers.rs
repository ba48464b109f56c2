//! What the BGP speaker is told of Calico's objects: all that it heeds, anew each time that something of it changes.

use std::{sync::Arc, time::Duration};

use russet_api::calico::{Key, Kind, ResourceId};
use russet_core::model::calico::Name;
use tokio::sync::{mpsc, watch};

use crate::{
    bgp::resources::{Grade, Report, Resources},
    one_line,
    resources::{Known, News, Object, Picture},
};

/// Follows the datastore for the speaker. Changes that come close together are told as one.
pub async fn follow(
    node: Name,
    mut news: mpsc::Receiver<News>,
    told: watch::Sender<Arc<Resources>>,
) {
    let mut now = Resources::of(node);
    while let Some(first) = news.recv().await {
        let changed = take(&mut now, first);
        if !changed {
            continue;
        }
        let until = tokio::time::Instant::now() + TOGETHER;
        while let Ok(Some(next)) = tokio::time::timeout_at(until, news.recv()).await {
            take(&mut now, next);
        }
        told.send_replace(Arc::new(now.clone()));
    }
}

/// Takes what the datastore says, and tells whether the speaker has to know. A store that is not believed says nothing.
fn take(now: &mut Resources, news: News) -> bool {
    match news {
        News::All { picture, .. } => {
            *now = whole(now.node.clone(), &picture);
            true
        }
        News::Changed { changes, .. } => {
            let heeded = changes.iter().map(|change| put(now, &change.key, change.known.as_ref()));
            heeded.fold(false, |any, heeded| any | heeded)
        }
        News::Doubted { .. } | News::Away(_) | News::Back => false,
    }
}

fn whole(node: Name, picture: &Picture) -> Resources {
    let mut all = Resources::of(node);
    for (key, known) in picture.iter() {
        put(&mut all, key, Some(known));
    }
    all
}

/// Takes one object, and tells whether it is one that the speaker heeds.
fn put(now: &mut Resources, key: &Key, known: Option<&Known>) -> bool {
    let Key::Resource(ResourceId { kind, name, .. }) = key else { return false };
    if !HEEDED.contains(kind) {
        return false;
    }
    now.reports.retain(|report| report.kind != *kind || report.name != *name);
    let fault = known.and_then(|known| known.fault.as_deref());
    now.reports.extend(fault.map(|fault| Report {
        kind: *kind,
        name: name.clone(),
        grade: Grade::Fault,
        reason: one_line(fault),
    }));
    let name = name.clone();
    match (kind, known.and_then(|known| known.value.as_ref())) {
        (_, Some(Object::Node(it))) => _ = now.nodes.insert(name, (**it).clone()),
        (_, Some(Object::BgpConfiguration(it))) => {
            now.configurations.insert(name, (**it).clone());
        }
        (_, Some(Object::BgpPeer(it))) => _ = now.peers.insert(name, (**it).clone()),
        (_, Some(Object::BgpFilter(it))) => _ = now.filters.insert(name, (**it).clone()),
        (_, Some(Object::Pool(it))) => _ = now.pools.insert(name, (**it).clone()),
        (Kind::Node, _) => _ = now.nodes.remove(&name),
        (Kind::BgpConfiguration, _) => _ = now.configurations.remove(&name),
        (Kind::BgpPeer, _) => _ = now.peers.remove(&name),
        (Kind::BgpFilter, _) => _ = now.filters.remove(&name),
        (Kind::IpPool, _) => _ = now.pools.remove(&name),
        _ => {}
    }
    true
}

const HEEDED: [Kind; 5] =
    [Kind::Node, Kind::BgpConfiguration, Kind::BgpPeer, Kind::BgpFilter, Kind::IpPool];
/// How long more is waited for after a change: nodes come by the hundred.
const TOGETHER: Duration = Duration::from_millis(50);

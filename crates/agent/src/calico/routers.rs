//! What the BGP speaker is told of Calico's objects: all that it heeds, anew each time that something of it changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
            let all = whole(now.node.clone(), &picture);
            let is_news = all != *now;
            *now = all;
            is_news
        }
        News::Changed { changes, .. } => {
            let news = changes.iter().map(|change| put(now, &change.key, change.known.as_ref()));
            news.fold(false, |any, is_news| any | is_news)
        }
        News::Doubted { .. } | News::Aside { .. } | News::Away(_) | News::Back => false,
    }
}

fn whole(node: Name, picture: &Picture) -> Resources {
    let mut all = Resources::of(node);
    for (key, known) in picture.iter() {
        put(&mut all, key, Some(known));
    }
    all
}

/// Takes one object, and tells whether what the speaker heeds of it has changed: a node is written every few seconds, and
/// mostly says what it said.
fn put(now: &mut Resources, key: &Key, known: Option<&Known>) -> bool {
    let Key::Resource(ResourceId { kind, name, .. }) = key else { return false };
    if !HEEDED.contains(kind) {
        return false;
    }
    let fault = known.and_then(|known| known.fault.as_deref()).map(|fault| one_line(fault));
    let is_news = report(now, *kind, name, fault);
    is_news | set(now, *kind, name, known.and_then(|known| known.value.as_ref()))
}

/// Has the object's fault, and no other, among the reports; tells whether that is news.
fn report(now: &mut Resources, kind: Kind, name: &Name, fault: Option<String>) -> bool {
    let at = now.reports.iter().position(|report| report.kind == kind && report.name == *name);
    if at.map(|at| &now.reports[at].reason) == fault.as_ref() {
        return false;
    }
    if let Some(at) = at {
        now.reports.remove(at);
    }
    let report = |reason| Report { kind, name: name.clone(), grade: Grade::Fault, reason };
    now.reports.extend(fault.map(report));
    true
}

fn set(now: &mut Resources, kind: Kind, name: &Name, value: Option<&Object>) -> bool {
    match (kind, value) {
        (_, Some(Object::Node(it))) => replace(&mut now.nodes, name, Some(it)),
        (_, Some(Object::BgpConfiguration(it))) => replace(&mut now.configurations, name, Some(it)),
        (_, Some(Object::BgpPeer(it))) => replace(&mut now.peers, name, Some(it)),
        (_, Some(Object::BgpFilter(it))) => replace(&mut now.filters, name, Some(it)),
        (_, Some(Object::Pool(it))) => replace(&mut now.pools, name, Some(it)),
        (Kind::Node, _) => replace(&mut now.nodes, name, None),
        (Kind::BgpConfiguration, _) => replace(&mut now.configurations, name, None),
        (Kind::BgpPeer, _) => replace(&mut now.peers, name, None),
        (Kind::BgpFilter, _) => replace(&mut now.filters, name, None),
        (Kind::IpPool, _) => replace(&mut now.pools, name, None),
        _ => false,
    }
}

/// Puts or takes away a value, and tells whether it was another.
fn replace<T: Clone + PartialEq>(
    all: &mut BTreeMap<Name, T>,
    name: &Name,
    value: Option<&T>,
) -> bool {
    if all.get(name) == value {
        return false;
    }
    match value {
        Some(value) => _ = all.insert(name.clone(), value.clone()),
        None => _ = all.remove(name),
    }
    true
}

const HEEDED: [Kind; 5] =
    [Kind::Node, Kind::BgpConfiguration, Kind::BgpPeer, Kind::BgpFilter, Kind::IpPool];
/// How long more is waited for after a change: nodes come by the hundred.
const TOGETHER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use russet_core::{Fault, model::calico::Node};
    use serde_json::json;

    use super::*;
    use crate::bgp::resources::Documents;

    #[test]
    fn an_object_that_is_written_and_says_what_it_said_is_no_news() {
        let mut now = Resources::of("a".parse().unwrap());
        assert!(put(&mut now, &key(), Some(&known(3, &node(1), None))));
        assert!(!put(&mut now, &key(), Some(&known(4, &node(1), None))));
        assert!(put(&mut now, &key(), Some(&known(5, &node(2), None))));
        assert_eq!(now.nodes.values().collect::<Vec<_>>(), [&node(2)]);
        assert!(put(&mut now, &key(), None));
        assert!(!put(&mut now, &key(), None));
        assert_eq!(now, Resources::of("a".parse().unwrap()));
    }

    #[test]
    fn a_fault_is_news_when_it_comes_when_it_is_another_and_when_it_goes() {
        let mut now = Resources::of("a".parse().unwrap());
        put(&mut now, &key(), Some(&known(3, &node(1), None)));
        for (fault, is_news, reports) in
            [(Some("one"), true, 1), (Some("one"), false, 1), (Some("two"), true, 1)]
                .into_iter()
                .chain([(None, true, 0), (None, false, 0)])
        {
            let known = known(4, &node(1), fault);
            assert_eq!(put(&mut now, &key(), Some(&known)), is_news, "{fault:?}");
            assert_eq!(now.reports.len(), reports);
        }
    }

    fn key() -> Key {
        Key::Resource(ResourceId { kind: Kind::Node, namespace: None, name: "b".parse().unwrap() })
    }

    fn known(revision: u64, node: &Node, fault: Option<&str>) -> Known {
        let fault = fault.map(|reason| {
            Arc::new(Fault::Unreadable { what: "a node", reason: reason.to_owned() })
        });
        let value = Some(Object::Node(Arc::new(node.clone())));
        Known { revision, created: 1, value, fault }
    }

    fn node(last: u8) -> Node {
        let mut documents = Documents::new("a".parse().unwrap(), None);
        let bgp = json!({"ipv4Address": format!("10.0.0.{last}/24")});
        let object = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Node",
            "metadata": {"name": "b"}, "spec": {"bgp": bgp},
        });
        documents.read(&object).unwrap();
        documents.done().nodes.into_values().next().unwrap()
    }
}

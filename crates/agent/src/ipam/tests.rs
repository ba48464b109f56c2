use std::io;

use russet_api::calico;
use russet_store::{Revision, ServerRef, Snapshot, SnapshotReason, WatchEvent};

use super::{shelf::fake::FakeShelf, *};
use crate::resources::{History, Reader, Seen};

#[tokio::test]
async fn pods_are_given_addresses_and_the_store_has_them_as_calico_writes_them() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    let given = node.give("net.c1", Wish::default()).await.unwrap();
    assert_eq!(given.len(), 1);
    let block = shelf.keys("/calico/ipam/v2/assignment/ipv4/block/");
    let text = shelf.text(&block[0]).unwrap();
    assert!(text.contains(r#""affinity":"host:n1""#), "{text}");
    assert!(text.contains(r#""handle_id":"net.c1","secondary":{"namespace":"default","node":"n1","pod":"web","timestamp":""#), "{text}");
    let handle = shelf.text("/calico/ipam/v2/handle/net.c1").unwrap();
    assert!(handle.ends_with(r#":1},"deleted":false}"#), "{handle}");
    let claims = shelf.keys("/calico/ipam/v2/host/n1/ipv4/block/");
    assert_eq!(shelf.text(&claims[0]).unwrap(), r#"{"state":"confirmed","deleted":false}"#);

    // Asked again, after a restart as well: the same.
    assert_eq!(node.give("net.c1", Wish::default()).await.unwrap(), given);
    drop(node);
    let mut node = Node::start(&shelf, "n1");
    assert_eq!(node.give("net.c1", Wish::default()).await.unwrap(), given);
    node.free("net.c1").await;
    eventually(|| shelf.text("/calico/ipam/v2/handle/net.c1").is_none()).await;
    assert_eq!(held(&shelf), BTreeMap::new());
}

#[tokio::test]
async fn a_new_pod_s_handle_and_address_are_written_at_once() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.first", Wish::default()).await.unwrap();
    node.give("net.second", Wish::default()).await.unwrap();
    let (_, entries) = shelf.entries();
    let at = |part: &str| {
        let of = entries.iter().filter(|kv| String::from_utf8_lossy(&kv.key).contains(part));
        of.map(|kv| kv.modified).max().unwrap()
    };
    assert_eq!(at("/handle/net.second"), at("/assignment/"));
}

#[tokio::test]
async fn what_is_unknown_in_a_block_and_a_handle_survives_every_write() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap();
    let block = shelf.keys("/calico/ipam/v2/assignment/")[0].clone();
    let handle = "/calico/ipam/v2/handle/net.c1";
    for key in [block.as_str(), handle] {
        let text = shelf.text(key).unwrap();
        let whole = text.strip_suffix('}').unwrap();
        shelf.put(key, &format!(r#"{whole},"whim":[1,{{"a":1}}]}}"#));
    }
    node.give("net.c2", Wish::default()).await.unwrap();
    node.give("net.c1", Wish::default()).await.unwrap();
    for key in [block.as_str(), handle] {
        let text = shelf.text(key).unwrap();
        assert!(text.ends_with(r#","whim":[1,{"a":1}]}"#), "{text}");
    }
}

#[tokio::test]
async fn a_hundred_pods_at_once_share_writes_and_none_waits_for_a_block() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.first", Wish::default()).await.unwrap();
    let before = shelf.log_len();
    let tickets: Vec<u64> =
        (0..100).map(|n| node.ask_give(&format!("net.c{n}"), Wish::default())).collect();
    let mut given = BTreeSet::new();
    for ticket in tickets {
        let What::Given(addresses) = node.answer(ticket).await else { panic!("refused") };
        given.extend(addresses);
    }
    assert_eq!(given.len(), 100);
    let (changes, _) = shelf.since(before);
    let blocks =
        changes.iter().filter(|c| c.key().starts_with(b"/calico/ipam/v2/assignment/")).count();
    assert!(blocks < 40, "{blocks} writes of blocks for 100 pods");
}

#[tokio::test]
async fn pools_addresses_and_families_are_as_the_pod_asks() {
    let shelf = cluster();
    pool(&shelf, "west", "10.2.0.0/16", r#","nodeSelector":"zone == 'west'""#);
    pool(&shelf, "six", "fd00::/64", r#","blockSize":122"#);
    let mut node = Node::start(&shelf, "n1");
    let both = node.give("net.both", Wish::default()).await.unwrap();
    assert_eq!(both.iter().filter(|ip| ip.is_ipv6()).count(), 1);
    assert!(both.iter().all(|ip| !ip.to_string().starts_with("10.2.")), "{both:?}");
    // Asked for by name a pool need not choose the node.
    let asked = Wish { pools_v4: vec!["west".into()], v6: Some(false), ..Wish::default() };
    let west = node.give("net.west", asked).await.unwrap();
    assert!(west[0].to_string().starts_with("10.2."), "{west:?}");
    let ip: IpAddr = [10, 1, 3, 7].into();
    let exact = Wish { ips: vec![ip], v6: Some(false), ..Wish::default() };
    assert_eq!(node.give("net.exact", exact.clone()).await.unwrap(), [ip]);
    let taken = node.give("net.other", exact).await.unwrap_err();
    assert!(taken.to_string().contains("taken by net.exact"), "{taken}");
    let outside = Wish { ips: vec![[192, 0, 2, 1].into()], ..Wish::default() };
    let outside = node.give("net.out", outside).await.unwrap_err();
    assert!(outside.to_string().contains("in no enabled pool"), "{outside}");
    let gone = Wish { pools_v4: vec!["gone".into()], ..Wish::default() };
    let gone = node.give("net.gone", gone).await.unwrap_err();
    assert!(gone.to_string().contains("pool gone is asked for and does not exist"), "{gone}");
}

#[tokio::test]
async fn a_full_pool_is_told_with_how_full_it_is() {
    let shelf = FakeShelf::default();
    node_object(&shelf, "n1");
    pool(&shelf, "a", "10.1.0.0/30", r#","blockSize":31"#);
    let mut node = Node::start(&shelf, "n1");
    for n in 0..4 {
        node.give(&format!("net.c{n}"), Wish::default()).await.unwrap();
    }
    let full = node.give("net.more", Wish::default()).await.unwrap_err();
    assert_eq!(full.code(), russet_api::cni::Code::NO_ADDRESS);
    assert!(full.to_string().contains("10.1.0.0/30 (2 of 2 blocks are taken)"), "{full}");
}

#[tokio::test]
async fn with_the_store_away_an_add_is_refused_soon_and_a_release_is_done_later() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap();
    shelf.go_away(true);
    node.tell(News::Away("nobody answers".into())).await;
    let begun = Instant::now();
    let away = node.give("net.c2", Wish::default()).await.unwrap_err();
    assert_eq!(away.code(), russet_api::cni::Code::TRY_AGAIN);
    assert!(away.to_string().contains("nobody answers"), "{away}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let ticket = node.ask_free("net.c1");
    tokio::time::sleep(Duration::from_millis(50)).await;
    shelf.go_away(false);
    node.tell(News::Back).await;
    assert!(matches!(node.answer(ticket).await, What::Freed));
    eventually(|| shelf.text("/calico/ipam/v2/handle/net.c1").is_none()).await;
}

#[tokio::test]
async fn a_bad_block_is_left_alone_and_pods_come_from_another() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap();
    let block = shelf.keys("/calico/ipam/v2/assignment/")[0].clone();
    let bad = shelf.text(&block).unwrap().replace(r#""unallocated":["#, r#""unallocated":[9999,"#);
    shelf.put(&block, &bad);
    node.pass_on().await;
    let other = node.give("net.c2", Wish::default()).await.unwrap();
    assert_eq!(shelf.text(&block).unwrap(), bad, "nobody touches it");
    assert!(held(&shelf).contains_key(&other[0]));
}

#[tokio::test]
async fn a_tunnel_has_one_address_for_good() {
    let shelf = cluster();
    pool(&shelf, "over", "10.3.0.0/16", r#","vxlanMode":"Always""#);
    let node = Node::start(&shelf, "n1");
    let addr = node.tunnel(Tunnel::Vxlan).await;
    assert!(addr.to_string().starts_with("10.3."), "{addr}");
    let text = shelf
        .keys("/calico/ipam/v2/assignment/")
        .iter()
        .find_map(|key| shelf.text(key).filter(|text| text.contains("vxlan-tunnel-addr-n1")));
    assert!(text.unwrap().contains(r#""type":"vxlanTunnelAddress""#));
    drop(node);
    let node = Node::start(&shelf, "n1");
    assert_eq!(node.tunnel(Tunnel::Vxlan).await, addr);
}

#[tokio::test]
async fn a_leak_is_freed_after_two_sights_and_what_is_recorded_or_routed_is_not() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    let kept = node.give("net.kept", Wish::default()).await.unwrap();
    let routed = node.give("net.routed", Wish::default()).await.unwrap();
    node.give("net.lost", Wish::default()).await.unwrap();
    drop(node);
    // The agent died before it had recorded the last two; the kernel leads to one of them.
    assert_eq!(routed[0], IpAddr::from(ROUTED), "the walk is the same each time");
    let recorded = BTreeMap::from([("net.kept".parse().unwrap(), kept.clone())]);
    let mut node = Node::begin(&shelf, "n1", recorded, |settings| {
        settings.grace = Duration::from_millis(300);
        settings.look = Duration::from_millis(100);
        settings.routes = || Ok(BTreeSet::from([IpAddr::from(ROUTED)]));
    });
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(held(&shelf).len(), 3, "not yet");
    eventually(|| held(&shelf).len() == 2).await;
    let held = held(&shelf);
    assert!(held.contains_key(&kept[0]) && held.contains_key(&routed[0]), "{held:?}");
    eventually(|| shelf.text("/calico/ipam/v2/handle/net.lost").is_none()).await;
    assert_eq!(node.give("net.kept", Wish::default()).await.unwrap(), kept);
}

#[tokio::test]
async fn an_address_out_of_another_s_block_is_a_leak_when_nothing_leads_to_it_and_else_not() {
    let shelf = FakeShelf::default();
    for name in ["n1", "n2"] {
        node_object(&shelf, name);
    }
    // The pool is one block, so whoever comes second borrows.
    pool(&shelf, "a", "10.1.0.0/29", r#","blockSize":29"#);
    let mut owner = Node::start(&shelf, "n2");
    owner.give("net.theirs", Wish::default()).await.unwrap();
    let mut node = Node::start(&shelf, "n1");
    let live = node.give("net.live", Wish::default()).await.unwrap();
    let lost = node.give("net.lost", Wish::default()).await.unwrap();
    drop(node);
    // Another plugin attached both, so there is no record of them here.
    assert_eq!(live[0], IpAddr::from(LENT), "the walk is the same each time");
    let _node = Node::begin(&shelf, "n1", BTreeMap::new(), |settings| {
        settings.grace = Duration::from_millis(300);
        settings.look = Duration::from_millis(100);
        settings.routes = || Ok(BTreeSet::from([IpAddr::from(LENT)]));
    });
    eventually(|| !held(&shelf).contains_key(&lost[0])).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(held(&shelf).contains_key(&live[0]), "a pod lives there");
    assert_eq!(held(&shelf).len(), 2, "theirs is theirs");
}

#[tokio::test]
async fn what_a_pod_has_is_taken_again_when_its_block_was_deleted() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    let pod = node.give("net.pod", Wish::default()).await.unwrap();
    let before = held(&shelf);
    for key in shelf.keys("/calico/ipam/v2/assignment/") {
        shelf.delete(&key);
    }
    eventually(|| held(&shelf) == before).await;
    // It is given back as ever, and is not taken again then.
    node.free("net.pod").await;
    node.pass_on().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!held(&shelf).contains_key(&pod[0]), "{:?}", held(&shelf));
    assert!(shelf.text("/calico/ipam/v2/handle/net.pod").is_none());
}

#[tokio::test]
async fn what_is_being_released_is_not_taken_again_in_a_store_that_lost_it() {
    let shelf = cluster();
    let (mut ipam, _ends) = alone(&shelf);
    let handle: russet_core::addressing::blocks::HandleId = "net.gone".parse().unwrap();
    let lost = vec![[10, 1, 77, 5].into()];
    ipam.ask(Ask::Recorded(BTreeMap::from([(handle.clone(), lost)])));
    ipam.ask(Ask::Free { ticket: None, handle });
    ipam.news(all(&shelf, History::Other));
    for _ in 0..50 {
        ipam.turn();
        let next = tokio::time::timeout(Duration::from_millis(20), ipam.work.join_next()).await;
        if let Ok(Some(done)) = next {
            ipam.done(done);
        }
    }
    assert!(held(&shelf).is_empty(), "{:?}", held(&shelf));
}

#[tokio::test]
async fn what_is_recorded_is_taken_again_in_a_store_that_lost_it_and_never_from_another() {
    let shelf = cluster();
    node_object(&shelf, "n2");
    let mut other = Node::start(&shelf, "n2");
    let theirs = other.give("net.theirs", Wish::default()).await.unwrap();
    let lost: Vec<IpAddr> = vec![[10, 1, 77, 5].into()];
    let recorded = [("net.pod", &lost), ("net.rival", &theirs)];
    let recorded = recorded.map(|(handle, all)| (handle.parse().unwrap(), all.clone()));
    let _node = Node::begin(&shelf, "n1", recorded.into(), |_| {});
    eventually(|| held(&shelf).contains_key(&lost[0])).await;
    let held = held(&shelf);
    assert_eq!(held.get(&lost[0]).map(String::as_str), Some("net.pod"));
    assert_eq!(held.get(&theirs[0]).map(String::as_str), Some("net.theirs"));
}

#[tokio::test]
async fn a_look_reads_the_handles_that_nobody_seems_to_have_and_no_others() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    let mut recorded = BTreeMap::new();
    for n in 0..100 {
        let handle = format!("net.c{n}");
        let given = node.give(&handle, Wish::default()).await.unwrap();
        recorded.insert(handle.parse().unwrap(), given);
    }
    recorded.remove(&"net.c7".parse().unwrap());
    drop(node);
    let (mut ipam, _told, _held) = waited_for(&shelf);
    ipam.settings.grace = Duration::ZERO;
    ipam.news(all(&shelf, History::Same));
    ipam.ask(Ask::Recorded(recorded));
    shelf.take_read();
    for _ in 0..2 {
        ipam.look();
        let done = ipam.work.join_next().await.unwrap();
        ipam.done(done);
        assert_eq!(shelf.take_read(), ["/calico/ipam/v2/handle/net.c7"]);
    }
    // At the second sight its address is to be freed, and nothing else is to be written.
    let keys: Vec<_> = ipam.queued.iter().flatten().map(|(_, op)| op.key().clone()).collect();
    let [russet_core::addressing::blocks::Key::Block(_)] = keys[..] else { panic!("{keys:?}") };
}

#[tokio::test]
async fn nothing_is_freed_before_the_lane_has_told_its_records() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap();
    drop(node);
    let (told, _told) = mpsc::channel(8);
    let (held_out, _held) = watch::channel(BTreeMap::new());
    let settings = Settings {
        grace: Duration::from_millis(10),
        look: Duration::from_millis(20),
        routes: || Ok(BTreeSet::new()),
        ..Settings::new("n1".parse().unwrap(), 7)
    };
    let mut ipam = Ipam::new(shelf.clone(), settings, told, held_out);
    let mut reader = Reader::new("n1".parse().unwrap(), Seen::default());
    ipam.news(reader.take(snapshot(&shelf)).unwrap());
    for _ in 0..5 {
        ipam.turn();
        tokio::time::sleep(Duration::from_millis(25)).await;
        while let Some(done) = ipam.work.try_join_next() {
            ipam.done(done);
        }
    }
    assert_eq!(held(&shelf).len(), 1);
}

#[tokio::test]
async fn the_blocks_of_a_node_that_is_gone_are_freed_by_one_that_lives() {
    let shelf = cluster();
    node_object(&shelf, "n2");
    let mut gone = Node::start(&shelf, "n2");
    gone.give("net.pod", Wish::default()).await.unwrap();
    drop(gone);
    shelf.delete("/calico/resources/v3/projectcalico.org/nodes/n2");
    let mut node = Node::begin(&shelf, "n1", BTreeMap::new(), |settings| {
        settings.grace = Duration::from_millis(100);
        settings.look = Duration::from_millis(60);
    });
    node.give("net.c1", Wish::default()).await.unwrap();
    eventually(|| shelf.keys("/calico/ipam/v2/host/n2/").is_empty()).await;
    eventually(|| shelf.text("/calico/ipam/v2/handle/net.pod").is_none()).await;
    eventually(|| held(&shelf).len() == 1).await;
}

#[tokio::test]
async fn a_store_that_is_not_believed_gives_nothing_and_is_not_written() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap();
    let empty = crate::resources::Doubt::NoConfiguration;
    node.tell(News::Doubted { doubt: empty, picture: Arc::default() }).await;
    // What was under way is through by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = shelf.log_len();
    let denied = node.give("net.c2", Wish::default()).await.unwrap_err();
    assert!(denied.to_string().contains("not believed"), "{denied}");
    assert_eq!(shelf.log_len(), before);
}

#[tokio::test]
async fn answers_that_are_lost_lose_no_address_and_give_none_twice() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    shelf.lose_one_in(7);
    let mut all = BTreeMap::new();
    let tickets: Vec<_> =
        (0..40).map(|n| (n, node.ask_give(&format!("net.c{n}"), Wish::default()))).collect();
    for (n, ticket) in tickets {
        if let What::Given(given) = node.answer(ticket).await {
            assert_eq!(all.insert(given[0], n), None, "given twice");
        }
    }
    shelf.lose_one_in(0);
    for n in 0..40 {
        node.free(&format!("net.c{n}")).await;
    }
    assert_eq!(held(&shelf), BTreeMap::new());
    eventually(|| shelf.keys("/calico/ipam/v2/handle/").is_empty()).await;
}

#[tokio::test]
async fn a_doubt_outlasts_that_the_store_was_away() {
    let shelf = cluster();
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap();
    let doubt = crate::resources::Doubt::NoConfiguration;
    node.tell(News::Doubted { doubt, picture: Arc::default() }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.tell(News::Away("nobody answers".into())).await;
    node.tell(News::Back).await;
    let before = shelf.log_len();
    let denied = node.give("net.c2", Wish::default()).await.unwrap_err();
    assert!(denied.to_string().contains("not believed"), "{denied}");
    assert_eq!(shelf.log_len(), before);
    // Only a whole picture that is believed ends it.
    node.tell(all(&shelf, History::Other)).await;
    node.give("net.c2", Wish::default()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_looked_for_or_collected_while_the_store_is_doubted_or_was_never_read() {
    let shelf = cluster();
    let doubt = crate::resources::Doubt::NoConfiguration;
    let doubted = News::Doubted { doubt, picture: Arc::default() };
    for news in [Some(doubted), None] {
        let (mut ipam, _lines) = alone(&shelf);
        ipam.ask(Ask::Recorded(BTreeMap::new()));
        if let Some(news) = news {
            ipam.news(news);
        }
        ipam.news(News::Away("nobody answers".into()));
        ipam.news(News::Back);
        ipam.look();
        let op = StoreOp::Read(russet_core::addressing::blocks::Key::Handle("h".parse().unwrap()));
        ipam.collected(Collector::default(), vec![op]);
        assert!(ipam.work.is_empty() && ipam.queued.is_empty());
    }
}

#[tokio::test]
async fn a_tunnel_s_address_is_asked_for_again_in_a_store_of_another_history() {
    let shelf = cluster();
    pool(&shelf, "over", "10.3.0.0/16", r#","vxlanMode":"Always""#);
    let node = Node::start(&shelf, "n1");
    node.tunnel(Tunnel::Vxlan).await;
    // The store was restored from before it was given.
    for key in shelf.keys("/calico/ipam/v2/") {
        shelf.delete(&key);
    }
    node.tell(all(&shelf, History::Other)).await;
    let handle = "/calico/ipam/v2/handle/vxlan-tunnel-addr-n1";
    eventually(|| shelf.text(handle).is_some()).await;
    eventually(|| held(&shelf).len() == 1).await;
    let given = *held(&shelf).keys().next().unwrap();
    eventually(|| node.held.borrow().get(&Tunnel::Vxlan) == Some(&given)).await;
}

#[tokio::test]
async fn what_was_decided_in_another_history_is_not_written_and_who_waits_is_served_in_this_one() {
    let shelf = cluster();
    let (mut ipam, mut told, _held) = waited_for(&shelf);
    ipam.news(all(&shelf, History::Same));
    for n in 0..WAITING {
        let handle = format!("net.c{n}").parse().unwrap();
        // Who asks for one by name is counted by a write of his own.
        let [.., high, low] = (n + 1).to_be_bytes();
        let wish = Wish { ips: vec![[10, 1, high, low].into()], ..Wish::default() };
        ipam.ask(Ask::Give { ticket: n, handle, pod: None, wish });
    }
    ipam.turn();
    while ipam.queued.is_empty() {
        let done = ipam.work.join_next().await.expect("more is written than may be at once");
        ipam.done(done);
        ipam.turn();
    }
    // The store was restored from before all of that.
    for key in shelf.keys("/calico/ipam/v2/") {
        shelf.delete(&key);
    }
    let before = shelf.log_len();
    ipam.news(all(&shelf, History::Other));
    assert!(
        ipam.queued.is_empty() && ipam.work.is_empty(),
        "it goes by revisions of another store"
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(shelf.log_len(), before);
    let mut given = BTreeSet::new();
    for _ in 0..WAITING {
        let answered = async {
            loop {
                ipam.turn();
                if let Ok(Told { what, .. }) = told.try_recv() {
                    return what;
                }
                match ipam.work.join_next().await {
                    Some(done) => ipam.done(done),
                    None => tokio::time::sleep_until(ipam.due().into()).await,
                }
            }
        };
        let what = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
        let What::Given(addresses) = what else { panic!("{what:?}") };
        given.extend(addresses);
    }
    assert_eq!(held(&shelf).into_keys().collect::<BTreeSet<_>>(), given);
}

#[test]
fn a_handle_whose_release_is_not_done_is_given_nothing() {
    let (tell, mut told) = mpsc::channel(8);
    let (hold, _held) = watch::channel(BTreeMap::new());
    let mut desk = Desk::new("n1".parse().unwrap(), tell, hold);
    let handle: russet_core::addressing::blocks::HandleId = "net.c1".parse().unwrap();
    // A leak, of which nobody waits for the release; the store does not do it at once.
    desk.take(Ask::Free { ticket: None, handle: handle.clone() }, Instant::now());
    let ground = Ground::default();
    let asked = desk.turn(&Gate::Open, &ground, None, now());
    let refusal = russet_core::addressing::blocks::machine::Refusal::NoAnswer;
    desk.answered(asked[0].0, Err(refusal), Vec::new, now());
    let wish = Wish::default();
    desk.take(Ask::Give { ticket: 1, handle, pod: None, wish }, Instant::now());
    assert!(desk.turn(&Gate::Open, &ground, None, now()).is_empty());
    let Told { ticket: 1, what: What::Denied(denied) } = told.try_recv().unwrap() else {
        panic!("not denied");
    };
    assert_eq!(denied.code(), russet_api::cni::Code::TRY_AGAIN, "{denied}");
}

#[tokio::test]
async fn what_comes_due_after_a_turn_is_waited_for_by_no_message() {
    let shelf = cluster();
    let (mut ipam, _lines) = alone(&shelf);
    ipam.look_at = Instant::now() + Duration::from_hours(1);
    ipam.news(News::Away("nobody answers".into()));
    ipam.turn();
    // Its patience ends in this very moment, which is later than that of the turn.
    let since = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
    let handle = "net.c1".parse().unwrap();
    let give = Ask::Give { ticket: 1, handle, pod: None, wish: Wish::default() };
    ipam.desk.take(give, since);
    assert!(ipam.due() <= Instant::now(), "nobody wakes for it");
    ipam.turn();
    assert_eq!(ipam.due(), ipam.look_at, "and it is done with");
    // One that cannot be done while the store is away wakes nobody again and again.
    ipam.desk.take(Ask::Free { ticket: None, handle: "net.c2".parse().unwrap() }, Instant::now());
    ipam.turn();
    assert_eq!(ipam.due(), ipam.look_at);
}

#[test]
fn what_waits_at_the_desk_has_a_bound_and_who_is_refused_asks_again() {
    let (tell, mut told) = mpsc::channel(8);
    let (hold, _held) = watch::channel(BTreeMap::new());
    let mut desk = Desk::new("n1".parse().unwrap(), tell, hold);
    desk.recorded = Some(BTreeMap::new());
    let handle = |n: usize| format!("net.c{n}").parse().unwrap();
    let mut refused = || match told.try_recv() {
        Ok(Told { ticket, what: What::Denied(why) }) => {
            assert_eq!(why.code(), russet_api::cni::Code::TRY_AGAIN);
            Some(ticket)
        }
        _ => None,
    };
    // Leaks are found again; they leave room for what the lane releases.
    for n in 0..1_000 {
        desk.take(Ask::Free { ticket: None, handle: handle(n) }, Instant::now());
    }
    assert_eq!(desk.in_use().unwrap().len(), 256 + 5, "with the tunnels'");
    for n in 0..MOST_ASKS {
        desk.take(Ask::Free { ticket: Some(1), handle: handle(n) }, Instant::now());
    }
    assert_eq!(refused(), None);
    desk.take(Ask::Free { ticket: Some(2), handle: handle(MOST_ASKS) }, Instant::now());
    assert_eq!(refused(), Some(2));
    let give = |n: usize| {
        let handle = format!("net.d{n}").parse().unwrap();
        Ask::Give { ticket: 3, handle, pod: None, wish: Wish::default() }
    };
    for n in 0..1_024 {
        desk.take(give(n), Instant::now());
    }
    assert_eq!(refused(), None);
    desk.take(give(1_024), Instant::now());
    assert_eq!(refused(), Some(3));
}

#[tokio::test]
async fn what_was_seen_once_in_the_whole_store_is_looked_at_again_with_the_next_look() {
    let shelf = cluster();
    let (mut ipam, _lines) = alone(&shelf);
    ipam.news(all(&shelf, History::Same));
    ipam.looks = look::SELDOM - 1;
    let looked = looks_at_cluster(&mut ipam).await;
    assert!(looked && !looks_at_cluster(&mut ipam).await, "nothing was seen");
    // A crash has left an index that is too high.
    let stray = r#"{"handleID":"net.stray","block":{"10.1.0.0/26":1},"deleted":false}"#;
    shelf.put("/calico/ipam/v2/handle/net.stray", stray);
    ipam.looks = look::SELDOM - 1;
    assert!(looks_at_cluster(&mut ipam).await, "seen once");
    assert!(looks_at_cluster(&mut ipam).await, "and again");
}

#[test]
fn nodes_that_start_together_look_at_different_times() {
    let look = Duration::from_mins(5);
    let firsts: BTreeSet<_> = (0..5_000).map(|seed| first_look(look, seed)).collect();
    assert_eq!(firsts.len(), 5_000);
    assert!(firsts.iter().all(|first| *first <= look));
    let early = firsts.iter().filter(|first| **first < look / 10).count();
    assert!((400..600).contains(&early), "{early} of 5000 in a tenth of the time");
}

// ---- the scene

/// The second address of the first block that the node claims.
const ROUTED: [u8; 4] = [10, 1, 251, 65];
/// The first address that the other node lends.
const LENT: [u8; 4] = [10, 1, 0, 1];

/// How many pods wait: more than may be written for at once.
const WAITING: u64 = 100;

/// A node's task, with the watch beside it.
struct Node {
    asks: mpsc::Sender<Ask>,
    told: mpsc::Receiver<Told>,
    answers: BTreeMap<u64, What>,
    next: u64,
    news: mpsc::Sender<News>,
    tunnels: watch::Sender<BTreeSet<Tunnel>>,
    held: watch::Receiver<BTreeMap<Tunnel, IpAddr>>,
    passed: Arc<std::sync::atomic::AtomicUsize>,
    shelf: FakeShelf,
    _tasks: JoinSet<()>,
}

impl Node {
    fn start(shelf: &FakeShelf, name: &str) -> Self {
        Self::begin(shelf, name, BTreeMap::new(), |_| {})
    }

    fn begin(
        shelf: &FakeShelf,
        name: &str,
        recorded: again::Recorded,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let node: Name = name.parse().unwrap();
        let mut settings = Settings::new(node.clone(), 7);
        settings.cooldown = Duration::ZERO;
        settings.routes = || io::Result::Ok(BTreeSet::new());
        change(&mut settings);
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let (tell, told) = mpsc::channel(MOST_ASKS);
        let (news, hear) = mpsc::channel(16);
        let (tunnels, wanted) = watch::channel(BTreeSet::new());
        let (hold, held) = watch::channel(BTreeMap::new());
        let lines = Lines { news: hear, asks: asked, told: tell, tunnels: wanted, held: hold };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(shelf.clone(), settings, lines));
        let passed = Arc::default();
        tasks.spawn(follow(shelf.clone(), node, news.clone(), Arc::clone(&passed)));
        asks.try_send(Ask::Recorded(recorded)).unwrap();
        let (answers, next, shelf) = (BTreeMap::new(), 0, shelf.clone());
        Self { asks, told, answers, next, news, tunnels, held, passed, shelf, _tasks: tasks }
    }

    fn ask_give(&mut self, handle: &str, wish: Wish) -> u64 {
        self.next += 1;
        let pod = Some(("default".to_owned(), "web".to_owned()));
        let handle = handle.parse().unwrap();
        self.asks.try_send(Ask::Give { ticket: self.next, handle, pod, wish }).unwrap();
        self.next
    }

    fn ask_free(&mut self, handle: &str) -> u64 {
        self.next += 1;
        let handle = handle.parse().unwrap();
        self.asks.try_send(Ask::Free { ticket: Some(self.next), handle }).unwrap();
        self.next
    }

    async fn answer(&mut self, ticket: u64) -> What {
        loop {
            if let Some(what) = self.answers.remove(&ticket) {
                return what;
            }
            let told = tokio::time::timeout(Duration::from_secs(20), self.told.recv());
            let told = told.await.expect("an answer within 20 s").unwrap();
            self.answers.insert(told.ticket, told.what);
        }
    }

    async fn give(&mut self, handle: &str, wish: Wish) -> Result<Vec<IpAddr>, Deny> {
        let ticket = self.ask_give(handle, wish);
        match self.answer(ticket).await {
            What::Given(given) => Ok(given),
            What::Denied(why) => Err(why),
            What::Freed => panic!("freed"),
        }
    }

    async fn free(&mut self, handle: &str) {
        let ticket = self.ask_free(handle);
        assert!(matches!(self.answer(ticket).await, What::Freed));
    }

    async fn tunnel(&self, tunnel: Tunnel) -> IpAddr {
        self.tunnels.send_modify(|wanted| _ = wanted.insert(tunnel));
        let mut held = self.held.clone();
        let found = tokio::time::timeout(
            Duration::from_secs(10),
            held.wait_for(|h| h.contains_key(&tunnel)),
        );
        found.await.unwrap().unwrap()[&tunnel]
    }

    async fn tell(&self, news: News) {
        self.pass_on().await;
        self.news.send(news).await.unwrap();
    }

    /// Waits until the watch has told all that was written till now.
    async fn pass_on(&self) {
        let until = self.shelf.log_len();
        eventually(|| self.passed.load(std::sync::atomic::Ordering::SeqCst) >= until).await;
    }
}

/// The watch of the fake.
async fn follow(
    shelf: FakeShelf,
    node: Name,
    news: mpsc::Sender<News>,
    passed: Arc<std::sync::atomic::AtomicUsize>,
) {
    let mut reader = Reader::new(node, Seen::default());
    let mut at = shelf.log_len();
    if let Some(first) = reader.take(snapshot(&shelf)) {
        news.send(first).await.unwrap();
    }
    loop {
        let (changes, now) = shelf.since(at);
        at = now;
        if let Some(last) = changes.last() {
            let revision = last.revision();
            if let Some(one) = reader.take(WatchEvent::Changes { revision, changes })
                && news.send(one).await.is_err()
            {
                return;
            }
        }
        passed.store(at, std::sync::atomic::Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The task without its loop, and the ends that it tells.
fn alone(shelf: &FakeShelf) -> (Ipam<FakeShelf>, impl Sized) {
    let (ipam, told, held) = waited_for(shelf);
    (ipam, (told, held))
}

fn waited_for(
    shelf: &FakeShelf,
) -> (Ipam<FakeShelf>, mpsc::Receiver<Told>, watch::Receiver<BTreeMap<Tunnel, IpAddr>>) {
    let (tell, told) = mpsc::channel(MOST_ASKS);
    let (hold, held) = watch::channel(BTreeMap::new());
    let ipam = Ipam::new(shelf.clone(), Settings::new("n1".parse().unwrap(), 7), tell, hold);
    (ipam, told, held)
}

/// Whether the whole store is looked through, and takes what comes of it.
async fn looks_at_cluster(ipam: &mut Ipam<FakeShelf>) -> bool {
    ipam.look_at_cluster();
    let Some(done) = ipam.work.join_next().await else { return false };
    ipam.done(done);
    true
}

/// What a node is told that reads the whole store.
fn all(shelf: &FakeShelf, history: History) -> News {
    let mut reader = Reader::new("n1".parse().unwrap(), Seen::default());
    let Some(News::All { revision, picture, .. }) = reader.take(snapshot(shelf)) else {
        panic!("doubted");
    };
    News::All { revision, history, picture }
}

fn snapshot(shelf: &FakeShelf) -> WatchEvent {
    let (revision, entries) = shelf.entries();
    let server = ServerRef { cluster: 1, member: 1 };
    let revision = Revision::new(revision);
    WatchEvent::Snapshot(Snapshot { revision, server, reason: SnapshotReason::First, entries })
}

/// One pool and one node.
fn cluster() -> FakeShelf {
    let shelf = FakeShelf::default();
    node_object(&shelf, "n1");
    pool(&shelf, "a", "10.1.0.0/16", "");
    shelf
}

fn pool(shelf: &FakeShelf, name: &str, cidr: &str, more: &str) {
    let text = format!(
        r#"{{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{"cidr":"{cidr}"{more}}}}}"#
    );
    shelf.put(&format!("/calico/resources/v3/projectcalico.org/ippools/{name}"), &text);
}

fn node_object(shelf: &FakeShelf, name: &str) {
    let text = format!(
        r#"{{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{}}}}"#
    );
    shelf.put(&format!("/calico/resources/v3/projectcalico.org/nodes/{name}"), &text);
}

/// Every address that is somebody's, in blocks that can be read.
fn held(shelf: &FakeShelf) -> BTreeMap<IpAddr, String> {
    let mut all = BTreeMap::new();
    for key in shelf.keys("/calico/ipam/v2/assignment/") {
        let text = shelf.text(&key).unwrap_or_default();
        let Ok(stored) = calico::Stored::<russet_core::model::calico::IpamBlock>::read(
            text.as_bytes(),
            calico::Layout::Bare,
        ) else {
            continue;
        };
        for (given, by) in stored.value().held() {
            let before = all.insert(given.addr, by.map(ToString::to_string).unwrap_or_default());
            assert!(before.is_none(), "{} is in two blocks", given.addr);
        }
    }
    all
}

async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s");
}

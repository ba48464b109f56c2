//! What nobody owns is freed, and nothing else.

use super::*;

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
    let desk = Desk::new(settings.node.clone(), told, held_out);
    let mut ipam = Ipam::new(shelf.clone(), settings, desk, watch::Sender::new(false));
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

//! A store that is doubted, lost something, or has another history.

use super::*;

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

//! What is claimed before a pod asks: who is given it, and where it goes.

use super::*;

#[tokio::test]
async fn a_pod_is_given_what_is_claimed_ahead_and_the_store_has_it_as_its_own_afterwards() {
    let shelf = cluster();
    let mut node = claiming(&shelf, 3).await;
    let before = claimed(&shelf);
    let block = shelf.text(&shelf.keys("/calico/ipam/v2/assignment/")[0]).unwrap();
    assert!(
        block.contains(r#""handle_id":"ahead-addr-n1-0","secondary":{"node":"n1","timestamp":"#),
        "{block}"
    );
    assert!(block.contains(r#""type":"claimedAhead"}"#), "{block}");

    let given = node.give("net.c1", Wish::default()).await.unwrap();
    assert!(before.contains_key(&given[0]), "{given:?} is none of {before:?}");
    eventually(|| held(&shelf)[&given[0]] == "net.c1" && claimed(&shelf).len() == 3).await;
    let block = shelf.text(&shelf.keys("/calico/ipam/v2/assignment/")[0]).unwrap();
    assert!(block.contains(r#""handle_id":"net.c1","secondary":{"namespace":"default","node":"n1","pod":"web","timestamp":""#), "{block}");
    eventually(|| counted(&shelf)).await;
    // What a pod names it is given, though it was claimed ahead, and nobody else is.
    let named = *claimed(&shelf).keys().next().unwrap();
    let wish = |addr| Wish { ips: vec![addr], ..Wish::default() };
    assert_eq!(node.give("net.named", wish(named)).await.unwrap(), [named]);
    assert_eq!(held(&shelf)[&named], "net.named");
    for n in 0..3 {
        let plain = node.give(&format!("net.p{n}"), Wish::default()).await.unwrap();
        assert_ne!(plain, [named]);
        // Nor is what a pod has by now given to who names it, be it passed on or not.
        let taken = node.give(&format!("net.n{n}"), wish(plain[0])).await.unwrap_err();
        assert!(taken.to_string().ends_with(&format!("is taken by net.p{n}")), "{taken}");
    }
    node.free("net.c1").await;
    eventually(|| shelf.text("/calico/ipam/v2/handle/net.c1").is_none()).await;
}

#[tokio::test]
async fn with_the_store_away_pods_are_given_what_there_is_and_each_another() {
    let shelf = cluster();
    let mut node = claiming(&shelf, 3).await;
    shelf.go_away(true);
    node.tell(News::Away("nobody answers".into())).await;
    let mut given = BTreeSet::new();
    for n in 0..3 {
        let begun = Instant::now();
        given.extend(node.give(&format!("net.c{n}"), Wish::default()).await.unwrap());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    assert_eq!(given.len(), 3, "{given:?}");
    let again = node.give("net.c0", Wish::default()).await.unwrap();
    assert!(given.contains(&again[0]), "asked again: the same");
    let more = node.give("net.c3", Wish::default()).await.unwrap_err();
    assert!(more.to_string().contains("nobody answers"), "{more}");
    // One of them ends before the store is back.
    let ended = node.ask_free("net.c1");
    shelf.go_away(false);
    node.tell(News::Back).await;
    assert!(matches!(node.answer(ended).await, What::Freed));
    let of = |handle: &str| held(&shelf).values().filter(|by| *by == handle).count();
    eventually(|| (of("net.c0"), of("net.c1"), of("net.c2")) == (1, 0, 1)).await;
    eventually(|| claimed(&shelf).len() == 3 && counted(&shelf)).await;
}

#[tokio::test]
async fn an_agent_that_starts_anew_gives_nobody_what_a_pod_was_given() {
    let shelf = cluster();
    let mut node = claiming(&shelf, 3).await;
    shelf.go_away(true);
    node.tell(News::Away("nobody answers".into())).await;
    let lives = node.give("net.lives", Wish::default()).await.unwrap();
    let ends = node.give("net.ends", Wish::default()).await.unwrap();
    drop(node);
    shelf.go_away(false);
    let recorded = [("net.lives", &lives), ("net.ends", &ends)];
    let recorded = recorded.map(|(handle, all)| (handle.parse().unwrap(), all.clone()));
    let mut node = ahead(&shelf, 3, recorded.into());
    // It has claimed what it may, and has not passed on what it knows by its records.
    tokio::time::sleep(again::LAG / 4).await;
    for n in 0..3 {
        let other = node.give(&format!("net.c{n}"), Wish::default()).await.unwrap();
        assert!(other != lives && other != ends, "{other:?} is a pod's");
    }
    let ended = node.ask_free("net.ends");
    assert!(matches!(node.answer(ended).await, What::Freed));
    eventually(|| held(&shelf).get(&lives[0]).is_some_and(|by| by == "net.lives")).await;
    eventually(|| counted(&shelf) && !held(&shelf).values().any(|by| by == "net.ends")).await;
}

#[tokio::test]
async fn nothing_is_claimed_where_blocks_are_full_nor_beside_a_calico() {
    // A block for two nodes: what is claimed by the one is missing at the other.
    let shelf = FakeShelf::default();
    for name in ["n1", "n2"] {
        node_object(&shelf, name);
    }
    pool(&shelf, "a", "10.1.0.0/28", r#","blockSize":28"#);
    let mut node = ahead(&shelf, 3, BTreeMap::new());
    node.give("net.first", Wish::default()).await.unwrap();
    eventually(|| claimed(&shelf).len() == 1).await;
    let mut other = Node::start(&shelf, "n2");
    for n in 0..14 {
        other.give(&format!("net.o{n}"), Wish::default()).await.unwrap();
    }
    eventually(|| claimed(&shelf).is_empty()).await;
    other.pass_on().await;
    other.give("net.last", Wish::default()).await.unwrap();
    assert!(claimed(&shelf).is_empty());

    let shelf = cluster();
    let _node = claiming(&shelf, 3).await;
    shelf.put(
        "/calico/resources/v3/projectcalico.org/clusterinformations/default",
        r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"calicoVersion":"v3.33.0"}}"#,
    );
    eventually(|| claimed(&shelf).is_empty() && counted(&shelf)).await;
}

#[tokio::test]
async fn what_somebody_released_by_hand_is_given_to_no_pod() {
    let shelf = cluster();
    let mut node = claiming(&shelf, 1).await;
    let lost = *claimed(&shelf).keys().next().unwrap();
    let block = shelf.keys("/calico/ipam/v2/assignment/").remove(0);
    let mut text: serde_json::Value = serde_json::from_str(&shelf.text(&block).unwrap()).unwrap();
    text["sequenceNumber"] = (text["sequenceNumber"].as_u64().unwrap() + 1).into();
    let theirs = text.to_string().replace("ahead-addr-n1-0", "net.theirs");
    shelf.put(&block, &theirs.replace(r#""node":"n1""#, r#""node":"n2""#));
    node.pass_on().await;
    let given = node.give("net.c1", Wish::default()).await.unwrap();
    assert_ne!(given, [lost]);
    assert_eq!(held(&shelf)[&lost], "net.theirs");
    eventually(|| claimed(&shelf).len() == 1).await;
}

#[test]
fn what_a_pod_was_given_is_asked_for_in_nobody_else_s_name() {
    let (tell, mut told) = mpsc::channel(8);
    let (hold, _held) = watch::channel(BTreeMap::new());
    let mut desk = Desk::new("n1".parse().unwrap(), tell, hold).claiming_ahead(1);
    let addr: IpAddr = [10, 1, 0, 9].into();
    desk.recorded = Some(BTreeMap::from([("net.p".parse().unwrap(), vec![addr])]));
    let given = russet_core::addressing::blocks::block::Given { addr, sequence: 1 };
    desk.claimed(0, vec![given], Instant::now());
    let (handle, wish) = ("net.n".parse().unwrap(), Wish { ips: vec![addr], ..Wish::default() });
    desk.take(Ask::Give { ticket: 1, handle, pod: None, wish }, Instant::now());
    let (machine, local) = (BlockMachine::new("n1".parse().unwrap(), 1), Local::default());
    let asks = desk.turn(&Gate::Open, &Ground::default(), (&machine, &local), None, now());
    assert!(asks.is_empty(), "{asks:?}");
    let Told { ticket: 1, what: What::Denied(why) } = told.try_recv().unwrap() else {
        panic!("not denied");
    };
    assert!(why.to_string().ends_with("is taken by net.p"), "{why}");
}

#[tokio::test]
async fn in_a_store_of_another_history_it_is_asked_for_again() {
    let shelf = cluster();
    let node = claiming(&shelf, 1).await;
    let (before, block) = (claimed(&shelf), shelf.keys("/calico/ipam/v2/assignment/").remove(0));
    let text = shelf.text(&block).unwrap();
    node.tell(all(&shelf, History::Other)).await;
    eventually(|| shelf.text(&block).is_some_and(|now| now != text)).await;
    assert_eq!(claimed(&shelf), before);
}

#[tokio::test]
async fn what_does_not_fit_what_pods_ask_for_is_given_back() {
    let shelf = cluster();
    let mut node = claiming(&shelf, 2).await;
    pool(&shelf, "six", "fd00::/64", r#","blockSize":122"#);
    node.pass_on().await;
    let mut both = Vec::new();
    for n in 0..3 {
        both = node.give(&format!("net.c{n}"), Wish::default()).await.unwrap();
    }
    assert_eq!(both.len(), 2, "{both:?}");
    eventually(|| claimed(&shelf).len() == 4 && counted(&shelf)).await;
    let families = claimed(&shelf).keys().filter(|addr| addr.is_ipv6()).count();
    assert_eq!(families, 2);
    // Pods that want one family have that claimed, as soon as they are the usual ones.
    let one = Wish { v6: Some(false), ..Wish::default() };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = claimed(&shelf);
    node.give("net.one", one.clone()).await.unwrap();
    node.pass_on().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(claimed(&shelf), before);
    for n in 1..4 {
        node.give(&format!("net.one{n}"), one.clone()).await.unwrap();
    }
    eventually(|| claimed(&shelf).len() == 2 && counted(&shelf)).await;
    assert!(claimed(&shelf).keys().all(IpAddr::is_ipv4), "{:?}", claimed(&shelf));
}

#[tokio::test]
async fn a_pod_that_names_pools_is_given_what_is_of_them_and_none_what_is_reserved() {
    let shelf = cluster();
    pool(&shelf, "b", "10.2.0.0/16", r#","nodeSelector":"!all()""#);
    let mut node = claiming(&shelf, 3).await;
    let all = claimed(&shelf);
    let reserved = *all.keys().next().unwrap();
    let text = format!(
        r#"{{"kind":"IPReservation","apiVersion":"projectcalico.org/v3","metadata":{{"name":"r"}},"spec":{{"reservedCIDRs":["{reserved}/32"]}}}}"#
    );
    shelf.put("/calico/resources/v3/projectcalico.org/ipreservations/r", &text);
    eventually(|| claimed(&shelf).len() == 3 && !claimed(&shelf).contains_key(&reserved)).await;
    node.pass_on().await;
    shelf.go_away(true);
    node.tell(News::Away("nobody answers".into())).await;
    let of = |pool: &str| Wish { pools_v4: vec![pool.to_owned()], ..Wish::default() };
    node.give("net.b", of("b")).await.unwrap_err();
    for n in 0..3 {
        let given = node.give(&format!("net.a{n}"), of("a")).await.unwrap();
        assert_ne!(given, [reserved]);
    }
}

#[tokio::test]
async fn half_of_what_an_earlier_life_claimed_is_held_by_nobody() {
    let shelf = cluster();
    let six = "/calico/resources/v3/projectcalico.org/ippools/six";
    pool(&shelf, "six", "fd00::/64", r#","blockSize":122"#);
    let mut node = ahead(&shelf, 1, BTreeMap::new());
    node.give("net.first", Wish::default()).await.unwrap();
    eventually(|| claimed(&shelf).len() == 2).await;
    drop(node);
    shelf.delete(six);
    let _node = ahead(&shelf, 1, BTreeMap::new());
    eventually(|| claimed(&shelf).len() == 1 && counted(&shelf)).await;
    assert!(claimed(&shelf).keys().all(IpAddr::is_ipv4), "{:?}", claimed(&shelf));
}

#[tokio::test]
async fn what_an_earlier_life_claimed_and_this_one_does_not_is_a_leak() {
    let shelf = cluster();
    let node = claiming(&shelf, 3).await;
    drop(node);
    let _node = Node::begin(&shelf, "n1", BTreeMap::new(), |settings| {
        (settings.ahead, settings.grace) = (1, Duration::from_millis(200));
        settings.look = Duration::from_millis(50);
    });
    eventually(|| claimed(&shelf).len() == 1).await;
}

fn ahead(shelf: &FakeShelf, most: usize, recorded: again::Recorded) -> Node {
    Node::begin(shelf, "n1", recorded, |settings| settings.ahead = most)
}

/// A node that has its first pod and what it claims after that.
async fn claiming(shelf: &FakeShelf, most: usize) -> Node {
    let mut node = ahead(shelf, most, BTreeMap::new());
    node.give("net.first", Wish::default()).await.unwrap();
    eventually(|| claimed(shelf).len() == most).await;
    node.pass_on().await;
    node
}

/// What is claimed ahead, by address.
fn claimed(shelf: &FakeShelf) -> BTreeMap<IpAddr, String> {
    held(shelf).into_iter().filter(|(_, by)| by.starts_with("ahead-addr-n1-")).collect()
}

/// Whether each handle is counted as the blocks say.
fn counted(shelf: &FakeShelf) -> bool {
    let by: BTreeSet<String> = held(shelf).into_values().collect();
    let keys = shelf.keys("/calico/ipam/v2/handle/");
    keys.iter().filter_map(|key| key.rsplit('/').next()).eq(by.iter().map(String::as_str))
}

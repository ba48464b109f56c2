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
    // What a pod names it is given, though it was claimed ahead.
    let named = *claimed(&shelf).keys().next().unwrap();
    let wish = Wish { ips: vec![named], ..Wish::default() };
    assert_eq!(node.give("net.named", wish).await.unwrap(), [named]);
    assert_eq!(held(&shelf)[&named], "net.named");
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
    // Eight addresses for two nodes: what is claimed by the one is missing at the other.
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
    // A claim is believed before the watch has told it, and not for long.
    node.pass_on().await;
    tokio::time::sleep(again::LAG).await;
    let lost = *claimed(&shelf).keys().next().unwrap();
    let block = shelf.keys("/calico/ipam/v2/assignment/").remove(0);
    let text = shelf.text(&block).unwrap();
    let theirs =
        text.replace("ahead-addr-n1-0", "net.theirs").replace(r#""node":"n1""#, r#""node":"n2""#);
    shelf.put(&block, &theirs);
    node.pass_on().await;
    let given = node.give("net.c1", Wish::default()).await.unwrap();
    assert_ne!(given, [lost]);
    eventually(|| claimed(&shelf).len() == 1).await;
    assert_eq!(held(&shelf)[&lost], "net.theirs");
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
    // Pods that want one family have that claimed from then on.
    let one = Wish { v6: Some(false), ..Wish::default() };
    node.give("net.one", one).await.unwrap();
    eventually(|| claimed(&shelf).len() == 2 && counted(&shelf)).await;
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

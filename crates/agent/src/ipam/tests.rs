mod ahead;
mod ground;
mod history;
mod leaks;
mod put_back;

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
async fn beside_a_calico_that_knows_no_rest_an_address_goes_to_the_end_of_the_queue_at_once() {
    let says = |version: &str| format!(r#"{{"calicoVersion":"{version}","datastoreReady":true}}"#);
    let unreadable = r#"{"datastoreReady":"yes"}"#.to_owned();
    for (spec, rests) in [(says("v3.28.5"), false), (says("v3.33.0"), true), (unreadable, false)] {
        let shelf = cluster();
        shelf.put(
            "/calico/resources/v3/projectcalico.org/clusterinformations/default",
            &format!(
                r#"{{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default"}},"spec":{spec}}}"#
            ),
        );
        let rest = |settings: &mut Settings| settings.cooldown = COOLDOWN;
        let mut node = Node::begin(&shelf, "n1", BTreeMap::new(), rest);
        node.give("net.c1", Wish::default()).await.unwrap();
        node.free("net.c1").await;
        let keys = shelf.keys("/calico/ipam/v2/assignment/");
        let blocks: String = keys.iter().filter_map(|key| shelf.text(key)).collect();
        assert_eq!(blocks.contains("releasedAt"), rests, "{spec}: {blocks}");
    }
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

#[test]
fn a_handle_whose_release_is_not_done_is_given_nothing() {
    let (tell, mut told) = mpsc::channel(8);
    let (hold, _held) = watch::channel(BTreeMap::new());
    let mut desk = Desk::new("n1".parse().unwrap(), tell, hold);
    let handle: russet_core::addressing::blocks::HandleId = "net.c1".parse().unwrap();
    // A leak, of which nobody waits for the release; the store does not do it at once.
    desk.take(Ask::Free { ticket: None, handle: handle.clone() }, Instant::now());
    let ground = Ground::default();
    let (machine, local) = (BlockMachine::new("n1".parse().unwrap(), 1), Local::default());
    let turn = |desk: &mut Desk| desk.turn(&Gate::Open, &ground, (&machine, &local), None, now());
    let asked = turn(&mut desk);
    let refusal = russet_core::addressing::blocks::machine::Refusal::NoAnswer;
    desk.answered(asked[0].0, Err(refusal), Vec::new, now());
    let wish = Wish::default();
    desk.take(Ask::Give { ticket: 1, handle, pod: None, wish }, Instant::now());
    assert!(turn(&mut desk).is_empty());
    let Told { ticket: 1, what: What::Denied(denied) } = told.try_recv().unwrap() else {
        panic!("not denied");
    };
    assert_eq!(denied.code(), russet_api::cni::Code::TRY_AGAIN, "{denied}");
}

#[tokio::test]
async fn an_address_of_a_tunnel_that_the_store_lost_is_taken_again() {
    let shelf = FakeShelf::default();
    node_object(&shelf, "n1");
    pool(&shelf, "v", "10.2.0.0/16", r#","vxlanMode":"Always""#);
    let node = Node::start(&shelf, "n1");
    let addr = node.tunnel(Tunnel::Vxlan).await;
    let handle = "/calico/ipam/v2/handle/vxlan-tunnel-addr-n1";
    node.pass_on().await;
    let block = shelf.keys("/calico/ipam/v2/assignment/").remove(0);
    let (before, with_tunnel) = (shelf.text(&block).unwrap(), shelf.text(handle).unwrap());
    assert!(before.contains("vxlanTunnelAddress"), "{before}");
    // As `calicoctl delete node` does it.
    shelf.delete(handle);
    shelf.delete(&block);
    eventually(|| shelf.text(handle).is_some_and(|text| text == with_tunnel)).await;
    let has =
        |text: &str| text.contains("vxlan-tunnel-addr-n1") && text.contains("vxlanTunnelAddress");
    eventually(|| shelf.text(&block).is_some_and(|text| has(&text))).await;
    assert_eq!(node.tunnel(Tunnel::Vxlan).await, addr);
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
        let put_back = watch::Sender::new(false);
        let lines =
            Lines { news: hear, asks: asked, told: tell, tunnels: wanted, held: hold, put_back };
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
            What::Freed | What::Unlisted => panic!("freed"),
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
    let settings = Settings::new("n1".parse().unwrap(), 7);
    let desk = Desk::new(settings.node.clone(), tell, hold);
    let ipam = Ipam::new(shelf.clone(), settings, desk, watch::Sender::new(false));
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

//! A store that has lost something: what is put back into it before it is believed, and what never is.

use russet_core::addressing::blocks::HandleId;

use super::*;
use crate::disk::checkpoint::Objects;

#[tokio::test]
async fn blocks_come_back_as_soon_as_their_pool_and_the_node_are_there() {
    let mut lab = Lab::after(&["net.a", "net.b"]).await;
    let before = held(&lab.shelf);
    lab.empty();
    lab.doubt();
    lab.settle().await;
    assert_eq!(lab.written(), 0, "there is no pool");
    assert!(!*lab.wanted.borrow());

    pool(&lab.shelf, "a", "10.1.0.0/16", "");
    lab.aside();
    lab.settle().await;
    assert!(*lab.wanted.borrow(), "the node comes first");
    assert_eq!(lab.written(), 1, "blocks of a node that is not there would be collected");

    node_object(&lab.shelf, "n1");
    lab.aside();
    lab.settle().await;
    assert_eq!(held(&lab.shelf), before);
    let block = lab.shelf.keys("/calico/ipam/v2/assignment/");
    let text = lab.shelf.text(&block[0]).unwrap();
    assert!(text.contains(r#""pod":"web""#), "what was recorded of it is known yet: {text}");
    let claims = lab.shelf.keys("/calico/ipam/v2/host/n1/");
    assert_eq!(lab.shelf.text(&claims[0]).unwrap(), r#"{"state":"confirmed","deleted":false}"#);
    assert!(lab.shelf.text("/calico/ipam/v2/handle/net.a").unwrap().contains("/26\":1}"));

    // What is there already is not written again.
    let written = lab.written();
    lab.doubt();
    lab.settle().await;
    assert_eq!(lab.written(), written);
}

#[tokio::test]
async fn nobody_is_given_an_address_and_the_machine_writes_nothing_meanwhile() {
    let mut lab = Lab::after(&["net.a"]).await;
    lab.restored();
    lab.doubt();
    let (handle, pod) = ("net.new".parse().unwrap(), None);
    lab.ipam.ask(Ask::Give { ticket: 1, handle, pod, wish: Wish::default() });
    lab.settle().await;
    assert_eq!(held(&lab.shelf).into_values().collect::<Vec<_>>(), ["net.a"]);
    assert!(lab.shelf.text("/calico/ipam/v2/handle/net.new").is_none());
}

#[tokio::test]
async fn what_somebody_holds_is_left_as_it_is() {
    let mut lab = Lab::after(&["net.a"]).await;
    let block = lab.shelf.keys("/calico/ipam/v2/assignment/")[0].clone();
    let theirs = lab.shelf.text(&block).unwrap().replace("host:n1", "host:n2");
    lab.restored();
    lab.shelf.put(&block, &theirs);
    let before = lab.shelf.entries();
    lab.doubt();
    lab.settle().await;
    assert_eq!(lab.shelf.entries(), before);
}

#[tokio::test]
async fn a_block_that_the_news_do_not_have_yet_is_not_overwritten() {
    let mut lab = Lab::after(&["net.a"]).await;
    let block = lab.shelf.keys("/calico/ipam/v2/assignment/")[0].clone();
    let theirs = lab.shelf.text(&block).unwrap().replace("host:n1", "host:n2");
    lab.restored();
    lab.doubt();
    lab.shelf.put(&block, &theirs);
    lab.settle().await;
    assert_eq!(lab.shelf.text(&block).unwrap(), theirs);
    assert!(lab.shelf.keys("/calico/ipam/v2/host/").is_empty(), "nor is it claimed");
}

#[tokio::test]
async fn an_address_whose_handle_counts_otherwise_is_left_out_and_the_handle_stays() {
    let mut lab = Lab::after(&["net.a", "net.b"]).await;
    lab.restored();
    let text = r#"{"block":{"10.9.0.0/26":1},"deleted":false}"#;
    lab.shelf.put("/calico/ipam/v2/handle/net.a", text);
    lab.doubt();
    lab.settle().await;
    assert_eq!(held(&lab.shelf).into_values().collect::<Vec<_>>(), ["net.b"]);
    assert_eq!(lab.shelf.text("/calico/ipam/v2/handle/net.a").unwrap(), text);
}

#[tokio::test]
async fn another_cluster_s_store_is_not_written() {
    let mut lab = Lab::after(&["net.a"]).await;
    lab.restored();
    named(&lab.shelf, "other");
    let before = lab.shelf.entries();
    lab.doubt();
    lab.settle().await;
    assert_eq!(lab.shelf.entries(), before);
    assert!(!*lab.wanted.borrow());
}

#[tokio::test]
async fn a_store_that_is_named_before_the_news_tell_it_is_not_written() {
    let mut lab = Lab::after(&["net.a"]).await;
    lab.restored();
    lab.doubt();
    named(&lab.shelf, "other");
    let before = lab.shelf.entries();
    lab.settle().await;
    assert_eq!(lab.shelf.entries(), before);
}

#[tokio::test]
async fn an_older_copy_gets_what_it_does_not_have_and_keeps_what_it_has() {
    let mut lab = Lab::after(&["net.a"]).await;
    let before = held(&lab.shelf);
    lab.restored();
    named(&lab.shelf, LAST);
    let older = lab.shelf.entries().1;
    lab.doubt_of(Seen { cluster_id: Some(LAST.into()), revision: 10_000, configured: true });
    lab.settle().await;
    assert_eq!(held(&lab.shelf), before);
    let now = lab.shelf.entries().1;
    assert!(older.iter().all(|kv| now.contains(kv)));
}

#[tokio::test]
async fn a_pod_that_is_being_removed_is_not_put_back() {
    let mut lab = Lab::after(&["net.a", "net.b"]).await;
    lab.restored();
    lab.ipam.ask(Ask::Free { ticket: None, handle: "net.a".parse().unwrap() });
    lab.doubt();
    lab.settle().await;
    assert_eq!(held(&lab.shelf).into_values().collect::<Vec<_>>(), ["net.b"]);
    assert!(lab.shelf.text("/calico/ipam/v2/handle/net.a").is_none());
}

#[tokio::test]
async fn answers_that_are_lost_and_a_store_that_is_away_only_delay_it() {
    let mut lab = Lab::after(&["net.a", "net.b", "net.c"]).await;
    let before = held(&lab.shelf);
    lab.restored();
    lab.doubt();
    lab.ipam.news(News::Away("nobody answers".into()));
    lab.settle().await;
    assert_eq!(lab.written(), 0);
    lab.ipam.news(News::Back);
    lab.shelf.lose_one_in(2);
    lab.settle().await;
    lab.shelf.lose_one_in(0);
    tokio::time::sleep(super::super::put_back::RETRY).await;
    lab.aside();
    lab.settle().await;
    assert_eq!(held(&lab.shelf), before);
}

#[tokio::test]
async fn an_agent_that_is_started_anew_puts_back_what_its_notes_have_and_its_tunnel_s_address() {
    let shelf = FakeShelf::default();
    let node = r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1"},"spec":{"ipv4VXLANTunnelAddr":"10.1.7.1"}}"#;
    let key = "/calico/resources/v3/projectcalico.org/nodes/n1".to_owned();
    let kept = Objects {
        now: [(key, node.to_owned())].into(),
        blocks: ["10.1.7.0/26".parse().unwrap()].into(),
        before: Vec::new(),
    };
    let mine = Mine::recalled(&"n1".parse().unwrap(), &kept);
    let recorded = [("net.a".parse().unwrap(), vec![[10, 1, 7, 5].into()])];
    let mut lab = Lab::new(&shelf, mine);
    lab.restored();
    lab.doubt();
    lab.settle().await;
    assert_eq!(lab.written(), 0, "the records are not told yet");
    lab.ipam.ask(Ask::Recorded(recorded.into()));
    lab.settle().await;
    let held: Vec<_> = held(&shelf).into_iter().map(|(ip, by)| format!("{ip} {by}")).collect();
    assert_eq!(held, ["10.1.7.1 vxlan-tunnel-addr-n1", "10.1.7.5 net.a"]);
}

#[tokio::test]
async fn a_store_that_is_accepted_has_nothing_to_take_again() {
    let mut lab = Lab::after(&["net.a"]).await;
    lab.restored();
    lab.doubt();
    lab.settle().await;
    let written = lab.written();
    lab.ipam.news(all(&lab.shelf, History::Other));
    lab.settle().await;
    assert_eq!(lab.written(), written);
    assert!(!*lab.wanted.borrow());
}

/// A task without its loop, and the store that it is told of.
struct Lab {
    ipam: Ipam<FakeShelf>,
    shelf: FakeShelf,
    reader: Reader,
    /// How much of the log the reader has, and how long it was when the store was last prepared.
    read: usize,
    prepared: usize,
    wanted: watch::Receiver<bool>,
    _ends: (mpsc::Receiver<Told>, watch::Receiver<BTreeMap<Tunnel, IpAddr>>),
}

impl Lab {
    fn new(shelf: &FakeShelf, mine: Mine) -> Self {
        let (tell, told) = mpsc::channel(MOST_ASKS);
        let (hold, held) = watch::channel(BTreeMap::new());
        let (put_back, wanted) = watch::channel(false);
        let settings = Settings { mine, ..Settings::new("n1".parse().unwrap(), 7) };
        let desk = Desk::new(settings.node.clone(), tell, hold);
        let ipam = Ipam::new(shelf.clone(), settings, desk, put_back);
        let reader = Reader::new("n1".parse().unwrap(), Seen::default());
        let shelf = shelf.clone();
        Self { ipam, shelf, reader, read: 0, prepared: 0, wanted, _ends: (told, held) }
    }

    /// One that believed a store in which these handles have an address each.
    async fn after(handles: &[&str]) -> Self {
        let shelf = cluster();
        let mut node = Node::start(&shelf, "n1");
        let mut recorded: BTreeMap<HandleId, Vec<IpAddr>> = BTreeMap::new();
        for handle in handles {
            let given = node.give(handle, Wish::default()).await.unwrap();
            recorded.insert(handle.parse().unwrap(), given);
        }
        node.pass_on().await;
        drop(node);
        let mut lab = Self::new(&shelf, Mine::default());
        lab.ipam.news(all(&shelf, History::Same));
        lab.ipam.ask(Ask::Recorded(recorded));
        lab
    }

    fn empty(&mut self) {
        for key in self.shelf.keys("/calico/") {
            self.shelf.delete(&key);
        }
        self.prepared = self.shelf.log_len();
    }

    /// A store that was emptied, and has its pool and its node again.
    fn restored(&mut self) {
        self.empty();
        pool(&self.shelf, "a", "10.1.0.0/16", "");
        node_object(&self.shelf, "n1");
        self.prepared = self.shelf.log_len();
    }

    /// What was written since.
    fn written(&self) -> usize {
        self.shelf.log_len() - self.prepared
    }

    fn doubt(&mut self) {
        self.doubt_of(Seen { cluster_id: Some(LAST.into()), revision: 1, configured: true });
    }

    fn doubt_of(&mut self, seen: Seen) {
        self.reader = Reader::new("n1".parse().unwrap(), seen);
        self.read = self.shelf.log_len();
        let news = self.reader.take(snapshot(&self.shelf)).unwrap();
        assert!(matches!(news, News::Doubted { .. }), "{news:?}");
        self.ipam.news(news);
    }

    /// Tells what was written since it was told last.
    fn aside(&mut self) {
        let (changes, now) = self.shelf.since(self.read);
        self.read = now;
        let Some(revision) = changes.last().map(russet_store::KeyChange::revision) else { return };
        let news = self.reader.take(WatchEvent::Changes { revision, changes });
        assert!(matches!(news, None | Some(News::Aside { .. })), "{news:?}");
        if let Some(news) = news {
            self.ipam.news(news);
        }
    }

    /// Until nothing follows any more without news.
    async fn settle(&mut self) {
        self.ipam.turn();
        while let Some(done) = self.ipam.work.join_next().await {
            self.ipam.done(done);
            self.ipam.turn();
        }
    }
}

fn named(shelf: &FakeShelf, guid: &str) {
    let text = format!(
        r#"{{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default"}},"spec":{{"clusterGUID":"{guid}"}}}}"#
    );
    let key = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
    shelf.put(key, &text);
}

/// The cluster whose store was believed.
const LAST: &str = "ours";

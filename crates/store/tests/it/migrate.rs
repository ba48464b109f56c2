//! A store's keys copied to another store, ours and etcd in every pairing, while things happen.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use russet_store::{
    EtcdClient, KeyValue, LeaseId,
    migrate::{Existing, MigrateError, Order, Progress, Report, Side, migrate},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    backend::{Backend, EVENTUALLY, client_of, etcdctl},
    proxy::{Mode, Proxy},
};

/// Defines each test for every pairing of the two kinds.
macro_rules! every_way {
    ($($name:ident),* $(,)?) => {
        every_way!(@way ours_to_etcd ours etcd $($name)*);
        every_way!(@way etcd_to_ours etcd ours $($name)*);
        every_way!(@way etcd_to_etcd etcd etcd $($name)*);
    };
    (@way $way:ident $from:ident $to:ident $($name:ident)*) => {
        mod $way {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                use crate::backend::Backend;
                super::$name(Backend::$from().await, Backend::$to().await).await;
            })*
        }
    };
}

every_way! {
    keys_values_and_leases_arrive_and_the_source_is_as_it_was,
    a_target_that_holds_keys_is_left_alone_unless_told_otherwise,
    a_source_without_keys_empties_no_target,
    every_change_follows_until_the_end_is_asked_for,
    leases_live_and_end_as_in_the_source,
    a_source_that_is_compacted_under_way_is_copied_whole,
    breaks_of_either_side_lose_nothing,
    what_somebody_else_writes_to_the_target_is_found,
}

async fn keys_values_and_leases_arrive_and_the_source_is_as_it_was(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    fill(&source, 2_500).await;
    source.put(b"/other/key", b"stays").await.unwrap();
    source.put(b"/n2", b"begins alike").await.unwrap();
    source.put_leased(b"/n/leased", b"node", 600).await.unwrap();
    source.put(b"/n/large", &vec![7; 1 << 20]).await.unwrap();
    let before = source.range_prefix(b"", None).await.unwrap();

    let report = copy(&source, &target, &order()).await.unwrap();

    assert!(report.is_true_copy(), "{:?}", report.differences);
    assert_eq!((report.keys, report.leases, report.deletes), (2_502, 1, 0));
    let after = source.range_prefix(b"", None).await.unwrap();
    assert_eq!(after, before, "the source is only read");
    let there = target.range_prefix(b"", None).await.unwrap().entries;
    let bare = |kvs: &[KeyValue]| {
        kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone(), kv.lease)).collect::<Vec<_>>()
    };
    let wanted = before.entries.into_iter().filter(|kv| kv.key.starts_with(b"/n/"));
    assert_eq!(bare(&there), bare(&wanted.collect::<Vec<_>>()));
    let lease = there.iter().find_map(|kv| kv.lease).unwrap();
    let time = target.lease_time(lease).await.unwrap().unwrap();
    assert_eq!(time.granted, Duration::from_mins(10));
    assert!(time.left > Duration::from_secs(590), "{time:?}");
}

async fn a_target_that_holds_keys_is_left_alone_unless_told_otherwise(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    source.put(b"/n/a", b"1").await.unwrap();
    source.put(b"/n/b", b"2").await.unwrap();
    target.put(b"/n/a", b"old").await.unwrap();
    target.put(b"/n/z", b"surplus").await.unwrap();
    target.put(b"/elsewhere", b"stays").await.unwrap();
    let before = target.range_prefix(b"", None).await.unwrap();

    let refused = copy(&source, &target, &order()).await.unwrap_err();
    assert!(matches!(&refused, MigrateError::Occupied { keys: 2, .. }), "{refused:?}");
    assert_eq!(target.range_prefix(b"", None).await.unwrap(), before, "nothing was written");

    let overwrite = Order { existing: Existing::Overwrite, ..order() };
    let report = copy(&source, &target, &overwrite).await.unwrap();
    assert!(report.is_true_copy(), "{:?}", report.differences);
    assert_eq!((report.puts, report.deletes), (2, 1));
    assert_eq!(keys(&target).await, ["/elsewhere", "/n/a", "/n/b"]);

    // Once more: there is nothing left to write.
    let again = copy(&source, &target, &overwrite).await.unwrap();
    assert_eq!((again.puts, again.deletes, again.keys), (0, 0, 2));
    // And a store is not copied onto itself.
    let same = copy(&source, &from.client(), &overwrite).await.unwrap_err();
    assert!(matches!(same, MigrateError::SameStore), "{same:?}");
}

async fn a_source_without_keys_empties_no_target(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    source.put(b"/elsewhere", b"1").await.unwrap();
    target.put(b"/n/a", b"precious").await.unwrap();
    let overwrite = Order { existing: Existing::Overwrite, ..order() };
    let refused = copy(&source, &target, &overwrite).await.unwrap_err();
    assert!(matches!(refused, MigrateError::NothingToCopy { .. }), "{refused:?}");
    assert_eq!(keys(&target).await, ["/n/a"]);
}

async fn every_change_follows_until_the_end_is_asked_for(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    fill(&source, 100).await;
    let mut running = Running::start(&source, &target, order());
    running.wait_for(|news| matches!(news, Progress::Following)).await;

    // Written while it follows, and until the very end.
    let writing = Writing::start(source.clone());
    eventually(|| async {
        target.get(b"/n/busy/5").await.unwrap().is_some_and(|kv| kv.version > 1)
    })
    .await;
    source.put_leased(b"/n/late", b"leased", 60).await.unwrap();
    let first = source.get(b"/n/0000").await.unwrap().unwrap();
    source.delete_if(b"/n/0000", first.modified).await.unwrap();
    eventually(|| async { target.get(b"/n/0000").await.unwrap().is_none() }).await;

    // Compared while it is being written.
    let report = running.stop().await.unwrap();
    assert!(report.is_true_copy(), "{:?}", report.differences);
    assert!(report.keys > 100, "{}", report.keys);
    assert_eq!(report.leases, 1);
    writing.stop().await;
}

async fn leases_live_and_end_as_in_the_source(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    source.put(b"/n/config", b"for ever").await.unwrap();
    source.put_leased(b"/n/kept", b"renewed", 2).await.unwrap();
    source.put_leased(b"/n/left", b"not renewed", 2).await.unwrap();
    let kept = source.get(b"/n/kept").await.unwrap().unwrap().lease.unwrap();
    let renewing = Renewing::start(source.clone(), kept);
    let mut running = Running::start(&source, &target, order());
    running.wait_for(|news| matches!(news, Progress::Following)).await;

    // What nobody renews goes, here as there; what is renewed at the source stays, for longer than its time.
    eventually(|| async { target.get(b"/n/left").await.unwrap().is_none() }).await;
    assert_eq!(source.get(b"/n/left").await.unwrap(), None);
    let granted = source.lease_time(kept).await.unwrap().unwrap().granted;
    let until = Instant::now() + granted * 2;
    while Instant::now() < until {
        let there = target.get(b"/n/kept").await.unwrap();
        assert_eq!(there.expect("it is kept alive").lease, Some(kept), "the same number");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let report = running.stop().await.unwrap();
    assert!(report.is_true_copy(), "{:?}", report.differences);
    renewing.stop().await;

    // The owner goes on at the target with the number that it has.
    assert!(target.renew_lease(kept).await.unwrap().is_some());
    // Nobody keeps it alive any more.
    eventually(|| async { target.get(b"/n/kept").await.unwrap().is_none() }).await;
}

async fn a_source_that_is_compacted_under_way_is_copied_whole(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    fill(&source, 500).await;
    let proxy = Proxy::start(from.address()).await;
    let mut running = Running::start(&client_of(proxy.address), &target, order());
    running.wait_for(|news| matches!(news, Progress::Following)).await;

    // Away; meanwhile a key goes, one comes, and the history between is forgotten.
    proxy.set(Mode::Cut);
    running.wait_for(|news| matches!(news, Progress::Away { side: Side::Source, .. })).await;
    let gone = source.get(b"/n/0007").await.unwrap().unwrap();
    source.delete_if(b"/n/0007", gone.modified).await.unwrap();
    source.put(b"/n/0008", b"changed").await.unwrap();
    let newest = source.put(b"/n/new", b"1").await.unwrap();
    source.compact(newest).await.unwrap();
    proxy.set(Mode::Open);

    eventually(|| async { target.get(b"/n/new").await.unwrap().is_some() }).await;
    let report = running.stop().await.unwrap();
    assert!(report.is_true_copy(), "{:?}", report.differences);
    assert_eq!(report.started_over, 1);
    assert_eq!(target.get(b"/n/0007").await.unwrap(), None);
    assert_eq!(target.get(b"/n/0008").await.unwrap().unwrap().value, b"changed");
}

async fn breaks_of_either_side_lose_nothing(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    fill(&source, 300).await;
    let (before, behind) = (Proxy::start(from.address()).await, Proxy::start(to.address()).await);
    let (near, far) = (client_of(before.address), client_of(behind.address));
    let mut running = Running::start(&near, &far, order());
    running.wait_for(|news| matches!(news, Progress::Following)).await;
    let writing = Writing::start(source.clone());
    for round in 0..3 {
        behind.lose_the_answer().await;
        running.wait_for(|news| matches!(news, Progress::Away { side: Side::Target, .. })).await;
        behind.set(Mode::Open);
        running.wait_for(|news| matches!(news, Progress::Back { side: Side::Target })).await;
        before.set(Mode::Cut);
        running.wait_for(|news| matches!(news, Progress::Away { side: Side::Source, .. })).await;
        source.put(format!("/n/while-away/{round}").as_bytes(), b"1").await.unwrap();
        before.set(Mode::Open);
        running.wait_for(|news| matches!(news, Progress::Back { side: Side::Source })).await;
    }
    writing.stop().await;
    let report = running.stop().await.unwrap();
    assert!(report.is_true_copy(), "{:?}", report.differences);
    assert!(target.get(b"/n/while-away/2").await.unwrap().is_some());
}

async fn what_somebody_else_writes_to_the_target_is_found(from: Backend, to: Backend) {
    let (source, target) = (from.client(), to.client());
    fill(&source, 10).await;
    let mut running = Running::start(&source, &target, order());
    running.wait_for(|news| matches!(news, Progress::Following)).await;
    etcdctl(to.address(), &["put", "/n/0003", "tampered"], "").await;
    etcdctl(to.address(), &["put", "/n/alien", "1"], "").await;
    etcdctl(to.address(), &["del", "/n/0005"], "").await;
    let report = running.stop().await.unwrap();
    assert_eq!(report.differing, 3);
    let told: Vec<_> = report.differences.iter().map(ToString::to_string).collect();
    let wanted =
        ["/n/0003: another value", "/n/0005: not in the target", "/n/alien: not in the source"];
    assert_eq!(told, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_was_wiped_under_way_takes_nothing_from_the_target() {
    let (from, to) = (Backend::ours().await, Backend::ours().await);
    let (source, target) = (from.client(), to.client());
    fill(&source, 10).await;
    let proxy = Proxy::start(from.address()).await;
    let mut running = Running::start(&client_of(proxy.address), &target, order());
    running.wait_for(|news| matches!(news, Progress::Following)).await;
    let wiped = Backend::ours().await;
    proxy.set(Mode::Cut);
    running.wait_for(|news| matches!(news, Progress::Away { .. })).await;
    proxy.retarget(wiped.address());
    proxy.set(Mode::Open);
    let refused = running.ended().await.unwrap_err();
    assert!(matches!(refused, MigrateError::SourceExchanged { .. }), "{refused:?}");
    assert_eq!(keys(&target).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_stays_away_ends_the_copy_with_its_name() {
    let (from, to) = (Backend::ours().await, Backend::ours().await);
    fill(&from.client(), 10).await;
    let nowhere = client_of(crate::backend::free_address());
    let refused = copy(&nowhere, &to.client(), &order()).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Source(_)) && refused.is_unavailable());
    let refused = copy(&from.client(), &nowhere, &order()).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Target(_)) && refused.is_unavailable());

    let impatient = Order { patience: Duration::from_millis(500), ..order() };
    let proxy = Proxy::start(from.address()).await;
    let near = client_of(proxy.address);
    let mut running = Running::start(&near, &to.client(), impatient);
    running.wait_for(|news| matches!(news, Progress::Following)).await;
    proxy.set(Mode::Cut);
    let given_up = running.ended().await.unwrap_err();
    assert!(matches!(given_up, MigrateError::Source(_)), "{given_up:?}");
}

/// A copy with `--follow`, in a task of its own.
struct Running {
    stop: oneshot::Sender<()>,
    news: mpsc::UnboundedReceiver<Progress>,
    outcome: oneshot::Receiver<Result<Report, MigrateError>>,
}

impl Running {
    fn start(source: &EtcdClient, target: &EtcdClient, order: Order) -> Self {
        let (source, target) = (source.clone(), target.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, news) = mpsc::unbounded_channel();
        let (done, outcome) = oneshot::channel();
        // A thread of its own: what it tells is told to a closure, which need not be sent.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut tell = |progress: &Progress| drop(tell.send(progress.clone()));
                let stopped = async move { drop(stopped.await) };
                let ended = migrate(&source, &target, &order, Some(stopped), &mut tell).await;
                drop(done.send(ended));
            });
        });
        Self { stop, news, outcome }
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Progress) -> bool) {
        let search = async {
            while let Some(news) = self.news.recv().await {
                if wanted(&news) {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(EVENTUALLY, search).await.expect("the news within 10 s");
        assert!(found, "the copy ended: {:?}", self.outcome.try_recv());
    }

    async fn stop(self) -> Result<Report, MigrateError> {
        self.stop.send(()).expect("it runs");
        tokio::time::timeout(EVENTUALLY, self.outcome).await.expect("an end within 10 s").unwrap()
    }

    /// Waits for an end that nobody asked for.
    async fn ended(self) -> Result<Report, MigrateError> {
        let ended = tokio::time::timeout(EVENTUALLY, self.outcome).await;
        ended.expect("an end within 10 s").unwrap()
    }
}

/// Something that goes on in the background until it is stopped.
struct Background {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Background {
    fn start<F: Future<Output = ()> + Send>(
        mut act: impl FnMut(u64) -> F + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                act(n).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// Writes ten keys over and over.
struct Writing;

impl Writing {
    fn start(client: EtcdClient) -> Background {
        Background::start(move |n| {
            let client = client.clone();
            async move {
                let key = format!("/n/busy/{}", n % 10);
                client.put(key.as_bytes(), n.to_string().as_bytes()).await.unwrap();
            }
        })
    }
}

/// Keeps a lease of the source alive, as its owner.
struct Renewing;

impl Renewing {
    fn start(client: EtcdClient, lease: LeaseId) -> Background {
        Background::start(move |_| {
            let client = client.clone();
            async move {
                assert!(client.renew_lease(lease).await.unwrap().is_some());
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
    }
}

async fn copy(
    source: &EtcdClient,
    target: &EtcdClient,
    order: &Order,
) -> Result<Report, MigrateError> {
    let end = None::<std::future::Ready<()>>;
    tokio::time::timeout(EVENTUALLY, migrate(source, target, order, end, &mut |_| {}))
        .await
        .expect("an end within 10 s")
}

fn order() -> Order {
    Order { prefix: b"/n/".to_vec(), existing: Existing::Refuse, patience: EVENTUALLY }
}

async fn fill(client: &EtcdClient, keys: usize) {
    let write = |n| russet_store::client::Write::Put {
        key: format!("/n/{n:04}").into_bytes(),
        value: format!("value {n}").into_bytes(),
        lease: None,
    };
    let all: Vec<_> = (0..keys).map(write).collect();
    for some in all.chunks(100) {
        client.write_batch(some.to_vec()).await.unwrap();
    }
}

async fn keys(client: &EtcdClient) -> Vec<String> {
    let all = client.range_prefix(b"", None).await.unwrap().entries;
    all.into_iter().map(|kv| String::from_utf8(kv.key).unwrap()).collect()
}

async fn eventually<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let until = Instant::now() + EVENTUALLY;
    while !holds().await {
        assert!(Instant::now() < until, "it does not hold within {EVENTUALLY:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! What each watcher of the two servers was told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use russet_store::proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::sides::{Side, Sides};

/// One stream at each server.
pub(super) struct Watches {
    ours: Stream,
    etcd: Stream,
    created: Vec<WatchCreateRequest>,
    /// Some may be behind.
    behind: bool,
    probes: i64,
}

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    told: Arc<Mutex<Told>>,
    task: tokio::task::JoinHandle<()>,
}

/// Everything that a stream said, by watcher, in order.
type Told = BTreeMap<i64, Vec<String>>;

impl Watches {
    pub(super) async fn open(sides: &Sides) -> Self {
        let (ours, etcd) = (Stream::open(&sides.ours).await, Stream::open(&sides.etcd).await);
        Self { ours, etcd, created: Vec::new(), behind: false, probes: PROBES }
    }

    /// Creates the same watcher at both, and waits for the answers, so that nothing overtakes it.
    pub(super) async fn create(&mut self, create: &WatchCreateRequest) {
        self.created.push(create.clone());
        self.behind |= create.start_revision != 0;
        let before = (self.ours.answers(), self.etcd.answers());
        for stream in [&self.ours, &self.etcd] {
            stream.send(RequestUnion::CreateRequest(create.clone())).await;
        }
        self.ours.wait_for_answer(before.0).await;
        self.etcd.wait_for_answer(before.1).await;
    }

    /// Cancels a watcher at both.
    pub(super) async fn cancel(&mut self, id: i64) {
        for stream in [&self.ours, &self.etcd] {
            let cancel = WatchCancelRequest { watch_id: id };
            stream.send(RequestUnion::CancelRequest(cancel)).await;
        }
        self.compare("after a watcher was canceled").await;
    }

    pub(super) fn may_be_behind(&self) -> bool {
        self.behind
    }

    /// Waits until nobody is behind. etcd brings all that are up at one time, so it has done so when it
    /// tells one more of what is past.
    pub(super) async fn catch_up(&mut self, revision: i64) {
        self.probes += 1;
        let probe = WatchCreateRequest {
            key: PROBE_KEY.to_vec(),
            start_revision: revision,
            watch_id: self.probes,
            ..WatchCreateRequest::default()
        };
        self.create(&probe).await;
        self.created.pop();
        self.compare("while watchers catch up").await;
        self.cancel(self.probes).await;
        self.behind = false;
    }

    /// Waits until both have told the same.
    pub(super) async fn compare(&mut self, when: &str) {
        let start = Instant::now();
        let mut agreed = 0;
        loop {
            let same = *self.ours.told.lock().unwrap() == *self.etcd.told.lock().unwrap();
            agreed = if same { agreed + 1 } else { 0 };
            // A moment more, for what one of them should not have said.
            if agreed > 2 {
                break;
            }
            if start.elapsed() > Duration::from_secs(10) {
                self.differ(when);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What both said alike need not be kept.
        let mut ours = self.ours.told.lock().unwrap();
        let mut etcd = self.etcd.told.lock().unwrap();
        if *ours == *etcd {
            ours.values_mut().chain(etcd.values_mut()).for_each(Vec::clear);
        }
    }

    fn differ(&self, when: &str) -> ! {
        let (ours, etcd) = (self.ours.told.lock().unwrap(), self.etcd.told.lock().unwrap());
        for (id, told) in &*etcd {
            let mine = ours.get(id).cloned().unwrap_or_default();
            if *told != mine {
                let alike = told.iter().zip(&mine).take_while(|(a, b)| a == b).count();
                let created = self.created.iter().filter(|create| create.watch_id == *id);
                let created: Vec<_> = created.collect();
                panic!(
                    "{when}: watcher {id} {created:?} after {alike} alike\nours: {:#?}\netcd: {:#?}",
                    &mine[alike..mine.len().min(alike + 2)],
                    &told[alike..told.len().min(alike + 2)]
                );
            }
        }
        panic!("{when}: ours has other watchers: {:?} {:?}", ours.keys(), etcd.keys());
    }
}

impl Stream {
    async fn open(side: &Side) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        // etcd answers nothing, not even headers, before the first request.
        let far = WatchCreateRequest {
            key: b"~far".to_vec(),
            start_revision: i64::MAX,
            watch_id: 1_000_000,
            ..WatchCreateRequest::default()
        };
        requests
            .send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(far)) })
            .await
            .unwrap();
        let mut client = WatchClient::new(side.channel.clone());
        let mut answers = client.watch(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let told = Arc::<Mutex<Told>>::default();
        let kept = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                keep(&mut kept.lock().unwrap(), &answer);
            }
        });
        let stream = Self { requests, told, task };
        stream.wait_for_answer(0).await;
        stream
    }

    async fn send(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    /// Returns how many creations were answered.
    fn answers(&self) -> usize {
        self.told.lock().unwrap().get(&CREATIONS).map_or(0, Vec::len)
    }

    async fn wait_for_answer(&self, before: usize) {
        for _ in 0..10_000 {
            if self.answers() > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("a watcher is created within 10 s");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn keep(told: &mut Told, answer: &WatchResponse) {
    let id = answer.watch_id;
    if answer.created {
        let text = format!("{id} {} {:?}", answer.canceled, answer.cancel_reason);
        told.entry(CREATIONS).or_default().push(text);
    }
    let of = told.entry(id).or_default();
    for event in &answer.events {
        of.push(format!("{event:?}"));
    }
    if answer.canceled && !answer.created {
        of.push(format!("canceled {} {:?}", answer.compact_revision, answer.cancel_reason));
    }
}

/// What is put for [`Watches::catch_up`].
pub(super) const PROBE_KEY: &[u8] = b"expires";
const PROBES: i64 = 2_000_000;
/// Where the answers to creations are kept: no watcher has this number.
const CREATIONS: i64 = i64::MIN;

//! One node: its addresses' task, the watch beside it, and in the place of the attach lane somebody who records what
//! he is given, and remembers it when the task dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use russet_agent::{
    ipam::{self, Ask, Deny, Lines, MOST_ASKS, Settings, Told, What, Wish},
    resources::{self, Seen},
};
use russet_core::addressing::node_subnet::Random;
use russet_store::EtcdClient;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Who uses which address, from the answer until the release is asked for.
#[derive(Clone, Default)]
pub(crate) struct Owners(Arc<Mutex<BTreeMap<IpAddr, String>>>);

impl Owners {
    pub(crate) fn all(&self) -> BTreeMap<IpAddr, String> {
        self.0.lock().unwrap().clone()
    }

    fn given(&self, addr: IpAddr, handle: &str) {
        let other = self.0.lock().unwrap().insert(addr, handle.to_owned());
        assert!(other.as_deref().is_none_or(|other| other == handle), "{addr} has two owners");
    }

    fn left(&self, handle: &str) {
        self.0.lock().unwrap().retain(|_, by| by != handle);
    }
}

pub(crate) struct Node {
    client: EtcdClient,
    name: String,
    owners: Owners,
    /// What is on record here.
    recorded: BTreeMap<String, Vec<IpAddr>>,
    life: Option<Life>,
    answers: BTreeMap<u64, What>,
    next: u64,
    pub(crate) given: usize,
    pub(crate) kills: usize,
}

struct Life {
    asks: mpsc::Sender<Ask>,
    told: mpsc::Receiver<Told>,
    _ends: Box<dyn std::any::Any + Send>,
    _tasks: JoinSet<()>,
}

impl Node {
    pub(crate) fn new(client: EtcdClient, name: &str, owners: Owners) -> Self {
        let (recorded, answers) = (BTreeMap::new(), BTreeMap::new());
        let name = name.to_owned();
        Self { client, name, owners, recorded, life: None, answers, next: 0, given: 0, kills: 0 }
    }

    /// Starts the task, or starts it anew.
    pub(crate) fn start(&mut self) {
        let node: russet_core::model::calico::Name = self.name.parse().unwrap();
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let (tell, told) = mpsc::channel(MOST_ASKS);
        let (news, hear) = mpsc::channel(resources::NEWS);
        let (accept, accepted) = mpsc::channel(1);
        let (tunnels, wanted) = watch::channel(BTreeSet::new());
        let (hold, held) = watch::channel(BTreeMap::new());
        let settings = Settings {
            cooldown: Duration::from_secs(1),
            grace: Duration::from_secs(4),
            look: Duration::from_millis(500),
            routes: || Ok(BTreeSet::new()),
            ..Settings::new(node.clone(), self.next)
        };
        let put_back = watch::Sender::new(false);
        let lines =
            Lines { news: hear, asks: asked, told: tell, tunnels: wanted, held: hold, put_back };
        let mut tasks = JoinSet::new();
        tasks.spawn(ipam::serve(self.client.clone(), settings, lines));
        let watching =
            resources::serve(self.client.clone(), node, Seen::default(), vec![news], accepted);
        tasks.spawn(watching);
        let recorded = self.recorded.iter().map(|(by, has)| (by.parse().unwrap(), has.clone()));
        asks.try_send(Ask::Recorded(recorded.collect())).unwrap();
        self.answers.clear();
        let ends = Box::new((accept, tunnels, held));
        self.life = Some(Life { asks, told, _ends: ends, _tasks: tasks });
    }

    fn ask(&mut self, ask: Ask) {
        self.life.as_ref().unwrap().asks.try_send(ask).unwrap();
    }

    pub(crate) fn ask_give(&mut self, handle: &str, wish: Wish) -> u64 {
        self.next += 1;
        let pod = Some(("default".to_owned(), handle.to_owned()));
        let (ticket, handle) = (self.next, handle.parse().unwrap());
        self.ask(Ask::Give { ticket, handle, pod, wish });
        self.next
    }

    pub(crate) fn ask_free(&mut self, handle: &str) -> u64 {
        self.next += 1;
        let (ticket, handle) = (Some(self.next), handle.parse().unwrap());
        self.ask(Ask::Free { ticket, handle });
        self.next
    }

    pub(crate) async fn answer(&mut self, ticket: u64) -> What {
        loop {
            if let Some(what) = self.answers.remove(&ticket) {
                return what;
            }
            let told = &mut self.life.as_mut().unwrap().told;
            let told = tokio::time::timeout(Duration::from_secs(40), told.recv());
            let told = told.await.expect("an answer within 40 s").unwrap();
            self.answers.insert(told.ticket, told.what);
        }
    }

    pub(crate) async fn give(&mut self, handle: &str) -> Result<Vec<IpAddr>, Deny> {
        let ticket = self.ask_give(handle, Wish::default());
        match self.answer(ticket).await {
            What::Given(given) => Ok(given),
            What::Denied(why) => Err(why),
            What::Freed | What::Unlisted => panic!("freed"),
        }
    }

    /// Pods come and go, several at once, and the task dies in the middle of it, again and again. In the end it lives.
    pub(crate) async fn churn(mut self, seed: u64, span: Duration) -> Self {
        let mut random = Random::new(seed);
        let until = Instant::now() + span;
        self.start();
        let mut pod = 0;
        while Instant::now() < until {
            let mut out = Vec::new();
            for _ in 0..=random.below(8) {
                pod += 1;
                let handle = format!("net.{}-{pod}", self.name);
                out.push((self.ask_give(&handle, Wish::default()), handle));
            }
            let going: Vec<String> =
                self.recorded.keys().filter(|_| random.below(3) == 0).cloned().collect();
            let mut frees = Vec::new();
            for handle in going {
                self.owners.left(&handle);
                frees.push((self.ask_free(&handle), handle));
            }
            if random.below(4) == 0 {
                // It dies at some moment; who waited for it is asked for no more, or asks again.
                tokio::time::sleep(Duration::from_millis(random.below(12).try_into().unwrap()))
                    .await;
                self.kills += 1;
                self.start();
                for (_, handle) in frees {
                    self.free(&handle).await;
                }
                for (_, handle) in out.into_iter().filter(|_| random.below(2) == 0) {
                    let ticket = self.ask_give(&handle, Wish::default());
                    self.take(ticket, &handle).await;
                }
                continue;
            }
            for (ticket, handle) in out {
                self.take(ticket, &handle).await;
            }
            for (ticket, handle) in frees {
                assert!(matches!(self.answer(ticket).await, What::Freed));
                self.recorded.remove(&handle);
            }
        }
        self
    }

    async fn take(&mut self, ticket: u64, handle: &str) {
        match self.answer(ticket).await {
            What::Given(given) => {
                self.given += 1;
                for addr in &given {
                    self.owners.given(*addr, handle);
                }
                self.recorded.insert(handle.to_owned(), given);
            }
            What::Denied(_) => {
                // As a runtime does after an ADD that failed.
                self.free(handle).await;
            }
            What::Freed | What::Unlisted => panic!("freed"),
        }
    }

    async fn free(&mut self, handle: &str) {
        let ticket = self.ask_free(handle);
        assert!(matches!(self.answer(ticket).await, What::Freed));
        self.recorded.remove(handle);
    }

    pub(crate) async fn free_all(&mut self) {
        for handle in self.recorded.keys().cloned().collect::<Vec<_>>() {
            self.owners.left(&handle);
            self.free(&handle).await;
        }
    }
}

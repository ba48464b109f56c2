//! The endpoints in a store of the tests' own: written, kept, taken away.

use std::net::IpAddr;

use russet_core::model::calico::Workload;
use tokio::time::timeout;

use super::*;
use crate::ipam::shelf::fake::FakeShelf;

/// What Calico's plugin wrote of a pod of its own (v3.28.5, etcd), but for its id and its time.
const THEIRS: &str = r#"{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1-cni-calico--mixed--x-eth0","namespace":"default","uid":"U","creationTimestamp":"T","labels":{"projectcalico.org/namespace":"default","projectcalico.org/orchestrator":"cni"}},"spec":{"orchestrator":"cni","node":"n1","containerID":"calico-mixed-x","endpoint":"eth0","ipNetworks":["10.244.237.1/32"],"profiles":["k8s-pod-network"],"interfaceName":"calicalico-mixe","mac":"4e:1c:c6:a3:f5:56"}}"#;
const PLAIN: &str =
    "/calico/resources/v3/projectcalico.org/workloadendpoints/default/n1-cni-calico--mixed--x-eth0";
const NAMED: &str =
    "/calico/resources/v3/projectcalico.org/workloadendpoints/shop/n1-k8s-web--1-eth0";

#[tokio::test]
async fn a_pod_s_endpoint_is_octet_for_octet_what_calico_s_plugin_writes() {
    let site = Site::start();
    site.attached(&plain()).await;
    let text = site.text(PLAIN).await;
    let uid = text.split("\"uid\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let time = text.split("Timestamp\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(text.replace(&uid, "U").replace(&time, "T"), THEIRS);
}

#[tokio::test]
async fn many_pods_are_one_write_and_go_as_one() {
    let mut site = Site::start();
    let pods: Vec<_> = (0..50).map(|n| container(&format!("c{n}"))).collect();
    for pod in &pods {
        site.attached(pod).await;
    }
    site.text(&key(&pods[49])).await;
    assert_eq!(site.shelf.keys(FOLDER).len(), 50);
    let (written, end) = site.shelf.since(0);
    assert_eq!(written.len(), 50);
    assert!(site.shelf.take_read().is_empty(), "nobody looks where nothing was");
    for (ticket, pod) in (0..).zip(&pods) {
        site.gone(ticket, pod).await;
    }
    for _ in 0..50 {
        site.answer().await;
    }
    assert_eq!(site.shelf.keys(FOLDER), Vec::<String>::new());
    assert_eq!(site.shelf.since(end).0.len(), 50);
    assert!(site.shelf.take_read().is_empty());
}

#[tokio::test]
async fn what_an_earlier_life_wrote_is_found_and_taken_away() {
    let mut site = Site::start();
    site.shelf.put(PLAIN, THEIRS);
    let revision = site.shelf.log_len();
    site.attached(&plain()).await;
    tokio::time::sleep(PACE.retry * 2).await;
    assert_eq!(site.shelf.log_len(), revision, "it is as it should be");
    site.gone(1, &plain()).await;
    assert_eq!(site.answer().await, 1);
    assert_eq!(site.shelf.text(PLAIN), None);
    // Once more, as a note that outlived its agent would have it.
    site.gone(2, &plain()).await;
    assert_eq!(site.answer().await, 2);
}

#[tokio::test]
async fn the_next_sandbox_of_a_pod_keeps_its_endpoint_when_the_one_before_goes() {
    let mut site = Site::start();
    site.attached(&pod("old", [10, 1, 0, 1])).await;
    site.text(NAMED).await;
    site.attached(&pod("new", [10, 1, 0, 2])).await;
    site.gone(7, &pod("old", [10, 1, 0, 1])).await;
    assert_eq!(site.answer().await, 7);
    site.until(|| site.shelf.text(NAMED).is_some_and(|text| text.contains("10.1.0.2/32"))).await;
    // The same by an agent that knows nothing of the later one yet.
    let mut late = Site::on(&site.shelf);
    late.gone(8, &pod("old", [10, 1, 0, 1])).await;
    assert_eq!(late.answer().await, 8);
    assert!(site.shelf.text(NAMED).unwrap().contains("\"containerID\":\"new\""));
}

#[tokio::test]
async fn what_others_added_of_the_same_container_stays_and_another_node_s_is_left() {
    let site = Site::start();
    let labelled = THEIRS
        .replace(r#""labels":{"#, r#""labels":{"app":"web","#)
        .replace("10.244.237.1/32", "10.244.237.9/32")
        .replace(r#""mac""#, r#""qosControls":{"x":1},"mac""#);
    site.shelf.put(PLAIN, &labelled);
    site.attached(&plain()).await;
    site.until(|| site.shelf.text(PLAIN).is_some_and(|text| text.contains("10.244.237.1/32")))
        .await;
    let text = site.shelf.text(PLAIN).unwrap();
    assert!(text.contains(r#""app":"web""#) && text.contains(r#""qosControls":{"x":1}"#), "{text}");

    let other = THEIRS.replace(r#""node":"n1""#, r#""node":"n9""#);
    site.shelf.put(&key(&container("c1")), &other);
    site.shelf.put(&key(&container("c2")), "{");
    site.attached(&container("c1")).await;
    site.attached(&container("c2")).await;
    tokio::time::sleep(PACE.retry * 2).await;
    assert_eq!(site.shelf.text(&key(&container("c1"))).unwrap(), other);
    assert_eq!(site.shelf.text(&key(&container("c2"))).unwrap(), "{");
}

#[tokio::test]
async fn a_store_that_is_away_or_not_believed_is_waited_for() {
    let mut site = Site::start();
    site.may_write(false);
    site.shelf.put(PLAIN, THEIRS);
    let before = site.shelf.log_len();
    site.attached(&container("c1")).await;
    site.gone(3, &plain()).await;
    tokio::time::sleep(PACE.retry * 3).await;
    assert_eq!(site.shelf.log_len(), before);
    assert!(site.told.try_recv().is_err());
    site.shelf.go_away(true);
    site.may_write(true);
    tokio::time::sleep(PACE.retry * 3).await;
    assert!(site.told.try_recv().is_err());
    site.shelf.go_away(false);
    assert_eq!(site.answer().await, 3);
    site.text(&key(&container("c1"))).await;
    assert_eq!(site.shelf.text(PLAIN), None);
}

#[tokio::test]
async fn a_store_that_is_believed_again_is_told_again() {
    let site = Site::start();
    site.attached(&plain()).await;
    site.text(PLAIN).await;
    for round in 0..100 {
        site.shelf.delete(PLAIN);
        // Whatever else it hears at the same moment.
        site.may_write(false);
        site.attached(&container(&format!("c{round}"))).await;
        site.next_epoch();
        site.may_write(true);
        site.text(PLAIN).await;
    }
}

#[tokio::test]
async fn an_overtaken_sandbox_s_endpoint_goes_also_when_the_one_after_it_never_had_one() {
    let mut site = Site::start();
    site.attached(&pod("a", [10, 1, 0, 1])).await;
    site.text(NAMED).await;
    // Another has the name, and is gone before it is written; so is the first then.
    site.may_write(false);
    site.attached(&pod("b", [10, 1, 0, 2])).await;
    site.gone(1, &pod("b", [10, 1, 0, 2])).await;
    site.gone(2, &pod("a", [10, 1, 0, 1])).await;
    tokio::time::sleep(PACE.lull * 3).await;
    assert!(site.told.try_recv().is_err(), "the store says the first still");
    site.may_write(true);
    let mut told = [site.answer().await, site.answer().await];
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    assert_eq!(site.shelf.text(NAMED), None);
}

#[tokio::test]
async fn who_waits_for_an_overtaken_endpoint_is_told_when_the_store_says_the_next() {
    let mut site = Site::start();
    site.attached(&pod("a", [10, 1, 0, 1])).await;
    site.text(NAMED).await;
    site.may_write(false);
    site.gone(1, &pod("a", [10, 1, 0, 1])).await;
    site.attached(&pod("b", [10, 1, 0, 2])).await;
    tokio::time::sleep(PACE.lull * 3).await;
    assert!(site.told.try_recv().is_err(), "an agent that dies now has to know of it");
    site.may_write(true);
    assert_eq!(site.answer().await, 1);
    assert!(site.shelf.text(NAMED).unwrap().contains("\"containerID\":\"b\""));
}

#[tokio::test]
async fn a_store_that_comes_back_is_written_to_when_it_is_judged() {
    let site = Site::start();
    site.may_write(false);
    site.attached(&plain()).await;
    tokio::time::sleep(PACE.retry * 3).await;
    assert_eq!(site.shelf.text(PLAIN), None, "it may have lost what it had");
    site.may_write(true);
    site.text(PLAIN).await;
}

#[tokio::test]
async fn what_went_with_the_node_s_own_object_comes_back() {
    let site = Site::start();
    site.attached(&plain()).await;
    site.text(PLAIN).await;
    site.shelf.delete(PLAIN);
    tokio::time::sleep(PACE.retry * 2).await;
    assert_eq!(site.shelf.text(PLAIN), None, "nobody watches all endpoints of the cluster");
    site.next_epoch();
    site.text(PLAIN).await;
}

#[tokio::test]
async fn lost_answers_lose_no_endpoint_and_no_ticket() {
    let mut site = Site::start();
    site.shelf.lose_one_in(3);
    for round in 0..20 {
        let one = container(&format!("c{round}"));
        site.attached(&one).await;
        site.text(&key(&one)).await;
        site.gone(round, &one).await;
        assert_eq!(site.answer().await, round);
        assert_eq!(site.shelf.text(&key(&one)), None);
    }
}

/// The task upon a store of its own.
struct Site {
    shelf: FakeShelf,
    says: mpsc::Sender<Say>,
    told: mpsc::Receiver<Told>,
    stand: watch::Sender<Standing>,
    _tasks: JoinSet<()>,
}

impl Site {
    fn start() -> Self {
        Self::on(&FakeShelf::default())
    }

    fn on(shelf: &FakeShelf) -> Self {
        let (says, said) = mpsc::channel(64);
        let (tell, told) = mpsc::channel(64);
        let (stand, standing) = watch::channel(Standing { may_write: true, epoch: 1 });
        let lines = Lines { says: said, told: tell, standing };
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(shelf.clone(), "n1".parse().unwrap(), PACE, lines));
        Self { shelf: shelf.clone(), says, told, stand, _tasks: tasks }
    }

    fn may_write(&self, may_write: bool) {
        self.stand.send_modify(|standing| standing.may_write = may_write);
    }

    /// The store may have lost what was written.
    fn next_epoch(&self) {
        self.stand.send_modify(|standing| standing.epoch += 1);
    }

    async fn attached(&self, pod: &Workload) {
        self.says.send(Say::Attached(Box::new(pod.clone()))).await.unwrap();
    }

    async fn gone(&self, ticket: u64, pod: &Workload) {
        self.says.send(Say::Gone { ticket, pod: Box::new(pod.clone()) }).await.unwrap();
    }

    async fn answer(&mut self) -> u64 {
        let told = timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap();
        assert!(matches!(told.what, What::Unlisted));
        told.ticket
    }

    /// What is at a key, as soon as something is.
    async fn text(&self, key: &str) -> String {
        self.until(|| self.shelf.text(key).is_some()).await;
        self.shelf.text(key).unwrap()
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
    }
}

fn plain() -> Workload {
    Workload {
        network: "k8s-pod-network".into(),
        container: "calico-mixed-x".into(),
        endpoint: "eth0".parse().unwrap(),
        kubernetes: None,
        link: "calicalico-mixe".parse().unwrap(),
        mac: Some("4e:1c:c6:a3:f5:56".parse().unwrap()),
        addresses: vec![IpAddr::from([10, 244, 237, 1])],
        spoofable: Vec::new(),
    }
}

fn container(id: &str) -> Workload {
    Workload { container: id.into(), ..plain() }
}

fn pod(container: &str, addr: [u8; 4]) -> Workload {
    let kubernetes = Some(("shop".into(), "web-1".into()));
    Workload { kubernetes, addresses: vec![addr.into()], ..self::container(container) }
}

fn key(pod: &Workload) -> String {
    let (namespace, name) = pod.names(&"n1".parse().unwrap());
    format!("{FOLDER}{namespace}/{name}")
}

const FOLDER: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";
const PATIENCE: Duration = Duration::from_secs(20);
const PACE: Pace = Pace { lull: Duration::from_millis(20), retry: Duration::from_millis(60) };

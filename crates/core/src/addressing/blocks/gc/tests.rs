//! What is freed, and above all what is not.

use super::{
    super::{
        block::Claimant,
        name::{Affinity, Timestamp},
    },
    *,
};

#[test]
fn a_leak_is_freed_at_the_second_sight_and_not_before_the_grace_is_over() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "gone", "n1");
    scene.report("n1", &[]);
    assert_eq!(scene.look(), 0, "seen once");
    scene.wait(GRACE / 2);
    scene.report("n1", &[]);
    assert_eq!(scene.look(), 0, "too early");
    scene.wait(GRACE / 2);
    scene.report("n1", &[]);
    assert_eq!(scene.look(), 1);
    assert!(scene.block("10.0.0.0/26").is_empty());
}

#[test]
fn an_answer_that_is_older_than_the_grace_is_no_second_sight() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "gone", "n1");
    scene.report("n1", &[]);
    scene.look();
    scene.wait(GRACE * 2);
    assert_eq!(scene.look(), 0, "the node has said nothing since");
}

#[test]
fn what_a_node_or_the_cluster_s_records_name_is_never_freed() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "used", "n1");
    scene.give("10.0.0.0/26", "recorded", "n1");
    scene.give("10.0.0.0/26", "silent", "n2");
    scene.living.handles.insert("recorded".parse().unwrap());
    scene.living.nodes.insert("n2".parse().unwrap(), Report::Silent);
    for _ in 0..4 {
        scene.report("n1", &["used"]);
        scene.look();
        scene.wait(GRACE);
    }
    assert_eq!(scene.block("10.0.0.0/26").held().count(), 3);
}

#[test]
fn one_address_of_a_handle_that_lives_spares_the_others() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "vm", "n1");
    scene.give("10.0.0.64/26", "vm", "n2");
    scene.living.nodes.insert("n2".parse().unwrap(), Report::Silent);
    for _ in 0..3 {
        scene.report("n1", &[]);
        assert_eq!(scene.look(), 0);
        scene.wait(GRACE);
    }
}

#[test]
fn an_address_that_was_taken_again_between_two_sights_is_not_freed() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "pod", "n1");
    scene.report("n1", &[]);
    scene.look();
    scene.wait(GRACE);
    let handle = "pod".parse().unwrap();
    let (again, _) = scene.block("10.0.0.0/26").keep(&handle).unwrap();
    scene.put(again);
    scene.report("n1", &[]);
    assert_eq!(scene.look(), 0, "its number is another");
}

#[test]
fn without_a_node_nobody_is_asked_and_a_tunnel_is_its_node_s() {
    let mut scene = Scene::new();
    scene.give_with("10.0.0.0/26", "tool", &[]);
    let tunnel = [("node", "n1"), ("type", "vxlanTunnelAddress")];
    scene.give_with("10.0.0.0/26", "vxlan-tunnel-addr-n1", &tunnel);
    for _ in 0..3 {
        scene.report("n1", &[]);
        assert_eq!(scene.look(), 0);
        scene.wait(GRACE);
    }
    scene.living.nodes.clear();
    scene.look();
    scene.wait(GRACE);
    scene.look();
    let left: Vec<_> = scene.handles_in("10.0.0.0/26");
    assert_eq!(left, ["tool"]);
}

#[test]
fn the_blocks_of_a_node_that_is_gone_go_with_it_once_they_are_empty() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "pod", "n1");
    scene.affinity("n1", "10.0.0.0/26", AffinityState::Confirmed);
    scene.index("pod", "10.0.0.0/26", 1);
    for _ in 0..6 {
        scene.look();
        scene.wait(GRACE);
    }
    assert!(scene.picture.blocks.is_empty());
    assert!(scene.picture.affinities.is_empty());
    assert!(scene.picture.handles.is_empty());
}

#[test]
fn what_was_borrowed_of_a_node_that_is_gone_stays_in_a_block_of_nobody_s() {
    let mut scene = Scene::new();
    scene.give("10.0.0.0/26", "borrower", "n2");
    scene.affinity("n1", "10.0.0.0/26", AffinityState::Confirmed);
    for _ in 0..6 {
        scene.report("n2", &["borrower"]);
        scene.look();
        scene.wait(GRACE);
    }
    assert_eq!(scene.block("10.0.0.0/26").affinity(), None);
    assert_eq!(scene.handles_in("10.0.0.0/26"), ["borrower"]);
    assert!(scene.picture.affinities.is_empty());
}

#[test]
fn a_node_keeps_one_empty_block_and_gives_back_the_rest() {
    let mut scene = Scene::new();
    scene.report("n1", &[]);
    for cidr in ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26"] {
        scene.own(cidr, "n1");
        scene.affinity("n1", cidr, AffinityState::Confirmed);
    }
    for _ in 0..6 {
        scene.look();
        scene.wait(GRACE);
    }
    assert_eq!(scene.picture.blocks.len(), 1);
    assert_eq!(scene.picture.affinities.len(), 1);
}

#[test]
fn what_a_crash_has_left_half_way_is_cleaned_up() {
    let mut scene = Scene::new();
    scene.report("n1", &[]);
    // A lost race: a pending affinity to another's block. A count without an address. A block of nobody's.
    scene.own("10.0.0.0/26", "n2");
    scene.affinity("n1", "10.0.0.0/26", AffinityState::Pending);
    scene.living.nodes.insert("n2".parse().unwrap(), Report::Silent);
    scene.affinity("n2", "10.0.0.0/26", AffinityState::Confirmed);
    scene.index("pod", "10.0.0.0/26", 2);
    let unowned = scene.fresh("10.0.0.64/26").owned_by(None);
    scene.put(unowned);
    scene.look();
    scene.wait(GRACE);
    scene.look();
    assert_eq!(scene.picture.blocks.len(), 1);
    assert_eq!(scene.picture.affinities.len(), 1);
    assert!(scene.picture.handles.is_empty());
}

#[test]
fn an_idle_block_is_thawed() {
    let mut scene = Scene::new();
    scene.rules.cooldown = Duration::from_secs(30);
    scene.give("10.0.0.0/26", "pod", "n1");
    scene.report("n1", &[]);
    let handle = "pod".parse().unwrap();
    let rest = Rest::From(scene.now.wall);
    let cooling = scene.block("10.0.0.0/26").release_handle(&handle, rest).unwrap();
    scene.put(cooling);
    scene.wait(GRACE);
    scene.look();
    assert!(!scene.block("10.0.0.0/26").is_empty());
    scene.wait(GRACE);
    scene.look();
    assert!(scene.block("10.0.0.0/26").is_empty());
}

struct Scene {
    collector: Collector,
    picture: Picture,
    living: Living,
    rules: Rules,
    now: Now,
    rev: u64,
}

impl Scene {
    fn new() -> Self {
        let pools = vec![BlockPool::new("10.0.0.0/16".parse().unwrap(), 26).unwrap()];
        Self {
            collector: Collector::default(),
            picture: Picture::default(),
            living: Living::default(),
            rules: Rules {
                grace: GRACE,
                pools,
                reserved: Reserved::default(),
                cooldown: Duration::ZERO,
            },
            now: Now { mono: Instant::now(), wall: Timestamp::from_nanos(1_000_000_000) },
            rev: 0,
        }
    }

    /// Looks, and writes what comes of it. Returns how much that was.
    fn look(&mut self) -> usize {
        let (next, ops) = self.collector.look(&self.picture, &self.living, &self.rules, self.now);
        self.collector = next;
        let n = ops.len();
        for op in ops {
            let StoreOp::Swap { key, value, .. } = op else { panic!("a read") };
            self.rev += 1;
            let rev = self.rev;
            match (key, value) {
                (Key::Block(cidr), Some(Value::Block(value))) => {
                    self.picture.blocks.insert(cidr, Versioned { rev, value });
                }
                (Key::Block(cidr), _) => _ = self.picture.blocks.remove(&cidr),
                (Key::Affinity(node, cidr), Some(Value::Affinity(value))) => {
                    self.picture.affinities.insert((node, cidr), Versioned { rev, value });
                }
                (Key::Affinity(node, cidr), _) => {
                    self.picture.affinities.remove(&(node, cidr));
                }
                (Key::Handle(id), Some(Value::Handle(value))) => {
                    self.picture.handles.insert(id, Versioned { rev, value });
                }
                (Key::Handle(id), _) => _ = self.picture.handles.remove(&id),
            }
        }
        n
    }

    fn wait(&mut self, span: Duration) {
        self.now = Now { mono: self.now.mono + span, wall: self.now.wall.after(span) };
    }

    fn report(&mut self, node: &str, handles: &[&str]) {
        let handles = handles.iter().map(|handle| handle.parse().unwrap()).collect();
        let report = Report::Uses { handles, at: self.now.mono };
        self.living.nodes.insert(node.parse().unwrap(), report);
    }

    fn give(&mut self, cidr: &str, handle: &str, node: &str) {
        self.give_with(cidr, handle, &[("node", node)]);
    }

    fn give_with(&mut self, cidr: &str, handle: &str, attributes: &[(&str, &str)]) {
        let known = self.picture.blocks.get(&cidr.parse().unwrap());
        let block = known.map_or_else(|| self.fresh(cidr), |found| found.value.as_ref().clone());
        let secondary = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let who = Claimant { handle: handle.parse().unwrap(), secondary: secondary.collect() };
        let (next, _) = block.take(1, &who, &Reserved::default(), Timestamp::default());
        self.put(next);
        self.index(handle, cidr, 1);
    }

    fn own(&mut self, cidr: &str, node: &str) {
        let owner = Some(Affinity::Host(node.parse().unwrap()));
        let block = self.fresh(cidr).owned_by(owner);
        self.put(block);
    }

    fn fresh(&self, cidr: &str) -> Block {
        let owner = Some(Affinity::Host("n1".parse().unwrap()));
        Block::new(cidr.parse().unwrap(), owner, self.now.wall).unwrap()
    }

    fn put(&mut self, block: Block) {
        self.rev += 1;
        let found = Versioned { rev: self.rev, value: Arc::new(block) };
        self.picture.blocks.insert(found.value.cidr(), found);
    }

    fn affinity(&mut self, node: &str, cidr: &str, value: AffinityState) {
        self.rev += 1;
        let key = (node.parse().unwrap(), cidr.parse().unwrap());
        self.picture.affinities.insert(key, Versioned { rev: self.rev, value });
    }

    fn index(&mut self, handle: &str, cidr: &str, count: u32) {
        self.rev += 1;
        let id: HandleId = handle.parse().unwrap();
        let known = self.picture.handles.get(&id).map(|found| found.value.clone());
        let value = known.unwrap_or_default().with(cidr.parse().unwrap(), count);
        self.picture.handles.insert(id, Versioned { rev: self.rev, value });
    }

    fn block(&self, cidr: &str) -> Block {
        self.picture.blocks[&cidr.parse().unwrap()].value.as_ref().clone()
    }

    fn handles_in(&self, cidr: &str) -> Vec<String> {
        self.block(cidr).held().map(|(_, by)| by.unwrap().to_string()).collect()
    }
}

use super::*;

#[test]
fn what_adds_up_has_no_problem() {
    assert_eq!(facts().problems(), []);
    assert!(!facts().may_go(&facts().blocks[0].taken[0]));
}

#[test]
fn addresses_that_nobody_gives_back_are_found() {
    let addr = pod();
    finds(
        |facts| facts.blocks[0].taken[0].handle = None,
        &[
            IpamProblem::NoHandle(addr),
            IpamProblem::Count { handle: handle(), block: block(), said: 1, has: 0 },
        ],
    );
    finds(|facts| facts.handles.clear(), &[IpamProblem::UnknownHandle { addr, handle: handle() }]);
    finds(|facts| facts.nodes.clear(), &[IpamProblem::NodeGone { addr, node: "n".into() }]);
    let lost = [10, 0, 0, 3].into();
    finds(
        |facts| facts.blocks[0].lost.push(lost),
        &[IpamProblem::Lost { addr: lost, block: block() }],
    );
}

#[test]
fn addresses_that_two_may_have_are_found() {
    let free: IpAddr = [10, 0, 0, 2].into();
    finds(
        |facts| {
            facts.users.insert(free, vec!["pod w".into()]);
            facts.users.insert([192, 0, 2, 1].into(), vec!["pod of another network".into()]);
        },
        &[IpamProblem::NotTaken { addr: free, user: "pod w".into() }],
    );
    finds(
        |facts| facts.users.values_mut().for_each(|users| users.push("pod w".into())),
        &[IpamProblem::Shared { addr: pod(), users: vec!["pod v".into(), "pod w".into()] }],
    );
    let inner: Prefix = "10.0.0.2/31".parse().unwrap();
    let none = BlockFacts { cidr: inner, affinity: None, taken: vec![], lost: vec![] };
    finds(move |facts| facts.blocks.push(none), &[IpamProblem::Overlap(block(), inner)]);
}

#[test]
fn counts_that_are_wrong_are_found() {
    for (said, has) in [(3, 1), (0, 1)] {
        let wrong = IpamProblem::Count { handle: handle(), block: block(), said, has };
        let counts: BTreeMap<_, _> = (said > 0).then_some((block(), said)).into_iter().collect();
        finds(move |facts| drop(facts.handles.insert(handle(), counts)), &[wrong]);
    }
}

#[test]
fn claims_and_blocks_that_do_not_meet_are_found() {
    let elsewhere: Prefix = "10.0.0.8/30".parse().unwrap();
    let state = AffinityState::Pending;
    finds(
        |facts| facts.affinities.extend([((host("n"), elsewhere), state)]),
        &[IpamProblem::NoBlock { affinity: host("n"), block: elsewhere, state }],
    );
    finds(
        |facts| facts.affinities.clear(),
        &[IpamProblem::NoClaim { affinity: host("n"), block: block() }],
    );
    let owner = Some(host("n"));
    finds(
        |facts| facts.affinities.extend([((host("m"), block()), state)]),
        &[IpamProblem::OtherClaim { block: block(), owner, claimer: host("m"), state }],
    );
    finds(|facts| facts.pools.clear(), &[IpamProblem::OutsidePools(block())]);
}

/// A change of sound facts brings its problems, and no others.
fn finds(change: impl FnOnce(&mut IpamFacts), wanted: &[IpamProblem]) {
    let mut facts = facts();
    change(&mut facts);
    assert_eq!(facts.problems(), wanted);
}

#[test]
fn only_what_nobody_has_may_go() {
    let taken = |f: &IpamFacts| f.may_go(&f.blocks[0].taken[0]);
    let mut unused = facts();
    unused.users.clear();
    // Its handle and its node are there: whoever took it may only not have said so yet.
    assert!(!taken(&unused));
    let mut gone = unused.clone();
    gone.nodes.clear();
    assert!(taken(&gone));
    let mut orphan = unused.clone();
    orphan.handles.clear();
    assert!(taken(&orphan));
    // Somebody uses it all the same.
    orphan.users = facts().users;
    assert!(!taken(&orphan));
}

#[test]
fn what_windows_reserves_has_no_handle_object_and_stays() {
    let mut facts = facts();
    let reserved = TakenFacts {
        addr: [10, 0, 0, 1].into(),
        handle: Some("Windows-Reserved-IPAM-Handle".parse().unwrap()),
        attributes: [("note".to_owned(), "windows host rsvd".to_owned())].into(),
        ..facts.blocks[0].taken[0].clone()
    };
    facts.blocks[0].taken.push(reserved);
    assert_eq!(facts.problems(), []);
    assert!(!facts.may_go(&facts.blocks[0].taken[1]));
}

fn pod() -> IpAddr {
    [10, 0, 0, 0].into()
}

fn block() -> Prefix {
    "10.0.0.0/30".parse().unwrap()
}

fn handle() -> HandleId {
    "h".parse().unwrap()
}

fn host(name: &str) -> Affinity {
    Affinity::Host(name.parse().unwrap())
}

fn facts() -> IpamFacts {
    let taken = TakenFacts {
        addr: pod(),
        handle: Some(handle()),
        attributes: [("node".to_owned(), "n".to_owned())].into(),
        sequence: 1,
    };
    IpamFacts {
        pools: [("p".parse().unwrap(), "10.0.0.0/16".parse().unwrap())].into(),
        blocks: vec![BlockFacts {
            cidr: block(),
            affinity: Some(host("n")),
            taken: vec![taken],
            lost: Vec::new(),
        }],
        handles: [(handle(), [(block(), 1)].into())].into(),
        affinities: [((host("n"), block()), AffinityState::Confirmed)].into(),
        nodes: ["n".to_owned()].into(),
        users: [(pod(), vec!["pod v".to_owned()])].into(),
    }
}

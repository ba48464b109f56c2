use super::*;
use crate::model::Flag;

#[test]
fn a_peer_is_added_once_the_node_s_own_commands_have_ended() {
    let mut node = Node::new(Kept::default());
    node.want(&Wanted { prepare: ["pre".into()].into(), ..Wanted::default() });
    assert_eq!(node.run(), ["pre <"]);
    assert_eq!(node.errands.prepared()["pre"].as_deref(), Ok("out of pre"));
    node.want(&Wanted { start: Some(task("post", "")), ..peers(&["1 x"]) });
    assert_eq!(node.run(), ["post <", "add 1 < x"]);
    assert!(node.run().is_empty());
}

#[test]
fn a_peer_that_changes_is_taken_away_as_it_was_and_added_as_it_is() {
    let mut node = Node::new(Kept::default());
    node.want(&peers(&["1 x", "2 x"]));
    assert_eq!(node.run(), ["add 1 < x", "add 2 < x"]);
    node.want(&peers(&["1 y", "2 x"]));
    assert_eq!(node.run(), ["remove 1 < x", "add 1 < y"]);
}

#[test]
fn nobody_is_taken_away_before_all_is_known() {
    let mut node = Node::new(Kept::default());
    node.want(&peers(&["1 x"]));
    node.run();
    node.want(&Wanted { sweeps: Flag::Off, ..peers(&[]) });
    assert!(node.run().is_empty());
    node.want(&peers(&[]));
    assert_eq!(node.run(), ["remove 1 < x"]);
    node.now = node.errands.poll_timeout().unwrap();
    node.keep();
    assert_eq!(node.kept, Kept::default());
}

/// Each is a file that is written whole, and waited for.
#[test]
fn a_cluster_that_leaves_is_not_kept_anew_peer_by_peer() {
    let all: Vec<_> = (1..=200).map(|n| format!("{n} x")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let mut node = Node::new(Kept::default());
    node.want(&peers(&all));
    assert_eq!(node.run().len(), 200);
    let before = node.times_kept;
    node.want(&peers(&[]));
    assert_eq!(node.run().len(), 200);
    node.now = node.errands.poll_timeout().unwrap();
    assert!(node.run().is_empty());
    assert_eq!((node.times_kept, node.kept.visits.len()), (before + 1, 0));
    assert_eq!(node.errands.poll_timeout(), None);
}

#[test]
fn whoever_was_begun_is_kept_before_it_is_run_and_taken_away_by_the_next_life() {
    let mut node = Node::new(Kept::default());
    node.want(&peers(&["1 x", "2 x"]));
    assert!(node.errands.poll_run(node.now).is_some());
    assert_eq!(node.kept.visits.len(), 2, "before anything was run");
    let mut next = Node::new(node.kept);
    next.want(&peers(&["2 x"]));
    assert_eq!(next.run(), ["remove 1 < x", "add 2 < x"], "and whoever is there is added again");
}

#[test]
fn a_failure_is_tried_again_ever_later_and_holds_up_nobody() {
    let mut node = Node::new(Kept::default());
    node.fails = Some("add 1 < x");
    node.want(&peers(&["1 x", "2 x"]));
    assert_eq!(node.run(), ["add 1 < x", "add 2 < x"]);
    let problem = node.errands.problems().next().unwrap();
    assert_eq!((problem.name, &*problem.reason), ("SubnetAddCommand", "it failed"));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let due = node.errands.poll_timeout().unwrap();
        pauses.push(due.duration_since(node.now).as_secs());
        node.now = due;
        assert_eq!(node.run(), ["add 1 < x"]);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    node.fails = None;
    node.now += LONGEST_PAUSE;
    node.run();
    assert_eq!(node.errands.problems().count(), 0);
    assert_eq!(node.errands.poll_timeout(), None);
}

#[test]
fn what_cannot_be_taken_away_is_given_up_and_is_in_nobody_s_way() {
    let mut node = Node::new(Kept::default());
    node.want(&peers(&["1 x", "2 x"]));
    node.run();
    node.fails = Some("remove");
    node.want(&peers(&["1 y"]));
    let mut ran = node.run();
    while let Some(due) = node.errands.poll_timeout() {
        node.now = due;
        ran.extend(node.run());
    }
    let count = |what: &str| ran.iter().filter(|line| *line == what).count();
    assert_eq!((count("remove 1 < x"), count("add 1 < y")), (1, 1), "{ran:?}");
    assert_eq!(count("remove 2 < x"), 3, "{ran:?}");
    assert_eq!(node.kept.visits.len(), 1);
}

#[test]
fn a_few_that_hang_do_not_stop_the_others() {
    let mut node = Node::new(Kept::default());
    node.want(&peers(&["1 x", "2 x", "3 x", "4 x", "5 x", "6 x"]));
    let mut hang: Vec<_> = std::iter::from_fn(|| node.errands.poll_run(node.now)).collect();
    assert_eq!(hang.len(), AT_A_TIME);
    assert_eq!(node.errands.poll_timeout(), None, "nothing to wake up for");
    let run = hang.pop().unwrap();
    node.errands.ended(&run.errand, Ok(String::new()), node.now);
    assert_eq!(node.run().len(), 2);
}

#[test]
fn one_output_that_was_good_counts_until_there_is_another() {
    let outputs = BTreeMap::from([("pre".into(), "old".into())]);
    let mut node = Node::new(Kept { outputs, ..Kept::default() });
    node.fails = Some("pre <");
    node.want(&Wanted { prepare: ["pre".into()].into(), ..Wanted::default() });
    assert_eq!(node.run(), ["pre <"]);
    assert_eq!(node.errands.prepared()["pre"].as_deref(), Ok("old"));
    assert_eq!(node.errands.problems().count(), 1);
    node.fails = None;
    node.now += FIRST_PAUSE;
    node.run();
    assert_eq!(node.errands.prepared()["pre"].as_deref(), Ok("out of pre"));
}

/// A node whose commands end at once.
struct Node {
    errands: Errands,
    now: Instant,
    kept: Kept,
    times_kept: usize,
    /// What every line that has this in it comes to.
    fails: Option<&'static str>,
}

impl Node {
    fn new(kept: Kept) -> Self {
        let errands = Errands::new(kept.clone());
        Self { errands, now: Instant::now(), kept, times_kept: 0, fails: None }
    }

    fn want(&mut self, wanted: &Wanted) {
        self.errands.want(wanted.clone(), self.now);
        self.keep();
    }

    fn keep(&mut self) {
        if let Some(kept) = self.errands.take_kept(self.now) {
            self.kept = kept;
            self.times_kept += 1;
        }
    }

    /// Runs all that is due, and says what was run.
    fn run(&mut self) -> Vec<String> {
        self.keep();
        let mut ran = Vec::new();
        while let Some(Run { errand, task, .. }) = self.errands.poll_run(self.now) {
            let input = Some(&*task.input).filter(|input| !input.is_empty());
            let line =
                format!("{} <{}", task.command, input.map_or(String::new(), |i| format!(" {i}")));
            let failed = self.fails.is_some_and(|part| line.contains(part));
            let result = if failed {
                Err("it failed".to_owned())
            } else {
                Ok(format!("out of {}", task.command))
            };
            ran.push(line);
            self.errands.ended(&errand, result, self.now);
            self.keep();
        }
        ran
    }
}

/// Peers by the number of their subnet, and what their leases say.
fn peers(all: &[&str]) -> Wanted {
    let visit = |text: &&str| {
        let (n, data) = text.split_once(' ').unwrap();
        let key = LeaseKey::new(format!("10.50.{n}.0/24").parse().ok(), None).unwrap();
        let task = |what: &str| Some(task(&format!("{what} {n}"), data));
        (key, Visit { add: task("add"), remove: task("remove") })
    };
    let visits = all.iter().map(visit).collect();
    Wanted { visits, sweeps: Flag::On, ..Wanted::default() }
}

fn task(command: &str, input: &str) -> Task {
    Task { command: command.into(), environment: Arc::default(), input: input.into() }
}

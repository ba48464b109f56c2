//! A day's worth of rekeys, in simulated time.

use std::time::Duration;

use russet_engine_simulated::{Plan, run};

#[test]
fn a_day_of_rekeys_loses_no_packet() {
    for seed in 1..=3 {
        let outcome = run(Plan { seed, length: DAY, lost: 0, silences: false });
        assert_eq!((outcome.missing.len(), outcome.doubled), (0, 0), "seed {seed}");
        assert!((170_000..176_000).contains(&outcome.sealed), "{}", outcome.sealed);
        // Keys are made anew after 120 s.
        assert!((700..=725).contains(&outcome.handshakes), "{}", outcome.handshakes);
        assert!(outcome.sessions >= 2 * 700, "{}", outcome.sessions);
    }
}

/// boringtun keeps eight sessions, and each greeting takes the place of one: when a handshake fails eight times in a row,
/// which is 40 s, what comes by the session in use is lost, and the next one is used before the peer has confirmed it. Of
/// a tenth that is lost that does not happen.
#[test]
fn greetings_and_answers_may_be_lost_and_no_packet_is() {
    for seed in 11..=13 {
        let outcome = run(Plan { seed, length: DAY, lost: 10, silences: false });
        assert_eq!((outcome.missing.len(), outcome.doubled), (0, 0), "seed {seed}");
        // One that is lost is sent again after 5 s.
        assert!((690..=725).contains(&outcome.handshakes), "{}", outcome.handshakes);
    }
}

#[test]
fn silences_longer_than_a_session_cost_nothing() {
    for seed in 21..=26 {
        let outcome = run(Plan { seed, length: DAY, lost: 10, silences: true });
        assert_eq!((outcome.missing.len(), outcome.doubled), (0, 0), "seed {seed}");
        assert!(outcome.handshakes > 100, "{}", outcome.handshakes);
        assert!(outcome.at_the_end < 20, "{}", outcome.at_the_end);
    }
}

const DAY: Duration = Duration::from_hours(24);

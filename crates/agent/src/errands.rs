//! Runs the operator's commands (flannel's `extension`): a task that keeps, starts, waits and reports, and decides
//! nothing. What is run when is `core::errand`'s.
//!
//! ```text
//!   owner ── what is wanted (watch) ──▶ here ── Input::Errands ──▶ owner
//!                                       │  │
//!                          kept on disk ◀  ▶ at most a few processes, each with a bound of time and output
//! ```
//!
//! A disk that cannot be written to is told, and does not keep the network from being laid.

mod kept;
mod process;

use std::{path::PathBuf, time::Instant};

use russet_core::{
    errand::{Errand, Errands, Kept, Problem, Run, Wanted},
    model::Prepared,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{disk, one_line, owner::Input, until};

/// What the commands came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub prepared: Prepared,
    pub problems: Vec<Problem>,
}

/// Works until nobody wants anything any more. What still runs then is killed, and run again in the next life.
pub async fn serve(path: PathBuf, wanted: watch::Receiver<Wanted>, owner: mpsc::Sender<Input>) {
    let kept = kept::load(&disk::Files, &path).unwrap_or_else(|error| {
        tracing::error!(op = "read errands", path = %path.display(), error = %one_line(&error), "it is passed over");
        Kept::default()
    });
    let errands = Errands::new(kept);
    Desk { errands, path, owner, told: Report::default(), running: JoinSet::new() }
        .serve(wanted)
        .await;
}

/// What was run, and what it printed or what went wrong.
type Ended = (Run, Result<String, String>);

struct Desk {
    errands: Errands,
    path: PathBuf,
    owner: mpsc::Sender<Input>,
    told: Report,
    running: JoinSet<Ended>,
}

impl Desk {
    async fn serve(mut self, mut wanted: watch::Receiver<Wanted>) {
        loop {
            self.keep().await;
            while let Some(run) = self.errands.poll_run(Instant::now()) {
                self.running.spawn(carry_out(run));
            }
            if self.report().await.is_none() {
                return;
            }
            let due = self.errands.poll_timeout();
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = wanted.borrow_and_update().clone();
                    self.errands.want(wanted, Instant::now());
                }
                Some(Ok(ended)) = self.running.join_next() => self.ended(ended),
                () = until(due) => {}
            }
            // Writing what is kept is waited for, so what else has ended goes into the same.
            while let Some(Ok(ended)) = self.running.try_join_next() {
                self.ended(ended);
            }
        }
    }

    fn ended(&mut self, (run, result): Ended) {
        say(&run, &result);
        self.errands.ended(&run.errand, result, Instant::now());
    }

    async fn keep(&mut self) {
        let Some(kept) = self.errands.take_kept(Instant::now()) else { return };
        let path = self.path.clone();
        let saved = move || kept::save(&disk::Files, &path, &kept).map_err(|err| one_line(&err));
        let saved = tokio::task::spawn_blocking(saved).await;
        if let Err(error) = saved.unwrap_or_else(|err| Err(err.to_string())) {
            tracing::error!(op = "keep errands", path = %self.path.display(), %error, "who leaves while the agent is away may not be taken away");
            self.errands.not_kept();
        }
    }

    /// Tells the owner what is other than before; `None` when there is no owner.
    async fn report(&mut self) -> Option<()> {
        let report = Report {
            prepared: self.errands.prepared(),
            problems: self.errands.problems().take(MOST_PROBLEMS).collect(),
        };
        if report == self.told {
            return Some(());
        }
        self.told = report.clone();
        self.owner.send(Input::Errands(report)).await.ok()
    }
}

async fn carry_out(run: Run) -> Ended {
    let result = process::run(&run.task).await.and_then(|printed| match &run.errand {
        Errand::Prepare(_) => printed.into_text(),
        Errand::Start | Errand::Peer(_) => Ok(String::new()),
    });
    (run, result)
}

fn say(run: &Run, result: &Result<String, String>) {
    let (name, peer) = (run.name, run.task.environment.get("SUBNET").map(String::as_str));
    match result {
        Ok(_) => tracing::info!(op = "run command", name, peer, "it ended well"),
        Err(reason) => tracing::warn!(op = "run command", name, peer, %reason, "it failed"),
    }
}

/// As many as a status shows.
const MOST_PROBLEMS: usize = russet_api::admin::SHOWN;

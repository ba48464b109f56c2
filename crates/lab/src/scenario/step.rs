//! Does what a step says.

use std::thread;

use anyhow::Result;
use serde_json::Value;

use super::Lab;
use crate::{
    control::{Request, RouteLine},
    topology::Step,
};

impl Lab {
    pub(super) fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Wait(period) => {
                thread::sleep(period.0);
                Ok(())
            }
            Step::Expect(eventually) => self.eventually(eventually),
            Step::Exec(command) => self.ends_as_wanted(command),
            Step::Restart(at) => {
                let (node, process) = (at.node.clone(), at.process.to_string());
                self.order(&Request::Stop { node: node.clone(), process: process.clone() })?;
                self.order(&Request::Start { node, process })
            }
            Step::DeleteRoute(route) => {
                let found = self.matching(route)?;
                if found.is_empty() {
                    self.no_such_route(route, 0)?;
                }
                let delete = |line: RouteLine| Request::DeleteRoute {
                    place: route.node.clone(),
                    dst: line.dst,
                };
                found.into_iter().map(delete).try_for_each(|request| self.order(&request))
            }
            step => request(step).map_or(Ok(()), |request| self.order(&request)),
        }
    }

    fn order(&self, request: &Request) -> Result<()> {
        self.client.ask(request).map(drop)
    }
}

/// The steps that are one request to the lab.
fn request(step: &Step) -> Option<Request> {
    let request = match step {
        Step::Apply { key, value } => {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Request::Put { key: key.clone(), value }
        }
        Step::Start(at) => {
            Request::Start { node: at.node.clone(), process: at.process.to_string() }
        }
        Step::Stop(at) => Request::Stop { node: at.node.clone(), process: at.process.to_string() },
        Step::Kill(kill) => Request::Signal {
            node: kill.node.clone(),
            process: kill.process.to_string(),
            signal: kill.signal,
        },
        Step::Cut(cut) => Request::Cut { link: cut.link.clone(), how: cut.how },
        Step::Heal(heal) => Request::Heal { link: heal.link.clone() },
        Step::DeleteLink(at) => {
            Request::DeleteLink { place: at.place.to_string(), link: at.link.to_string() }
        }
        Step::AddPod(pod) => Request::AddPod { pod: pod.clone() },
        Step::RemovePod(pod) => Request::RemovePod { pod: pod.clone() },
        Step::Restart(_)
        | Step::DeleteRoute(_)
        | Step::Exec(_)
        | Step::Wait(_)
        | Step::Expect(_) => return None,
    };
    Some(request)
}

//! Steps and conditions in words.

use std::fmt::{self, Display, Formatter};

use russet_net::Family;

use crate::topology::{
    self,
    form::{Always, By, Command, CutHow, Eventually, Reach, Route},
};

pub(super) struct Step<'a>(pub(super) &'a topology::Step);
pub(super) struct Condition<'a>(pub(super) &'a Eventually);
pub(super) struct Quiet<'a>(pub(super) &'a topology::form::Quiet);
pub(super) struct Watch<'a>(pub(super) &'a Always);

impl Display for Step<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use topology::Step as S;
        match self.0 {
            S::Apply { key, .. } => write!(f, "put {key}"),
            S::Start(at) => write!(f, "start {} on {}", at.process, at.node),
            S::Stop(at) => write!(f, "stop {} on {}", at.process, at.node),
            S::Restart(at) => write!(f, "restart {} on {}", at.process, at.node),
            S::Kill(kill) => {
                let signal = format!("{:?}", kill.signal).to_uppercase();
                write!(f, "kill -{signal} {} on {}", kill.process, kill.node)
            }
            S::Cut(cut) => match cut.how {
                CutHow::Carrier => write!(f, "pull the cable of {}", cut.link),
                CutHow::Silent => write!(f, "cut {} silently", cut.link),
            },
            S::Heal(heal) => write!(f, "mend {}", heal.link.as_deref().unwrap_or("all links")),
            S::DeleteRoute(route) => {
                write!(f, "delete on {} the routes {}", route.node, To(route))
            }
            S::DeleteLink(at) => write!(f, "delete the link {at}"),
            S::Exec(command) => write!(f, "{}", Words(command)),
            S::AddPod(pod) => write!(f, "add pod {pod}"),
            S::RemovePod(pod) => write!(f, "remove pod {pod}"),
            S::Wait(period) => write!(f, "wait {period}"),
            S::Expect(eventually) => write!(f, "wait until {}", Condition(eventually)),
        }
    }
}

impl Display for Condition<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let condition = self.0;
        if let Some(reach) = &condition.reach {
            return write!(f, "{} reaches {}", reach.from, Way(reach));
        }
        if let Some(reach) = &condition.not_reach {
            return write!(f, "{} does not reach {}", reach.from, Way(reach));
        }
        if let Some(packet) = &condition.packet {
            let fields: Vec<_> = packet.fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let fields = fields.join(" ").replace('"', "");
            return write!(f, "on {} passes {fields}", packet.on);
        }
        if let Some(route) = &condition.route {
            return write!(f, "{} has a route {}", route.node, To(route));
        }
        if let Some(route) = &condition.no_route {
            return write!(f, "{} has no route {}", route.node, To(route));
        }
        if let Some(counter) = &condition.counter {
            write!(f, "{} of {}", counter.name.as_str(), counter.on)?;
            let least = counter.at_least.map(|n| format!(" is at least {n}")).unwrap_or_default();
            let most = counter.at_most.map(|n| format!(" is at most {n}")).unwrap_or_default();
            return write!(f, "{least}{most}");
        }
        condition.output.as_ref().map_or(Ok(()), |command| write!(f, "{}", Words(command)))
    }
}

impl Display for Watch<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "always {} reaches {}", self.0.reach.from, Way(&self.0.reach))
    }
}

impl Display for Quiet<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let topology::form::Quiet { node, process, cpu, lines } = self.0;
        write!(f, "{process} on {node} uses at most {cpu} and {lines} lines")
    }
}

struct Way<'a>(&'a Reach);

impl Display for Way<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let by = match self.0.by {
            By::Icmp => "icmp",
            By::Tcp => "tcp",
            By::Udp => "udp",
        };
        write!(f, "{} by {by}, {}", self.0.to, Family::from(self.0.family))
    }
}

struct To<'a>(&'a Route);

impl Display for To<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Route { dst, within, via, link, count, .. } = self.0;
        dst.map_or(Ok(()), |dst| write!(f, "to {dst}"))?;
        within.map_or(Ok(()), |within| write!(f, "within {within}"))?;
        via.as_ref().map_or(Ok(()), |via| write!(f, " via {via}"))?;
        link.as_ref().map_or(Ok(()), |link| write!(f, " on {link}"))?;
        count.map_or(Ok(()), |count| write!(f, ", {count} of them"))
    }
}

struct Words<'a>(&'a Command);

impl Display for Words<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.command.iter().map(|word| word.replace('\n', " ")).collect();
        write!(f, "{}: {}", self.0.on, words.join(" "))
    }
}

//! Whether a condition holds: looked at again and again until it does or its time is over.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Lab;
use crate::{
    capture::{Capture, Frame},
    control::{Reply, Request, RouteLine},
    topology::form::{By, Command, Counter, Eventually, Packet, Reach, Route},
};

impl Lab {
    /// Waits until the condition holds.
    pub(super) fn eventually(&self, eventually: &Eventually) -> Result<()> {
        let within = eventually.within.map_or(WITHIN, |period| period.0);
        let until = Instant::now() + within;
        loop {
            let Err(err) = self.holds(eventually) else { return Ok(()) };
            if Instant::now() >= until {
                return Err(err.context(format!("not within {within:?}")));
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Looks once.
    fn holds(&self, condition: &Eventually) -> Result<()> {
        // The topology's check has seen to it that exactly one is given.
        if let Some(reach) = &condition.reach {
            return self.reaches(reach);
        }
        if let Some(reach) = &condition.not_reach {
            return match self.reaches(reach) {
                Ok(()) => bail!("an answer came"),
                Err(_) => Ok(()),
            };
        }
        if let Some(packet) = &condition.packet {
            return self.sees(packet);
        }
        if let Some(route) = &condition.route {
            let found = self.matching(route)?;
            let wanted = route.count.unwrap_or(1);
            return if found.len() >= wanted {
                Ok(())
            } else {
                self.no_such_route(route, found.len())
            };
        }
        if let Some(route) = &condition.no_route {
            let found = self.matching(route)?;
            return match found.first() {
                Some(line) => bail!("there is {}", show(line)),
                None => Ok(()),
            };
        }
        if let Some(counter) = &condition.counter {
            return self.counts(counter);
        }
        match &condition.output {
            Some(command) => self.ends_as_wanted(command),
            None => bail!("there is no condition"),
        }
    }

    fn reaches(&self, reach: &Reach) -> Result<()> {
        let command = self.probe(reach, &["--count", "1", "--timeout", "500"])?;
        match self.exec(&reach.from, command)? {
            (0, _) => Ok(()),
            (_, text) => bail!("{}", text.trim()),
        }
    }

    /// The prober's command line for one way.
    pub(super) fn probe(&self, reach: &Reach, more: &[&str]) -> Result<Vec<String>> {
        let to = self.address_of(&reach.to, reach.family.into())?;
        let kind = match reach.by {
            By::Icmp => "ping",
            By::Tcp => "tcp",
            By::Udp => "udp",
        };
        let to = match reach.port {
            Some(port) if reach.by != By::Icmp => std::net::SocketAddr::new(to, port).to_string(),
            _ => to.to_string(),
        };
        let words = [kind, "--to", &to].into_iter().chain(more.iter().copied());
        Ok(self.programs.probe(&words.map(str::to_owned).collect::<Vec<_>>()))
    }

    /// Listens first, then sends, so that the packet cannot have passed before.
    fn sees(&self, packet: &Packet) -> Result<()> {
        let on = &packet.on;
        let request = Request::Capture { place: on.place.to_string(), link: on.link.to_string() };
        let (_, sockets) = self.client.ask_with(&request, &[])?;
        let socket = sockets.into_iter().next().ok_or_else(|| anyhow!("no socket came"))?;
        let wanted = self.wanted(packet)?;
        let command = self.probe(&packet.meanwhile, &["--count", "5", "--interval", "50"])?;
        let mut last = None;
        let seen = thread::scope(|scope| {
            let sender = scope.spawn(|| self.exec(&packet.meanwhile.from, command));
            let mut capture = Capture::new(socket);
            let until = Instant::now() + LISTEN;
            let seen = loop {
                let Some(octets) = capture.next(until)? else { break false };
                let frame = Frame::decode(octets);
                match missing(&frame, &wanted) {
                    None => break true,
                    Some(why) => last = Some((why, frame)),
                }
            };
            let _ = sender.join();
            Ok::<_, anyhow::Error>(seen)
        })?;
        match last {
            _ if seen => Ok(()),
            Some((why, frame)) => bail!("no such packet; the last one seen: {why}\n{frame}"),
            None => bail!("no packet was seen"),
        }
    }

    /// The values that each field may have: a name stands for its addresses.
    fn wanted(&self, packet: &Packet) -> Result<BTreeMap<String, String>> {
        let mut wanted = BTreeMap::new();
        for (field, value) in &packet.fields {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let named = self.topology.node(&text).is_some() || self.topology.pod(&text).is_some();
            let is_address = field.ends_with("src") || field.ends_with("dst");
            let text = if named && is_address {
                // The outer header is of the underlay's family; only what is inside follows the probe's.
                let outer = field.starts_with("outer");
                let family = packet.meanwhile.family.into();
                let addr = self.address_of(&text, family);
                let other = || self.address_of(&text, other_family(family));
                if outer {
                    self.address_of(&text, russet_net::Family::V4).or_else(|_| other())?
                } else {
                    addr?
                }
                .to_string()
            } else {
                text
            };
            wanted.insert(field.clone(), text);
        }
        Ok(wanted)
    }

    pub(super) fn matching(&self, route: &Route) -> Result<Vec<RouteLine>> {
        let request = Request::Routes { place: route.node.clone() };
        let Reply::Routes(lines) = self.client.ask(&request)? else { bail!("no routes came") };
        let via = route.via.as_deref();
        let family = route.dst.or(route.within).map(|cidr| cidr.0.family());
        let family = family.unwrap_or(russet_net::Family::V4);
        let via = via.map(|via| self.address_of(via, family)).transpose()?;
        let fits = |line: &RouteLine| {
            let dst = line.dst.parse::<russet_net::Prefix>().ok();
            route.dst.is_none_or(|wanted| dst == Some(wanted.0))
                && route.within.is_none_or(|wanted| {
                    dst.is_some_and(|dst| wanted.0.family() == dst.family() && wanted.0.covers(dst))
                })
                && via.is_none_or(|via| line.via == Some(via))
                && route.link.as_ref().is_none_or(|link| line.link == *link)
        };
        Ok(lines.into_iter().filter(fits).collect())
    }

    pub(super) fn no_such_route(&self, route: &Route, found: usize) -> Result<()> {
        let request = Request::Routes { place: route.node.clone() };
        let Reply::Routes(lines) = self.client.ask(&request)? else { bail!("no routes came") };
        let lines: Vec<_> = lines.iter().map(show).collect();
        bail!("{found} such routes; the node has:\n{}", lines.join("\n"))
    }

    fn counts(&self, counter: &Counter) -> Result<()> {
        let on = &counter.on;
        let request = Request::Counters { place: on.place.to_string(), link: on.link.to_string() };
        let Reply::Counters(counters) = self.client.ask(&request)? else {
            bail!("no counters came")
        };
        let name = counter.name.as_str();
        let found = counters.iter().find(|(known, _)| known == name);
        let (_, value) = found.with_context(|| format!("{on} has no counter {name}"))?;
        let low = counter.at_least.is_some_and(|least| *value < least);
        let high = counter.at_most.is_some_and(|most| *value > most);
        if low || high {
            bail!("{name} of {on} is {value}");
        }
        Ok(())
    }

    pub(super) fn ends_as_wanted(&self, command: &Command) -> Result<()> {
        let (status, text) = self.exec(&command.on, command.command.clone())?;
        let shown = text.trim();
        if status != command.status {
            bail!("exit status {status}: {shown}");
        }
        if let Some(part) = command.contains.as_ref().filter(|part| !text.contains(*part)) {
            bail!("{part:?} is not in: {shown}");
        }
        if let Some(part) = command.lacks.as_ref().filter(|part| text.contains(*part)) {
            bail!("{part:?} is in: {shown}");
        }
        Ok(())
    }
}

/// The first field that is not as wanted.
fn missing(frame: &Frame, wanted: &BTreeMap<String, String>) -> Option<String> {
    let fields = frame.fields();
    wanted.iter().find_map(|(field, value)| match fields.get(field.as_str()) {
        Some(got) if got == value => None,
        Some(got) => Some(format!("{field} is {got}, wanted is {value}")),
        None => Some(format!("it has no {field}, wanted is {value}")),
    })
}

fn other_family(family: russet_net::Family) -> russet_net::Family {
    match family {
        russet_net::Family::V4 => russet_net::Family::V6,
        russet_net::Family::V6 => russet_net::Family::V4,
    }
}

fn show(line: &RouteLine) -> String {
    let via = line.via.map(|via| format!(" via {via}")).unwrap_or_default();
    format!("{}{via} dev {} proto {}", line.dst, line.link, line.protocol)
}

const WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longer than five questions take.
const LISTEN: Duration = Duration::from_millis(700);

//! What this node reports to whoever asks for its status (`CalicoNodeStatus`): the speaker, asked at its own socket as an
//! operator asks it.

use std::{
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use russet_api::{
    bgp::{Answer, Ask, PeerRow, Reply, Request, Status},
    calico::shown_moment,
    frame,
};
use russet_core::model::calico::{
    NodeReport, PeerKind, ReportedPeer, ReportedRoute, RouteSource, RouteUse, SessionState,
};
use tokio::sync::mpsc;

use crate::register::AskReport;

/// Tells whoever asks. A speaker that does not answer is one that is not ready.
pub async fn serve(socket: PathBuf, mut asked: mpsc::Receiver<AskReport>) {
    while let Some(ask) = asked.recv().await {
        let socket = socket.clone();
        let report = tokio::task::spawn_blocking(move || report(&socket)).await;
        // Nobody waits any more: it is asked for again.
        let _ = ask.send(report.ok().flatten().unwrap_or_default());
    }
}

fn report(socket: &Path) -> Option<NodeReport> {
    let Answer::Status(status) = ask(socket, Ask::Status { from: 0 })? else { return None };
    let mut peers = status.peers.rows.clone();
    while peers.len() < status.peers.total {
        let Answer::Status(more) = ask(socket, Ask::Status { from: peers.len() })? else { break };
        if more.peers.rows.is_empty() {
            break;
        }
        peers.extend(more.peers.rows);
    }
    let routes = ["ipv4", "ipv6"].into_iter().flat_map(|family| routes(socket, family, &peers));
    let routes = routes.take(MOST_ROUTES).collect();
    Some(of(&status, &peers, routes))
}

fn of(status: &Status, peers: &[PeerRow], routes: Vec<ReportedRoute>) -> NodeReport {
    NodeReport {
        ready: true,
        version: status.version.clone(),
        router_id: status.router_id.clone(),
        peers: peers.iter().filter_map(peer).collect(),
        routes,
        ..NodeReport::default()
    }
}

fn peer(row: &PeerRow) -> Option<ReportedPeer> {
    Some(ReportedPeer {
        ip: addr(&row.address)?,
        kind: kind(row),
        state: state(&row.state),
        since: row.up_s.map(since).unwrap_or_default(),
    })
}

fn kind(row: &PeerRow) -> PeerKind {
    match row.kind.as_deref() {
        Some("node-to-node mesh") => PeerKind::NodeMesh,
        Some("node specific") => PeerKind::NodePeer,
        _ => PeerKind::GlobalPeer,
    }
}

fn state(text: &str) -> SessionState {
    match text {
        "Established" => SessionState::Established,
        "OpenConfirm" => SessionState::OpenConfirm,
        "OpenSent" => SessionState::OpenSent,
        "Active" => SessionState::Active,
        "Connect" => SessionState::Connect,
        _ => SessionState::Idle,
    }
}

fn routes(socket: &Path, family: &str, peers: &[PeerRow]) -> Vec<ReportedRoute> {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(next) = from.filter(|_| all.len() < MOST_ROUTES) {
        let Some(Answer::Routes(page)) =
            ask(socket, Ask::Routes { family: family.to_owned(), from: next })
        else {
            break;
        };
        from = page.next;
        for row in page.rows {
            let Ok(dst) = row.prefix.parse() else { continue };
            all.extend(row.paths.iter().map(|path| ReportedRoute {
                dst,
                via: addr(&path.next_hop),
                link: None,
                used: if path.best { RouteUse::Forwarding } else { RouteUse::Known },
                source: source(&path.from, peers),
            }));
        }
    }
    all
}

fn source(from: &str, peers: &[PeerRow]) -> RouteSource {
    let row = peers.iter().find(|row| row.address == from);
    match (row, addr(from)) {
        (Some(row), Some(ip)) if kind(row) == PeerKind::NodeMesh => RouteSource::NodeMesh(ip),
        (_, Some(ip)) => RouteSource::BgpPeer(ip),
        (_, None) => RouteSource::Static,
    }
}

/// A link-local address bears its link.
fn addr(text: &str) -> Option<IpAddr> {
    text.split('%').next().unwrap_or_default().parse().ok()
}

fn since(up_s: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    shown_moment(now.saturating_sub(up_s).saturating_mul(NANOS))
}

fn ask(socket: &Path, ask: Ask) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    frame::write(&mut stream, &Request::new(ask)).ok()?;
    let reply: Reply = frame::read(&mut stream).ok()?;
    Some(reply.answer)
}

const NANOS: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(5);
/// An object of the store holds no more by far.
const MOST_ROUTES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_reported_as_calico_calls_it() {
        let row = PeerRow {
            address: "192.168.77.2".into(),
            kind: Some("node-to-node mesh".into()),
            state: "Established".into(),
            ..PeerRow::default()
        };
        let told = peer(&row).unwrap();
        assert_eq!((told.kind, told.state), (PeerKind::NodeMesh, SessionState::Established));
        let rows = [row];
        let mesh = RouteSource::NodeMesh([192, 168, 77, 2].into());
        assert_eq!(source("192.168.77.2", &rows), mesh);
        let other = RouteSource::BgpPeer([192, 168, 77, 3].into());
        assert_eq!(source("192.168.77.3", &rows), other);
        assert_eq!(source("local", &rows), RouteSource::Static);
    }
}

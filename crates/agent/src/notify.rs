//! Telling systemd that we are ready (`sd_notify(3)`): one datagram to the socket that it names.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixDatagram},
};

/// Sends `state` (`READY=1`, `STATUS=…`) when a service manager listens; otherwise nothing happens.
pub fn notify(state: &str) {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&name.to_string_lossy(), state)
    {
        tracing::warn!(op = "sd_notify", %error, "the service manager was not told");
    }
}

fn send(name: &str, state: &str) -> std::io::Result<()> {
    let addr = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@russet-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name[1..]).unwrap()).unwrap();
        for (socket, to) in [(by_path, path.to_str().unwrap()), (by_name, &name)] {
            send(to, "READY=1").unwrap();
            let mut buffer = [0; 32];
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"READY=1");
        }
    }
}

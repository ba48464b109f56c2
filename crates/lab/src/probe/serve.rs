//! Answers probers: echoes datagrams, and streams by their first octet.
//!
//! A datagram's answer must come from the address that was asked, so there is one socket for each address.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};

use crate::rtnl::Rtnl;

/// The first octet of a stream that is to be echoed.
pub(crate) const ECHO: u8 = b'e';
/// The first octet of a stream that is to be swallowed; its length is told at its end.
pub(crate) const SINK: u8 = b's';

/// Serves until the process ends.
pub(crate) fn run(port: u16) -> Result<ExitCode> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .with_context(|| format!("listen on TCP port {port}"))?;
    for addr in addresses()? {
        let socket = UdpSocket::bind(SocketAddr::new(addr, port))
            .with_context(|| format!("listen on UDP {addr} port {port}"))?;
        thread::spawn(move || echo_datagrams(&socket));
    }
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if busy.fetch_add(1, Ordering::Relaxed) >= MAX_STREAMS {
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let busy = Arc::clone(&busy);
        thread::spawn(move || {
            // Whoever asks and goes away is at no fault of ours.
            let _ = answer_stream(stream);
            busy.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Every address of this namespace that can be asked for without naming a link.
fn addresses() -> Result<Vec<IpAddr>> {
    let all = Rtnl::open()?.addresses()?.into_iter().map(|fact| fact.addr);
    Ok(all.filter(|addr| !matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buf = vec![0; 65_536];
    loop {
        // An error is one datagram's, not the socket's: unreachable, for example.
        if let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(buf.get(..len).unwrap_or_default(), from);
        }
    }
}

fn answer_stream(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut mode = [0];
    stream.read_exact(&mut mode)?;
    match mode {
        [ECHO] => io::copy(&mut stream.try_clone()?, &mut stream).map(drop),
        [SINK] => {
            let mut buf = vec![0; 256 * 1024];
            let mut total: u64 = 0;
            loop {
                match stream.read(&mut buf)? {
                    0 => break,
                    len => total += u64::try_from(len).unwrap_or_default(),
                }
            }
            stream.write_all(&total.to_be_bytes())
        }
        _ => Ok(()),
    }
}

const MAX_STREAMS: usize = 64;

//! Questions by UDP, and by TCP with a connection for each.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    pace::{Mark, Wire},
    serve::ECHO,
};

/// Questions by UDP from one socket.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: UdpSocket,
    mark: Mark,
    to: SocketAddr,
}

impl Udp {
    pub(crate) fn open(to: SocketAddr) -> Result<Self> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).context("open a UDP socket")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, mark: Mark::of_this_run(), to })
    }
}

impl Wire for Udp {
    // Not connected: then an ICMP error of one question would be told as an error of the next.
    fn ask(&mut self, number: u64) -> io::Result<()> {
        self.socket.send_to(&self.mark.write(number), self.to).map(drop)
    }

    fn answer(&mut self) -> io::Result<Option<u64>> {
        let mut buf = [0; 64];
        loop {
            match self.socket.recv_from(&mut buf) {
                Ok((len, from)) if from.ip() == self.to.ip() => {
                    if let Some(number) = buf.get(..len).and_then(|got| self.mark.read(got)) {
                        return Ok(Some(number));
                    }
                }
                Ok(_) => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(err) => return Err(err),
            }
        }
    }

    fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

/// Questions by TCP: connect, ask, hear, close. One at a time.
#[derive(Debug)]
pub(crate) struct Tcp {
    to: SocketAddr,
    timeout: Duration,
    mark: Mark,
    answer: Option<u64>,
}

impl Tcp {
    #[expect(clippy::unnecessary_wraps, reason = "as its neighbours")]
    pub(crate) fn open(to: SocketAddr, timeout: Duration) -> Result<Self> {
        Ok(Self { to, timeout, mark: Mark::of_this_run(), answer: None })
    }

    fn exchange(&self, number: u64) -> io::Result<Option<u64>> {
        let mut stream = TcpStream::connect_timeout(&self.to, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        let mut question = vec![ECHO];
        question.extend(self.mark.write(number));
        stream.write_all(&question)?;
        let mut answer = [0; Mark::LEN];
        stream.read_exact(&mut answer)?;
        Ok(self.mark.read(&answer))
    }
}

impl Wire for Tcp {
    fn ask(&mut self, number: u64) -> io::Result<()> {
        self.answer = self.exchange(number)?;
        Ok(())
    }

    fn answer(&mut self) -> io::Result<Option<u64>> {
        Ok(self.answer.take())
    }

    fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

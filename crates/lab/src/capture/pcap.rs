//! A capture file that tcpdump and Wireshark open.
//!
//! The format is a header of 24 octets and one of 16 before each packet; writing it takes less than a crate
//! for it would bring along (the usual one wants a second `syn`).

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

/// Writes packets to a capture file.
#[derive(Debug)]
pub struct Pcap<W> {
    out: W,
}

impl<W: Write> Pcap<W> {
    /// Begins a file.
    pub fn new(mut out: W) -> io::Result<Self> {
        // Nanoseconds, version 2.4, no zone, no accuracy, the longest packet, Ethernet; our byte order.
        out.write_all(&0xa1b2_3c4d_u32.to_ne_bytes())?;
        out.write_all(&2_u16.to_ne_bytes())?;
        out.write_all(&4_u16.to_ne_bytes())?;
        for number in [0_u32, 0, MAX_LEN, ETHERNET] {
            out.write_all(&number.to_ne_bytes())?;
        }
        Ok(Self { out })
    }

    /// Writes one packet that was seen at `at`.
    pub fn packet(&mut self, at: SystemTime, octets: &[u8]) -> io::Result<()> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = u32::try_from(octets.len()).unwrap_or(MAX_LEN).min(MAX_LEN);
        // Seconds in this format end with the year 2106.
        let seconds = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
        for number in [seconds, since.subsec_nanos(), kept, kept] {
            self.out.write_all(&number.to_ne_bytes())?;
        }
        let kept = usize::try_from(kept).unwrap_or_default();
        self.out.write_all(octets.get(..kept).unwrap_or(octets))?;
        self.out.flush()
    }
}

const MAX_LEN: u32 = 256 * 1024;
/// `LINKTYPE_ETHERNET`
const ETHERNET: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcpdump_reads_what_we_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut pcap = Pcap::new(file.reopen().unwrap()).unwrap();
        pcap.packet(UNIX_EPOCH, &super::super::decode::tests::vxlan_packet()).unwrap();

        let out = std::process::Command::new("tcpdump")
            .args(["-n", "-t", "-r"])
            .arg(file.path())
            .output()
            .expect("tcpdump is installed");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("192.168.1.11.41234 > 192.168.2.13.8472"), "{text}");
        assert!(text.contains("10.244.1.2 > 10.244.3.2: ICMP echo request, id 7, seq 3"), "{text}");
    }
}

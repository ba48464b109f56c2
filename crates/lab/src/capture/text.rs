//! A packet for a reader: one line for each header, the inner ones set in.

use std::fmt;

use super::decode::{Frame, Icmp, Tcp, Transport, Udp};

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        headers(self, "", f)
    }
}

fn headers(frame: &Frame, indent: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = ether_type(frame.ether_type);
    line(f, indent, "Ethernet", format_args!("{} → {}  {kind}", frame.src, frame.dst))?;
    behind_ethernet(frame, indent, f)
}

fn behind_ethernet(frame: &Frame, indent: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(arp) = &frame.arp {
        let what = if arp.operation == 1 {
            format!("who has {}? tell {}", arp.target, arp.sender)
        } else {
            format!("{} is here, {} asked", arp.sender, arp.target)
        };
        line(f, indent, "ARP", format_args!("{what}"))?;
    }
    if let Some(ip) = &frame.ip {
        let (version, hops) = if ip.src.is_ipv4() { ("IPv4", "ttl") } else { ("IPv6", "hops") };
        let fragment = if ip.fragment { "  fragment" } else { "" };
        line(
            f,
            indent,
            version,
            format_args!("{} → {}  {hops} {}{fragment}", ip.src, ip.dst, ip.ttl),
        )?;
    }
    match &frame.transport {
        Some(Transport::Icmp(icmp)) => icmp_line(*icmp, indent, f)?,
        Some(Transport::Tcp(tcp)) => tcp_line(tcp, indent, f)?,
        Some(Transport::Udp(udp)) => udp_lines(udp, indent, f)?,
        Some(Transport::Ip(inner)) => behind_ethernet(inner, &format!("{indent}    "), f)?,
        None => {}
    }
    match &frame.stopped {
        Some(reason) => line(f, indent, "…", format_args!("{reason}")),
        None => Ok(()),
    }
}

fn udp_lines(udp: &Udp, indent: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    line(f, indent, "UDP", format_args!("{} → {}  {} octets", udp.src, udp.dst, udp.length))?;
    let Some(vxlan) = &udp.vxlan else { return Ok(()) };
    line(f, indent, "VXLAN", format_args!("VNI {}  flags {:#04x}", vxlan.vni, vxlan.flags))?;
    headers(&vxlan.inner, &format!("{indent}    "), f)
}

fn tcp_line(tcp: &Tcp, indent: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Tcp { src, dst, seq, ack, flags, length } = tcp;
    line(
        f,
        indent,
        "TCP",
        format_args!("{src} → {dst}  [{flags}] seq {seq} ack {ack}  {length} octets"),
    )
}

fn icmp_line(icmp: Icmp, indent: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Icmp { kind, code, echo } = icmp;
    let name = match kind {
        8 | 128 => "echo request".to_owned(),
        0 | 129 => "echo reply".to_owned(),
        3 => "destination unreachable".to_owned(),
        11 => "time exceeded".to_owned(),
        135 => "neighbour solicitation".to_owned(),
        136 => "neighbour advertisement".to_owned(),
        kind => format!("type {kind}"),
    };
    match echo {
        Some((id, seq)) => line(f, indent, "ICMP", format_args!("{name}  id {id} seq {seq}")),
        None => line(f, indent, "ICMP", format_args!("{name}  code {code}")),
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    header: &str,
    what: fmt::Arguments<'_>,
) -> fmt::Result {
    writeln!(f, "{indent}{header:<9} {what}")
}

fn ether_type(number: u16) -> String {
    match number {
        0x0800 => "IPv4".to_owned(),
        0x86dd => "IPv6".to_owned(),
        0x0806 => "ARP".to_owned(),
        number => format!("{number:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_and_the_inner_headers_stand_one_below_the_other() {
        let text = Frame::decode(&super::super::decode::tests::vxlan_packet()).to_string();
        assert_eq!(
            text,
            "\
Ethernet  02:00:c0:a8:01:0b → 02:00:c0:a8:01:01  IPv4
IPv4      192.168.1.11 → 192.168.2.13  ttl 64
UDP       41234 → 8472  56 octets
VXLAN     VNI 1  flags 0x08
    Ethernet  02:00:00:00:00:01 → 02:00:00:00:00:03  IPv4
    IPv4      10.244.1.2 → 10.244.3.2  ttl 63
    ICMP      echo request  id 7 seq 3
"
        );
    }
}

//! What the kernel knows of pods: an address that it leads to whole is somebody's, whatever the records say.
//!
//! A pod that another plugin attached before us has no record of ours, and lives.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Reads the addresses that have a route of their own.
pub type HostRoutes = fn() -> io::Result<BTreeSet<IpAddr>>;

/// Those of this process's network namespace.
///
/// # Errors
///
/// When the kernel's tables cannot be read.
pub fn host_routes() -> io::Result<BTreeSet<IpAddr>> {
    let v4 = fs::read_to_string("/proc/self/net/route")?;
    let v6 = match fs::read_to_string("/proc/self/net/ipv6_route") {
        // A kernel without IPv6 has no such table.
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    Ok(v4.lines().filter_map(route_v4).chain(v6.lines().filter_map(route_v6)).collect())
}

/// `eth0 0101A8C0 00000000 0005 0 0 0 FFFFFFFF 0 0 0`: numbers in the machine's own order.
fn route_v4(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (dst, mask) = (words.next()?, words.nth(5)?);
    let octets = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes);
    (octets(mask)? == [0xff; 4]).then(|| Some(Ipv4Addr::from(octets(dst)?).into()))?
}

/// `fd000000000000000000000000000001 80 …`: the address, and its length in hex.
fn route_v6(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let (dst, len) = (words.next()?, words.next()?);
    let addr = u128::from_str_radix(dst, 16).ok().filter(|_| dst.len() == 32)?;
    (len == "80").then(|| Ipv6Addr::from_bits(addr).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_to_whole_addresses_are_found_and_no_others() {
        let word = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let line =
            |dst, mask| format!("cali1 {} 00000000 0005 0 0 0 {} 0 0 0", word(dst), word(mask));
        assert_eq!(route_v4(&line([10, 0, 0, 7], [255; 4])), Some([10, 0, 0, 7].into()));
        assert_eq!(route_v4(&line([10, 0, 0, 0], [255, 255, 255, 0])), None);
        assert_eq!(route_v4("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU"), None);
        let v6 = "fd000000000000000000000000000001 80 00 00 0 0 0 0 0 cali1";
        assert_eq!(route_v6(v6), "fd00::1".parse().ok());
        assert_eq!(route_v6(&v6.replace(" 80 ", " 40 ")), None);
        assert_eq!(route_v6(""), None);
    }
}

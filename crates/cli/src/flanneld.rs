//! `russet flanneld`, or this program under the name `flanneld`: the agent with flanneld's flags, files and exit codes.
//!
//! A unit file, a manifest or a script that starts flanneld starts this in its place. What cannot be right is said before
//! anything is touched: a word that is no flag ends with 2 as Go has it, everything else with 1.

mod flags;

use std::{
    env, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use russet_agent::config::{Config, Flanneld};

use self::flags::{Flags, Stop, Usage};
use crate::agent::{LogFormat, serve, start_logs_at};

/// The arguments, when this program is called by flanneld's name.
pub fn called_as_it() -> Option<Vec<String>> {
    let mut words = env::args();
    let name = words.next()?;
    let is_it = Path::new(&name).file_name()? == "flanneld";
    is_it.then(|| words.collect())
}

pub fn run(words: Vec<String>) -> Result<ExitCode> {
    let flags = match Flags::read(words, |name| env::var(name).ok()) {
        Ok(flags) => flags,
        Err(Stop::Help) => {
            eprint!("{Usage}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(Stop::Usage(fault)) => {
            eprint!("{fault}\n{Usage}");
            return Ok(ExitCode::from(BAD_FLAG));
        }
    };
    if flags.is_on("version") {
        eprintln!("russet {} as flanneld", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    if flags.is_on("kube-subnet-mgr") {
        bail!(NO_KUBERNETES);
    }
    // Its own kind of error would end with another code than flanneld's.
    let config = settings(&flags).check().map_err(|faults| anyhow!("{faults}"))?;
    russet_agent::look_for_uplink(&config.uplink)
        .map_err(|fault| anyhow!("find the link to the other nodes: {fault}"))?;
    russet_kernel::sys::share_one_heap();
    start_logs_at(LogFormat::Text, level(flags.number("v")));
    take_over_key(&config).context("take over flannel's WireGuard key")?;
    serve(config)
}

fn settings(flags: &Flags) -> Flanneld {
    let path = |name| flags.text(name).map(PathBuf::from);
    let endpoints = flags.text("etcd-endpoints").unwrap_or_default();
    Flanneld {
        node: env::var("NODE_NAME").ok().filter(|name| !name.is_empty()),
        etcd_endpoints: endpoints.split(',').map(|text| text.trim().to_owned()).collect(),
        etcd_prefix: flags.text("etcd-prefix"),
        etcd_keyfile: path("etcd-keyfile"),
        etcd_certfile: path("etcd-certfile"),
        etcd_cafile: path("etcd-cafile"),
        etcd_username: flags.text("etcd-username"),
        etcd_password: flags.text("etcd-password"),
        iface: flags.list("iface"),
        iface_regex: flags.list("iface-regex"),
        iface_can_reach: flags.text("iface-can-reach"),
        subnet_file: path("subnet-file"),
        public_ip: flags.text("public-ip"),
        public_ipv6: flags.text("public-ipv6"),
        subnet_lease_renew_margin: flags.number("subnet-lease-renew-margin"),
        ip_masq: flags.is_on("ip-masq"),
        fully_random: !flags.is_on("ip-masq-fully-random-disable"),
        forward_rules: flags.is_on("iptables-forward-rules"),
        blackhole_route: flags.is_on("ip-blackhole-route"),
        healthz: healthz(flags),
        wireguard_key: env::var_os("WIREGUARD_KEY_FILE").map(PathBuf::from),
    }
}

/// Port 0 is off.
fn healthz(flags: &Flags) -> Option<String> {
    let port = Some(flags.number("healthz-port")).filter(|port| *port != 0)?;
    let ip = flags.text("healthz-ip").unwrap_or_else(|| "0.0.0.0".to_owned());
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
    Some(format!("{ip}:{port}"))
}

/// klog's numbers as levels.
const fn level(verbosity: i64) -> &'static str {
    match verbosity {
        ..=3 => "info",
        4..=9 => "debug",
        10.. => "trace",
    }
}

/// flannel's key is lost by a reboot, ours is not: where nobody says another place, the one that the peers know goes on.
fn take_over_key(config: &Config) -> io::Result<()> {
    if env::var_os("WIREGUARD_KEY_FILE").is_some() {
        return Ok(());
    }
    russet_engine::key::take_over(Path::new(FLANNEL_KEY), &config.paths.wireguard_key)
}

const FLANNEL_KEY: &str = "/run/flannel/wgkey";
/// What Go's `flag` ends a program with.
const BAD_FLAG: u8 = 2;
const NO_KUBERNETES: &str = "-kube-subnet-mgr: Kubernetes as the store is not in this version and comes later; use etcd \
     (-etcd-endpoints), or stay with flanneld on this node: both understand each other";

#[cfg(test)]
mod tests {
    use russet_agent::config::OnUnspoken;

    use super::*;

    #[test]
    fn every_flag_arrives_in_the_configuration() {
        let config = read(&[
            "-etcd-endpoints=http://192.0.2.1:2379,http://192.0.2.2:2379",
            "-etcd-prefix=/net",
            "-etcd-username=u",
            "-etcd-password=p",
            "-iface=eth1",
            "-iface-regex=^10[.]",
            "-iface-can-reach=192.0.2.9",
            "-subnet-file=/tmp/env",
            "-public-ip=192.0.2.7",
            "-public-ipv6=2001:db8::7",
            "-subnet-lease-renew-margin=5",
            "-ip-masq",
            "-ip-masq-fully-random-disable",
            "-healthz-ip=::1",
            "-healthz-port=8090",
            "-iptables-forward-rules=false",
            "-ip-blackhole-route",
        ])
        .unwrap();
        assert_eq!((config.endpoints.len(), config.prefix.as_str()), (2, "/net"));
        assert_eq!(config.uplink.choices.len(), 3);
        assert_eq!(config.uplink.public_ip, Some([192, 0, 2, 7].into()));
        assert_eq!(config.uplink.public_ipv6, "2001:db8::7".parse().ok());
        assert_eq!(config.paths.subnet_file, Path::new("/tmp/env"));
        assert_eq!(config.renew_margin.as_secs(), 300);
        assert_eq!(config.http, "[::1]:8090".parse().ok());
        let settings = &config.settings;
        assert!(settings.masquerade.is_on() && !settings.fully_random.is_on());
        assert!(!settings.forward_accept.is_on() && settings.blackhole.is_on());
    }

    #[test]
    fn unless_told_otherwise_it_is_as_flanneld() {
        let config = read(&[]).unwrap();
        assert_eq!(config.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
        assert_eq!(config.http, None);
        assert!(!config.settings.masquerade.is_on() && config.settings.fully_random.is_on());
        assert!(config.settings.forward_accept.is_on() && !config.settings.blackhole.is_on());
        assert_eq!(config.on_unspoken, OnUnspoken::End);
        assert!(config.settings.commands.is_on());
        assert_eq!(config.paths.wireguard_key, Path::new("/var/lib/russet/wireguard.key"));
    }

    #[test]
    fn what_is_out_of_range_is_refused_all_at_once() {
        let told = read(&[
            "-subnet-lease-renew-margin=1440",
            "-public-ip=x",
            "-iface-regex=(",
            "-healthz-port=70000",
        ])
        .unwrap_err();
        for part in ["renew-margin", "public-ip", "iface-regex", "http.listen"] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
        for margin in ["0", "-1"] {
            assert!(read(&["-subnet-lease-renew-margin", margin]).is_err(), "{margin}");
        }
    }

    fn read(words: &[&str]) -> Result<Config, String> {
        let words = words.iter().map(|word| (*word).to_owned());
        let flags = Flags::read(words, |_| None).expect("flags");
        settings(&flags).check().map_err(|faults| faults.to_string())
    }
}

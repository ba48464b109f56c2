//! flanneld's command line, as Go reads it: one dash or two, `-name value` or `-name=value`, a switch alone or with
//! `=false`; what the command line does not say, `FLANNELD_NAME` may.

use std::{collections::BTreeMap, fmt};

/// How a flag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Switch,
    Text,
    /// May be given again; all count.
    List,
    Number,
}

/// One flag of flanneld.
struct Flag {
    name: &'static str,
    shape: Shape,
    usual: &'static str,
    about: &'static str,
}

const fn flag(name: &'static str, shape: Shape, usual: &'static str, about: &'static str) -> Flag {
    Flag { name, shape, usual, about }
}

/// Every flag that flanneld v0.28 has, with its default.
const FLAGS: &[Flag] = &[
    flag("etcd-endpoints", Shape::Text, ENDPOINTS, "etcd's endpoints, separated by commas"),
    flag("etcd-prefix", Shape::Text, "/coreos.com/network", "the folder of the network in etcd"),
    flag("etcd-keyfile", Shape::Text, "", "key of the client certificate (PEM)"),
    flag("etcd-certfile", Shape::Text, "", "client certificate (PEM)"),
    flag("etcd-cafile", Shape::Text, "", "who signs etcd's certificates (PEM)"),
    flag("etcd-username", Shape::Text, "", "user for etcd"),
    flag("etcd-password", Shape::Text, "", "password for etcd"),
    flag(
        "iface",
        Shape::List,
        "",
        "link to the other nodes, by name or address; the first that is there counts",
    ),
    flag("iface-regex", Shape::List, "", "the same by a pattern of its address or name"),
    flag("iface-can-reach", Shape::Text, "", "the link that leads to this address"),
    flag(
        "subnet-file",
        Shape::Text,
        "/run/flannel/subnet.env",
        "where this node's subnet is written",
    ),
    flag("public-ip", Shape::Text, "", "IPv4 address that other nodes send to"),
    flag("public-ipv6", Shape::Text, "", "IPv6 address that other nodes send to"),
    flag(
        "subnet-lease-renew-margin",
        Shape::Number,
        "60",
        "minutes before its end that a lease is renewed; 1 to 1439",
    ),
    flag("ip-masq", Shape::Switch, "false", "masquerade what leaves the network"),
    flag("ip-masq-fully-random-disable", Shape::Switch, "false", "masquerade without random ports"),
    flag("kube-subnet-mgr", Shape::Switch, "false", "Kubernetes as the store: not in this version"),
    flag("kube-api-url", Shape::Text, "", "for Kubernetes"),
    flag("kube-annotation-prefix", Shape::Text, "flannel.alpha.coreos.com", "for Kubernetes"),
    flag("kubeconfig-file", Shape::Text, "", "for Kubernetes"),
    flag("healthz-ip", Shape::Text, "0.0.0.0", "where /healthz and /readyz answer"),
    flag("healthz-port", Shape::Number, "0", "their port; 0 is off"),
    flag(
        "iptables-resync",
        Shape::Number,
        "5",
        "has no effect: rules are set right when they change",
    ),
    flag(
        "iptables-forward-rules",
        Shape::Switch,
        "true",
        "accept the network's packets where a forward chain drops",
    ),
    flag(
        "ip-blackhole-route",
        Shape::Switch,
        "false",
        "drop what is for this node's subnet and for no pod, also without a bridge",
    ),
    flag("net-config-path", Shape::Text, "/etc/kube-flannel/net-conf.json", "for Kubernetes"),
    flag("set-node-network-unavailable", Shape::Switch, "true", "for Kubernetes"),
    flag("v", Shape::Number, "0", "how much is logged: from 4 on details"),
    flag("vmodule", Shape::Text, "", "has no effect"),
    flag("log_backtrace_at", Shape::Text, "", "has no effect"),
    flag("version", Shape::Switch, "false", "print the version and exit"),
];

const ENDPOINTS: &str = "http://127.0.0.1:4001,http://127.0.0.1:2379";

/// What is asked of flanneld.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<&'static str, Vec<String>>);

/// Why it does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked how it is used.
    Help,
    /// Go's words for a command line that cannot be; the usage follows.
    Usage(String),
}

impl Flags {
    /// Reads the arguments, without the program's name, and then the environment.
    ///
    /// # Errors
    ///
    /// With the first word that cannot be, as Go's `flag` has it.
    pub fn read(
        args: impl IntoIterator<Item = String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Stop> {
        let mut flags = Self::default();
        let mut args = args.into_iter();
        while let Some(word) = args.next() {
            let Some((name, value)) = named(&word) else { break };
            flags.take(name, value, &mut args)?;
        }
        for flag in FLAGS {
            if flags.0.contains_key(flag.name) {
                continue;
            }
            let Some(value) = env(&variable(flag.name)) else { continue };
            check(flag, &value)?;
            flags.0.insert(flag.name, vec![value]);
        }
        Ok(flags)
    }

    fn take(
        &mut self,
        name: &str,
        value: Option<&str>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), Stop> {
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            return Err(match name {
                "h" | "help" => Stop::Help,
                _ => Stop::Usage(format!("flag provided but not defined: -{name}")),
            });
        };
        let value = match (value, flag.shape) {
            (Some(value), _) => value.to_owned(),
            (None, Shape::Switch) => "true".to_owned(),
            (None, _) => rest
                .next()
                .ok_or_else(|| Stop::Usage(format!("flag needs an argument: -{name}")))?,
        };
        check(flag, &value)?;
        let values = self.0.entry(flag.name).or_default();
        if flag.shape != Shape::List {
            values.clear();
        }
        values.push(value);
        Ok(())
    }

    /// What was said of a flag, or its default; an empty text is none.
    pub fn text(&self, name: &str) -> Option<String> {
        let said = self.0.get(name).and_then(|values| values.last().cloned());
        said.or_else(|| Some(usual(name).to_owned())).filter(|text| !text.is_empty())
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.0.get(name).into_iter().flatten().filter(|text| !text.is_empty()).cloned().collect()
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.text(name).as_deref().and_then(switch).unwrap_or(false)
    }

    /// Checked when it was read, so that it is one.
    pub fn number(&self, name: &str) -> i64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

fn usual(name: &str) -> &'static str {
    FLAGS.iter().find(|flag| flag.name == name).map_or("", |flag| flag.usual)
}

/// `-name`, `--name`, `-name=value`; anything else ends the flags.
fn named(word: &str) -> Option<(&str, Option<&str>)> {
    let word = word.strip_prefix('-')?;
    let word = word.strip_prefix('-').unwrap_or(word);
    if word.is_empty() {
        return None;
    }
    Some(word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value))))
}

fn variable(name: &str) -> String {
    format!("FLANNELD_{}", name.to_uppercase().replace('-', "_"))
}

fn check(flag: &Flag, value: &str) -> Result<(), Stop> {
    let good = match flag.shape {
        Shape::Switch => switch(value).is_some(),
        Shape::Number => value.parse::<i64>().is_ok(),
        Shape::Text | Shape::List => true,
    };
    let name = flag.name;
    let fault = || Stop::Usage(format!("invalid value {value:?} for flag -{name}: parse error"));
    if good { Ok(()) } else { Err(fault()) }
}

/// Go's `strconv.ParseBool`.
fn switch(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Every flag with its default.
#[derive(Clone, Copy, Debug)]
pub struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Usage: flanneld [OPTION]...")?;
        for Flag { name, usual, about, .. } in FLAGS {
            write!(f, "  -{name}\n        {about}")?;
            if usual.is_empty() { writeln!(f)? } else { writeln!(f, " (default {usual})")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_s_ways_of_writing_a_flag_are_all_read() {
        let flags = read(
            &[
                "-ip-masq",
                "--etcd-prefix=/x",
                "-iface",
                "eth1",
                "--iface=10.0.0.1",
                "-v",
                "4",
                "rest",
                "-h",
            ],
            &[],
        )
        .unwrap();
        assert!(flags.is_on("ip-masq"));
        assert_eq!(flags.text("etcd-prefix").as_deref(), Some("/x"));
        assert_eq!(flags.list("iface"), ["eth1", "10.0.0.1"]);
        assert_eq!(flags.number("v"), 4);
        assert!(!read(&["--ip-masq=false"], &[]).unwrap().is_on("ip-masq"));
    }

    #[test]
    fn the_environment_says_what_the_command_line_does_not() {
        let env = [("FLANNELD_IP_MASQ", "true"), ("FLANNELD_ETCD_PREFIX", "/env")];
        let flags = read(&["-etcd-prefix", "/line"], &env).unwrap();
        assert!(flags.is_on("ip-masq"));
        assert_eq!(flags.text("etcd-prefix").as_deref(), Some("/line"));
        let bad = read(&[], &[("FLANNELD_HEALTHZ_PORT", "x")]).unwrap_err();
        assert!(matches!(bad, Stop::Usage(text) if text.contains("-healthz-port")));
    }

    #[test]
    fn what_cannot_be_is_told_in_go_s_words() {
        for (args, told) in [
            (&["-nonsense"][..], "flag provided but not defined: -nonsense"),
            (&["-iface"], "flag needs an argument: -iface"),
            (&["-ip-masq=perhaps"], "invalid value \"perhaps\" for flag -ip-masq: parse error"),
        ] {
            assert_eq!(read(args, &[]), Err(Stop::Usage(told.to_owned())));
        }
        assert_eq!(read(&["--help"], &[]), Err(Stop::Help));
    }

    #[test]
    fn defaults_are_flannel_s() {
        let flags = read(&[], &[]).unwrap();
        assert_eq!(flags.text("etcd-endpoints").as_deref(), Some(ENDPOINTS));
        assert_eq!(flags.text("subnet-file").as_deref(), Some("/run/flannel/subnet.env"));
        assert_eq!(flags.number("subnet-lease-renew-margin"), 60);
        assert!(flags.is_on("iptables-forward-rules") && !flags.is_on("ip-masq"));
        assert_eq!(flags.text("public-ip"), None);
        assert_eq!(Usage.to_string().matches("\n  -").count(), FLAGS.len());
    }

    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Flags, Stop> {
        let value = |name: &str| {
            env.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        Flags::read(args.iter().map(|arg| (*arg).to_owned()), value)
    }
}

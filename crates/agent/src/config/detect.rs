//! How a node's own addresses are found where they are not given, in the words of calico/node.
//!
//! ```toml
//! [detect]
//! ipv4 = "autodetect"                 # or an address, or "none"     (calico/node: IP)
//! ipv4-method = "interface=eth.*"     # (IP_AUTODETECTION_METHOD)
//! ipv6 = "none"                       # (IP6)
//! ipv6-method = "first-found"         # (IP6_AUTODETECTION_METHOD)
//! ```
//!
//! `node/detect.rs` looks for them.

use std::{fmt, net::IpAddr, str::FromStr};

use russet_core::model::calico::OnSubnet;
use russet_net::{Family, Prefix};
use serde::Deserialize;

use super::{Pattern, raw::Faults};

/// How the node's addresses are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    pub v4: Wish,
    pub v6: Wish,
}

impl Detection {
    pub const fn of(&self, family: Family) -> &Wish {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// What is wanted of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No address.
    Nothing,
    Given(Given),
    Detected(Method),
}

/// An address that is told: without a length it has that of the link that bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Alone(IpAddr),
    OnSubnet(OnSubnet),
}

/// A way to find an address (calico/node: `autodetection_methods.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The first link that is no tunnel, bridge or pod's.
    #[default]
    FirstFound,
    /// The link that leads there.
    CanReach(IpAddr),
    /// The first link whose name is like one of these.
    Interface(Vec<Pattern>),
    /// As the first found, without links like these.
    SkipInterface(Vec<Pattern>),
    /// The first address within one of these.
    Cidr(Vec<Prefix>),
    /// What Kubernetes says of the node.
    KubernetesInternalIp,
}

/// The words before anything of them is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DetectWords {
    pub ipv4: Option<String>,
    pub ipv4_method: Option<String>,
    pub ipv6: Option<String>,
    pub ipv6_method: Option<String>,
}

impl DetectWords {
    /// What calico/node's environment says.
    pub fn of_calico(var: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name| var(name).filter(|text| !text.is_empty());
        Self {
            ipv4: said("IP"),
            ipv4_method: said("IP_AUTODETECTION_METHOD"),
            ipv6: said("IP6"),
            ipv6_method: said("IP6_AUTODETECTION_METHOD"),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Lets what `over` says win.
    pub(super) fn put(&mut self, over: Self) {
        let Self { ipv4, ipv4_method, ipv6, ipv6_method } = over;
        self.ipv4 = ipv4.or(self.ipv4.take());
        self.ipv4_method = ipv4_method.or(self.ipv4_method.take());
        self.ipv6 = ipv6.or(self.ipv6.take());
        self.ipv6_method = ipv6_method.or(self.ipv6_method.take());
    }

    /// An IPv4 address is looked for unless it is refused, an IPv6 address only when it is asked for (calico/node:
    /// `configureIPsAndSubnets`).
    pub(super) fn check(&self, faults: &mut Faults) -> Detection {
        let mut wish = |family, keys: [&str; 2], said: [&Option<String>; 2], usual| {
            let method = faults.parse(keys[1], said[1].as_deref()).unwrap_or_default();
            let word = said[0].as_deref().unwrap_or(usual);
            wish(family, word, method).unwrap_or_else(|fault| {
                faults.add(keys[0], &fault);
                Wish::Nothing
            })
        };
        let v4 = [&self.ipv4, &self.ipv4_method];
        let v6 = [&self.ipv6, &self.ipv6_method];
        Detection {
            v4: wish(Family::V4, ["detect.ipv4", "detect.ipv4-method"], v4, "autodetect"),
            v6: wish(Family::V6, ["detect.ipv6", "detect.ipv6-method"], v6, "none"),
        }
    }
}

fn wish(family: Family, word: &str, method: Method) -> Result<Wish, String> {
    let given = match word {
        "autodetect" => return Ok(Wish::Detected(method)),
        "none" => return Ok(Wish::Nothing),
        word if word.contains('/') => word.parse().map(Given::OnSubnet).ok(),
        word => word.parse().map(Given::Alone).ok(),
    };
    let given = given.filter(|given| Family::of(given.addr()) == family);
    given.map(Wish::Given).ok_or_else(|| {
        format!("{word:?} is neither \"autodetect\" nor \"none\" nor an {family} address")
    })
}

impl Given {
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::Alone(addr) => addr,
            Self::OnSubnet(on) => on.addr(),
        }
    }
}

/// Why a method's word is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MethodError(String);

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        match (name, value) {
            ("" | "first-found", None) => Ok(Self::FirstFound),
            ("can-reach", Some(dest)) => dest.parse().map(Self::CanReach).map_err(|_| {
                MethodError(format!(
                    "{dest:?} is no address; a name is not looked up, give what it stands for"
                ))
            }),
            ("interface", Some(list)) => each(list).map(Self::Interface),
            ("skip-interface", Some(list)) => each(list).map(Self::SkipInterface),
            ("cidr", Some(list)) => {
                let prefixes: Vec<Around> = each(list)?;
                Ok(Self::Cidr(prefixes.into_iter().map(|one| one.0).collect()))
            }
            ("kubernetes-internal-ip", _) => Ok(Self::KubernetesInternalIp),
            _ => Err(MethodError(format!("none of {}", METHODS.join(", ")))),
        }
    }
}

/// A prefix whatever its host's bits say.
struct Around(Prefix);

impl FromStr for Around {
    type Err = russet_net::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse::<OnSubnet>()?.subnet()))
    }
}

fn each<T: FromStr<Err: fmt::Display>>(list: &str) -> Result<Vec<T>, MethodError> {
    let one = |text: &str| {
        text.trim().parse().map_err(|err| MethodError(format!("{:?}: {err}", text.trim())))
    };
    list.split(',').map(one).collect()
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstFound => f.write_str("first-found"),
            Self::CanReach(addr) => write!(f, "can-reach={addr}"),
            Self::Interface(patterns) => write!(f, "interface={}", joined(patterns)),
            Self::SkipInterface(patterns) => write!(f, "skip-interface={}", joined(patterns)),
            Self::Cidr(prefixes) => write!(f, "cidr={}", joined(prefixes)),
            Self::KubernetesInternalIp => f.write_str("kubernetes-internal-ip"),
        }
    }
}

fn joined(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

const METHODS: [&str; 6] = [
    "first-found",
    "can-reach=ADDRESS",
    "interface=PATTERN,…",
    "skip-interface=PATTERN,…",
    "cidr=PREFIX,…",
    "kubernetes-internal-ip",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_calico_s_is_read_and_shown() {
        for text in [
            "first-found",
            "can-reach=192.0.2.1",
            "can-reach=2001:db8::1",
            "interface=eth.*,ens.*",
            "skip-interface=ppp.*",
            "cidr=192.168.0.0/16,10.0.0.0/8",
            "kubernetes-internal-ip",
        ] {
            assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
        }
        let spaced: Method = "cidr=192.168.77.1/24 , 10.0.0.0/8".parse().unwrap();
        assert_eq!(spaced.to_string(), "cidr=192.168.77.0/24,10.0.0.0/8");
        for bad in ["first", "interface", "interface=(", "cidr=x", "can-reach=example.org", "cidr"]
        {
            assert!(bad.parse::<Method>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ipv4_is_looked_for_unless_refused_and_ipv6_when_asked_for() {
        let words = DetectWords::default();
        let mut faults = Faults::default();
        let detection = words.check(&mut faults);
        assert_eq!(detection.v4, Wish::Detected(Method::FirstFound));
        assert_eq!(detection.v6, Wish::Nothing);
        let env =
            [("IP", "none"), ("IP6", "autodetect"), ("IP6_AUTODETECTION_METHOD", "interface=eth0")];
        let env = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let detection = DetectWords::of_calico(env).check(&mut faults);
        assert_eq!(detection.v4, Wish::Nothing);
        assert!(
            matches!(&detection.v6, Wish::Detected(Method::Interface(patterns)) if patterns.len() == 1)
        );
        assert_eq!(faults.len(), 0);
    }

    #[test]
    fn an_address_may_be_given_with_its_subnet_and_must_be_of_its_family() {
        let words = |ipv4: &str, ipv6: &str| DetectWords {
            ipv4: Some(ipv4.into()),
            ipv6: Some(ipv6.into()),
            ..DetectWords::default()
        };
        let mut faults = Faults::default();
        let detection = words("192.0.2.1/24", "2001:db8::1").check(&mut faults);
        assert_eq!(detection.v4, Wish::Given(Given::OnSubnet("192.0.2.1/24".parse().unwrap())));
        assert_eq!(detection.v6, Wish::Given(Given::Alone("2001:db8::1".parse().unwrap())));
        assert_eq!(faults.len(), 0);
        words("2001:db8::1", "x").check(&mut faults);
        assert_eq!(faults.len(), 2);
    }
}

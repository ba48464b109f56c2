//! What a runtime says in the environment (CNI: Parameters).

use std::{net::IpAddr, path::PathBuf};

use russet_net::{IfName, Mac};

use super::{Code, Fault, check_name};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    const ALL: [(&'static str, Self); 6] = [
        ("ADD", Self::Add),
        ("DEL", Self::Del),
        ("CHECK", Self::Check),
        ("STATUS", Self::Status),
        ("GC", Self::Gc),
        ("VERSION", Self::Version),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, command)| command)
    }

    fn names_an_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    fn needs_namespace(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

/// The environment, checked as far as the command needs it. `CNI_PATH` is not read: we call nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    pub command: Command,
    /// There for ADD, DEL and CHECK.
    pub attachment: Option<Attachment>,
    /// There for ADD and CHECK; a DEL may come after the namespace has gone.
    pub netns: Option<PathBuf>,
    pub args: Args,
}

/// Which interface of which container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub container: String,
    pub ifname: IfName,
}

/// What we understand of `CNI_ARGS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub ips: Vec<IpAddr>,
    pub mac: Option<Mac>,
    /// Kubernetes' names of the pod.
    pub namespace: Option<String>,
    pub pod: Option<String>,
}

impl Env {
    /// Reads the variables that `var` finds.
    ///
    /// # Errors
    ///
    /// With every fault: a variable that is missing or is not what it should be.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { var, faults: Vec::new() };
        let env = reader.env();
        env.filter(|_| reader.faults.is_empty()).ok_or(reader.faults)
    }
}

/// Collects faults on its way, so that all are told at once.
struct Reader<F> {
    var: F,
    faults: Vec<Fault>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn env(&mut self) -> Option<Env> {
        let command = self.command()?;
        let attachment = if command.names_an_attachment() { self.attachment() } else { None };
        let netns = (self.var)("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
        if netns.is_none() && command.needs_namespace() {
            self.note("CNI_NETNS", "is not set; the path of the container's namespace is wanted");
        }
        let args = self.args();
        Some(Env { command, attachment, netns, args })
    }

    fn command(&mut self) -> Option<Command> {
        let text = self.required("CNI_COMMAND")?;
        let command = Command::parse(&text);
        if command.is_none() {
            let names = Command::ALL.map(|(name, _)| name).join(", ");
            self.note("CNI_COMMAND", format!("{text:?} is none of {names}"));
        }
        command
    }

    fn attachment(&mut self) -> Option<Attachment> {
        let container = self.required("CNI_CONTAINERID").and_then(|id| match check_name(&id) {
            Ok(()) => Some(id),
            Err(reason) => self.refuse("CNI_CONTAINERID", format!("{id:?}: {reason}")),
        });
        let ifname = self.required("CNI_IFNAME").and_then(|name| match name.parse::<IfName>() {
            Ok(ifname) => Some(ifname),
            Err(err) => self.refuse("CNI_IFNAME", err.to_string()),
        });
        Some(Attachment { container: container?, ifname: ifname? })
    }

    /// `KEY=VALUE` pairs with semicolons between them; keys that are not ours are somebody else's.
    fn args(&mut self) -> Args {
        let mut args = Args::default();
        let text = (self.var)("CNI_ARGS").unwrap_or_default();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("K8S_POD_NAMESPACE", name)) => args.namespace = said(name),
                Some(("K8S_POD_NAME", name)) => args.pod = said(name),
                // As Calico has it: nothing asked.
                Some(("IP", "")) => {}
                Some(("IP", value)) => self.ips(value, &mut args.ips),
                Some(("MAC", value)) => args.mac = self.mac(value),
                Some(_) => {}
                None => self.note("CNI_ARGS", format!("{pair:?} is not of the form KEY=VALUE")),
            }
        }
        args
    }

    fn ips(&mut self, value: &str, into: &mut Vec<IpAddr>) {
        for text in value.split(',') {
            match parse_ip(text) {
                Some(ip) => into.push(ip),
                None => self.note("CNI_ARGS", format!("IP={text} is no IP address")),
            }
        }
    }

    fn mac(&mut self, value: &str) -> Option<Mac> {
        match parse_mac(value) {
            Ok(mac) => Some(mac),
            Err(reason) => self.refuse("CNI_ARGS", reason),
        }
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let value = (self.var)(name).filter(|value| !value.is_empty());
        value.or_else(|| self.refuse(name, "is not set"))
    }

    fn refuse<T>(&mut self, place: &str, reason: impl Into<String>) -> Option<T> {
        self.note(place, reason);
        None
    }

    fn note(&mut self, place: &str, reason: impl Into<String>) {
        self.faults.push(Fault::new(Code::BAD_ENVIRONMENT, place, reason));
    }
}

fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Reads an address; a prefix length behind it is tolerated, as host-local does.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    let addr = text.split_once('/').map_or(text, |(addr, _)| addr);
    addr.trim().parse().ok()
}

/// Reads a MAC address that a station may have.
pub(super) fn parse_mac(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|err: russet_net::ParseError| err.to_string())?;
    if mac.is_unicast() { Ok(mac) } else { Err(format!("{mac} is no station's own address")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
    ];

    /// As a kubelet has it (its container runtime: `toCNIArgs`).
    const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
        K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=;IP=10.1.0.5/24";

    #[test]
    fn a_complete_environment_is_read() {
        let env = read(&[GOOD.as_slice(), &[("CNI_ARGS", ARGS)]].concat());
        let env = env.unwrap();
        assert_eq!(env.command, Command::Add);
        assert_eq!(env.attachment.unwrap().container, "c0ffee");
        assert_eq!(env.args.ips, [IpAddr::from([10, 1, 0, 5])]);
        assert_eq!(env.args.namespace.as_deref(), Some("default"));
        assert_eq!(env.args.pod.as_deref(), Some("web-0"));
    }

    #[test]
    fn every_missing_variable_is_told_at_once() {
        let faults = read(&[("CNI_COMMAND", "ADD")]).unwrap_err();
        let places: Vec<_> = faults.iter().map(|fault| fault.place.as_str()).collect();
        assert_eq!(places, ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]);
    }

    #[test]
    fn del_needs_no_namespace_and_status_no_container() {
        let del = [("CNI_COMMAND", "DEL"), GOOD[1], GOOD[3], ("CNI_NETNS", "")];
        assert_eq!(read(&del).unwrap().netns, None);
        assert!(read(&[("CNI_COMMAND", "STATUS")]).is_ok());
    }

    #[test]
    fn bad_values_are_refused_with_their_place() {
        let table: &[(&str, &str, &str)] = &[
            ("CNI_COMMAND", "add", "none of ADD"),
            ("CNI_CONTAINERID", "../../etc", "begin with a letter"),
            ("CNI_IFNAME", "eth0/../x", "slash"),
            ("CNI_IFNAME", "a-name-longer-than-15", "longer than 15"),
            ("CNI_ARGS", "IP=10.1.0", "IP=10.1.0 is no IP address"),
            ("CNI_ARGS", "novalue", "KEY=VALUE"),
            ("CNI_ARGS", "MAC=01:00:5e:00:00:01", "no station's own"),
        ];
        for (name, value, wanted) in table {
            let mut vars = GOOD.to_vec();
            vars.retain(|(var, _)| var != name);
            vars.push((name, value));
            let faults = read(&vars).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].place, *name);
            assert!(faults[0].reason.contains(wanted), "{}", faults[0]);
        }
    }

    fn read(vars: &[(&str, &str)]) -> Result<Env, Vec<Fault>> {
        Env::read(|name| vars.iter().find(|(var, _)| *var == name).map(|(_, v)| (*v).to_owned()))
    }
}

//! One call, from what the runtime says to what it gets to read.
//!
//! An agent that is not there is no reason to fail where the work can wait: ADD and CHECK answer "try again
//! later", DEL is spooled and answered with success, because a container that cannot be removed while an
//! agent is being replaced is worse than an address that is given back a minute late.

use std::path::Path;

use russet_api::cni::{
    CniError, Code, Fault, Text, Version,
    conf::{self, Kind, NetConf},
    env::{Attachment, Command, Env},
    result::{Interface, Ip, Outcome, default_route},
    version_json,
    wire::{Above, Add, Answer, Asks, Attached, Call, Check, Gc, Pod},
};
use russet_net::Mtu;

use crate::{
    agent::{Agent, AskError},
    calico,
    netns::{self, Namespace},
    spool,
};

/// What goes to standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    pub text: String,
    /// Whether the call was served; else `text` is an error object.
    pub served: bool,
    /// What goes to standard error, for whoever reads the runtime's log; empty is nothing.
    pub told: String,
}

/// The name that a list gave us by its `type`, which is the name of our file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    Russet,
    Flannel,
    Calico,
    CalicoIpam,
}

/// Serves one call. `var` looks up the environment, `conf` is standard input.
pub fn run(called: Called, var: impl Fn(&str) -> Option<String>, conf: &[u8]) -> Printed {
    let env = Env::read(&var);
    let (conf_read, spoken) = match called {
        Called::Flannel => return crate::flannel::run(var, conf),
        Called::Russet => (NetConf::parse(conf), Version::ALL.as_slice()),
        Called::Calico => (NetConf::parse_calico(conf), Version::CALICO.as_slice()),
        Called::CalicoIpam => (NetConf::parse_calico_ipam(conf), Version::CALICO.as_slice()),
    };
    let version = conf::version_of(conf);
    if matches!(&env, Ok(env) if env.command == Command::Version) {
        let text = version_json(version, spoken);
        return Printed { text, served: true, ..Printed::default() };
    }
    let told = conf_read.as_ref().map(|conf| calico::told(&env, conf)).unwrap_or_default();
    match serve(env, conf_read) {
        Ok(text) => Printed { text, served: true, told },
        Err(err) => Printed { text: err.to_json(version), served: false, told },
    }
}

fn serve(
    env: Result<Env, Vec<Fault>>,
    conf: Result<NetConf, Vec<Fault>>,
) -> Result<String, CniError> {
    let (env, conf) = both(env, conf)?;
    allowed(env.command, conf.version)?;
    match (env.command, env.attachment.as_ref()) {
        (command, Some(attachment)) if conf.kind == Kind::CalicoIpam => {
            calico::addresses(command, &env, attachment, &conf)
        }
        (Command::Add, Some(attachment)) => add(&env, attachment, &conf),
        (Command::Del, Some(attachment)) => {
            let pod = pod(attachment, &conf);
            give_back(Call::Del(pod.clone()), &pod, &conf)
        }
        (Command::Check, Some(attachment)) => check(&env, attachment, &conf),
        (Command::Gc, _) => gc(&conf),
        // VERSION is answered above, and the others always have an attachment.
        _ => status(&conf),
    }
}

/// Both readers' faults, told at once.
pub(crate) fn both<C>(
    env: Result<Env, Vec<Fault>>,
    conf: Result<C, Vec<Fault>>,
) -> Result<(Env, C), CniError> {
    match (env, conf) {
        (Ok(env), Ok(conf)) => Ok((env, conf)),
        (env, conf) => {
            let faults = [env.err(), conf.err()].into_iter().flatten().flatten();
            let faults: Vec<_> = faults.collect();
            // At least one of them is an error, and an error has a fault.
            Err(CniError::from_faults(&faults)
                .unwrap_or_else(|| CniError::new(Code::BAD_CONFIG, "network configuration")))
        }
    }
}

/// Refuses a command that the configuration's version does not have.
pub(crate) fn allowed(command: Command, version: Version) -> Result<(), CniError> {
    let (name, since) = match command {
        Command::Check => ("CHECK", Version::V0_4_0),
        Command::Status => ("STATUS", Version::V1_1_0),
        Command::Gc => ("GC", Version::V1_1_0),
        Command::Add | Command::Del | Command::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    let msg = format!("cniVersion: {version} has no {name}; {since} or newer is wanted");
    Err(CniError::new(Code::INCOMPATIBLE_VERSION, msg))
}

fn add(env: &Env, attachment: &Attachment, conf: &NetConf) -> Result<String, CniError> {
    let namespace = namespace(env)?;
    let call = || Call::Add(Box::new(wishes(env, attachment, conf)));
    let agent = agent(conf);
    let mut answer = agent.ask(call(), Some(&namespace)).map_err(|err| away(&err, conf))?;
    if answer == Answer::Ipv6Disabled {
        netns::enable_ipv6(&namespace).map_err(|err| namespace_fault(env, &err))?;
        answer = agent.ask(call(), Some(&namespace)).map_err(|err| away(&err, conf))?;
    }
    let attached = match answer {
        Answer::Attached(attached) => attached,
        answer => return Err(unexpected(answer)),
    };
    let ours = match &conf.kind {
        Kind::Calico(kind) => {
            calico::set_forwarding(&namespace, kind.forwarding, &attached)
                .map_err(|err| namespace_fault(env, &err))?;
            calico::outcome(&attached, conf)
        }
        _ => outcome(&attached, attachment, env.netns.as_deref(), conf),
    };
    let mut whole = conf.prev.clone().unwrap_or_default();
    whole.extend(ours);
    Ok(whole.to_json(conf.version))
}

/// What is asked for an interface, or for its addresses.
pub(crate) fn wishes(env: &Env, attachment: &Attachment, conf: &NetConf) -> Add {
    let Asks { namespace, pod: name, .. } = &conf.asks;
    Add {
        pod: pod(attachment, conf),
        mtu: conf.mtu.map(Mtu::get),
        above: if conf.kind == Kind::Russet { Above::Refused } else { Above::Lowered },
        ips: if conf.ips.is_empty() { env.args.ips.clone() } else { conf.ips.clone() },
        mac: conf.mac.or(env.args.mac).map(Text),
        asks: Asks {
            namespace: env.args.namespace.clone().or(namespace.clone()),
            pod: env.args.pod.clone().or(name.clone()),
            ..conf.asks.clone()
        },
    }
}

/// A DEL, of an interface or of its addresses alone.
pub(crate) fn give_back(call: Call, pod: &Pod, conf: &NetConf) -> Result<String, CniError> {
    match agent(conf).ask(call, None) {
        Ok(answer) => done(answer),
        Err(AskError::Away(reason)) => match spool::keep(&spool::Files, &conf.spool, pod) {
            Ok(()) => Ok(String::new()),
            Err(err) => {
                let msg =
                    format!("no agent, and the DEL cannot be kept in {}", conf.spool.display());
                Err(CniError::new(Code::TRY_AGAIN, msg).with_details(format!("{reason}; {err}")))
            }
        },
        Err(err @ AskError::Protocol(_)) => Err(away(&err, conf)),
    }
}

fn check(env: &Env, attachment: &Attachment, conf: &NetConf) -> Result<String, CniError> {
    if let Kind::Calico(_) = conf.kind {
        let ips = calico::previous(conf);
        let call = Call::Check(Check { pod: pod(attachment, conf), ips });
        return done(
            agent(conf).ask(call, Some(&namespace(env)?)).map_err(|err| away(&err, conf))?,
        );
    }
    let prev = conf.prev.as_ref().ok_or_else(|| {
        CniError::new(Code::BAD_CONFIG, "prevResult: is missing; CHECK needs the result of ADD")
    })?;
    if !prev.has_inside(attachment.ifname) {
        let msg = format!("prevResult: has no interface {} in a container", attachment.ifname);
        return Err(CniError::new(Code::BAD_CONFIG, msg));
    }
    let ips = prev.addresses_of(attachment.ifname).into_iter().map(|(addr, _)| addr).collect();
    let call = Call::Check(Check { pod: pod(attachment, conf), ips });
    done(agent(conf).ask(call, Some(&namespace(env)?)).map_err(|err| away(&err, conf))?)
}

fn gc(conf: &NetConf) -> Result<String, CniError> {
    let valid = conf.valid.as_ref().ok_or_else(|| {
        let msg = "cni.dev/valid-attachments: is missing; GC would remove every attachment";
        CniError::new(Code::BAD_CONFIG, msg)
    })?;
    let valid = valid.iter().map(|attachment| pod(attachment, conf)).collect();
    let call = Call::Gc(Gc { network: conf.name.clone(), valid });
    done(agent(conf).ask(call, None).map_err(|err| away(&err, conf))?)
}

fn status(conf: &NetConf) -> Result<String, CniError> {
    let answer = agent(conf).ask(Call::Status, None).map_err(|err| {
        let (AskError::Away(reason) | AskError::Protocol(reason)) = &err;
        CniError { code: Code::NOT_AVAILABLE, ..away(&err, conf) }.with_details(reason)
    });
    done(answer?)
}

pub(crate) fn done(answer: Answer) -> Result<String, CniError> {
    match answer {
        Answer::Done => Ok(String::new()),
        answer => Err(unexpected(answer)),
    }
}

pub(crate) fn unexpected(answer: Answer) -> CniError {
    match answer {
        Answer::Error { code, msg, details } => CniError { code: Code(code), msg, details },
        Answer::Ipv6Disabled => CniError::new(
            Code::KERNEL,
            "IPv6 stays disabled in the pod's namespace (net.ipv6.conf.default.disable_ipv6)",
        ),
        Answer::Attached(_) | Answer::Assigned(_) | Answer::Done => {
            CniError::new(Code::DECODE, "the agent answered what was not asked")
        }
    }
}

/// What a runtime does about an agent that is away is to try again.
pub(crate) fn away(err: &AskError, conf: &NetConf) -> CniError {
    let at = conf.socket.display();
    match err {
        AskError::Away(reason) => {
            let msg = format!("the russet agent does not answer on {at}; try again later");
            CniError::new(Code::TRY_AGAIN, msg).with_details(reason)
        }
        AskError::Protocol(reason) => {
            let msg = format!("the russet agent on {at} is not understood: {reason}");
            CniError::new(Code::DECODE, msg)
        }
    }
}

fn namespace(env: &Env) -> Result<Namespace, CniError> {
    let path = env.netns.as_deref().unwrap_or(Path::new(""));
    Namespace::enter(path).map_err(|err| namespace_fault(env, &err))
}

fn namespace_fault(env: &Env, err: &impl std::fmt::Display) -> CniError {
    let path = env.netns.as_deref().unwrap_or(Path::new(""));
    CniError::new(Code::BAD_ENVIRONMENT, format!("CNI_NETNS: {}: {err}", path.display()))
}

pub(crate) fn agent(conf: &NetConf) -> Agent<'_> {
    Agent::at(&conf.socket)
}

pub(crate) fn pod(attachment: &Attachment, conf: &NetConf) -> Pod {
    Pod {
        network: conf.name.clone(),
        container: attachment.container.clone(),
        ifname: Text(attachment.ifname),
    }
}

/// The bridge if any, the host's end and the pod's end, as the bridge plugin tells them.
fn outcome(
    made: &Attached,
    attachment: &Attachment,
    netns: Option<&Path>,
    conf: &NetConf,
) -> Outcome {
    let sandbox = netns.unwrap_or(Path::new("")).to_string_lossy();
    let mtu = Mtu::try_from(made.mtu).ok();
    let bridge = |name: russet_api::cni::Text<_>| {
        Interface::new(name.0, made.bridge_mac.map(|mac| mac.0), None)
    };
    let mut interfaces: Vec<_> = made.bridge.map(bridge).into_iter().collect();
    interfaces.push(Interface::new(made.host_link.0, Some(made.host_mac.0), mtu));
    let pod_interface = interfaces.len();
    interfaces.push(Interface::new(attachment.ifname, Some(made.mac.0), mtu).inside(sandbox));
    let ip = |ip: &russet_api::cni::wire::PodIp| Ip {
        addr: ip.addr,
        len: ip.len,
        gateway: Some(ip.gateway),
        interface: Some(pod_interface),
    };
    let routes = made.ips.iter().map(|ip| default_route(ip.gateway)).collect();
    Outcome { interfaces, ips: made.ips.iter().map(ip).collect(), routes, dns: conf.dns.clone() }
}

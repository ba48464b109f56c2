//! What differs when a list asks for Calico's plugins.
//!
//! The result is Calico's (cni-plugin: `pkg/plugin`, up to v3.29): of interfaces the node's end alone, addresses without
//! gateway and without interface. Chained plugins are written against it: `bandwidth` looks for an interface without a
//! sandbox whose name is the node's end's, `portmap` for addresses.

use std::{io, net::IpAddr};

use russet_api::cni::{
    CniError, Fault,
    calico::Forwarding,
    conf::{Kind, NetConf},
    env::{Attachment, Command, Env},
    result::{Interface, Ip, Outcome},
    wire::{Answer, Assigned, Attached, Call},
};
use russet_net::Family;

use crate::{
    netns::{self, Namespace},
    run::{agent, away, give_back, pod, unexpected, wishes},
};

/// What an ADD has to say besides its result: once for each pod, so that a log has it whenever it begins.
pub(crate) fn told(env: &Result<Env, Vec<Fault>>, conf: &NetConf) -> String {
    match (env, &conf.kind) {
        (Ok(env), Kind::Calico(calico))
            if env.command == Command::Add && !calico.without_effect.is_empty() =>
        {
            let fields = calico.without_effect.join(", ");
            format!("network {}: without effect under russet: {fields}", conf.name)
        }
        _ => String::new(),
    }
}

pub(crate) fn outcome(made: &Attached, conf: &NetConf) -> Outcome {
    let ip = |addr: IpAddr, len| Ip { addr, len, gateway: None, interface: None };
    Outcome {
        interfaces: vec![Interface::new(made.host_link.0, None, None)],
        ips: made.ips.iter().map(|one| ip(one.addr, one.len)).collect(),
        routes: Vec::new(),
        dns: conf.dns.clone(),
    }
}

/// The addresses of our own result: those that are on no interface by its word.
pub(crate) fn previous(conf: &NetConf) -> Vec<IpAddr> {
    let ips = conf.prev.iter().flat_map(|prev| &prev.ips);
    ips.filter(|ip| ip.interface.is_none()).map(|ip| ip.addr).collect()
}

/// Says whether the pod forwards, in the families that it has: a new namespace has what the node has.
pub(crate) fn set_forwarding(
    namespace: &Namespace,
    forwarding: Forwarding,
    made: &Attached,
) -> io::Result<()> {
    for family in Family::BOTH {
        if made.ips.iter().any(|ip| Family::of(ip.addr) == family) {
            netns::set_forwarding(namespace, family, forwarding)?;
        }
    }
    Ok(())
}

/// `calico-ipam`: addresses for an interface that another plugin makes.
pub(crate) fn addresses(
    command: Command,
    env: &Env,
    attachment: &Attachment,
    conf: &NetConf,
) -> Result<String, CniError> {
    let pod = pod(attachment, conf);
    match command {
        Command::Add => {
            let call = Call::Assign(Box::new(wishes(env, attachment, conf)));
            match agent(conf).ask(call, None).map_err(|err| away(&err, conf))? {
                Answer::Assigned(assigned) => Ok(assigned_json(&assigned, conf)),
                answer => Err(unexpected(answer)),
            }
        }
        Command::Del => give_back(Call::Release(pod.clone()), &pod, conf),
        // Calico's plugin has no CHECK of its own either.
        _ => Ok(String::new()),
    }
}

fn assigned_json(assigned: &Assigned, conf: &NetConf) -> String {
    let ip = |one: &russet_api::cni::wire::AssignedIp| Ip {
        addr: one.addr,
        len: one.len,
        gateway: None,
        interface: None,
    };
    let ips = assigned.ips.iter().map(ip).collect();
    Outcome { ips, ..Outcome::default() }.to_json(conf.version)
}

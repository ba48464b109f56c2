//! `IPPool`.

use std::collections::BTreeSet;

use russet_core::{
    choices::When,
    model::{
        Flag,
        calico::{Assignment, BlockLen, Encapsulation, IpPool, PoolFault, Use},
    },
};
use russet_net::{Family, Prefix, Selector};
use serde_json::Value;

use super::{
    at::At,
    kind::Kind,
    stored::{Form, Layout, Patch, Written, spec},
};

impl Form for IpPool {
    const KIND: Kind = Kind::IpPool;
    const ORDER: &'static [&'static str] = &[
        "cidr",
        "vxlanMode",
        "ipipMode",
        "natOutgoing",
        "disabled",
        "disableBGPExport",
        "blockSize",
        "nodeSelector",
        "namespaceSelector",
        "ipip",
        "nat-outgoing",
        "allowedUses",
        "assignmentMode",
        // Of a condition.
        "type",
        "status",
        "observedGeneration",
        "lastTransitionTime",
        "reason",
        "message",
    ];

    fn read(root: &At<'_>, layout: Layout) -> Option<Self> {
        let spec = spec(root, layout);
        let on = |key| spec.at(key).flag().unwrap_or(false);
        let disabled = Flag::from(on("disabled"));
        let cidr = spec.at("cidr");
        let cidr = cidr.required().parsed::<Prefix>();
        let family = cidr.map(Prefix::family);
        let len = block_len(&spec, family);
        let encapsulation = encapsulation(&spec);
        let pool = cidr.map(|cidr| IpPool::new(cidr, len, encapsulation, disabled));
        let rest = Rest { withheld: withheld(root), ..Rest::read(&spec) };
        let pool =
            pool?.map_err(|faults| faults.iter().for_each(|fault| refuse(&spec, fault))).ok()?;
        Some(rest.complete(pool))
    }
}

/// What no other field depends on: read first, so that its faults are told whatever else is wrong.
struct Rest {
    withheld: Flag,
    nat_outgoing: Flag,
    bgp_export: Flag,
    nodes: Option<Selector>,
    namespaces: Option<Selector>,
    assignment: Assignment,
    uses: BTreeSet<Use>,
}

impl Rest {
    fn read(spec: &At<'_>) -> Self {
        let on = |key| spec.at(key).flag().unwrap_or(false);
        let uses = spec.at("allowedUses").items();
        Self {
            withheld: Flag::Off,
            nat_outgoing: Flag::from(on("natOutgoing")),
            bgp_export: Flag::from(!on("disableBGPExport")),
            nodes: spec.at("nodeSelector").parsed(),
            namespaces: spec.at("namespaceSelector").parsed(),
            assignment: spec.at("assignmentMode").one_of(ASSIGNMENTS).unwrap_or_default(),
            uses: uses.iter().filter_map(|item| item.one_of(USES)).collect(),
        }
    }

    fn complete(self, mut pool: IpPool) -> IpPool {
        pool.withheld = self.withheld;
        pool.nat_outgoing = self.nat_outgoing;
        pool.bgp_export = self.bgp_export;
        pool.nodes = self.nodes.unwrap_or(pool.nodes);
        pool.namespaces = self.namespaces.unwrap_or(pool.namespaces);
        pool.assignment = self.assignment;
        if !self.uses.is_empty() {
            pool.uses = self.uses;
        }
        pool
    }
}

/// Written beside the value by Calico's controllers, and by the API server of one that is being removed.
fn withheld(root: &At<'_>) -> Flag {
    let conditions = root.at("status").at("conditions").items();
    let says_no = |at: &At<'_>| {
        at.at("type").text() == Some("Allocatable") && at.at("status").text() == Some("False")
    };
    let going = root.at("metadata").at("deletionTimestamp").is_there();
    Flag::from(going || conditions.iter().any(says_no))
}

fn block_len(spec: &At<'_>, family: Option<Family>) -> Option<BlockLen> {
    let at = spec.at("blockSize");
    let bits = at.number().filter(|bits| *bits > 0)?;
    BlockLen::new(family?, bits).map_err(|fault| at.refuse(fault.to_string())).ok()
}

fn encapsulation(spec: &At<'_>) -> Encapsulation {
    let ipip = spec.at("ipipMode").one_of(MODES).flatten();
    let vxlan = spec.at("vxlanMode").one_of(MODES).flatten();
    Encapsulation::new(ipip, vxlan).unwrap_or_else(|fault| {
        spec.at("vxlanMode").refuse(fault.to_string());
        Encapsulation::None
    })
}

fn refuse(spec: &At<'_>, fault: &PoolFault) {
    let key = match fault {
        PoolFault::IpipOnIpv6 { .. } => "ipipMode",
        PoolFault::SmallerThanBlock { .. } | PoolFault::BlockLen { .. } => "blockSize",
        PoolFault::TwoEncapsulations => "vxlanMode",
        PoolFault::LinkLocal { .. } => "cidr",
    };
    spec.at(key).refuse(fault.to_string());
}

impl Written for IpPool {
    fn patch(&self, object: &mut Patch<'_>) {
        let (ipip, vxlan) = match self.encapsulation() {
            Encapsulation::None => (None, None),
            Encapsulation::Ipip(when) => (Some(when), None),
            Encapsulation::Vxlan(when) => (None, Some(when)),
        };
        object.set(&["cidr"], self.cidr().to_string());
        object.set(&["vxlanMode"], word(MODES, vxlan));
        object.set(&["ipipMode"], word(MODES, ipip));
        object.flag(&["natOutgoing"], self.nat_outgoing.is_on());
        object.flag(&["disabled"], self.is_disabled());
        object.flag(&["disableBGPExport"], !self.bgp_export.is_on());
        object.set(&["blockSize"], self.block_len().get());
        // What says nothing is filled in, as Calico does it.
        if object.get(&["nodeSelector"]).is_none() {
            object.set(&["nodeSelector"], self.nodes.to_string());
        }
        object.selector(&["nodeSelector"], &self.nodes);
        object.selector(&["namespaceSelector"], &self.namespaces);
        let there = object.get(&["allowedUses"]).and_then(Value::as_array);
        let named = |item: &Value| USES.iter().find(|(word, _)| item == word).map(|(_, one)| *one);
        let there: BTreeSet<Use> = there.into_iter().flatten().filter_map(named).collect();
        if there != self.uses {
            let uses: Vec<_> = self.uses.iter().map(|one| word(USES, *one)).collect();
            object.set(&["allowedUses"], uses);
        }
        object.set(&["assignmentMode"], word(ASSIGNMENTS, self.assignment));
    }
}

const MODES: &[(&str, Option<When>)] =
    &[("Always", Some(When::Always)), ("CrossSubnet", Some(When::CrossSubnet)), ("Never", None)];

const USES: &[(&str, Use)] =
    &[("Workload", Use::Workload), ("Tunnel", Use::Tunnel), ("LoadBalancer", Use::LoadBalancer)];

const ASSIGNMENTS: &[(&str, Assignment)] =
    &[("Automatic", Assignment::Automatic), ("Manual", Assignment::Manual)];

/// How a value is spelt.
pub(super) fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).map_or("", |(word, _)| word)
}

//! What is wrong with Calico's objects: told at once, by the field, with what would be right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use russet_api::calico::{
    Form, Key, Kind, Layout, ObjectFault, Resource, StoreKey, Stored, Written, read_kubernetes_node,
};
use russet_core::model::calico::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, CalicoNodeStatus, ClusterInformation,
    FelixConfiguration, IpPool, IpReservation, IpamBlock, IpamConfiguration, IpamHandle, Name,
    Node, WorkloadEndpoint, overlaps,
};

#[test]
fn pools() {
    for (spec, wanted) in [
        (r"{}", &["spec.cidr: it is missing"][..]),
        (r#"{"cidr":"10.244.0.1/16"}"#, &["spec.cidr: ", "the subnet is 10.244.0.0/16"]),
        (r#"{"cidr":"10.244.0.0/16","blockSize":19}"#, &["spec.blockSize: ", "20 to 32 for IPv4"]),
        (r#"{"cidr":"fd00::/48","blockSize":64}"#, &["spec.blockSize: ", "116 to 128 for IPv6"]),
        (
            r#"{"cidr":"10.244.0.0/16","blockSize":18446744073709551615}"#,
            &["spec.blockSize: a block of 18446744073709551615 bits"],
        ),
        (
            r#"{"cidr":"10.244.0.0/16","blockSize":1e300}"#,
            &["spec.blockSize: 1e+300 is not a whole"],
        ),
        (r#"{"cidr":"10.244.0.0/16","blockSize":-26}"#, &["spec.blockSize: -26 is not a whole"]),
        (r#"{"cidr":"10.244.0.0/28"}"#, &["spec.blockSize: 10.244.0.0/28 is smaller than one of"]),
        (r#"{"cidr":"fd00::/48","ipipMode":"Always"}"#, &["spec.ipipMode: ", "use vxlanMode"]),
        (
            r#"{"cidr":"10.244.0.0/16","ipipMode":"Always","vxlanMode":"CrossSubnet"}"#,
            &["spec.vxlanMode: IPIP and VXLAN are both on"],
        ),
        (
            r#"{"cidr":"10.244.0.0/16","ipipMode":"always"}"#,
            &[r#"spec.ipipMode: "always" is not one of Always, CrossSubnet, Never"#],
        ),
        (
            r#"{"cidr":"10.244.0.0/16","nodeSelector":"zone == 'a' & b"}"#,
            &["spec.nodeSelector: selector, column 13: '&' is not"],
        ),
        (r#"{"cidr":"10.244.0.0/16","allowedUses":["Pod"]}"#, &["spec.allowedUses[0]: \"Pod\""]),
        (r#"{"cidr":"10.244.0.0/16","natOutgoing":"yes"}"#, &["spec.natOutgoing: \"yes\""]),
        (r"[]", &["spec: [] is not an object"]),
    ] {
        refused::<IpPool>("IPPool", spec, wanted);
    }
}

#[test]
fn every_fault_of_a_pool_is_told_at_once() {
    let spec = r#"{"cidr":"10.0.0.0","ipipMode":1,"vxlanMode":"On","blockSize":"x","nodeSelector":"(",
                   "namespaceSelector":"a b","allowedUses":[1],"assignmentMode":"Auto","disabled":0}"#;
    let err = read::<IpPool>("IPPool", spec).unwrap_err();
    let mut paths: Vec<_> = err.faults.iter().map(|fault| fault.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "spec.allowedUses[0]",
            "spec.assignmentMode",
            "spec.blockSize",
            "spec.cidr",
            "spec.disabled",
            "spec.ipipMode",
            "spec.namespaceSelector",
            "spec.nodeSelector",
            "spec.vxlanMode",
        ]
    );
}

#[test]
fn pools_that_overlap_are_found_among_what_was_read() {
    let pools: BTreeMap<Name, IpPool> = [("a", "10.244.0.0/16"), ("b", "10.244.128.0/20")]
        .map(|(name, cidr)| {
            let pool = read::<IpPool>("IPPool", &format!(r#"{{"cidr":"{cidr}"}}"#)).unwrap();
            (name.parse().unwrap(), pool.value().clone())
        })
        .into();
    let found = overlaps(&pools);
    assert_eq!(
        found[0].to_string(),
        "pool b (10.244.128.0/20) lies in pool a (10.244.0.0/16); pools must not overlap"
    );
}

#[test]
fn envelopes() {
    let spec = r#""spec":{"cidr":"10.244.0.0/16"}"#;
    for (text, wanted) in [
        (r#"{"kind":"IPPool","#.to_owned(), "EOF"),
        ("[]".to_owned(), "no JSON object"),
        (format!("{{{spec}}}"), "kind: it is missing; apiVersion: it is missing; metadata.name"),
        (with("BGPPeer", "projectcalico.org/v3", spec), "kind: \"BGPPeer\" is not IPPool"),
        (with("IPPool", "v1", spec), "apiVersion: \"v1\" is not one of projectcalico.org/v3"),
        ("[".repeat(200_000), "recursion limit"),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(1_600_000)), "octets are more than"),
    ] {
        let err = Stored::<IpPool>::read(text.as_bytes(), Layout::Resource).unwrap_err();
        let told = err.to_string();
        assert!(told.starts_with("IPPool: ") && told.contains(wanted), "{wanted} is not in {told}");
    }
    let text = with("WorkloadEndpoint", "projectcalico.org/v3", "\"spec\":{}");
    let err = Stored::<WorkloadEndpoint>::read(text.as_bytes(), Layout::Resource).unwrap_err();
    assert!(err.to_string().contains("metadata.namespace: it is missing"), "{err}");
}

#[test]
fn blocks() {
    let block = |rest: &str| format!(r#"{{"cidr":"10.244.3.64/30",{rest}}}"#);
    for (text, wanted) in [
        (r#"{"cidr":"10.0.0.0/16","allocations":[]}"#.to_owned(), &["cidr: ", "/20 to /32"][..]),
        (block(r#""allocations":[null]"#), &["allocations: 1 elements are not the 4 addresses"]),
        (block(r#""unallocated":[0]"#), &["allocations: it is missing"]),
        (
            block(r#""allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[]"#),
            &["allocations: ordinal 0 has attribute 0, and there are 0"],
        ),
        (
            block(
                r#""allocations":["0",null,null,-1],"unallocated":[1,1,9,99999],"attributes":[{}]"#,
            ),
            &[
                "allocations[0]: ",
                "allocations[3]: -1",
                "ordinal 99999 is no address",
                "ordinal 9 is no address",
            ],
        ),
        (
            block(
                r#""allocations":[0,null,null,null],"unallocated":[0],"attributes":[{"secondary":{"a":1}}]"#,
            ),
            &["both allocated and unallocated", r#"attributes[0].secondary["a"]: 1 is not a text"#],
        ),
        (
            block(
                r#""affinity":"node-1","allocations":[null,null,null,null],"sequenceNumber":-1,"sequenceNumberForAllocation":{"x":1,"0":1e30}"#,
            ),
            &[
                "affinity: ",
                "host:NODE",
                "sequenceNumber: -1",
                "sequenceNumberForAllocation: -1 is no ordinal",
                "1e+30 is not a whole number",
            ],
        ),
    ] {
        bare::<IpamBlock>(&text, wanted);
    }
}

#[test]
fn the_rest_of_ipam() {
    bare::<BlockAffinity>(r#"{"state":"claimed"}"#, &["state: ", "pending, confirmed"]);
    bare::<BlockAffinity>(
        r#"{"deleted":"maybe"}"#,
        &["state: it is missing", "deleted: \"maybe\""],
    );
    let wanted = &["spec.node: it is missing", "spec.cidr: it is missing"];
    refused::<BlockAffinity>("BlockAffinity", r#"{"state":"pending"}"#, wanted);
    bare::<IpamHandle>(
        r#"{"block":{"10.0.0.1/26":1,"10.0.0.0/26":-1,"10.0.1.0/26":4294967296}}"#,
        &["10.0.0.0/26", "-1 is not", r#"block["10.0.1.0/26"]: 4294967296 is not a count"#],
    );
    refused::<IpamHandle>("IPAMHandle", r#"{"handleID":"a/b"}"#, &["spec.handleID: ", "a slash"]);
    bare::<IpamConfiguration>("{}", &["auto_allocate_blocks: strict_affinity must be on"]);
    bare::<IpamConfiguration>(
        r#"{"auto_allocate_blocks":true,"maxBlocksPerHost":99999999999}"#,
        &["maxBlocksPerHost: 99999999999 is not a number from 0 to 2147483647"],
    );
    refused::<IpReservation>(
        "IPReservation",
        r#"{"reservedCIDRs":["10.0.0.0/33",7]}"#,
        &["spec.reservedCIDRs[0]: ", "spec.reservedCIDRs[1]: 7 is not a text"],
    );
}

#[test]
fn nodes_and_workloads() {
    refused::<Node>(
        "Node",
        r#"{"bgp":{"asNumber":4294967296,"ipv4Address":"fd00::1/64","routeReflectorClusterID":"x"},
            "vxlanTunnelMACAddr":"66:","addresses":[{"type":"InternalIP"}]}"#,
        &[
            "spec.bgp.asNumber: 4294967296 is not an AS number",
            "spec.bgp.ipv4Address: \"fd00::1/64\" is not an IPv4 address",
            "spec.bgp.routeReflectorClusterID: ",
            "spec.vxlanTunnelMACAddr: ",
            "spec.addresses[0].address: it is missing",
        ],
    );
    refused::<WorkloadEndpoint>(
        "WorkloadEndpoint",
        r#"{"node":"a/b","ipNetworks":["10.244.0.0/24"],"interfaceName":"cali0123456789abc","mac":"x",
            "ports":[{"protocol":"TCP","port":70000}]}"#,
        &[
            "spec.orchestrator: it is missing",
            "spec.endpoint: it is missing",
            "spec.node: ",
            "spec.ipNetworks[0]: \"10.244.0.0/24\" is not one address, /32 or /128",
            "spec.interfaceName: ",
            "spec.mac: ",
            "spec.ports[0].port: port 70000 is not within 1 to 65535",
        ],
    );
    let err = read_kubernetes_node(
        br#"{"metadata":{"name":"n","annotations":{"projectcalico.org/IPv4Address":"x",
             "projectcalico.org/WireguardPublicKey":"short","other":7}}}"#,
    );
    let told = err.unwrap_err().to_string();
    for part in
        ["[\"projectcalico.org/IPv4Address\"]: ", "[\"projectcalico.org/WireguardPublicKey\"]: "]
    {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn bgp() {
    refused::<BgpConfiguration>(
        "BGPConfiguration",
        r#"{"asNumber":"64512.70000","listenPort":65536,"bindMode":"Any","serviceClusterIPs":[{"cidr":"10.0.0.1/8"}],
            "communities":[{"name":"a","value":"1"}],"nodeMeshMaxRestartTime":"soon",
            "prefixAdvertisements":[{"communities":["a"]}],"nodeMeshPassword":{}}"#,
        &[
            "spec.asNumber: ",
            "spec.listenPort: port 65536",
            "spec.bindMode: \"Any\" is not one of None, NodeIP",
            "spec.serviceClusterIPs[0].cidr: ",
            "spec.communities[0].value: ",
            "spec.nodeMeshMaxRestartTime: a span of time such as 120s",
            "spec.prefixAdvertisements[0].cidr: it is missing",
            "spec.prefixAdvertisements[0].communities[0]: \"a\" is not a community",
            "spec.nodeMeshPassword.secretKeyRef.name: it is missing",
        ],
    );
    for (spec, wanted) in [
        ("{}", &["spec.peerIP: it is missing", "spec.asNumber: it is missing"][..]),
        (r#"{"peerIP":"10.0.0.1:0","asNumber":1}"#, &["spec.peerIP: ", "[IPv6]:PORT"]),
        (r#"{"peerIP":"10.0.0.1","peerSelector":"all()"}"#, &["one of peerIP, peerSelector"]),
        (r#"{"peerSelector":"all()","asNumber":1}"#, &["spec.asNumber: ", "leave it out"]),
        (
            r#"{"peerIP":"10.0.0.1","asNumber":1,"reachableBy":"fd00::1"}"#,
            &["spec.reachableBy: fd00::1 is not of the family of peerIP 10.0.0.1"],
        ),
        (r#"{"peerSelector":"all()","reachableBy":"fd00::1"}"#, &["spec.reachableBy: it says"]),
        (r#"{"peerSelector":"all("}"#, &["spec.peerSelector: selector, column 5: "]),
        (
            r#"{"node":"a","nodeSelector":"all()","peerSelector":"all()"}"#,
            &["spec.nodeSelector: node names the nodes already"],
        ),
        (
            r#"{"peerSelector":"all()","keepOriginalNextHop":true,"nextHopMode":"Self","ttlSecurity":256}"#,
            &["spec.nextHopMode: keepOriginalNextHop", "spec.ttlSecurity: 256 is not"],
        ),
    ] {
        refused::<BgpPeer>("BGPPeer", spec, wanted);
    }
    refused::<BgpFilter>(
        "BGPFilter",
        r#"{"importV4":[{"cidr":"fd00::/8","matchOperator":"In"},
                        {"cidr":"10.0.0.0/8","action":"Reject","operations":[{"setPriority":{"value":0}}]},
                        {"matchOperator":"In","prefixLength":{"max":33},"action":"Drop"}],
            "exportV6":[{"cidr":"fd00::/8","matchOperator":"In","prefixLength":{"min":129},"action":"Accept",
                         "operations":[{},{"prependASPath":{"prefix":[]}}]}]}"#,
        &[
            "spec.importV4[0].cidr: \"fd00::/8\" is not an IPv4 prefix",
            "spec.importV4[0].action: it is missing",
            "spec.importV4[1].matchOperator: it is missing, and cidr is there",
            "spec.importV4[1].operations[0].setPriority.value: priority 0 is not within 1",
            "spec.importV4[2].cidr: it is missing",
            "spec.importV4[2].prefixLength: it says nothing without cidr",
            "spec.importV4[2].action: \"Drop\" is not one of Accept, Reject",
            "spec.exportV6[0].prefixLength: prefix length 129 is not within 0 to 128",
            "spec.exportV6[0].operations[0]: {} is not one of addCommunity",
            "spec.exportV6[0].operations[1].prependASPath.prefix: [] is not a list of 1 to 10",
        ],
    );
}

#[test]
fn settings_and_status() {
    let spec = r#"{"vxlanVNI":16777216,"vxlanPort":0,"vxlanMTU":70000,"deviceRouteProtocol":256,"ipipEnabled":"true",
            "wireguardInterfaceName":"a/b","programClusterRoutes":"yes","ipipMTU":99999999999}"#;
    let heeded = [
        "spec.vxlanVNI: VNI 16777216",
        "spec.vxlanPort: port 0",
        "spec.vxlanMTU: MTU 70000",
        "spec.ipipEnabled: \"true\" is not true or false",
    ];
    let idle = [
        "spec.deviceRouteProtocol: route protocol 256",
        "spec.wireguardInterfaceName: ",
        "spec.programClusterRoutes: ",
        "spec.ipipMTU: MTU 99999999999 is not within 68 to 65535",
    ];
    refused::<FelixConfiguration>("FelixConfiguration", spec, &heeded);
    let written = written(Kind::FelixConfiguration, spec);
    told(&written, spec, &[heeded, idle].concat());
    refused::<ClusterInformation>(
        "ClusterInformation",
        r#"{"datastoreReady":"yes","clusterGUID":{}}"#,
        &["spec.datastoreReady: ", "spec.clusterGUID: {} is not a text"],
    );
    refused::<CalicoNodeStatus>(
        "CalicoNodeStatus",
        r#"{"classes":["Agents"],"updatePeriodSeconds":86401}"#,
        &["spec.node: it is missing", "spec.classes[0]: ", "from 0 to 86400"],
    );
}

#[test]
fn a_slip_in_a_field_without_effect_keeps_nothing_in_the_store_from_being_heeded() {
    let spec = r#"{"vxlanVNI":7,"deviceRouteProtocol":256,"natOutgoingAddress":"nowhere","natPortRange":[]}"#;
    let felix = read::<FelixConfiguration>("FelixConfiguration", spec).unwrap();
    assert_eq!(felix.value().vxlan_vni.map(russet_net::Vni::get), Some(7));
    assert!(felix.unused().iter().any(|field| field == "deviceRouteProtocol"));
    let written = written(Kind::FelixConfiguration, spec);
    let wanted = ["spec.deviceRouteProtocol: ", "spec.natOutgoingAddress: "];
    told(&written, spec, &wanted);
}

#[test]
fn a_hostile_object_has_a_bounded_list_of_faults() {
    let cidrs = vec!["7"; 100_000].join(",");
    let spec = format!(r#"{{"reservedCIDRs":[{cidrs}]}}"#);
    assert_eq!(read::<IpReservation>("IPReservation", &spec).unwrap_err().faults.len(), 32);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Key::read(&bytes);
        let _ = read_kubernetes_node(&bytes);
        let _ = Stored::<IpamBlock>::read(&bytes, Layout::Bare);
    }

    /// One row of Calico's with one piece of it replaced: nothing panics, and what is read is written and
    /// read again as the same.
    #[test]
    fn almost_an_object_never_panics(row in 0_usize..15, at in any::<prop::sample::Index>(), piece in piece()) {
        let text = include_str!("calico/etcd.txt").lines().skip(1).step_by(2).nth(row).unwrap();
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let end = chars.iter().skip(at + 1).position(|c| ",:]}".contains(*c)).map_or(chars.len(), |n| at + 1 + n);
        chars.splice(at..end, piece.chars());
        let text: String = chars.into_iter().collect();
        set::<IpPool>(&text, Layout::Resource)?;
        set::<Node>(&text, Layout::Resource)?;
        set::<WorkloadEndpoint>(&text, Layout::Resource)?;
        set::<ClusterInformation>(&text, Layout::Resource)?;
        steady::<BgpConfiguration>(&text, Layout::Resource)?;
        steady::<BgpPeer>(&text, Layout::Resource)?;
        steady::<BgpFilter>(&text, Layout::Resource)?;
        steady::<FelixConfiguration>(&text, Layout::Resource)?;
        steady::<CalicoNodeStatus>(&text, Layout::Resource)?;
        set::<IpamBlock>(&text, Layout::Bare)?;
        set::<IpamHandle>(&text, Layout::Bare)?;
        set::<IpamConfiguration>(&text, Layout::Bare)?;
        set::<BlockAffinity>(&text, Layout::Bare)?;
    }

    #[test]
    fn a_key_that_is_read_is_written_again(
        text in "/calico/(ipam/v2/(assignment|host/[a-z]{0,2}|virtual/b|handle)(/ipv[46])?(/block)?|resources/v3/projectcalico.org/(ippools|workloadendpoints))/[0-9a-f.:/-]{0,20}"
    ) {
        if let StoreKey::Known(key) = Key::read(text.as_bytes()) {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}

fn piece() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "null",
        "true",
        "-1",
        "0",
        "4095",
        "1e400",
        "18446744073709551616",
        "\"\"",
        "\"10.0.0.0/8\"",
        "\"::/0\"",
        "\"all()\"",
        "[]",
        "{}",
        "[null]",
        "\"é\u{2028}<\"",
        ",",
        "}",
    ]);
    prop_oneof![word.prop_map(str::to_owned), "\\PC{0,3}"]
}

fn steady<T: Form + PartialEq + std::fmt::Debug>(
    text: &str,
    layout: Layout,
) -> Result<(), TestCaseError> {
    if let Ok(stored) = Stored::<T>::read(text.as_bytes(), layout) {
        let written = stored.text();
        let again = Stored::<T>::read(written.as_bytes(), layout).unwrap();
        prop_assert_eq!(again.value(), stored.value());
        prop_assert_eq!(again.text(), written);
    }
    Ok(())
}

/// What is set is what is read again.
fn set<T>(text: &str, layout: Layout) -> Result<(), TestCaseError>
where
    T: Written + Clone + PartialEq + std::fmt::Debug,
{
    steady::<T>(text, layout)?;
    if let Ok(mut stored) = Stored::<T>::read(text.as_bytes(), layout) {
        stored.set(stored.value().clone());
        let again = Stored::<T>::read(stored.text().as_bytes(), layout);
        prop_assert_eq!(again.as_ref().map(Stored::value), Ok(stored.value()), "{}", text);
    }
    Ok(())
}

fn read<T: Form>(kind: &str, spec: &str) -> Result<Stored<T>, ObjectFault> {
    let text = with(kind, "projectcalico.org/v3", &format!("\"spec\":{spec}"));
    Stored::read(text.as_bytes(), Layout::Resource)
}

/// What an object is refused for that somebody is about to write.
fn written(kind: Kind, spec: &str) -> ObjectFault {
    let text = with(kind.name(), "projectcalico.org/v3", &format!("\"spec\":{spec}"));
    Resource::read(kind, serde_json::from_str(&text).unwrap()).unwrap_err()
}

fn with(kind: &str, version: &str, spec: &str) -> String {
    format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"name":"x"}},{spec}}}"#)
}

fn refused<T: Form + std::fmt::Debug>(kind: &str, spec: &str, wanted: &[&str]) {
    told(&read::<T>(kind, spec).unwrap_err(), spec, wanted);
}

fn bare<T: Form + std::fmt::Debug>(text: &str, wanted: &[&str]) {
    told(&Stored::<T>::read(text.as_bytes(), Layout::Bare).unwrap_err(), text, wanted);
}

fn told(err: &ObjectFault, text: &str, wanted: &[&str]) {
    let told = err.to_string();
    for part in wanted {
        assert!(told.contains(part), "{text}: {part} is not in {told}");
    }
}

//! CHECK: whether an attachment is still what ADD made of it.

use std::os::fd::OwnedFd;

use russet_api::cni::{CniError, Code, wire::Check};

use super::{
    add::{Wanted, inside},
    lane::{Lane, records_error},
    one_line,
    spool::key_of,
};

impl Lane {
    pub(super) fn check(
        &mut self,
        check: &Check,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), CniError> {
        let mut inside = inside(descriptors)?;
        let key = key_of(&check.pod);
        let found = self.records.find(&key.network, &key.pod).map_err(|err| records_error(&err))?;
        if found.is_empty() || self.going.contains_key(&key) {
            let msg = format!("{key} is not attached: no address is recorded for it");
            return Err(CniError::new(Code::UNKNOWN_CONTAINER, msg));
        }
        let network = self.network()?;
        let host = self.notes.host_link(&key);
        let pod = Wanted { key: &key, network: &network, host, mtu: network.mtu, mac: None };
        let want = pod.link(&self.assigned(&network, &found));
        let unknown = check.ips.iter().filter(|ip| !found.contains(ip));
        let mut faults: Vec<_> = unknown
            .map(|ip| format!("address {ip} of prevResult is not recorded for it"))
            .collect();
        let seen = self.kernel.check(&mut inside, &want);
        faults.extend(seen.map_err(|err| CniError::new(Code::KERNEL, one_line(&err)))?);
        if faults.is_empty() {
            return Ok(());
        }
        let msg = format!("{key} is not as it was made: {}", faults.join("; "));
        Err(CniError::new(Code::CHECK_FAILED, msg))
    }
}

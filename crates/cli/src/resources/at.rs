//! Which datastore is meant: our flags and variables first, then those that calicoctl's users have set.

use clap::Args;
use russet_store::ConfigFaults;

use super::datastore::{Datastore, Named};
use crate::store::at::{Proof, client};

/// Which datastore holds the resources, and how to speak to it.
#[derive(Args, Clone, Debug, Default)]
pub struct DatastoreArgs {
    /// An endpoint of the datastore, `http://HOST:PORT` or `https://HOST:PORT`; may be given again. Without it
    /// calicoctl's variables are looked at, and `http://127.0.0.1:2379` is the last
    #[arg(long = "endpoint", value_name = "URL", env = "RUSSET_ENDPOINTS", value_delimiter = ',')]
    endpoints: Vec<String>,
    #[command(flatten)]
    proof: Proof,
}

impl DatastoreArgs {
    /// The datastore; it is connected to with the first request.
    pub fn open(&self) -> Result<Datastore, ConfigFaults> {
        let (complete, named) = self.clone().completed(|name| std::env::var(name).ok());
        Ok(Datastore::new(client(complete.endpoints, complete.proof, None)?, named))
    }

    /// With calicoctl's variables in the place of what is not said, and whether an endpoint was.
    fn completed(mut self, variable: impl Fn(&str) -> Option<String>) -> (Self, Named) {
        let variable = |name| variable(name).filter(|text| !text.is_empty());
        let mut named = Named::Somewhere;
        if self.endpoints.is_empty() {
            let all = variable("ETCD_ENDPOINTS").unwrap_or_else(|| {
                named = Named::Nowhere;
                USUAL.to_owned()
            });
            self.endpoints = all.split(',').map(|one| one.trim().to_owned()).collect();
        }
        let Proof { ca_file, cert_file, key_file, username, password } = &mut self.proof;
        for (file, name) in [
            (ca_file, "ETCD_CA_CERT_FILE"),
            (cert_file, "ETCD_CERT_FILE"),
            (key_file, "ETCD_KEY_FILE"),
        ] {
            *file = file.take().or_else(|| variable(name).map(Into::into));
        }
        *username = username.take().or_else(|| variable("ETCD_USERNAME"));
        *password = password.take().or_else(|| variable("ETCD_PASSWORD"));
        (self, named)
    }
}

/// Where a store is looked for that nobody named.
pub const USUAL: &str = "http://127.0.0.1:2379";

#[cfg(test)]
mod tests {
    use super::*;

    fn calicos(name: &str) -> Option<String> {
        let known = [
            ("ETCD_ENDPOINTS", "https://a:1, https://b:2"),
            ("ETCD_CA_CERT_FILE", "/ca"),
            ("ETCD_KEY_FILE", ""),
            ("ETCD_USERNAME", "root"),
        ];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn calicoctl_s_variables_fill_what_our_flags_do_not_say() {
        let (read, named) = DatastoreArgs::default().completed(calicos);
        assert_eq!(named, Named::Somewhere);
        assert_eq!(read.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(read.proof.ca_file.as_deref(), Some("/ca".as_ref()));
        assert_eq!(read.proof.key_file, None);
        assert_eq!(read.proof.username.as_deref(), Some("root"));
    }

    #[test]
    fn our_flags_go_first_and_there_is_a_default() {
        let mut ours = DatastoreArgs { endpoints: vec!["http://c:3".into()], ..Default::default() };
        ours.proof.ca_file = Some("/ours".into());
        let (read, named) = ours.completed(calicos);
        assert_eq!(named, Named::Somewhere);
        assert_eq!(read.endpoints, ["http://c:3"]);
        assert_eq!(read.proof.ca_file.as_deref(), Some("/ours".as_ref()));
        let (read, named) = DatastoreArgs::default().completed(|_| None);
        assert_eq!(read.endpoints, [USUAL]);
        assert_eq!(named, Named::Nowhere);
    }
}

//! Which datastore is meant: our flags and variables first, then what calicoctl's users have said in its
//! configuration file or its variables.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args;

use super::{
    calicoctl::{Place, Said},
    datastore::{Datastore, Named},
    sources::{Source, one},
};
use crate::store::at::{Proof, client};

/// Which datastore holds the resources, and how to speak to it.
#[derive(Args, Clone, Debug, Default)]
pub struct DatastoreArgs {
    /// An endpoint of the datastore, `http://HOST:PORT` or `https://HOST:PORT`; may be given again. Without it
    /// calicoctl's file is looked at, then its variables, and `http://127.0.0.1:2379` is the last
    #[arg(long = "endpoint", value_name = "URL", env = "RUSSET_ENDPOINTS", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// calicoctl's configuration file; it stands in the place of its variables [default:
    /// /etc/calico/calicoctl.cfg, where it is there and no endpoint is given]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    proof: Proof,
}

impl DatastoreArgs {
    /// The datastore; it is connected to with the first request.
    pub fn open(&self) -> Result<Datastore> {
        let variable = |name: &str| std::env::var(name).ok();
        let file = self.file(Path::new(USUAL_FILE))?;
        let said = Said::of(file, variable)?;
        if let Some(told) = self.unheard(&said, variable) {
            eprintln!("russet: {told}");
        }
        let (complete, named) = self.clone().completed(said)?;
        Ok(Datastore::new(client(complete.endpoints, complete.proof, None)?, named))
    }

    /// Whether a configuration file is named.
    pub const fn names_a_file(&self) -> bool {
        self.config.is_some()
    }

    /// calicoctl's configuration file, if one is to be read. One that is named must be there. The usual one is
    /// passed over where we were told of an endpoint: it was written for another program, perhaps of another store.
    fn file(&self, usual: &Path) -> Result<Option<Source>> {
        if let Some(path) = &self.config {
            return one(path).map(Some);
        }
        if !self.endpoints.is_empty() {
            return Ok(None);
        }
        let is_none =
            |err: &io::Error| matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        match one(usual) {
            Err(err) if err.downcast_ref().is_some_and(is_none) => Ok(None),
            read => read.map(Some),
        }
    }

    /// What to tell those whose variable means another store than a file that they did not name.
    fn unheard(&self, said: &Said, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let Place::At(endpoints) = &said.place else { return None };
        let other = variable("ETCD_ENDPOINTS").filter(|text| !text.is_empty())?;
        let is_other = other.split(',').map(str::trim).ne(endpoints.iter().map(String::as_str));
        (is_other && self.endpoints.is_empty() && self.config.is_none()).then(|| {
            format!("{USUAL_FILE} says which store, and ETCD_ENDPOINTS is not looked at, as with calicoctl")
        })
    }

    /// With what calicoctl was told in the place of what we were not, and whether an endpoint was said.
    fn completed(mut self, said: Said) -> Result<(Self, Named)> {
        let mut named = Named::Somewhere;
        if self.endpoints.is_empty() {
            self.endpoints = match said.place {
                Place::At(endpoints) => endpoints,
                Place::Unusable(why) => return Err(why),
                Place::Unsaid => {
                    named = Named::Nowhere;
                    vec![USUAL.to_owned()]
                }
            };
        }
        let Proof { ca_file, cert_file, key_file, username, password } = &mut self.proof;
        for (file, said) in
            [(ca_file, said.ca_file), (cert_file, said.cert_file), (key_file, said.key_file)]
        {
            *file = file.take().or_else(|| said.map(Into::into));
        }
        *username = username.take().or(said.username);
        *password = password.take().or(said.password);
        Ok((self, named))
    }
}

/// Where calicoctl looks for its configuration when none is named.
const USUAL_FILE: &str = "/etc/calico/calicoctl.cfg";

/// Where a store is looked for that nobody named.
pub const USUAL: &str = "http://127.0.0.1:2379";

#[cfg(test)]
mod tests {
    use std::fs;

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

    /// All as `open` does it, with this file at the usual place.
    fn told(args: &DatastoreArgs, usual: &Path) -> Result<(DatastoreArgs, Named)> {
        args.clone().completed(Said::of(args.file(usual)?, calicos)?)
    }

    fn ours(endpoint: &str) -> DatastoreArgs {
        DatastoreArgs { endpoints: vec![endpoint.into()], ..Default::default() }
    }

    fn config(spec: &str) -> String {
        format!("apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {{{spec}}}\n")
    }

    #[test]
    fn calicoctl_s_variables_fill_what_our_flags_do_not_say() {
        let (read, named) = told(&DatastoreArgs::default(), Path::new("/nonexistent/c")).unwrap();
        assert_eq!(named, Named::Somewhere);
        assert_eq!(read.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(read.proof.ca_file.as_deref(), Some("/ca".as_ref()));
        assert_eq!(read.proof.key_file, None);
        assert_eq!(read.proof.username.as_deref(), Some("root"));
    }

    #[test]
    fn our_flags_go_first_and_there_is_a_default() {
        let mut ours = ours("http://c:3");
        ours.proof.ca_file = Some("/ours".into());
        let (read, named) = told(&ours, Path::new("/nonexistent/c")).unwrap();
        assert_eq!(named, Named::Somewhere);
        assert_eq!(read.endpoints, ["http://c:3"]);
        assert_eq!(read.proof.ca_file.as_deref(), Some("/ours".as_ref()));
        assert_eq!(read.proof.username.as_deref(), Some("root"));
        let said = Said::of(None, |_| None).unwrap();
        let (read, named) = DatastoreArgs::default().completed(said).unwrap();
        assert_eq!(read.endpoints, [USUAL]);
        assert_eq!(named, Named::Nowhere);
    }

    #[test]
    fn a_file_goes_before_calicoctl_s_variables_and_our_flags_before_both() {
        let home = tempfile::tempdir().unwrap();
        let (usual, named) = (home.path().join("usual"), home.path().join("named"));
        fs::write(&usual, config("etcdEndpoints: 'http://usual:1', etcdPassword: u")).unwrap();
        fs::write(&named, config("etcdEndpoints: 'http://named:1', etcdPassword: n")).unwrap();

        let (read, _) = told(&DatastoreArgs::default(), &usual).unwrap();
        assert_eq!(read.endpoints, ["http://usual:1"]);
        // Not even what the file leaves out is taken from the variables.
        assert_eq!((read.proof.ca_file, read.proof.username), (None, None));
        assert_eq!(read.proof.password.as_deref(), Some("u"));

        let by_name = DatastoreArgs { config: Some(named), ..Default::default() };
        assert_eq!(told(&by_name, &usual).unwrap().0.endpoints, ["http://named:1"]);
        let both = DatastoreArgs { endpoints: vec!["http://c:3".into()], ..by_name };
        let (read, _) = told(&both, &usual).unwrap();
        assert_eq!(read.endpoints, ["http://c:3"]);
        assert_eq!(read.proof.password.as_deref(), Some("n"));
        // No secret of the usual file goes to a store that it does not name.
        let (read, _) = told(&ours("http://c:3"), &usual).unwrap();
        assert_eq!(read.proof.password, None);
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_the_usual_one_need_not() {
        let home = tempfile::tempdir().unwrap();
        let missing = home.path().join("missing");
        assert!(DatastoreArgs::default().file(&missing).unwrap().is_none());
        assert!(DatastoreArgs::default().file(Path::new("/dev/null/c")).unwrap().is_none());
        let named = DatastoreArgs { config: Some(missing), ..Default::default() };
        let err = format!("{:#}", named.file(Path::new("/nonexistent/c")).unwrap_err());
        assert!(err.contains("missing: No such file"), "{err}");
        // One that is there and cannot be read is not passed over.
        assert!(DatastoreArgs::default().file(home.path()).is_err());
    }

    #[test]
    fn an_endpoint_of_ours_goes_before_a_store_in_kubernetes() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("c");
        fs::write(&file, config("datastoreType: kubernetes")).unwrap();
        let err = told(&DatastoreArgs::default(), &file).unwrap_err();
        assert!(format!("{err:#}").contains("c:3:23: spec.datastoreType: kubernetes"), "{err:#}");
        assert_eq!(told(&ours("http://c:3"), &file).unwrap().0.endpoints, ["http://c:3"]);
        let named = DatastoreArgs { config: Some(file), ..ours("http://c:3") };
        assert_eq!(told(&named, Path::new("/")).unwrap().0.endpoints, ["http://c:3"]);
    }

    #[test]
    fn a_variable_that_a_file_nobody_named_goes_before_is_told() {
        let said = |endpoints: &[&str]| Said {
            place: Place::At(endpoints.iter().map(|one| (*one).to_owned()).collect()),
            ..Said::of(None, |_| None).unwrap()
        };
        let usual = DatastoreArgs::default();
        assert!(usual.unheard(&said(&["http://c:3"]), calicos).is_some());
        assert!(usual.unheard(&said(&["https://a:1", "https://b:2"]), calicos).is_none());
        assert!(usual.unheard(&said(&["http://c:3"]), |_| None).is_none());
        let named = DatastoreArgs { config: Some("c".into()), ..Default::default() };
        assert!(named.unheard(&said(&["http://c:3"]), calicos).is_none());
        assert!(ours("http://d:4").unheard(&said(&["http://c:3"]), calicos).is_none());
    }
}

//! What calicoctl was told of its store: by its configuration file (`calicoctl/file`), or else by its variables.
//!
//! A file that is there is the whole answer, as it is to calicoctl: no variable is looked at besides, not even
//! for what the file leaves out. Two programs that are told the same so speak to the same store. `at` puts our
//! own flags before all of it.

mod file;

use anyhow::{Error, Result};
use russet_store::ConfigFaults;

pub use self::file::Config;
use super::sources::Source;

/// What was said. Not to be shown: the password is in it.
pub struct Said {
    pub place: Place,
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Where the store is.
pub enum Place {
    At(Vec<String>),
    Unsaid,
    /// It is said, and nothing that can be asked here. Whoever was told another place need not mind.
    Unusable(Error),
}

/// A setting, under its name in the file and in the environment.
#[derive(Clone, Copy)]
struct Setting {
    field: &'static str,
    variable: &'static str,
}

/// Where settings are said.
trait Settings {
    /// What is said, if it is not empty.
    fn text(&self, setting: Setting) -> Option<String>;

    /// Why a setting cannot be used, with its place.
    fn refuse(&self, setting: Setting, reason: &str) -> Error;
}

impl Said {
    /// Hears the file, or the variables where there is none.
    ///
    /// # Errors
    ///
    /// When the file is not what calicoctl reads.
    pub fn of(file: Option<Source>, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(source) = file else { return Ok(Self::by(&Variables(variable))) };
        let config = Config::read(source)?;
        let mut said = Self::by(&config);
        if matches!(said.place, Place::Unsaid) {
            // Our usual place is for those who said nothing at all.
            said.place = Place::Unusable(config.refuse(ENDPOINTS, MISSING));
        }
        Ok(said)
    }

    fn by(settings: &impl Settings) -> Self {
        Self {
            place: place(settings),
            ca_file: settings.text(CA_FILE),
            cert_file: settings.text(CERT_FILE),
            key_file: settings.text(KEY_FILE),
            username: settings.text(USERNAME),
            password: settings.text(PASSWORD),
        }
    }
}

fn place(settings: &impl Settings) -> Place {
    let unusable = |setting, reason: &str| Place::Unusable(settings.refuse(setting, reason));
    match settings.text(DATASTORE_TYPE).as_deref() {
        Some("etcdv3") | None => {}
        Some("kubernetes") => return unusable(DATASTORE_TYPE, KUBERNETES),
        Some(other) => {
            let shown: String = other.chars().take(60).collect();
            let reason = format!("{shown:?} is no type of datastore; etcdv3 is wanted");
            return unusable(DATASTORE_TYPE, &reason);
        }
    }
    if settings.text(DISCOVERY_SRV).is_some() {
        return unusable(DISCOVERY_SRV, DISCOVERY);
    }
    settings.text(ENDPOINTS).map_or(Place::Unsaid, |all| {
        Place::At(all.split(',').map(|one| one.trim().to_owned()).collect())
    })
}

struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Settings for Variables<F> {
    fn text(&self, setting: Setting) -> Option<String> {
        (self.0)(setting.variable).filter(|text| !text.is_empty())
    }

    fn refuse(&self, setting: Setting, reason: &str) -> Error {
        ConfigFaults(vec![format!("{}: {reason}", setting.variable)]).into()
    }
}

const fn setting(field: &'static str, variable: &'static str) -> Setting {
    Setting { field, variable }
}

// (libcalico-go: apiconfig.CalicoAPIConfigSpec)
const DATASTORE_TYPE: Setting = setting("datastoreType", "DATASTORE_TYPE");
const ENDPOINTS: Setting = setting("etcdEndpoints", "ETCD_ENDPOINTS");
const DISCOVERY_SRV: Setting = setting("etcdDiscoverySrv", "ETCD_DISCOVERY_SRV");
const USERNAME: Setting = setting("etcdUsername", "ETCD_USERNAME");
const PASSWORD: Setting = setting("etcdPassword", "ETCD_PASSWORD");
const CA_FILE: Setting = setting("etcdCACertFile", "ETCD_CA_CERT_FILE");
const CERT_FILE: Setting = setting("etcdCertFile", "ETCD_CERT_FILE");
const KEY_FILE: Setting = setting("etcdKeyFile", "ETCD_KEY_FILE");
const ALL: [Setting; 8] =
    [DATASTORE_TYPE, ENDPOINTS, DISCOVERY_SRV, USERNAME, PASSWORD, CA_FILE, CERT_FILE, KEY_FILE];

const KUBERNETES: &str = "kubernetes: Calico's objects in Kubernetes' API are not read yet; \
                          etcdv3 is wanted, or --endpoint";
const DISCOVERY: &str = "endpoints are not looked up by SRV records; name them as etcdEndpoints, \
                         ETCD_ENDPOINTS or --endpoint";
const MISSING: &str = "it is missing, and says where etcd is: http://HOST:2379";

#[cfg(test)]
mod tests {
    use super::*;

    fn of_variables(known: &[(&str, &str)]) -> Said {
        let variable = |name: &str| {
            known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Said::of(None, variable).unwrap()
    }

    fn why(said: &Said) -> String {
        match &said.place {
            Place::Unusable(why) => format!("{why:#}"),
            Place::At(_) | Place::Unsaid => panic!("it can be used"),
        }
    }

    #[test]
    fn variables_say_where_the_store_is_and_how_to_speak_to_it() {
        let said = of_variables(&[
            ("DATASTORE_TYPE", "etcdv3"),
            ("ETCD_ENDPOINTS", "https://a:1, https://b:2"),
            ("ETCD_KEY_FILE", ""),
            ("ETCD_USERNAME", "root"),
        ]);
        assert!(matches!(said.place, Place::At(all) if all == ["https://a:1", "https://b:2"]));
        assert_eq!((said.key_file, said.username), (None, Some("root".into())));
        assert!(matches!(of_variables(&[]).place, Place::Unsaid));
    }

    #[test]
    fn a_store_that_cannot_be_asked_is_named_by_its_variable() {
        let kubernetes = of_variables(&[
            ("DATASTORE_TYPE", "kubernetes"),
            ("ETCD_ENDPOINTS", "http://a:1"),
            ("ETCD_USERNAME", "root"),
        ]);
        let told = why(&kubernetes);
        assert!(told.contains("DATASTORE_TYPE: kubernetes: ") && told.contains("not read yet"));
        assert_eq!(kubernetes.username.as_deref(), Some("root"));
        let told = why(&of_variables(&[("DATASTORE_TYPE", "etcdv2")]));
        assert!(told.contains("DATASTORE_TYPE: \"etcdv2\" is no type of datastore"), "{told}");
        let told = why(&of_variables(&[("ETCD_DISCOVERY_SRV", "example.org")]));
        assert!(told.contains("ETCD_DISCOVERY_SRV: endpoints are not looked up"), "{told}");
    }
}

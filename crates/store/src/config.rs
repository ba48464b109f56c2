//! How to reach the datastore: endpoints, TLS, user and password, checked as a whole.
//!
//! [`ClientSettings`] is what flags, environment and file say, as text. [`ClientConfig::read`] turns
//! it into something that cannot be wrong in form, reading the files it names, and tells every
//! fault at once, before the first socket.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

/// What the operator wrote. The names follow flannel's flags (`etcd-endpoints`, `etcd-cafile`, …).
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// `http://host:port` or `https://host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signs the servers' certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate, with the key file.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// How long one request may take; 5 s unless told.
    pub request_timeout: Option<Duration>,
}

/// A text that never appears in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Checked settings: at least one endpoint, and whatever TLS and credentials need is there.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) login: Option<Login>,
    pub(crate) request_timeout: Duration,
}

/// A user of etcd's own authentication.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// Every fault that the settings have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("datastore settings: {}", .0.join("; "))]
pub struct ConfigFaults(pub Vec<String>);

impl ClientConfig {
    /// Reads and checks the settings.
    ///
    /// # Errors
    ///
    /// All faults, none hidden behind another.
    pub fn read(settings: &ClientSettings) -> Result<Self, ConfigFaults> {
        let mut faults = Vec::new();
        let tls = read_tls(settings, &mut faults);
        let login = read_login(settings, &mut faults);
        let request_timeout = settings.request_timeout.unwrap_or(REQUEST_TIMEOUT);
        if request_timeout.is_zero() {
            faults.push("request timeout: must be above zero".to_owned());
        }
        let endpoints = read_endpoints(settings, &tls, &mut faults);
        if faults.is_empty() {
            Ok(Self { endpoints, login, request_timeout })
        } else {
            Err(ConfigFaults(faults))
        }
    }

    /// Builds the configuration for plain endpoints without credentials.
    ///
    /// # Errors
    ///
    /// When an endpoint is no URL, or there is none.
    pub fn plain<S: Into<String>>(
        endpoints: impl IntoIterator<Item = S>,
    ) -> Result<Self, ConfigFaults> {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self::read(&ClientSettings { endpoints, ..ClientSettings::default() })
    }
}

fn read_endpoints(settings: &ClientSettings, tls: &Tls, faults: &mut Vec<String>) -> Vec<Endpoint> {
    if settings.endpoints.is_empty() {
        faults.push("endpoints: none given, expected http://HOST:PORT or https://HOST:PORT".into());
    }
    if settings.endpoints.len() > MAX_ENDPOINTS {
        faults.push(format!("endpoints: more than {MAX_ENDPOINTS}"));
        return Vec::new();
    }
    let mut endpoints = Vec::new();
    for text in &settings.endpoints {
        match read_endpoint(text.trim(), tls) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(fault) => faults.push(format!("endpoint {text:?}: {fault}")),
        }
    }
    let secure = settings.endpoints.iter().any(|text| text.trim().starts_with("https://"));
    if tls.is_configured() && !secure && !settings.endpoints.is_empty() {
        faults.push("TLS files are given, but no endpoint begins with https://".into());
    }
    endpoints
}

fn read_endpoint(text: &str, tls: &Tls) -> Result<Endpoint, String> {
    let uri: Uri = text.parse().map_err(|err| format!("{err}"))?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(other) => return Err(format!("scheme {other:?} is neither http nor https")),
        None => return Err("no scheme, expected http:// or https:// in front".to_owned()),
    };
    if uri.port_u16().is_none() {
        return Err("no port (etcd's is 2379)".to_owned());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("nothing may follow the port".to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("user and password have settings of their own".to_owned());
    }
    let endpoint = tuned(Endpoint::from(uri));
    if secure { endpoint.tls_config(tls.client()).map_err(|err| chain(&err)) } else { Ok(endpoint) }
}

/// Sets the times by which a dead connection is noticed: 9 s of silence while something waits.
fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // etcd's enforcement policy forbids pings without a stream.
        .keep_alive_while_idle(false)
}

/// The PEM texts that TLS needs.
#[derive(Default)]
struct Tls {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    fn is_configured(&self) -> bool {
        self.ca.is_some() || self.identity.is_some()
    }

    fn client(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            config = config.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(cert, key));
        }
        config
    }
}

fn read_tls(settings: &ClientSettings, faults: &mut Vec<String>) -> Tls {
    let secure = settings.endpoints.iter().any(|text| text.trim().starts_with("https://"));
    if secure && settings.ca_file.is_none() {
        // Russet ships no list of public authorities: a datastore's is the operator's own.
        faults.push("CA file: needed for https:// endpoints".to_owned());
    }
    let ca = settings.ca_file.as_deref().and_then(|path| read_certificates(path, faults));
    let cert = settings.cert_file.as_deref().and_then(|path| read_certificates(path, faults));
    let key = settings.key_file.as_deref().and_then(|path| read_key(path, faults));
    if settings.cert_file.is_some() != settings.key_file.is_some() {
        faults.push("client certificate and client key: each needs the other".to_owned());
    }
    Tls { ca, identity: cert.zip(key) }
}

/// Reads a PEM file that must hold certificates, all of them well formed.
pub(crate) fn read_certificates(path: &Path, faults: &mut Vec<String>) -> Option<Vec<u8>> {
    let pem = read_file(path, faults)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => return Some(pem),
        Ok(_) => faults.push(format!("{}: no certificate in it", path.display())),
        Err(err) => faults.push(format!("{}: {err}", path.display())),
    }
    None
}

/// Reads a PEM file that must hold a private key.
pub(crate) fn read_key(path: &Path, faults: &mut Vec<String>) -> Option<Vec<u8>> {
    let pem = read_file(path, faults)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Some(pem),
        Err(err) => {
            faults.push(format!("{}: no private key: {err}", path.display()));
            None
        }
    }
}

fn read_file(path: &Path, faults: &mut Vec<String>) -> Option<Vec<u8>> {
    std::fs::read(path).map_err(|err| faults.push(format!("{}: {err}", path.display()))).ok()
}

fn read_login(settings: &ClientSettings, faults: &mut Vec<String>) -> Option<Login> {
    match (&settings.username, &settings.password) {
        (Some(user), Some(_)) if user.is_empty() => {
            faults.push("user name: must not be empty".to_owned());
            None
        }
        (Some(user), Some(password)) => {
            Some(Login { user: user.clone(), password: password.clone() })
        }
        (None, None) => None,
        (Some(_), None) => {
            faults.push("user name without a password".to_owned());
            None
        }
        (None, Some(_)) => {
            faults.push("password without a user name".to_owned());
            None
        }
    }
}

fn chain(err: &dyn std::error::Error) -> String {
    crate::error::one_line(err)
}

const MAX_ENDPOINTS: usize = 32;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// etcd closes a connection that is pinged more often than every 5 s (`--grpc-keepalive-min-time`).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_at_once() {
        let settings = ClientSettings {
            endpoints: vec!["ftp://a:1".into(), "http://b".into(), "10.0.0.1:2379".into()],
            ca_file: Some("/nonexistent/ca.pem".into()),
            key_file: Some("/nonexistent/key.pem".into()),
            username: Some("root".into()),
            request_timeout: Some(Duration::ZERO),
            ..ClientSettings::default()
        };

        let ConfigFaults(faults) = ClientConfig::read(&settings).unwrap_err();

        for part in ["ftp", "no port", "no scheme", "ca.pem", "key.pem", "each needs", "password"] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:#?}");
        }
        assert!(faults.iter().any(|fault| fault.contains("above zero")));
    }

    #[test]
    fn no_endpoint_is_a_fault() {
        assert!(ClientConfig::plain(Vec::<String>::new()).is_err());
    }

    #[test]
    fn https_needs_an_authority() {
        let ConfigFaults(faults) = ClientConfig::plain(["https://127.0.0.1:2379"]).unwrap_err();
        assert_eq!(faults, ["CA file: needed for https:// endpoints"]);
    }

    #[test]
    fn a_password_is_not_printed() {
        let settings =
            ClientSettings { password: Some(Secret::new("hunter2")), ..ClientSettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}

//! Which running store is meant, ours or an etcd, and how to speak to it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use russet_store::{ClientConfig, ClientSettings, ConfigFaults, EtcdClient, config::Secret};

/// Which store, and how to speak to it.
#[derive(Args, Debug)]
pub struct StoreAt {
    /// An endpoint, `http://HOST:PORT` or `https://HOST:PORT`; may be given again
    #[arg(
        long = "endpoint",
        value_name = "URL",
        env = "RUSSET_ENDPOINTS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    pub endpoints: Vec<String>,
    #[command(flatten)]
    pub proof: Proof,
}

/// How a client proves who it is, and knows the server.
#[derive(Args, Clone, Debug, Default)]
pub struct Proof {
    /// The authority of the servers' certificates (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Our certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    #[arg(long, requires = "password")]
    pub username: Option<String>,
    #[arg(long, env = "RUSSET_STORE_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl StoreAt {
    /// A client for requests that are answered at once.
    pub fn client(self) -> Result<EtcdClient, ConfigFaults> {
        client(self.endpoints, self.proof, None)
    }

    /// A client for requests over which a server may work for a while, such as writing its file anew.
    pub fn patient_client(self) -> Result<EtcdClient, ConfigFaults> {
        client(self.endpoints, self.proof, Some(PATIENCE))
    }
}

/// Makes a client; it connects with the first request.
pub fn client(
    endpoints: Vec<String>,
    proof: Proof,
    request_timeout: Option<Duration>,
) -> Result<EtcdClient, ConfigFaults> {
    let settings = ClientSettings {
        endpoints,
        ca_file: proof.ca_file,
        cert_file: proof.cert_file,
        key_file: proof.key_file,
        username: proof.username,
        password: proof.password.map(Secret::new),
        request_timeout,
    };
    Ok(EtcdClient::new(&ClientConfig::read(&settings)?))
}

const PATIENCE: Duration = Duration::from_mins(5);

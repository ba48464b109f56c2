//! `russet agent`: flags and environment on top of the file, logs, signals.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use russet_agent::config::{Config, DetectWords, Overrides};
use tracing_subscriber::EnvFilter;

use crate::store::until_asked_to_stop;

#[derive(Args, Debug)]
pub struct AgentArgs {
    /// The configuration file (docs/agent.md); /etc/russet/agent.toml when that exists
    #[arg(long, value_name = "FILE", env = "RUSSET_CONFIG")]
    config: Option<PathBuf>,
    /// This node's name; the host name unless told
    #[arg(long, env = "RUSSET_NODE")]
    node: Option<String>,
    /// Whose names and defaults to use: flannel, calico or russet; flannel unless told
    #[arg(long, env = "RUSSET_PRESET")]
    preset: Option<String>,
    /// The link to the other nodes; that of the default route unless told
    #[arg(long, env = "RUSSET_INTERFACE")]
    interface: Option<String>,
    /// The IPv4 address that other nodes send to; the link's first unless told
    #[arg(long, value_name = "ADDRESS", env = "RUSSET_PUBLIC_IP")]
    public_ip: Option<String>,
    /// The IPv6 address that other nodes send to; the link's first global one unless told
    #[arg(long, value_name = "ADDRESS", env = "RUSSET_PUBLIC_IPV6")]
    public_ipv6: Option<String>,
    /// A datastore endpoint, `http://HOST:PORT` or `https://HOST:PORT`; may be given again
    #[arg(long = "endpoint", value_name = "URL", env = "RUSSET_ENDPOINTS", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// The folder of the network in the datastore; /calico with preset calico, else /coreos.com/network unless told
    #[arg(long, env = "RUSSET_PREFIX")]
    prefix: Option<String>,
    /// Where /healthz, /readyz and /metrics answer, or "off"
    #[arg(long, value_name = "ADDRESS:PORT", env = "RUSSET_HTTP")]
    http: Option<String>,
    /// The file of the node's BGP speaker (docs/bgp.md); unless told no speaker, or with preset calico the datastore's
    #[arg(long, value_name = "FILE", env = "RUSSET_BGP")]
    bgp_config: Option<PathBuf>,
    /// Checks the configuration and does nothing else
    #[arg(long)]
    check: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "RUSSET_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

pub fn run(args: AgentArgs) -> Result<ExitCode> {
    let usual = PathBuf::from("/etc/russet/agent.toml");
    let file = args.config.clone().or_else(|| usual.exists().then_some(usual));
    let (check, log_format) = (args.check, args.log_format);
    let config = Config::load(file.as_deref(), args.overrides())?;
    if check {
        println!("the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    russet_kernel::sys::share_one_heap();
    // A kernel without large pages has nothing to be asked.
    let _ = russet_kernel::sys::text::map_sparsely();
    start_logs(log_format);
    serve(config)
}

/// Runs the agent until it is asked to stop.
pub fn serve(mut config: Config) -> Result<ExitCode> {
    config.settings.key = wireguard_key(&config.paths.wireguard_key);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        russet_agent::run(config, until_asked_to_stop()?).await.map_err(anyhow::Error::from)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The public half of this node's key. Without one every transport works but WireGuard.
fn wireguard_key(path: &Path) -> Option<russet_net::PublicKey> {
    russet_engine::key::public(path)
        .inspect_err(|error| {
            tracing::error!(op = "read key", path = %path.display(), %error, "no wireguard on this node");
        })
        .ok()
}

impl AgentArgs {
    fn overrides(self) -> Overrides {
        Overrides {
            node: self.node,
            preset: self.preset,
            interface: self.interface,
            public_ip: self.public_ip,
            public_ipv6: self.public_ipv6,
            endpoints: self.endpoints,
            prefix: self.prefix,
            http_listen: self.http,
            bgp_config: self.bgp_config,
            detect: DetectWords::of_calico(|name| std::env::var(name).ok()),
        }
    }
}

/// Logs go to standard error; `RUST_LOG` chooses what is said.
pub fn start_logs(format: LogFormat) {
    start_logs_at(format, "info");
}

/// The same with another level where `RUST_LOG` says none.
pub fn start_logs_at(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => logs.with_ansi(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}

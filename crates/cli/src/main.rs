//! `russet`: one command. Each subcommand has a file; what they share is `output` (tables, JSON, YAML),
//! `client` (the agent's admin socket), `pipe` (a reader that has had enough) and `exit` (what an exit code means).

mod agent;
mod bgp;
mod client;
mod cni;
mod engine;
mod exit;
mod flanneld;
mod get;
mod ipam;
mod migrate;
mod node;
mod output;
mod path;
mod pipe;
mod resources;
mod status;
mod store;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "russet", version, about = "Gives containers a network", after_help = EXAMPLES, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Taken because calicoctl has it, and without effect: no versions are compared
    #[arg(long, global = true)]
    allow_version_mismatch: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the node agent
    Agent(agent::AgentArgs),
    /// Runs the node agent with flanneld's flags and habits; so does this program under the name flanneld
    #[command(disable_help_flag = true)]
    Flanneld {
        /// flanneld's own; -help shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAG")]
        flags: Vec<String>,
    },
    /// Runs the embedded datastore, or asks it things
    Store(store::StoreArgs),
    /// Runs a BGP speaker, or asks it things
    Bgp(bgp::BgpArgs),
    /// Moves to Russet, or within it, while everything runs
    Migrate(migrate::MigrateArgs),
    /// Shows how this node is: peers, leases, what is pending and why, what was repaired and who broke it
    Status(status::StatusArgs),
    /// Lists leases, routes or pods, or Calico's resources of the datastore
    Get(get::GetArgs),
    /// Makes resources as files say: what is not there is created, what is there is changed
    Apply(resources::WriteArgs),
    /// Creates resources of files; what exists is a failure
    Create(resources::CreateArgs),
    /// Changes resources as files say; what does not exist is a failure
    Replace(resources::WriteArgs),
    /// Deletes resources
    Delete(resources::DeleteArgs),
    /// Changes fields of one resource
    Patch(resources::PatchArgs),
    /// Checks files of resources, and asks no store
    Validate(resources::ValidateArgs),
    /// Shows and checks what was taken from Calico's pools, gives addresses back, splits a pool
    Ipam(ipam::IpamArgs),
    /// Shows this node and its BGP sessions
    Node(node::NodeArgs),
    /// Runs, shows or replaces the engines of the userspace transports
    Engine(engine::EngineArgs),
    /// Shows every hop between two pods, as the kernel would send the packet now
    Path(path::PathArgs),
    /// Installs the CNI plugin
    Cni(cni::CniArgs),
    /// Builds clusters out of network namespaces
    Lab(russet_lab::cli::LabArgs),
    /// Prints a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// The lab's prober
    #[command(hide = true)]
    Probe(russet_lab::probe::ProbeArgs),
}

fn main() -> ExitCode {
    pipe::end_with_the_reader();
    let result = match flanneld::called_as_it() {
        Some(flags) => flanneld::run(flags),
        None => dispatch(Args::parse().command),
    };
    match result {
        Ok(code) => code,
        Err(err) => {
            eprintln!("russet: {err:#}");
            exit::code_of(&err)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent(args) => agent::run(args),
        Command::Flanneld { flags } => flanneld::run(flags),
        Command::Store(args) => store::run(args),
        Command::Bgp(args) => bgp::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Status(args) => status::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Apply(args) => resources::apply(args),
        Command::Create(args) => resources::create(args),
        Command::Replace(args) => resources::replace(args),
        Command::Delete(args) => resources::delete(args),
        Command::Patch(args) => resources::patch(&args),
        Command::Validate(args) => resources::validate(&args),
        Command::Ipam(args) => ipam::run(args),
        Command::Node(args) => node::run(args),
        Command::Engine(args) => engine::run(args),
        Command::Path(args) => path::run(&args),
        Command::Cni(args) => cni::run(args),
        Command::Lab(args) => russet_lab::cli::run(args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "russet", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Probe(args) => russet_lab::probe::run(args),
    }
}

const EXAMPLES: &str = "\
Examples:
  russet store --listen 127.0.0.1:2379     a datastore for a laptop or a small cluster
  russet migrate store --from http://127.0.0.1:2379 --to http://etcd-1:2379
                                           its keys to another store, live
  russet agent --endpoint http://127.0.0.1:2379
                                           the agent of this node
  russet flanneld -etcd-endpoints http://127.0.0.1:2379 -ip-masq
                                           the same with flanneld's flags
  russet bgp --config bgp.toml             a BGP route reflector
  russet cni install                       the plugin and its configuration, for the container runtime
  russet status                            how this node is, and why
  russet get leases -o json                who has which subnet
  russet apply -f pools.yaml               Calico's resources, with calicoctl's habits (docs/resources.md)
  russet get ippools -o yaml               the same, to be read or applied again
  russet ipam show                         how much of each pool is taken
  russet engine status                     what the userspace transports carry and drop
  russet path 10.50.7.2 10.50.9.3          each hop, device, encapsulation and MTU
  russet lab run docs/lab/three-nodes.yaml three nodes on this machine, and what must hold

Exit codes: 0 done; 1 it did not work; 2 wrong usage; 64 refused configuration; 65 a file that cannot be used as
it is; 69 the agent does not answer.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}

//! `russet cni install`: the plugin and its network, where a container runtime looks for them.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use russet_cni::install::{Install, Lists};

#[derive(Args, Debug)]
pub struct CniArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes the plugin's binary and, last, the list that makes runtimes use it
    Install(InstallArgs),
}

#[derive(Args, Debug)]
struct InstallArgs {
    /// The plugin's binary; `russet-cni` beside this program unless told
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the runtime looks for plugins
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where the runtime looks for networks
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// The network's name
    #[arg(long, default_value = "russet")]
    network: String,
    /// Serve the lists that Calico's users have: the plugin gets Calico's names, and no list is written
    #[arg(long)]
    calico: bool,
}

pub fn run(args: CniArgs) -> Result<ExitCode> {
    let Command::Install(args) = args.command;
    let binary = match args.binary {
        Some(path) => path,
        None => std::env::current_exe().context("find this program")?.with_file_name("russet-cni"),
    };
    let install = Install {
        binary,
        bin_folder: args.bin_dir,
        conf_folder: args.conf_dir,
        network: args.network,
        lists: if args.calico { Lists::Calico } else { Lists::Russet },
        ..Install::default()
    };
    let done = install.run()?;
    println!("plugin   {}", done.binary.display());
    for name in &done.names {
        println!("as       {}", name.display());
    }
    for kept in &done.kept {
        println!("kept     {}", kept.display());
    }
    if let Some(conflist) = &done.conflist {
        println!("network  {}", conflist.display());
    }
    if !done.portmap && done.conflist.is_some() {
        println!(
            "ports    no portmap plugin in {}: published ports are not mapped",
            install.bin_folder.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

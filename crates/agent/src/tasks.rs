//! Who runs, who owns what, and what flows between them.
//!
//! ```text
//!                      tokio, one thread                          plain threads
//!  ┌───────────┐  Input::Store (64)  ┌─────────────┐  patches, coalescing  ┌────────────────┐
//!  │ store     │────────────────────▶│             │──────────────────────▶│ reconcile lane │─▶ kernel
//!  │ watch     │                     │             │◀──────────────────────│ (all drivers)  │
//!  ├───────────┤  Wrote (64)         │    owner    │  Input::Lane (64)     ├────────────────┤
//!  │ store     │────────────────────▶│             │◀──────────────────────│ observer       │◀─ netlink
//!  │ writer    │◀────────────────────│   World     │  Input::Node (64)     ├────────────────┤
//!  └───────────┘  StoreWrite (16)    │   Calc      │◀──────────────────────│ attach lane    │◀─ CNI socket
//!  ┌───────────┐  Input::Ask (64)    │   Lease     │  Input::Pod (64)      │ (CNI server)   │─▶ kernel
//!  │ admin     │────────────────────▶│   machine   │                       ├────────────────┤
//!  ├───────────┤                     │             │  what to keep (1)     │ keeper: files  │─▶ disk
//!  │ http      │     Input::Ask (64) │             │──────────────────────▶│                │
//!  ├───────────┤────────────────────▶│             │                       └────────────────┘
//!  │ operator's│  Input::Errands (64)│             │
//!  │ commands  │────────────────────▶│             │     with flannel's `extension`; `errands` runs them
//!  ├───────────┤◀── what is wanted ──│             │
//!  │ BGP       │  Input::Learned (64)│             │  Input::Probed (64)   ┌────────────────┐
//!  │ speaker   │────────────────────▶│             │◀──────────────────────│ prober         │─▶ echo requests
//!  └───────────┘◀─── what is here ───└─────────────┘                       └────────────────┘
//! ```
//!
//! With addresses out of blocks two tasks more: `resources` watches Calico's objects and tells their news (16 each) to
//! all who listen, and `ipam` owns the blocks; the attach lane asks it (4,096) and hears of it (4,096), and waits for
//! neither.
//!
//! One of each. The owner is the only one that changes `World`, the calculation and the lease machine; everybody
//! else sends it a message. All its inputs arrive in one queue of [`INPUTS`]; a sender waits when it is full,
//! so a flood slows its source and nothing grows. The attach lane reads what a pod is given from a watch
//! channel and never waits for the owner: a pod can be added while the owner is busy, or the store away.
//!
//! A handle ends its task when it is dropped. On shutdown nothing is removed from the kernel.

use std::{path::Path, sync::Arc, time::Duration};

use russet_api::flannel::{Keys, SubnetEnv};
use russet_core::{
    Fault,
    errand::Wanted,
    model::{LeaseKey, PodNetwork},
};
use russet_kernel::{
    engine::EnginePlaces,
    lane::{LaneSettings, ReconcileLane},
};
use russet_net::Reach;
use russet_store::EtcdClient;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    StartError, admin, bgp, calico, cni,
    config::Config,
    disk::{Files, checkpoint::Checkpoint},
    errands, http,
    keeper::Keeper,
    node::Observer,
    one_line,
    owner::{Input, Outlets, Owner, OwnerHandle},
    pods::PodDesk,
    prober::Prober,
    store_task,
};

/// All tasks and threads of an agent. Dropping it ends them.
#[derive(Debug)]
pub struct Running {
    tasks: JoinSet<()>,
    owner: tokio::task::JoinHandle<Result<(), Fault>>,
    cni: cni::Server,
    observer: Observer,
    prober: Option<Prober>,
    calico: Option<calico::Running>,
}

impl Running {
    /// Waits for what should not happen, and tells why it did. There is nothing to stop after it, and [`Self::stop`]
    /// must not follow.
    pub async fn owner_ended(&mut self) -> StartError {
        match (&mut self.owner).await {
            Ok(Err(fault)) => StartError::Unspoken(fault),
            Ok(Ok(())) | Err(_) => StartError::OwnerEnded,
        }
    }

    /// Ends every task; what is still to be written is written. The kernel is left as it is.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        // Their threads may be telling the owner something, so they are not waited for on its thread.
        drop(self.calico);
        let threads = (self.cni, self.observer, self.prober);
        let _ = tokio::task::spawn_blocking(move || drop(threads)).await;
        // With all senders gone the owner ends by itself, and the keeper after it.
        if tokio::time::timeout(STOP_PATIENCE, &mut self.owner).await.is_err() {
            self.owner.abort();
        }
    }
}

/// Starts everything. Sockets come first, so that what cannot be had is known before anything is touched.
pub async fn start(config: &Arc<Config>) -> Result<Running, StartError> {
    let paths = &config.paths;
    for folder in [&paths.run, &paths.state] {
        std::fs::create_dir_all(folder).map_err(|source| file("make", folder, source))?;
    }
    let admin_socket = admin::bind(&paths.admin_socket());
    let admin_socket =
        admin_socket.map_err(|source| file("bind", &paths.admin_socket(), source))?;
    let web = match config.http {
        Some(addr) => Some(http::bind(addr).await.map_err(|err| StartError::Listen(addr, err))?),
        None => None,
    };

    let (inputs, inbox) = mpsc::channel(INPUTS);
    let (writes, to_write) = mpsc::channel(WRITES);
    let (name_cluster, names) = mpsc::channel(1);
    let (pod_network, given) = watch::channel(None);
    let (errands, errands_wanted) = watch::channel(Wanted::default());
    let speaks = config.bgp.is_some() || config.bgp_by_resources();
    let (here, announced) = speaks.then(|| watch::channel(Vec::new())).unzip();
    let (to_calico, calico) = config.blocks().map(|_| calico::outlets()).unzip();
    let handle = OwnerHandle::new(inputs.clone());
    let client = EtcdClient::new(&config.store);

    let outlets = Outlets {
        lane: lane(config, &inputs)?,
        writes,
        store: client.clone(),
        pod_network,
        keeper: keeper(config)?,
        name_cluster,
        errands,
        here,
        calico: to_calico,
    };
    let kept = checkpoint(config);
    let before = kept.as_ref().map(calico::Before::of).unwrap_or_default();
    let owner =
        Owner::new(Arc::clone(config), kept, previous(&paths.subnet_file), crate::seed(), outlets);
    let owner = tokio::spawn(owner.run(inbox));
    let mut tasks = JoinSet::new();
    let (line, calico) = calico
        .and_then(|pending| pending.start(config, &client, before, &inputs, &mut tasks))
        .unzip();
    let addresses = calico.as_ref().map(|calico| calico.addresses.clone());
    let cni = serve_pods(config, given, inputs.clone(), line).await?;
    let observer = Observer::start(config.uplink.clone(), &inputs, addresses)?;

    if let Some(here) = announced {
        speak(config, here, calico.as_ref(), &inputs, &mut tasks).await?;
    }
    tasks.spawn(errands::serve(paths.errands(), errands_wanted, inputs.clone()));
    let prober = config.path_probe.map(|period| Prober::start(period, &inputs)).transpose()?;
    if calico.is_none() {
        let prefix = config.prefix.clone();
        tasks.spawn(store_task::watch(client.clone(), prefix.clone(), inputs.clone()));
        tasks.spawn(store_task::write(client.clone(), Keys::new(&prefix), to_write, inputs));
        tasks.spawn(store_task::name_cluster(client, prefix, names));
    }
    tasks.spawn(admin::serve(admin_socket, handle.clone()));
    if let Some(listener) = web {
        tasks.spawn(http::serve(
            listener,
            http::AgentPages { owner: handle, engines: paths.engines() },
        ));
    }
    Ok(Running { tasks, owner, cni, observer, prober, calico })
}

/// Starts the node's BGP speaker: by its own file, or by the datastore's objects.
async fn speak(
    config: &Config,
    here: watch::Receiver<Vec<Reach>>,
    calico: Option<&calico::Running>,
    inputs: &mpsc::Sender<Input>,
    tasks: &mut JoinSet<()>,
) -> Result<(), StartError> {
    let (learned, taught) = mpsc::channel(LEARNED);
    let node = bgp::Node { here, learned };
    match (config.bgp.clone(), calico) {
        (Some((config, file)), _) => {
            tasks.spawn(bgp::join(config, file, node).await.map_err(StartError::Bgp)?);
        }
        (None, Some(calico)) => {
            let admin_socket = config.paths.bgp_socket();
            let feed = bgp::Feed {
                resources: calico.routers.clone(),
                base: bgp::resources::Base { admin_socket, http: None, announced: Vec::new() },
                secrets: bgp::resources::Folder(Some(config.bgp_secrets.clone())),
            };
            tasks.spawn(bgp::join_by_resources(feed, node));
        }
        (None, None) => {}
    }
    tasks.spawn(learn(taught, inputs.clone()));
    Ok(())
}

/// Passes on to the owner what the speaker was taught. While the owner is busy the speaker keeps the newest.
async fn learn(mut taught: mpsc::Receiver<bgp::Learned>, inputs: mpsc::Sender<Input>) {
    while let Some(learned) = taught.recv().await {
        if inputs.send(Input::Learned(learned)).await.is_err() {
            return;
        }
    }
}

/// Starts the attach lane. It tells the owner of the pods that it finds while it starts, so it does that on a
/// thread of its own.
async fn serve_pods(
    config: &Config,
    given: watch::Receiver<Option<Arc<PodNetwork>>>,
    inputs: mpsc::Sender<Input>,
    line: Option<cni::Line>,
) -> Result<cni::Server, StartError> {
    let settings = cni_settings(config);
    let desk = Box::new(PodDesk::new(given, inputs));
    let start = move || cni::Server::start_with(&settings, desk, line);
    let started = tokio::task::spawn_blocking(start).await;
    let started = started.map_err(|err| StartError::Thread("cni", std::io::Error::other(err)))?;
    started.map(|(server, _)| server).map_err(StartError::Cni)
}

fn lane(config: &Config, inputs: &mpsc::Sender<Input>) -> Result<ReconcileLane, StartError> {
    let inputs = inputs.downgrade();
    // The owner never waits for the lane, so the lane may wait for the owner. After the owner's end there is
    // nobody to tell.
    let report = move |report| {
        if let Some(inputs) = inputs.upgrade() {
            let _ = inputs.blocking_send(Input::Lane(report));
        }
    };
    let engines = engines(config)?;
    let settings = LaneSettings { engines: Some(engines), ..LaneSettings::default() };
    ReconcileLane::start(settings, report).map_err(StartError::Lane)
}

/// Engines are this program too, as it is now: one that replaces it on disk is the next agent's.
fn engines(config: &Config) -> Result<EnginePlaces, StartError> {
    let program = std::env::current_exe()
        .map_err(|source| file("find this program at", Path::new("/proc/self/exe"), source))?;
    Ok(EnginePlaces {
        folder: config.paths.engines(),
        program,
        key: config.paths.wireguard_key.clone(),
    })
}

fn keeper(config: &Config) -> Result<Keeper, StartError> {
    let paths = &config.paths;
    let keeper = Keeper::start(Arc::new(Files), paths.checkpoint(), paths.subnet_file.clone());
    keeper.map_err(|err| StartError::Thread("keeper", err))
}

/// What the node knew before. A file that is of no use is said, and is as none.
fn checkpoint(config: &Config) -> Option<Checkpoint> {
    let path = config.paths.checkpoint();
    Checkpoint::load(&Files, &path).unwrap_or_else(|error| {
        tracing::error!(op = "read checkpoint", path = %path.display(), error = %one_line(&error), "it is passed over");
        None
    })
}

/// The subnet that this node, or flannel on it, held before.
fn previous(subnet_file: &Path) -> Option<LeaseKey> {
    let text = std::fs::read_to_string(subnet_file).ok()?;
    SubnetEnv::read(&text).ok()?.key()
}

fn cni_settings(config: &Config) -> cni::ServerSettings {
    cni::ServerSettings {
        socket: config.paths.cni_socket(),
        spool: config.paths.spool(),
        records: config.paths.pods.clone(),
    }
}

fn file(op: &'static str, path: &Path, source: std::io::Error) -> StartError {
    StartError::File { op, path: path.to_owned(), source }
}

const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How many inputs may wait for the owner.
pub const INPUTS: usize = 64;
/// How many messages of the BGP speaker may wait for the owner.
const LEARNED: usize = 4;
/// How many writes may wait for the store. The lease machine has one under way at a time.
pub const WRITES: usize = 16;

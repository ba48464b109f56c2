//! flannel's plugin: what `subnet.env` says, handed on to the plugin that does the work.
//!
//! ```text
//!   ADD    subnet.env + conf ─▶ kept in dataDir/CONTAINER ─▶ delegate ADD
//!   DEL    dataDir/CONTAINER ─▶ delegate DEL ─▶ and only then the file goes
//! ```
//!
//! The file is flannel's own, so what its plugin has added can be deleted by ours and the other way round. A
//! DEL that fails keeps the file, so that the retry finds it: flannel's plugin removes it first, and what its
//! delegate could not remove then leaks for ever.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use russet_api::{
    cni::{
        CniError, Code, Fault, Version,
        conf::version_of,
        env::{Command, Env},
        flannel::FlannelConf,
        version_json,
    },
    flannel::SubnetEnv,
};
use serde_json::{Map, Value};

use crate::{delegate, run::Printed, spool};

/// Serves one call. `var` looks up the environment, `conf` is standard input.
pub(crate) fn run(var: impl Fn(&str) -> Option<String>, conf: &[u8]) -> Printed {
    let search = var("CNI_PATH").unwrap_or_default();
    match serve(Env::read(var), &search, conf) {
        Ok(printed) => printed,
        Err(err) => {
            Printed { text: err.to_json(version_of(conf)), served: false, ..Printed::default() }
        }
    }
}

fn serve(env: Result<Env, Vec<Fault>>, search: &str, text: &[u8]) -> Result<Printed, CniError> {
    if matches!(&env, Ok(env) if env.command == Command::Version) {
        return Ok(good(version_json(version_of(text), &Version::ALL)));
    }
    let (env, conf) = crate::run::both(env, FlannelConf::parse(text))?;
    crate::run::allowed(env.command, conf.version.unwrap_or(Version::V0_3_1))?;
    let call = Call { conf, search, container: container(&env) };
    match env.command {
        Command::Add => call.add(),
        Command::Del => call.del(),
        Command::Check => call.check(),
        Command::Gc => call.gc(),
        Command::Status | Command::Version => call.subnets().map(|_| good(String::new())),
    }
}

fn container(env: &Env) -> String {
    env.attachment.as_ref().map(|attachment| attachment.container.clone()).unwrap_or_default()
}

/// One call, read.
struct Call<'a> {
    conf: FlannelConf,
    /// `CNI_PATH`
    search: &'a str,
    container: String,
}

impl Call<'_> {
    fn add(&self) -> Result<Printed, CniError> {
        let handed = self.conf.delegated(&self.subnets()?).to_string();
        // Before the delegate begins: whatever it leaves half done is found by the DEL.
        spool::put(&spool::Files, &self.conf.data_folder, &self.container, handed.as_bytes())
            .map_err(|err| self.io("write", &err))?;
        delegate::call(self.conf.kind(), self.search, &handed)
    }

    fn del(&self) -> Result<Printed, CniError> {
        // Nothing was added, or it is gone already.
        let Some(kept) = self.kept()? else { return Ok(good(String::new())) };
        let printed = self.call(kept)?;
        if printed.served {
            self.forget()?;
        }
        Ok(printed)
    }

    /// Whether there was an ADD. The delegate is not asked (flannel's plugin asks nobody either): the `bridge`
    /// plugin looks for routes without a gateway as they were asked for, and never finds those it has made.
    fn check(&self) -> Result<Printed, CniError> {
        if self.kept()?.is_some() {
            return Ok(good(String::new()));
        }
        let msg = format!("nothing was added for the container {}", self.container);
        Err(CniError::new(Code::UNKNOWN_CONTAINER, msg))
    }

    /// The delegate's matter, which knows what it has made; then what was kept for those that are gone.
    fn gc(&self) -> Result<Printed, CniError> {
        let Some(valid) = self.conf.valid() else {
            let msg = "cni.dev/valid-attachments: is missing; GC would remove every attachment";
            return Err(CniError::new(Code::BAD_CONFIG, msg));
        };
        let Value::Object(handed) = self.conf.delegated(&self.subnets()?) else {
            return Ok(good(String::new()));
        };
        let printed = self.call(handed)?;
        if printed.served {
            self.forget_all_but(&valid);
        }
        Ok(printed)
    }

    /// Files of this network alone. One that cannot be read is not ours to remove.
    fn forget_all_but(&self, valid: &BTreeSet<&str>) {
        let entries = fs::read_dir(&self.conf.data_folder).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        for container in names.filter(|name| !valid.contains(name.as_str())) {
            let other = Call { conf: self.conf.clone(), search: self.search, container };
            let kept = other.kept().ok().flatten().unwrap_or_default();
            if kept.get("name").and_then(Value::as_str) == Some(&self.conf.name) {
                // The next GC tries again.
                let _ = other.forget();
            }
        }
    }

    fn call(&self, kept: Map<String, Value>) -> Result<Printed, CniError> {
        let kind = kept.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if russet_api::cni::check_name(&kind).is_err() {
            let msg = format!("{}: its type {kind:?} is no plugin", self.state().display());
            return Err(CniError::new(Code::DECODE, msg));
        }
        delegate::call(&kind, self.search, &self.conf.with_this_call(kept).to_string())
    }

    fn subnets(&self) -> Result<SubnetEnv, CniError> {
        let path = &self.conf.subnet_file;
        let text = fs::read_to_string(path).map_err(|err| {
            let msg = format!("read {}: the agent, or flanneld, has no subnet yet", path.display());
            // A runtime tries again: the file is there as soon as the node has a lease.
            CniError::new(Code::TRY_AGAIN, msg).with_details(err.to_string())
        })?;
        SubnetEnv::read(&text)
            .map_err(|err| CniError::new(Code::DECODE, format!("{}: {err}", path.display())))
    }

    fn kept(&self) -> Result<Option<Map<String, Value>>, CniError> {
        let text = match fs::read(self.state()) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(self.io("read", &err)),
        };
        let kept = serde_json::from_slice(&text);
        kept.map(Some).map_err(|err| {
            let msg = format!("{} is damaged", self.state().display());
            CniError::new(Code::DECODE, msg).with_details(err.to_string())
        })
    }

    fn forget(&self) -> Result<(), CniError> {
        match fs::remove_file(self.state()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(self.io("remove", &err)),
            _ => Ok(()),
        }
    }

    fn state(&self) -> PathBuf {
        // A container's name is checked: it has no slash.
        self.conf.data_folder.join(&self.container)
    }

    fn io(&self, op: &str, err: &io::Error) -> CniError {
        CniError::new(Code::IO, format!("{op} {}", self.state().display()))
            .with_details(err.to_string())
    }
}

fn good(text: String) -> Printed {
    Printed { text, served: true, ..Printed::default() }
}

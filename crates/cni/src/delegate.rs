//! Runs another plugin for us: found on `CNI_PATH`, with our environment, its answer as ours.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use russet_api::cni::{CniError, Code};

use crate::run::Printed;

/// Calls a plugin with a configuration; returns what it printed, good or bad, as it is.
///
/// # Errors
///
/// When there is no such plugin, or it cannot be run.
pub fn call(kind: &str, search: &str, conf: &str) -> Result<Printed, CniError> {
    let plugin = find(kind, search)?;
    let failed = |err: std::io::Error| {
        CniError::new(Code::IO, format!("run the plugin {}", plugin.display()))
            .with_details(err.to_string())
    };
    let mut child = Command::new(&plugin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Dropped at the end of the statement, so that it sees the end.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(conf.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        return Ok(Printed { text, served: true, ..Printed::default() });
    }
    if text.is_empty() {
        let msg = format!("the plugin {} ended with {}", plugin.display(), output.status);
        let details = written.err().map(|err| err.to_string()).unwrap_or_default();
        return Err(CniError::new(Code::IO, msg).with_details(details));
    }
    Ok(Printed { text, served: false, ..Printed::default() })
}

fn find(kind: &str, search: &str) -> Result<PathBuf, CniError> {
    let folders = search.split(':').filter(|folder| !folder.is_empty());
    let mut places = folders.map(|folder| Path::new(folder).join(kind));
    places.find(|place| place.is_file()).ok_or_else(|| {
        let msg = format!("there is no plugin {kind:?} in {search:?} (CNI_PATH)");
        CniError::new(Code::BAD_ENVIRONMENT, msg)
    })
}

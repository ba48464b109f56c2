//! What the commands' next life must know, in a file that is replaced as a whole: whom a command may have added and
//! how that is undone, and what the `PreStartupCommand` printed.

use std::{collections::BTreeMap, io, path::Path};

use russet_core::{
    errand::{Kept, Task, Visit},
    model::LeaseKey,
};
use russet_net::{ParseError, Prefix};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, replace};

/// Why a file is not taken, or not written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("{op} errands")]
    Disk { op: &'static str, source: io::Error },
    #[error("it is not of the form of this version")]
    Form(#[from] serde_json::Error),
    #[error("format {0} is not known here, only {FORMAT}")]
    Format(u32),
    #[error("a peer's subnet")]
    Subnet(#[from] ParseError),
    #[error("a peer has no subnet, or one of the wrong family")]
    NoSubnet,
}

/// Writes it, durably, over the old one.
pub fn save(disk: &dyn Disk, path: &Path, kept: &Kept) -> Result<(), KeptError> {
    let told = |source| KeptError::Disk { op: "write", source };
    disk.make_folder(path.parent().unwrap_or(Path::new("/"))).map_err(told)?;
    replace(disk, path, &serde_json::to_vec(&FileForm::from(kept))?).map_err(told)
}

/// Reads it; nothing is kept when there is none.
pub fn load(disk: &dyn Disk, path: &Path) -> Result<Kept, KeptError> {
    match disk.read(path) {
        Ok(octets) => serde_json::from_slice::<FileForm>(&octets)?.try_into(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(source) => Err(KeptError::Disk { op: "read", source }),
    }
}

#[derive(Serialize, Deserialize)]
struct FileForm {
    format: u32,
    outputs: BTreeMap<String, String>,
    visits: Vec<VisitForm>,
}

#[derive(Serialize, Deserialize)]
struct VisitForm {
    v4: Option<String>,
    v6: Option<String>,
    add: Option<TaskForm>,
    remove: Option<TaskForm>,
}

#[derive(Serialize, Deserialize)]
struct TaskForm {
    command: String,
    environment: BTreeMap<String, String>,
    input: String,
}

impl From<&Kept> for FileForm {
    fn from(kept: &Kept) -> Self {
        let texts = kept.outputs.iter();
        let visit = |(key, visit): (&LeaseKey, &Visit)| VisitForm {
            v4: key.v4().map(|subnet| subnet.to_string()),
            v6: key.v6().map(|subnet| subnet.to_string()),
            add: visit.add.as_ref().map(TaskForm::from),
            remove: visit.remove.as_ref().map(TaskForm::from),
        };
        Self {
            format: FORMAT,
            outputs: texts.map(|(command, text)| (command.to_string(), text.to_string())).collect(),
            visits: kept.visits.iter().map(visit).collect(),
        }
    }
}

impl From<&Task> for TaskForm {
    fn from(task: &Task) -> Self {
        Self {
            command: task.command.to_string(),
            environment: (*task.environment).clone(),
            input: task.input.to_string(),
        }
    }
}

impl From<TaskForm> for Task {
    fn from(form: TaskForm) -> Self {
        Self {
            command: form.command.into(),
            environment: form.environment.into(),
            input: form.input.into(),
        }
    }
}

impl TryFrom<FileForm> for Kept {
    type Error = KeptError;

    fn try_from(form: FileForm) -> Result<Self, Self::Error> {
        if form.format != FORMAT {
            return Err(KeptError::Format(form.format));
        }
        let subnet = |text: Option<String>| text.map(|text| text.parse::<Prefix>()).transpose();
        let visit = |form: VisitForm| {
            let key = LeaseKey::new(subnet(form.v4)?, subnet(form.v6)?);
            let visit =
                Visit { add: form.add.map(Task::from), remove: form.remove.map(Task::from) };
            Ok((key.ok_or(KeptError::NoSubnet)?, visit))
        };
        let outputs = form.outputs.into_iter();
        Ok(Self {
            outputs: outputs.map(|(command, text)| (command.into(), text.into())).collect(),
            visits: form.visits.into_iter().map(visit).collect::<Result<_, KeptError>>()?,
        })
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fake::FakeDisk;

    const PATH: &str = "/var/lib/russet/errands.json";

    #[test]
    fn it_is_read_as_it_was_written_and_a_bad_one_is_told() {
        let (disk, path) = (FakeDisk::default(), Path::new(PATH));
        assert_eq!(load(&disk, path).unwrap(), Kept::default());
        save(&disk, path, &sample()).unwrap();
        assert_eq!(load(&disk, path).unwrap(), sample());
        for bad in ["", "{}", r#"{"format":2,"outputs":{},"visits":[]}"#] {
            disk.write(path, bad.as_bytes()).unwrap();
            assert!(load(&disk, path).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_crash_loses_the_old_one_before_the_new_one_is_there() {
        for step in 0..100 {
            let (disk, path) = (FakeDisk::default(), Path::new(PATH));
            save(&disk, path, &sample()).unwrap();
            disk.fail_at(disk.steps() + step);
            let saved = save(&disk, path, &Kept::default()).is_ok();
            for left in disk.states_after_power_failure().iter().chain([&disk.after_kill()]) {
                let found = load(left, path).unwrap();
                assert!(found == Kept::default() || (!saved && found == sample()), "step {step}");
            }
            if saved {
                return;
            }
        }
        panic!("a save never ended");
    }

    fn sample() -> Kept {
        let task = |command: &str| {
            let environment = BTreeMap::from([("SUBNET".to_owned(), "10.50.1.0/24".to_owned())]);
            let environment = environment.into();
            Some(Task { command: command.into(), environment, input: "mac".into() })
        };
        let key = LeaseKey::new("10.50.1.0/24".parse().ok(), "fd00:50:0:1::/64".parse().ok());
        Kept {
            outputs: [("pre".into(), "out".into())].into(),
            visits: [(key.unwrap(), Visit { add: task("add"), remove: None })].into(),
        }
    }
}

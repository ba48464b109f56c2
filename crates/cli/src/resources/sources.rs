//! Files, standard input and folders, read within bounds.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use russet_api::manifest::MOST_OCTETS;

/// Where the objects are.
#[derive(Args, Debug)]
pub struct FileArgs {
    /// A file of YAML or JSON, a folder of such files, or - for standard input; may be given again
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Reads the folders in a folder, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// The same where there is another way to say what is meant.
#[derive(Args, Debug)]
pub struct OptionalFileArgs {
    /// A file of YAML or JSON, a folder of such files, or - for standard input; may be given again
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Reads the folders in a folder, too
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
}

/// One text, with the name that errors call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub octets: Vec<u8>,
}

impl FileArgs {
    pub fn read(&self) -> Result<Vec<Source>> {
        read_all(&self.files, self.recursive)
    }
}

impl OptionalFileArgs {
    pub fn is_given(&self) -> bool {
        !self.files.is_empty()
    }

    pub fn read(&self) -> Result<Vec<Source>> {
        read_all(&self.files, self.recursive)
    }
}

fn read_all(files: &[PathBuf], recursive: bool) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            let octets = bounded(io::stdin()).context("read standard input")?;
            sources.push(Source { name: "standard input".to_owned(), octets });
        } else if file.is_dir() {
            let before = sources.len();
            folder(file, if recursive { MOST_DEPTH } else { 0 }, &mut sources)?;
            if sources.len() == before {
                bail!(
                    "the folder {} has no file that ends in .yaml, .yml or .json",
                    file.display()
                );
            }
        } else {
            sources.push(one(file)?);
        }
    }
    Ok(sources)
}

/// Reads the files of one folder, which may have none, sorted by name.
pub fn of_folder(path: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    folder(path, 0, &mut sources)?;
    Ok(sources)
}

/// Adds the files of a folder, sorted by name.
fn folder(folder_: &Path, depth: usize, sources: &mut Vec<Source>) -> Result<()> {
    let told = || format!("read the folder {}", folder_.display());
    let entries = fs::read_dir(folder_).with_context(told)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(told)?.path());
    }
    paths.sort_unstable();
    for path in paths {
        if path.is_dir() {
            if depth > 0 {
                folder(&path, depth - 1, sources)?;
            }
        } else if path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)) {
            ensure!(
                sources.len() < MOST_FILES,
                "more than {MOST_FILES} files in {}",
                folder_.display()
            );
            sources.push(one(&path)?);
        }
    }
    Ok(())
}

/// Reads one file.
pub fn one(path: &Path) -> Result<Source> {
    let octets = File::open(path).and_then(bounded);
    let octets = octets.with_context(|| format!("read {}", path.display()))?;
    Ok(Source { name: path.display().to_string(), octets })
}

/// One octet beyond the bound is enough to say so.
fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let most = u64::try_from(MOST_OCTETS).unwrap_or(u64::MAX).saturating_add(1);
    source.take(most).read_to_end(&mut octets)?;
    Ok(octets)
}

const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
const MOST_FILES: usize = 10_000;
/// Links may lead a folder into itself.
const MOST_DEPTH: usize = 16;

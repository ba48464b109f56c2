//! All routes into a file, for other tools (MRT, RFC 6396).
//!
//! The routes are asked page by page, so that nobody waits for the whole; a route that changes meanwhile is
//! written as it is when its page comes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::SystemTime,
};

use russet_api::bgp::Answer;
use russet_bgp::{
    rib::{RouteView, Source},
    wire::{Family, MRT_OURSELVES, MrtPath, MrtPeer, MrtWriter, RouterId},
};

use super::routes::Routes;

/// Writes the file, whole or not at all: it gets its name when it is complete.
pub async fn dump(routes: &Routes, id: RouterId, path: PathBuf) -> Answer {
    match write(routes, id, &path).await {
        Ok(count) => Answer::Dumped(count),
        Err(err) => Answer::Error(format!("write {}: {err}", path.display())),
    }
}

async fn write(routes: &Routes, id: RouterId, path: &std::path::Path) -> io::Result<usize> {
    let partial = path.with_extension("partial");
    let mut file = BufWriter::new(File::create(&partial)?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut writer = MrtWriter::new(u32::try_from(now.as_secs()).unwrap_or(u32::MAX));
    let (sources, peers) = index(routes).await?;
    let mut out = Vec::new();
    writer.peers(id, &peers, &mut out);
    let mut count = 0;
    for family in Family::ALL {
        let mut from = Some(0);
        while let Some(at) = from {
            let page = routes.ask(move |speaker| speaker.rib().routes(family, at, PAGE)).await;
            let (views, next) =
                page.map_err(|_| io::Error::other("the speaker is about to stop"))?;
            for view in &views {
                destination(view, &sources, &mut writer, &mut out);
            }
            count += views.len();
            file.write_all(&out)?;
            out.clear();
            from = next;
        }
    }
    file.write_all(&out)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&partial, path)?;
    Ok(count)
}

/// The peers, and the place of each in the index. Ourselves are the first.
async fn index(routes: &Routes) -> io::Result<(BTreeMap<Source, u16>, Vec<MrtPeer>)> {
    let neighbors = routes.ask(|speaker| speaker.neighbors()).await;
    let neighbors = neighbors.map_err(|_| io::Error::other("the speaker is about to stop"))?;
    let mut sources = BTreeMap::from([(Source::LOCAL, 0)]);
    let mut peers = vec![MrtPeer { id: 0, addr: MRT_OURSELVES, asn: russet_net::Asn::ZERO }];
    for (source, addr, asn, id) in neighbors {
        sources.insert(source, u16::try_from(peers.len()).unwrap_or(u16::MAX));
        peers.push(MrtPeer { id: id.get(), addr, asn });
    }
    Ok((sources, peers))
}

fn destination(
    view: &RouteView,
    sources: &BTreeMap<Source, u16>,
    writer: &mut MrtWriter,
    out: &mut Vec<u8>,
) {
    let paths: Vec<_> = (view.paths.iter())
        .filter_map(|path| {
            Some(MrtPath {
                // One that came after the index was written has no place in it.
                peer: *sources.get(&path.source)?,
                path_id: path.path_id,
                attributes: &path.attrs.octets,
                next_hop: path.attrs.next_hop,
                tail: path.attrs.tail,
            })
        })
        .collect();
    writer.destination(view.key, &paths, out);
}

const PAGE: usize = 2_000;

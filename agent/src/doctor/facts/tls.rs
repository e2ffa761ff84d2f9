//! Finds out what TLS leaves to see of each server that runs: which library it has, and where probes on it would be.
//!
//! A server may have the library mapped and serve in clear.
//! Does not depend on: the findings.

use std::{collections::BTreeSet, io};

use serde::Serialize;

use crate::{
    cli::ServeArgs,
    config::Config,
    discovery::{listeners, procfs, registry::Registry},
    openssl::{
        library::{Cost, Place},
        mapped::{Known, Library},
    },
};

/// A server, and what TLS leaves to see of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerTls {
    /// Its process.
    pub pid: u32,
    /// Label `server`.
    pub server: String,
    /// The files with OpenSSL's functions that it has mapped.
    pub libraries: Vec<LibraryTls>,
    /// Why its mapped files cannot be read; `None` if they can.
    pub refusal: Option<String>,
}

/// A mapped file with OpenSSL's functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibraryTls {
    /// Its path, as the server names it.
    pub path: String,
    /// Where probes on it would be.
    pub places: Vec<PlaceTls>,
}

/// Where a probe would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceTls {
    /// The exported functions that lead there.
    pub functions: Vec<&'static str>,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// `emulated` or `stepped`.
    pub cost: &'static str,
}

impl From<Library> for LibraryTls {
    fn from(library: Library) -> Self {
        Self {
            path: library.mapped.path,
            places: library.places.into_iter().map(PlaceTls::from).collect(),
        }
    }
}

impl From<Place> for PlaceTls {
    fn from(place: Place) -> Self {
        Self {
            functions: place.functions,
            offset: place.offset,
            cost: match place.cost {
                Cost::Emulated => "emulated",
                Cost::Stepped => "stepped",
            },
        }
    }
}

/// Returns the servers that `serve` without options would watch now, by their processes.
pub(crate) fn collect() -> Vec<ServerTls> {
    let Ok(config) = Config::load(&ServeArgs::default()) else {
        return Vec::new();
    };
    let mut registry = Registry::new(config.watches, config.catalogue, procfs::own_id());
    let mut known = Known::default();
    let listeners = listeners::find().found;
    let on_ports = listeners
        .iter()
        .filter(|listener| listener.place.port().is_some());
    let pids: BTreeSet<u32> = on_ports
        .flat_map(|listener| listener.pids.iter().copied())
        .collect();
    let watched = pids
        .into_iter()
        .filter(|&pid| registry.inspect(pid) || registry.inspect_modules(pid));
    let watched: Vec<u32> = watched.collect();
    watched
        .into_iter()
        .map(|pid| {
            let server = registry.server(pid, None).name.to_string();
            of_server(pid, server, known.libraries_of(pid))
        })
        .collect()
}

fn of_server(pid: u32, server: String, libraries: io::Result<Vec<Library>>) -> ServerTls {
    let (libraries, refusal) = match libraries {
        Ok(libraries) => (libraries, None),
        Err(err) => (Vec::new(), Some(err.to_string())),
    };
    ServerTls {
        pid,
        server,
        libraries: libraries.into_iter().map(LibraryTls::from).collect(),
        refusal,
    }
}

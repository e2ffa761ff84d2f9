//! Attaches the programs that read plaintext to the TLS libraries of a process.
//!
//! The loader loads them; a thread of their own attaches them, because it searches files and keeps a capability.
//! Does not depend on: when a process is looked at, what the records mean.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{ProgramFd, UProbe},
};

use crate::{
    bpf::uprobe::Uprobes,
    openssl::{
        library::{Counts, Direction, Place},
        mapped::{self, Known, Library},
    },
};

/// Programs at the entry of a function, by its direction and how it counts.
const ENTRIES: [(Direction, Counts, &str); 4] = [
    (Direction::Read, Counts::Returned, "openssl_read"),
    (Direction::Read, Counts::Stored, "openssl_read_ex"),
    (Direction::Write, Counts::Returned, "openssl_write"),
    (Direction::Write, Counts::Stored, "openssl_write_ex"),
];
/// Program at the return of each.
const RETURN: &str = "openssl_return";

/// The loaded programs.
#[derive(Debug)]
pub struct PlaintextPrograms {
    entries: Vec<(Direction, Counts, ProgramFd)>,
    at_return: ProgramFd,
    uprobes: Uprobes,
}

impl PlaintextPrograms {
    /// Loads the programs.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self> {
        let mut load = |name: &str| -> Result<ProgramFd> {
            let program = ebpf.program_mut(name).context("find it in this build")?;
            let program: &mut UProbe = program.try_into()?;
            program.load()?;
            Ok(program.fd()?.try_clone()?)
        };
        let mut load = |name: &str| load(name).with_context(|| format!("load program {name}"));
        let entries = ENTRIES.iter().map(|&(direction, counts, name)| {
            let program = load(name)?;
            Ok((direction, counts, program))
        });
        Ok(Self {
            entries: entries.collect::<Result<_>>()?,
            at_return: load(RETURN)?,
            uprobes: Uprobes::find().context("ask for uprobes, which this kernel lacks")?,
        })
    }
}

/// The probes that are attached.
#[derive(Debug)]
pub struct PlaintextProbes {
    programs: PlaintextPrograms,
    known: Known,
    /// Those of each process, by file.
    attached: HashMap<u32, HashMap<(String, u64), Vec<OwnedFd>>>,
}

impl PlaintextProbes {
    /// Starts without any probe.
    pub fn new(programs: PlaintextPrograms) -> Self {
        Self {
            programs,
            known: Known::default(),
            attached: HashMap::new(),
        }
    }

    /// Attaches the programs to the libraries that the process has mapped since the last call; returns these.
    ///
    /// # Errors
    /// If its mapped files cannot be read, or the kernel refuses.
    pub fn look_at(&mut self, pid: u32) -> io::Result<Vec<Library>> {
        let libraries = self.known.libraries_of(pid)?;
        let attached = self.attached.entry(pid).or_default();
        let mut found = Vec::new();
        for library in libraries {
            if attached.contains_key(&library.mapped.id) {
                continue;
            }
            let probes = self.programs.attach(pid, &library)?;
            attached.insert(library.mapped.id.clone(), probes);
            found.push(library);
        }
        Ok(found)
    }

    /// Whether any program is attached to the process.
    pub fn reads(&self, pid: u32) -> bool {
        self.attached
            .get(&pid)
            .is_some_and(|files| !files.is_empty())
    }

    /// Detaches the programs from a process that ended, or runs another program.
    pub fn forget(&mut self, pid: u32) {
        self.attached.remove(&pid);
    }
}

impl PlaintextPrograms {
    fn attach(&self, pid: u32, library: &Library) -> io::Result<Vec<OwnedFd>> {
        let file = mapped::open(pid, &library.mapped)?;
        let mut probes = Vec::new();
        for place in &library.places {
            let Place {
                direction,
                counts,
                offset,
                ..
            } = *place;
            let is_for =
                |entry: &&(Direction, Counts, ProgramFd)| (entry.0, entry.1) == (direction, counts);
            let Some((_, _, entry)) = self.entries.iter().find(is_for) else {
                continue;
            };
            // The return first: an entry without one would be taken for a call that still runs.
            for (program, at_return) in [(&self.at_return, true), (entry, false)] {
                let program = program.as_fd();
                let attach = self
                    .uprobes
                    .attach(program, &file, offset, pid, at_return)?;
                probes.push(attach);
            }
        }
        Ok(probes)
    }
}

//! Recognises a process by its command line and that of its parent.
//!
//! The registry watches what is recognised.
//! Does not depend on: which processes are watched.

use std::sync::Arc;

use tracing::debug;

use crate::{
    catalogue::{
        Catalogue,
        command::CommandLine,
        entry::{Entry, Role},
        options_file::OptionsFile,
    },
    discovery::procfs,
};

/// Largest number of ancestors that are searched for the one that spawned a child.
const ANCESTORS: usize = 4;

/// A process that the catalogue recognises.
#[derive(Debug, Clone)]
pub(super) struct Recognised {
    /// Entry of its server.
    pub entry: Arc<Entry>,
    /// What it does for the server.
    pub role: Role,
    /// Model that its command line names, or else that of its parent.
    pub model: Option<Arc<str>>,
}

impl Recognised {
    /// Recognises the process `pid` by this command line.
    pub(super) fn by_line(catalogue: &Catalogue, line: &CommandLine, pid: u32) -> Option<Self> {
        let (entry, role) = catalogue.recognise(line)?;
        Some(Self {
            entry: entry.clone(),
            role,
            model: model_of(entry, line, pid),
        })
    }

    /// Recognises the process `pid` by this command line, and by that of its parent: the parent's entry may make the
    /// process internal, and its command line may name the model.
    pub(super) fn by_line_and_parent(
        catalogue: &Catalogue,
        line: &CommandLine,
        pid: u32,
    ) -> Option<Self> {
        let own = Self::by_line(catalogue, line, pid)?;
        let parent = procfs::parent_of(pid).and_then(|parent| {
            let line = procfs::command_line(parent)?;
            Self::by_line(catalogue, &line, parent)
        });
        let Some(parent) = parent else {
            return Some(own);
        };
        if parent.entry.internal_children {
            return Some(Self {
                model: model_of(&parent.entry, line, pid).or(parent.model),
                role: Role::Internal,
                entry: parent.entry,
            });
        }
        let is_same_server = Arc::ptr_eq(&parent.entry, &own.entry);
        Some(Self {
            model: own.model.or(parent.model.filter(|_| is_same_server)),
            ..own
        })
    }
}

/// Returns the model that the command line of a process names, or the file of options that it gives.
fn model_of(entry: &Entry, line: &CommandLine, pid: u32) -> Option<Arc<str>> {
    let options = entry.options_file(line).and_then(|path| {
        let options = procfs::file_of(pid, path).ok();
        let options = options.and_then(|text| OptionsFile::parse(&text));
        if options.is_none() {
            debug!(pid, path, "file of options not read: it may name the model");
        }
        options
    });
    let model = entry.model_in(line, &options.unwrap_or_default());
    model.map(Arc::from)
}

/// Returns the nearest ancestor that is not a spawned child itself, and its command line.
pub(super) fn spawning_ancestor(pid: u32) -> Option<(u32, CommandLine)> {
    ancestors(pid).find(|(_, line)| !line.is_spawned())
}

/// Returns the nearest ancestors of a process, parent first, and their command lines.
pub(super) fn ancestors(pid: u32) -> impl Iterator<Item = (u32, CommandLine)> {
    let ancestors = std::iter::successors(Some(pid), |&pid| procfs::parent_of(pid));
    ancestors
        .skip(1)
        .take(ANCESTORS)
        .map_while(|pid| Some((pid, procfs::command_line(pid)?)))
}

//! Recognises a process by its command line and that of its parent.
//!
//! The registry watches what is recognised.
//! Does not depend on: which processes are watched.

use std::sync::Arc;

use crate::{
    catalogue::{
        Catalogue,
        command::CommandLine,
        entry::{Entry, Role},
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
    /// Recognises a process by this command line.
    pub(super) fn by_line(catalogue: &Catalogue, line: &CommandLine) -> Option<Self> {
        let (entry, role) = catalogue.recognise(line)?;
        Some(Self {
            entry: entry.clone(),
            role,
            model: entry.model_in(line).map(Arc::from),
        })
    }

    /// Recognises the process `pid` by this command line, and by that of its parent: the parent's entry may make the
    /// process internal, and its command line may name the model.
    pub(super) fn by_line_and_parent(
        catalogue: &Catalogue,
        line: &CommandLine,
        pid: u32,
    ) -> Option<Self> {
        let own = Self::by_line(catalogue, line)?;
        let parent_line = procfs::parent_of(pid).and_then(procfs::command_line);
        let parent = parent_line.and_then(|line| Self::by_line(catalogue, &line));
        let Some(parent) = parent else {
            return Some(own);
        };
        if parent.entry.internal_children {
            return Some(Self {
                model: parent.entry.model_in(line).map(Arc::from).or(parent.model),
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

/// Returns the command line of the nearest ancestor that is not a spawned child itself.
pub(super) fn spawning_ancestor(pid: u32) -> Option<CommandLine> {
    let ancestors = std::iter::successors(Some(pid), |&pid| procfs::parent_of(pid));
    ancestors
        .skip(1)
        .take(ANCESTORS)
        .map_while(procfs::command_line)
        .find(|line| !line.is_spawned())
}

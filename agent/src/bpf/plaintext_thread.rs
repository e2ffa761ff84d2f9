//! Runs the thread that attaches the programs which read plaintext: to processes as they are watched, and again when one of them
//! has mapped another library.
//!
//! It keeps the capability that this takes, which no other thread has.
//! Does not depend on: which processes are watched.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use crate::bpf::{
    plaintext::{PlaintextProbes, PlaintextPrograms},
    privileges,
};

/// Times between looks at a process in which no library was found yet: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Shortest time between two looks because TLS was not read.
const UNREAD_WAIT: Duration = Duration::from_secs(2);

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Ask {
    /// Attach to this process of this server.
    Attach(u32, Arc<str>),
    /// This process of this server spoke TLS that was not read.
    Unread(u32, Arc<str>),
    /// The process ended.
    Forget(u32),
}

/// A process that is looked at.
struct Process {
    server: Arc<str>,
    looked: Instant,
    /// Time to the next look; `None`: only if it speaks TLS.
    wait: Option<Duration>,
}

/// Starts the thread, which ends when nobody can ask it any more.
///
/// # Errors
/// If the thread cannot be started.
pub fn spawn(programs: PlaintextPrograms, asks: mpsc::Receiver<Ask>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("plaintext".into())
        .spawn(move || {
            if let Err(err) = privileges::keep_for_uprobes() {
                warn!(
                    err = format!("{err:#}"),
                    "capabilities of the plaintext thread not dropped"
                );
            }
            run(PlaintextProbes::new(programs), &asks);
        })
}

impl Process {
    fn new(server: Arc<str>, wait: Option<Duration>) -> Self {
        Self {
            server,
            looked: Instant::now(),
            wait,
        }
    }
}

fn run(mut probes: PlaintextProbes, asks: &mpsc::Receiver<Ask>) {
    let mut processes: HashMap<u32, Process> = HashMap::new();
    loop {
        match asks.recv_timeout(FIRST_WAIT) {
            Ok(Ask::Attach(pid, server)) => {
                let new = || Process::new(server, Some(FIRST_WAIT));
                look_at(&mut probes, pid, processes.entry(pid).or_insert_with(new));
            }
            Ok(Ask::Unread(pid, server)) => match processes.entry(pid) {
                Entry::Occupied(mut known) => {
                    if known.get().looked.elapsed() >= UNREAD_WAIT {
                        look_at(&mut probes, pid, known.get_mut());
                    }
                }
                // Only its port is watched.
                Entry::Vacant(new) => {
                    look_at(&mut probes, pid, new.insert(Process::new(server, None)));
                }
            },
            Ok(Ask::Forget(pid)) => {
                processes.remove(&pid);
                probes.forget(pid);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        for (&pid, process) in &mut processes {
            let is_due = process
                .wait
                .is_some_and(|wait| process.looked.elapsed() >= wait);
            if is_due {
                look_at(&mut probes, pid, process);
            }
        }
    }
}

fn look_at(probes: &mut PlaintextProbes, pid: u32, process: &mut Process) {
    process.looked = Instant::now();
    let is_read = match probes.look_at(pid) {
        Ok(found) => {
            for library in found {
                let path = &library.mapped.path;
                info!(pid, server = %process.server, library = path, "reading the plaintext of TLS");
            }
            probes.reads(pid)
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            debug!(pid, "the process has ended");
            true
        }
        Err(err) => {
            warn!(
                pid,
                server = %process.server,
                %err,
                "plaintext of TLS not read; it takes root, or CAP_SYS_ADMIN and CAP_SYS_PTRACE"
            );
            true
        }
    };
    process.wait = match is_read {
        true => None,
        false => process
            .wait
            .map(|wait| wait * 2)
            .filter(|wait| *wait <= LONGEST_WAIT),
    };
}

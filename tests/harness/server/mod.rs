//! The reference server, and a handle on a running one.
//!
//! It is a blocking HTTP/1.1 server that stamps its own clock around every system call: the truth that the tests
//! compare the agent with. Options choose how it reads, because a request cannot; the query of a request chooses how it
//! responds. Does not depend on: the agent.

pub mod connection;
mod echo;
pub mod options;
pub mod plan;
pub mod serve;
pub mod stamps;
pub mod wire;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{
    clock::wait_for,
    process::{Owned, binary},
};

use stamps::Stamp;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A port of 127.0.0.1.
    Tcp(u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// A running reference server; it ends when dropped.
pub struct Server {
    /// Where it listens.
    pub place: Place,
    process: Owned,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `reference-server` with `args`, and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_by(Command::new(server_binary()), args)
    }

    /// As [`Self::start`], by `launcher`, to which `args` are added.
    pub fn start_by(mut launcher: Command, args: &[&str]) -> Self {
        let mut child = launcher
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the reference server can be started");
        let commands = child.stdin.take().expect("standard input is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let process = Owned(child);
        let place = read_place(&mut answers);
        Self {
            place: place
                .unwrap_or_else(|| panic!("reference-server {args:?} ended before it listened")),
            process,
            commands,
            answers,
        }
    }

    /// Returns its TCP port.
    pub fn port(&self) -> u16 {
        match self.place {
            Place::Tcp(port) => port,
            Place::Unix(_) => panic!("a server on a unix socket has no port"),
        }
    }

    /// Returns the id of the process that was started; workers have others.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the stamps of all requests, once there are at least `count`.
    pub fn stamps(&mut self, count: usize) -> Vec<Stamp> {
        let what = format!("{count} requests stamped by the reference server");
        wait_for(&what, Duration::from_secs(10), || {
            let stamps = self.ask();
            (stamps.len() >= count).then_some(stamps)
        })
    }

    /// Returns how many requests it has answered, by status.
    pub fn codes(&mut self) -> BTreeMap<u16, u64> {
        self.commands
            .write_all(b"codes\n")
            .expect("the reference server reads its commands");
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the reference server's output is text");
        serde_json::from_str(&line).expect("counts are JSON")
    }

    /// Lets it listen on one more unix socket.
    pub fn listen(&mut self, path: &Path) -> Place {
        writeln!(self.commands, "listen {}", path.display())
            .expect("the reference server reads its commands");
        read_place(&mut self.answers).expect("the reference server listens once more")
    }

    /// Ends its first thread, and waits until it has ended; the others serve on.
    pub fn leave_first_thread(&mut self) {
        self.commands
            .write_all(b"leave\n")
            .expect("the reference server reads its commands");
        let path = format!("/proc/{}/stat", self.pid());
        wait_for("the end of a first thread", Duration::from_secs(5), || {
            let stat = std::fs::read_to_string(&path).expect("the process goes on");
            // The state follows the name, which ends with the last bracket.
            let (_, state) = stat.rsplit_once(')')?;
            state.starts_with(" Z").then_some(())
        });
    }

    fn ask(&mut self) -> Vec<Stamp> {
        self.commands
            .write_all(b"stamps\n")
            .expect("the reference server reads its commands");
        let mut stamps = Vec::new();
        loop {
            let mut line = String::new();
            self.answers
                .read_line(&mut line)
                .expect("the reference server's output is text");
            match line.trim_end() {
                "end" => return stamps,
                "" => panic!("the reference server ended"),
                row => stamps.push(serde_json::from_str(row).expect("a stamp is JSON")),
            }
        }
    }
}

/// Returns the path of the reference server's program.
pub fn server_binary() -> PathBuf {
    binary("reference-server", None)
}

/// Returns the place in a `listening` line; `None` without such a line.
fn read_place(answers: &mut impl BufRead) -> Option<Place> {
    let mut line = String::new();
    answers
        .read_line(&mut line)
        .expect("the reference server's output is text");
    let place = line.trim_end().strip_prefix("listening ")?;
    Some(match place.parse() {
        Ok(port) => Place::Tcp(port),
        Err(_) => Place::Unix(place.into()),
    })
}

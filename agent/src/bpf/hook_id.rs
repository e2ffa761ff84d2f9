//! Names each hook: a kind of kernel event that the agent measures with.
//!
//! The table of hooks, the reports on them and the doctor's findings share these names.
//! Does not depend on: programs, attach modes.

use std::fmt;

/// A kind of kernel event, reported by one or more eBPF programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookId {
    /// A process runs a new program.
    Exec,
    /// A process ends.
    Exit,
    /// A process or thread starts.
    Fork,
    /// A connection opens or closes, or a socket starts to listen.
    State,
    /// Bytes, or a connection, became readable.
    Readable,
    /// Bytes were read from a socket.
    Recv,
    /// Bytes were written to a socket.
    Send,
    /// A file was sent, on kernels on which that does not pass through [`Self::Send`].
    Sendfile,
    /// A send starts.
    SendStart,
    /// A unix socket was released.
    UnixRelease,
    /// A socket was already listening when the agent started.
    Listeners,
    /// A connection was accepted.
    Accept,
}

impl HookId {
    /// Every hook.
    pub const ALL: [Self; 12] = [
        Self::Exec,
        Self::Exit,
        Self::Fork,
        Self::State,
        Self::Readable,
        Self::Recv,
        Self::Send,
        Self::Sendfile,
        Self::SendStart,
        Self::UnixRelease,
        Self::Listeners,
        Self::Accept,
    ];

    /// Whether the hook reports only what happens on open connections, so that it may be detached while none is measured.
    pub const fn is_of_sockets(self) -> bool {
        match self {
            Self::Readable | Self::Recv | Self::Send | Self::Sendfile | Self::SendStart => true,
            Self::Exec
            | Self::Exit
            | Self::Fork
            | Self::State
            | Self::UnixRelease
            | Self::Listeners
            | Self::Accept => false,
        }
    }

    /// Value of the label `hook`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Fork => "fork",
            Self::State => "state",
            Self::Readable => "readable",
            Self::Recv => "recv",
            Self::Send => "send",
            Self::Sendfile => "sendfile",
            Self::SendStart => "send_start",
            Self::UnixRelease => "unix_release",
            Self::Listeners => "listeners",
            Self::Accept => "accept",
        }
    }

    /// What the hook reports, and what is missing without it: a sentence whose subject is the hook.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Exec => {
                "reports programs that start; without it, servers that start after the agent are not found"
            }
            Self::Exit => {
                "reports processes that end; without it, ended processes still count as running"
            }
            Self::Fork => {
                "reports new processes and threads; without it, new children of a server are not measured"
            }
            Self::State => {
                "reports connections and TCP listeners that open or close; without it, new listeners are not measured"
            }
            Self::Readable => {
                "reports when bytes become readable on a socket; without it, arrival times are unknown"
            }
            Self::Recv => "reports reads from a socket; without it, no request is measured",
            Self::Send => "reports writes to a socket; without it, no response is measured",
            Self::Sendfile => {
                "reports files that are sent with sendfile before Linux 6.5; without it, their bytes are not counted"
            }
            Self::SendStart => {
                "reports when a TCP send starts; without it, handler times include the first send, or are unknown"
            }
            Self::UnixRelease => {
                "reports unix sockets that are released; without it, the state of closed ones is not freed"
            }
            Self::Listeners => {
                "finds sockets that were listening before the agent started; without it, they are measured in part"
            }
            Self::Accept => {
                "reports connections that a server accepts, for --accept-wait; without it, that wait is unknown"
            }
        }
    }
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_what_is_missing_without_the_hook() {
        for hook in HookId::ALL {
            assert!(hook.help().contains("; without it, "), "{hook}");
        }
    }
}

//! Runs the system's ssh as a tunnel to an agent's endpoint, and ends it.
//!
//! The tunnel's near end is a unix socket in a folder that no other user can open.
//! Does not depend on: what goes through the tunnel.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::UnixStream,
    process::{Child, ChildStderr, Command},
};

use crate::remote::target::SshHost;

/// Pause between two looks whether the tunnel is open.
const LOOK: Duration = Duration::from_millis(50);
/// Name of the socket in its folder.
const SOCKET: &str = "agent";

/// A running ssh; dropped, it ends.
#[derive(Debug)]
pub struct Tunnel {
    ssh: Child,
    folder: PathBuf,
}

impl Tunnel {
    /// Logs in, which may ask for a password on the terminal, and returns once the tunnel is open.
    pub async fn open(host: &SshHost) -> Result<Self> {
        Self::open_with("ssh", host).await
    }

    async fn open_with(program: &str, host: &SshHost) -> Result<Self> {
        let folder = make_folder().context("make a folder for the tunnel's socket")?;
        let mut command = Command::new(program);
        command
            .args(arguments(host, &folder.join(SOCKET)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // SAFETY: prctl(2) is async-signal-safe, and the closure touches no memory of this process.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let ssh = command.spawn();
        let mut tunnel = match ssh {
            Ok(ssh) => Self { ssh, folder },
            Err(err) => {
                // An empty folder that stays is no harm, and no reason for another message.
                let _ = fs::remove_dir(&folder);
                return Err(err).context(format!("start {program}: install the OpenSSH client"));
            }
        };
        let stderr = tunnel.ssh.stderr.take();
        let last_words = tokio::spawn(last_line(stderr));
        loop {
            if let Some(status) = tunnel.ssh.try_wait().context("wait for ssh")? {
                let words = last_words.await.unwrap_or_default();
                let words = if words.is_empty() {
                    status.to_string()
                } else {
                    words
                };
                bail!(
                    "ssh {}: {words}; try `ssh {}` first",
                    host.destination,
                    host.destination
                );
            }
            if UnixStream::connect(tunnel.socket()).await.is_ok() {
                return Ok(tunnel);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns the socket that leads to the agent's endpoint.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // ssh is killed with its handle. It may have removed the socket already.
        let _ = self.ssh.start_kill();
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Returns the arguments of ssh: no command, no terminal, and an end if the tunnel cannot be opened or the host is silent.
fn arguments(host: &SshHost, socket: &Path) -> Vec<String> {
    let endpoint = &host.endpoint;
    let there = match endpoint.host().contains(':') {
        true => format!("[{}]", endpoint.host()),
        false => endpoint.host().to_owned(),
    };
    let mut arguments: Vec<String> = [
        "-N",
        "-T",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        "ServerAliveInterval=10",
        "-o",
        "ServerAliveCountMax=3",
        "-o",
        "ControlMaster=no",
        "-o",
        "ControlPath=none",
        "-L",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("{}:{there}:{}", socket.display(), endpoint.port()));
    if let Some(port) = host.port {
        arguments.extend(["-p".into(), port.to_string()]);
    }
    arguments.extend(["--".into(), host.destination.clone()]);
    arguments
}

/// Makes a folder that only this user can open, below the user's run-time folder, or else the temporary one.
fn make_folder() -> io::Result<PathBuf> {
    let below = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let below = below.filter(|folder| folder.is_dir());
    let below = below.unwrap_or_else(std::env::temp_dir);
    let pid = std::process::id();
    for number in 0..100 {
        let folder = below.join(format!("inferprobe-ssh-{pid}-{number}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Reads what ssh writes to its end, and returns the last line.
async fn last_line(stderr: Option<ChildStderr>) -> String {
    let mut last = String::new();
    let Some(stderr) = stderr else {
        return last;
    };
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if !line.trim().is_empty() {
            last = line
                .trim()
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect();
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process};

    use super::*;
    use crate::remote::target::Target;

    fn host(text: &str) -> SshHost {
        match Target::parse("URL", Some(text), None).unwrap() {
            Target::Ssh(host) => host,
            Target::Http(url) => panic!("{url}"),
        }
    }

    /// Writes a program that takes the place of ssh.
    fn program(folder: &Path, script: &str) -> String {
        let path = folder.join("ssh");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn arguments_name_socket_endpoint_and_host() {
        let arguments = arguments(&host("ssh://me@gpu-07:2222"), Path::new("/run/x/agent"));
        let tail: Vec<&str> = arguments[arguments.len() - 6..]
            .iter()
            .map(String::as_str)
            .collect();
        let expected = [
            "-L",
            "/run/x/agent:127.0.0.1:8082",
            "-p",
            "2222",
            "--",
            "me@gpu-07",
        ];
        assert_eq!(tail, expected);
    }

    #[tokio::test]
    async fn refusal_of_ssh_is_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let program = program(
            folder.path(),
            "echo Warning: added >&2; echo 'me@gpu-07: Permission denied (publickey).' >&2; exit 255",
        );
        let err = Tunnel::open_with(&program, &host("ssh://me@gpu-07"))
            .await
            .unwrap_err();
        assert_eq!(
            err.to_string(),
            "ssh me@gpu-07: me@gpu-07: Permission denied (publickey).; try `ssh me@gpu-07` first"
        );
        let err = Tunnel::open_with("/no/such/ssh", &host("ssh://h"))
            .await
            .unwrap_err();
        assert!(err.to_string().contains("OpenSSH client"), "{err}");
    }

    #[tokio::test]
    async fn tunnel_is_private_and_ends_with_its_handle() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        // Python listens on the socket of `-L SOCKET:HOST:PORT`, as ssh does.
        let script = format!(
            "echo $$ > {}\nfor word; do case $word in *:127.0.0.1:8082) socket=${{word%:127.0.0.1:8082}};; esac; done\n\
             exec python3 -c 'import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)' \"$socket\"",
            pid_file.display()
        );
        let program = program(folder.path(), &script);
        let tunnel = Tunnel::open_with(&program, &host("ssh://h")).await.unwrap();
        let socket = tunnel.socket();
        let parent = socket.parent().unwrap().to_owned();
        assert_eq!(
            fs::metadata(&parent).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let pid = fs::read_to_string(pid_file).unwrap();
        assert_ne!(pid.trim(), process::id().to_string());
        drop(tunnel);
        assert!(!parent.exists());
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "ssh still runs");
            tokio::time::sleep(LOOK).await;
        }
    }
}

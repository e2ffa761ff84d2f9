//! Runs `inferprobe demo-server`, and starts it as a child process of `serve --demo`.
//!
//! `server` answers requests for the two models of `model`, `client` sends a few per second.
//! Does not depend on: what measures it. It is a process of its own, so that it is measured like any other server.

mod client;
mod model;
mod server;

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::TcpListener;

use crate::{
    bpf::privileges,
    cli::DemoArgs,
    commands::{demo_server::model::MODELS, runtime},
};

/// Text before the port in the line that reports it.
const LISTENING: &str = "demo-server listening on 127.0.0.1:";

/// Drops every capability, and serves until a signal or the end of the parent process ends this one.
pub fn run(args: &DemoArgs) -> Result<()> {
    privileges::drop_all()?;
    runtime::block_on(serve(args.port))
}

async fn serve(port: u16) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("tie demo-server to its parent")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "--port {port}: cannot listen on {address}; choose another port, or 0 for a free one"
        )
    })?;
    let address = listener.local_addr().context("read back the port")?;
    // If the parent died before the signal was requested, its end of the pipe is closed and this write fails.
    writeln!(io::stdout(), "{LISTENING}{}", address.port()).context("print the port")?;
    for model in &MODELS {
        tokio::spawn(client::send_forever(address, model));
    }
    server::serve(&listener).await
}

/// Starts `program demo-server` on a free port; returns the process and the port.
///
/// The child ends when the calling thread ends, not only when the process ends: call this from a thread that stays.
pub fn spawn(program: &Path) -> io::Result<(Child, u16)> {
    let mut child = Command::new(program)
        .args(["demo-server", "--port", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("standard output was piped");
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    if let Some(port) = read.is_ok().then(|| parse_port(&line)).flatten() {
        return Ok((child, port));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::other(format!(
        "demo-server printed {:?} instead of its port",
        line.trim_end()
    )))
}

fn parse_port(line: &str) -> Option<u16> {
    line.trim_end().strip_prefix(LISTENING)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_with_the_port_names_a_port() {
        assert_eq!(
            parse_port("demo-server listening on 127.0.0.1:8123\n"),
            Some(8123)
        );
        for line in [
            "",
            "\n",
            "error: listen",
            "demo-server listening on 127.0.0.1:",
        ] {
            assert_eq!(parse_port(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_program_that_prints_no_port_is_an_error() {
        let err = spawn(Path::new("/bin/echo")).unwrap_err();
        assert_eq!(
            err.to_string(),
            "demo-server printed \"demo-server --port 0\" instead of its port"
        );
    }
}

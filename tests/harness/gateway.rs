//! A gateway in front of a server: it sends each request on, over a connection that it keeps, or answers it itself.
//!
//! Does not depend on: the agent.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use crate::{
    client::Connection,
    http::{content_length, head_len},
    process::{Owned, binary},
    server::Place,
};

/// Word in the target of a request that the gateway answers itself.
pub const CACHED: &str = "cached";
/// Its answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// A running gateway; it ends when dropped.
pub struct Gateway {
    /// Its TCP port.
    pub port: u16,
    process: Owned,
}

impl Gateway {
    /// Starts one in front of the server at `place`, and waits until it listens.
    pub fn start(place: &Place) -> Self {
        let upstream = match place {
            Place::Tcp(port) => port.to_string(),
            Place::Unix(path) => path.display().to_string(),
        };
        let mut child = Command::new(binary("gateway", None))
            .arg(upstream)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the gateway can be started");
        let output = child.stdout.take().expect("standard output is piped");
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .expect("the gateway prints its port");
        Self {
            port: line.trim().parse().expect("a port"),
            process: Owned(child),
        }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Serves until the process ends, in front of the server at `upstream`: a port, or the path of a unix socket.
pub fn run(upstream: &str) -> io::Result<()> {
    let upstream = match upstream.parse() {
        Ok(port) => Place::Tcp(port),
        Err(_) => Place::Unix(upstream.into()),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    for client in listener.incoming() {
        let (client, upstream) = (client?, upstream.clone());
        thread::spawn(move || serve(client, &upstream));
    }
    Ok(())
}

fn serve(mut client: TcpStream, upstream: &Place) -> io::Result<()> {
    let mut kept = None;
    let mut input = Vec::new();
    loop {
        let Some(request) = take_request(&mut input) else {
            let mut buffer = [0; 4096];
            let count = client.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            input.extend_from_slice(&buffer[..count]);
            continue;
        };
        let line = request.split(|&byte| byte == b'\r').next();
        if line.is_some_and(|line| String::from_utf8_lossy(line).contains(CACHED)) {
            client.write_all(ANSWER)?;
            continue;
        }
        let connection: &mut Connection = match &mut kept {
            Some(connection) => connection,
            None => kept.insert(Connection::open(upstream)?),
        };
        let (_, answer) = connection.exchange(&request)?;
        let head = format!(
            "HTTP/1.1 {} -\r\nContent-Length: {}\r\n\r\n",
            answer.status,
            answer.body.len()
        );
        client.write_all(&[head.as_bytes(), &answer.body].concat())?;
    }
}

/// Removes the first request from `input`, once it is whole.
fn take_request(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = head_len(input)?;
    let len = head + content_length(&input[..head]).unwrap_or(0);
    (input.len() >= len).then(|| input.drain(..len).collect())
}

//! Describes one connection: the bytes of both directions, who reads and writes how many of them when, and the requests
//! in them.

use std::{ops::Range, time::Duration};

use crate::client::request;

/// An act of the server. A position counts the bytes of its direction, from the start of the connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads of at most `size` bytes, until all before `until` were read, or the client has ended.
    Read {
        /// Largest read.
        size: usize,
        /// Position.
        until: usize,
    },
    /// Reads of at most `size` bytes to the client's end, or its reset.
    Drain {
        /// Largest read.
        size: usize,
    },
    /// A read that finds nothing and does not wait.
    Probe,
    /// Waits until the client has sent all before the position, and they are in the queue.
    Arrived(usize),
    /// One write of all unwritten bytes before the position.
    Write(usize),
    /// The work on a request.
    Work(Duration),
    /// Ends the server's direction.
    FinishWriting,
    /// Resets the connection.
    Reset,
    /// These on another thread, and waits for it.
    Elsewhere(Vec<Step>),
    /// These on another thread, beside those that follow.
    Beside(Vec<Step>),
    /// Waits for the thread beside.
    Join,
}

/// An act of the client.
#[derive(Debug, Clone)]
pub enum Act {
    /// Waits until the server waits in a read.
    Awaited,
    /// One send of all unsent bytes before the position.
    Send(usize),
    /// Waits until the server has read all before the position.
    Read(usize),
    /// Reads all before the position.
    Receive(usize),
    /// Ends the client's direction.
    FinishSending,
    /// Resets the connection.
    Reset,
}

/// A request in the bytes.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Position in the client's bytes.
    pub request: Range<usize>,
    /// Position of its response in the server's bytes; empty without one.
    pub answer: Range<usize>,
    /// Method.
    pub method: &'static str,
    /// Model that its target names.
    pub model: String,
    /// Status of the response.
    pub status: u16,
    /// Whether the response began before the request was read.
    pub early: bool,
    /// Later bytes of the client that belong to the same session.
    pub session_bytes: usize,
}

/// One connection.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// The client's bytes.
    pub sent: Vec<u8>,
    /// The server's bytes.
    pub answered: Vec<u8>,
    /// The requests that the agent must report.
    pub asked: Vec<Asked>,
    /// Fewest and most unfinished requests.
    pub unfinished: (u32, u32),
    /// What the server does.
    pub server: Vec<Step>,
    /// What the client does.
    pub client: Vec<Act>,
}

impl Script {
    /// Adds bytes of the client that are no request, and returns their end.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        self.sent.extend_from_slice(bytes);
        self.sent.len()
    }

    /// Adds bytes of the server that are no response, and returns their end.
    pub fn interim(&mut self, bytes: &[u8]) -> usize {
        self.answered.extend_from_slice(bytes);
        self.answered.len()
    }

    /// Adds a request for a new model, and returns its position.
    pub fn post(&mut self, body_bytes: usize) -> Range<usize> {
        self.ask("POST", &[], &vec![b'x'; body_bytes])
    }

    /// As [`Script::post`], with every part of a request.
    pub fn ask(&mut self, method: &'static str, fields: &[&str], body: &[u8]) -> Range<usize> {
        let model = format!("m{}", self.asked.len());
        let target = format!("/v1/models/{model}:predict");
        let start = self.sent.len();
        let end = self.send(&request(method, &target, fields, body));
        self.asked.push(Asked {
            request: start..end,
            answer: 0..0,
            method,
            model,
            status: 0,
            early: false,
            session_bytes: 0,
        });
        start..end
    }

    /// Adds the response to the oldest request without one, and returns its position.
    pub fn answer(&mut self, status: u16, fields: &[&str], body: &[u8]) -> Range<usize> {
        let start = self.answered.len();
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        let framed = |field: &&str| field.starts_with("Transfer-Encoding") || status < 200;
        if !fields.iter().any(framed) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for field in fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        let end = self.interim(&[head.as_bytes(), b"\r\n", body].concat());
        let mut open = self.asked.iter_mut();
        let asked = open.find(|asked| asked.status == 0);
        let asked = asked.expect("an answer answers a request");
        (asked.answer, asked.status) = (start..end, status);
        start..end
    }

    /// Adds what the server does.
    pub fn serve(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.server.extend(steps);
    }

    /// Adds what the client does.
    pub fn act(&mut self, acts: impl IntoIterator<Item = Act>) {
        self.client.extend(acts);
    }
}

//! A fast HTTP echo server: one thread, epoll, buffers kept between requests. The subject of throughput measurements.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};

use crate::http::{content_length, head_len};

/// Most bytes of one read.
const READ_BYTES: usize = 65536;

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Responds to every request on `listener` with its own body, until the process ends.
pub(super) fn serve(listener: &TcpListener) {
    let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll is there");
    let readable = EventFlags::IN;
    epoll::add(&epoll, listener, EventData::new_u64(u64::MAX), readable)
        .expect("a listener can be polled");
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut events = Vec::with_capacity(256);
    let mut scratch = vec![0; READ_BYTES];
    loop {
        events.clear();
        if epoll::wait(&epoll, spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for event in &events {
            let key = event.data.u64();
            if key == u64::MAX {
                let Ok((stream, _)) = listener.accept() else {
                    continue;
                };
                let key = u64::try_from(stream.as_raw_fd()).expect("descriptors are positive");
                let ready = stream.set_nodelay(true).is_ok()
                    && epoll::add(&epoll, &stream, EventData::new_u64(key), readable).is_ok();
                if ready {
                    let client = Client {
                        stream,
                        input: Vec::new(),
                        output: Vec::new(),
                    };
                    clients.insert(key, client);
                }
            } else if clients
                .get_mut(&key)
                .is_some_and(|client| !serve_once(client, &mut scratch))
            {
                // Closing the descriptor removes it from the epoll set.
                clients.remove(&key);
            }
        }
    }
}

/// Reads once and responds to what that completed; returns false if the connection is over.
fn serve_once(client: &mut Client, scratch: &mut [u8]) -> bool {
    match client.stream.read(scratch) {
        Ok(0) => return false,
        Ok(count) => client.input.extend_from_slice(&scratch[..count]),
        Err(err) => return err.kind() == ErrorKind::Interrupted,
    }
    client.output.clear();
    while let Some(whole) = answer(&client.input, &mut client.output) {
        client.input.drain(..whole);
    }
    client.output.is_empty() || client.stream.write_all(&client.output).is_ok()
}

/// Appends the response to the first request of `input`, and returns the length of that request; `None` while it is
/// incomplete.
fn answer(input: &[u8], output: &mut Vec<u8>) -> Option<usize> {
    let head_bytes = head_len(input)?;
    let length = content_length(&input[..head_bytes]).unwrap_or(0);
    let body = input.get(head_bytes..head_bytes + length)?;
    write!(
        output,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
    )
    .expect("a vector takes every write");
    output.extend_from_slice(body);
    Some(head_bytes + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_in_one_buffer_get_two_answers() {
        let request = b"POST /predictions/m HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";
        let both = [request.as_slice(), request.as_slice()].concat();
        let mut output = Vec::new();
        assert_eq!(answer(&both, &mut output), Some(request.len()));
        assert_eq!(output, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
        assert!((0..request.len()).all(|cut| answer(&both[..cut], &mut Vec::new()).is_none()));
    }
}

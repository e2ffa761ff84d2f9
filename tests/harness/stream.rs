//! Reads a streamed response, and stamps its head and each of its pieces.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use crate::{
    clock::monotonic_ns,
    http::{Head, head_len},
};

/// Longest wait for bytes of a response.
const PATIENCE: Duration = Duration::from_secs(20);

/// Times of a streamed response at its client, CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Clone)]
pub struct Streamed {
    /// This end's port.
    pub local_port: u16,
    /// The request was sent.
    pub sent_ns: u64,
    /// The first bytes of the response were read.
    pub first_byte_ns: u64,
    /// Each piece was read.
    pub pieces_ns: Vec<u64>,
    /// The last byte was read, or the end of the connection.
    pub last_ns: u64,
}

impl Streamed {
    /// Returns the time from the request to the first piece.
    pub fn first_piece_ns(&self) -> Option<u64> {
        Some(self.pieces_ns.first()? - self.sent_ns)
    }

    /// Returns the mean time from one piece to the next.
    pub fn mean_gap_ns(&self) -> Option<u64> {
        let (first, last) = (self.pieces_ns.first()?, self.pieces_ns.last()?);
        (last - first).checked_div(self.pieces_ns.len() as u64 - 1)
    }
}

/// Sends `request` to a port of 127.0.0.1 on a new connection, and reads the response piece by piece.
///
/// A piece is a chunk, or `piece_bytes` of a body that ends with the connection.
pub fn stream(port: u16, request: &[u8], piece_bytes: usize) -> io::Result<Streamed> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let local_port = socket.local_addr()?.port();
    let sent_ns = monotonic_ns();
    socket.write_all(request)?;

    let mut streamed = Streamed {
        local_port,
        sent_ns,
        first_byte_ns: 0,
        pieces_ns: Vec::new(),
        last_ns: 0,
    };
    let mut input = Vec::new();
    let mut chunked = None;
    let mut block = vec![0; 65536];
    loop {
        let len = socket.read(&mut block)?;
        let now_ns = monotonic_ns();
        if streamed.first_byte_ns == 0 {
            streamed.first_byte_ns = now_ns;
        }
        streamed.last_ns = now_ns;
        input.extend_from_slice(&block[..len]);
        if chunked.is_none()
            && let Some(head_bytes) = head_len(&input)
        {
            chunked = Some(Head::parse(&input[..head_bytes]).chunked());
            input.drain(..head_bytes);
        }
        match chunked {
            Some(true) => {
                while let Some((data_bytes, sent)) = chunk(&input) {
                    input.drain(..sent);
                    if data_bytes == 0 {
                        return Ok(streamed);
                    }
                    streamed.pieces_ns.push(now_ns);
                }
            }
            Some(false) => {
                while input.len() >= piece_bytes {
                    input.drain(..piece_bytes);
                    streamed.pieces_ns.push(now_ns);
                }
            }
            None => {}
        }
        if len == 0 {
            return match chunked {
                Some(false) => Ok(streamed),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}

/// Returns the length of the data of the complete chunk at the start of `bytes`, and of the chunk. Trailers must be
/// absent.
fn chunk(bytes: &[u8]) -> Option<(usize, usize)> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..line]).ok()?;
    let size = usize::from_str_radix(size, 16).ok()?;
    let sent = line + 2 + size + 2;
    (bytes.len() >= sent).then_some((size, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_whole_with_its_last_byte() {
        let bytes = b"3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(chunk(bytes), Some((3, 8)));
        assert_eq!(chunk(&bytes[8..]), Some((0, 5)));
        assert!((0..8).all(|cut| chunk(&bytes[..cut]).is_none()));
    }
}

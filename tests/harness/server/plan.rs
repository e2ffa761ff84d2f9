//! Turns the query of a request into a plan, and the plan into the writes of a response.
//!
//! Does not depend on: sockets or a clock.

use std::time::Duration;

use crate::http::Head;

/// What the query of a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Time in the handler, between the last read and the first write (`sleep_us`, `sleep_ms`).
    pub sleep: Duration,
    /// CPU time to use up in the handler (`burn_us`).
    pub burn: Duration,
    /// Status code (`status`).
    pub status: u16,
    /// Bytes of response body (`body`).
    pub body_bytes: usize,
    /// Least bytes of the head, filled up with a field (`head_bytes`).
    pub head_bytes: usize,
    /// Head and body in separate writes (`split=1`).
    pub split: bool,
    /// Most bytes of one write (`write_size`).
    pub write_size: usize,
    /// Pause before each write but the first (`gap_ms`).
    pub gap: Duration,
    /// Pause before the second write, in place of `gap` (`first_gap_ms`).
    pub first_gap: Option<Duration>,
    /// Number of chunks of a chunked response (`chunks`).
    pub chunks: Option<usize>,
    /// Number of writes, each of a whole `body`, of a response that ends with the connection (`pieces`).
    pub pieces: usize,
    /// The content type is that of an event stream (`events=1`).
    pub events: bool,
    /// The status line is HTTP/1.0's (`http10=1`).
    pub http10: bool,
    /// A chunked response ends with a trailer field (`trailers=1`).
    pub trailers: bool,
    /// The body ends with the connection (`until_close=1`).
    pub until_close: bool,
    /// The connection ends after the response (`close=1`, or the request's own `Connection: close`).
    pub close: bool,
    /// Respond before the body is read (`early=1`).
    pub early: bool,
    /// End the connection without a response (`drop=1`).
    pub drop: bool,
    /// Respond without a body, whatever `body` says: HEAD, 204, 304.
    pub bodiless: bool,
}

impl Plan {
    /// Parses the query and head of a request.
    pub fn of(head: &Head) -> Self {
        let target = head.word(1);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let number = |name: &str| -> Option<u64> {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse().ok())
        };
        let size = |name| number(name).and_then(|n| usize::try_from(n).ok());
        let flag = |name| number(name) == Some(1);
        let status = number("status").and_then(|n| n.try_into().ok());
        let status = status.unwrap_or(200);
        let until_close = flag("until_close");
        Self {
            sleep: Duration::from_micros(number("sleep_us").unwrap_or(0))
                + Duration::from_millis(number("sleep_ms").unwrap_or(0)),
            burn: Duration::from_micros(number("burn_us").unwrap_or(0)),
            status,
            body_bytes: size("body").unwrap_or(2),
            head_bytes: size("head_bytes").unwrap_or(0),
            split: flag("split"),
            write_size: size("write_size").unwrap_or(usize::MAX),
            gap: Duration::from_millis(number("gap_ms").unwrap_or(0)),
            first_gap: number("first_gap_ms").map(Duration::from_millis),
            chunks: size("chunks"),
            pieces: size("pieces").unwrap_or(0),
            events: flag("events"),
            http10: flag("http10"),
            trailers: flag("trailers"),
            until_close,
            close: until_close || flag("close") || head.field("connection") == Some("close"),
            early: flag("early"),
            drop: flag("drop"),
            bodiless: head.word(0) == "HEAD" || status == 204 || status == 304,
        }
    }

    /// Returns the body, or one piece of it: an event of that length, if it is at least as long as the shortest event.
    fn body(&self) -> Vec<u8> {
        const BEGIN: &[u8] = b"data: ";
        const END: &[u8] = b"\n\n";
        let mut body = vec![b'r'; self.body_bytes];
        if self.events && body.len() > BEGIN.len() + END.len() {
            let end = body.len() - END.len();
            body[..BEGIN.len()].copy_from_slice(BEGIN);
            body[end..].copy_from_slice(END);
        }
        body
    }

    /// Returns the response, one buffer per write.
    pub fn writes(&self) -> Vec<Vec<u8>> {
        let minor = if self.http10 { 0 } else { 1 };
        let mut head = format!("HTTP/1.{minor} {} Reference\r\n", self.status);
        if let Some(_chunks) = self.chunks {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if !self.until_close && self.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", self.body_bytes));
        }
        if self.events {
            head.push_str("Content-Type: text/event-stream\r\n");
        }
        if self.close {
            head.push_str("Connection: close\r\n");
        }
        let name = "X-Fill: ";
        let fill = self.head_bytes.checked_sub(head.len() + name.len() + 4);
        if let Some(fill) = fill {
            head.push_str(&format!("{name}{}\r\n", "f".repeat(fill)));
        }
        head.push_str("\r\n");

        let body = self.body();
        let mut writes = vec![head.into_bytes()];
        match self.chunks {
            _ if self.bodiless => {}
            Some(chunks) => {
                for _ in 0..chunks {
                    let mut chunk = format!("{:x}\r\n", body.len()).into_bytes();
                    chunk.extend_from_slice(&body);
                    chunk.extend_from_slice(b"\r\n");
                    writes.push(chunk);
                }
                let trailers = if self.trailers {
                    "X-Sum: 12345\r\n"
                } else {
                    ""
                };
                writes.push(format!("0\r\n{trailers}\r\n").into_bytes());
            }
            None if self.pieces > 0 => writes.extend(vec![body; self.pieces]),
            None if self.split => writes.push(body),
            None => writes[0].extend_from_slice(&body),
        }
        writes
            .iter()
            .flat_map(|write| write.chunks(self.write_size.max(1)))
            .map(<[u8]>::to_vec)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(start: &str) -> Plan {
        Plan::of(&Head::parse(format!("{start} HTTP/1.1\r\n\r\n").as_bytes()))
    }

    fn sizes(start: &str) -> Vec<usize> {
        plan(start).writes().iter().map(Vec::len).collect()
    }

    #[test]
    fn query_chooses_the_writes() {
        let head = "HTTP/1.1 200 Reference\r\nContent-Length: 10\r\n\r\n".len();
        assert_eq!(sizes("GET /?body=10"), [head + 10]);
        assert_eq!(sizes("GET /?body=10&split=1"), [head, 10]);
        assert_eq!(sizes("HEAD /?body=10"), [head]);
        assert_eq!(sizes("GET /?body=10&write_size=30"), [30, head + 10 - 30]);
        let head = "HTTP/1.1 200 Reference\r\nTransfer-Encoding: chunked\r\n\r\n".len();
        assert_eq!(sizes("GET /?body=10&chunks=2"), [head, 15, 15, 5]);
        assert_eq!(sizes("GET /?body=10&chunks=1&trailers=1"), [head, 15, 19]);
        assert_eq!(sizes("GET /?body=10&split=1&head_bytes=2000"), [2000, 10]);
    }

    #[test]
    fn stream_without_chunks_is_one_write_per_piece() {
        let plan = plan("GET /?http10=1&events=1&until_close=1&pieces=3&body=2");
        let writes = plan.writes();
        assert_eq!(
            writes[0],
            b"HTTP/1.0 200 Reference\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(writes[1..], [b"rr"; 3]);
    }

    #[test]
    fn body_until_close_ends_the_connection() {
        let plan = plan("GET /?until_close=1&body=3");
        assert!(plan.close);
        assert_eq!(
            plan.writes()[0],
            b"HTTP/1.1 200 Reference\r\nConnection: close\r\n\r\nrrr"
        );
    }
}

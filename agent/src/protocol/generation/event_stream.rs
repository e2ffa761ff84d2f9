//! Cuts an event stream into events (HTML Living Standard, 9.2.6), whatever the cuts between the pieces that it is fed.
//!
//! Does not depend on: what events mean.

use memchr::memchr2;

use crate::protocol::generation::{PART_CAP, Piece, keep_end};

/// U+FEFF, which may precede the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event stream, as far as it was fed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventStream {
    /// The present line.
    line: Vec<u8>,
    /// Name of the present event.
    name: Vec<u8>,
    /// The lines of its data, each with a line feed.
    data: Vec<u8>,
    /// Whether bytes of the present line, or of the present event, are missing.
    line_is_cut: bool,
    event_is_cut: bool,
    /// Whether the latest byte was a carriage return: a line feed after it ends no line.
    after_return: bool,
    /// Whether a line has ended.
    begun: bool,
}

impl EventStream {
    /// Adds bytes; calls `on_event` for each event that ends in them and has data.
    pub fn push(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(Piece<'_>)) {
        if self.after_return && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            self.after_return = false;
        }
        while let Some(end) = memchr2(b'\r', b'\n', bytes) {
            self.extend_line(&bytes[..end]);
            self.end_line(&mut on_event);
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_return {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.extend_line(bytes);
    }

    /// Adds bytes that are unknown.
    pub fn skip(&mut self) {
        self.line.clear();
        self.data.clear();
        self.line_is_cut = true;
        self.event_is_cut = true;
        self.after_return = false;
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
        if self.line.len() > PART_CAP {
            keep_end(&mut self.line);
            self.line_is_cut = true;
            self.event_is_cut = true;
        }
    }

    fn end_line(&mut self, on_event: &mut impl FnMut(Piece<'_>)) {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.begun, true) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if std::mem::take(&mut self.line_is_cut) {
            self.data.extend_from_slice(&line);
            self.data.push(b'\n');
        } else if line.is_empty() {
            self.end_event(on_event);
        } else {
            self.add_field(&line);
        }
        if self.data.len() > PART_CAP {
            self.event_is_cut = true;
        }
        if self.event_is_cut {
            keep_end(&mut self.data);
        }
        line.clear();
        self.line = line;
    }

    fn add_field(&mut self, line: &[u8]) {
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => {}
        }
    }

    fn end_event(&mut self, on_event: &mut impl FnMut(Piece<'_>)) {
        if let Some((_, data)) = self.data.split_last() {
            on_event(match self.event_is_cut {
                true => Piece::End(data),
                false => Piece::Whole {
                    name: &self.name,
                    data,
                },
            });
        }
        self.event_is_cut = false;
        self.name.clear();
        self.data.clear();
    }
}

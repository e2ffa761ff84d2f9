//! Cuts a JSON body into its values: the lines of JSON Lines, the elements of an outermost array, or one value.
//!
//! The bytes may be cut anywhere. Only brackets and strings are followed; `sparse_json` parses the values.
//! Does not depend on: what values mean.

use memchr::memchr2;

use crate::protocol::generation::{PART_CAP, Piece, keep_end};

/// The values of a body, as far as it was fed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonValues {
    /// The present value.
    value: Vec<u8>,
    /// Open brackets.
    depth: u32,
    /// Open brackets around the values: 1 in an array of them.
    base: u32,
    in_string: bool,
    escaped: bool,
    /// Whether bytes of the present value are missing.
    cut: bool,
    /// Whether the depth is unknown, because bytes are missing.
    lost: bool,
    /// Values that ended, or began after missing bytes.
    count: u32,
}

impl JsonValues {
    /// Adds bytes; calls `on_value` for each object or array that ends in them.
    pub fn push(&mut self, bytes: &[u8], mut on_value: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let [first, after @ ..] = rest {
            if self.lost {
                self.push_lost(*first, &mut on_value);
                rest = after;
            } else {
                rest = self.push_known(rest, &mut on_value);
            }
        }
    }

    /// Adds bytes that are unknown.
    pub fn skip(&mut self) {
        self.value.clear();
        self.cut = true;
        self.lost = true;
    }

    /// Ends the body.
    pub fn finish(&mut self, mut on_value: impl FnMut(Piece<'_>)) {
        if self.lost {
            self.end_value(&[], &mut on_value);
        }
    }

    /// Whether no value has begun.
    pub fn is_new(&self) -> bool {
        self.count == 0 && self.value.is_empty()
    }

    /// Whether the body has several values.
    pub fn has_several(&self) -> bool {
        self.base > 0 || self.count > 1
    }

    /// Whether a value has begun, and its end is yet to come.
    pub fn is_open(&self) -> bool {
        !self.value.is_empty()
    }

    /// Adds bytes up to the end of a value, or all; returns those that follow it.
    fn push_known<'a>(
        &mut self,
        bytes: &'a [u8],
        on_value: &mut impl FnMut(Piece<'_>),
    ) -> &'a [u8] {
        let (mut value_at, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            let outside = self.depth == self.base;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {
                    // Nothing else ends a string.
                    at += memchr2(b'"', b'\\', &bytes[at..]).unwrap_or(bytes.len() - at);
                    continue;
                }
                b'[' if outside && self.depth == 0 && self.count == 0 => {
                    self.base = 1;
                    self.depth = 1;
                }
                b'{' | b'[' => {
                    if outside {
                        value_at = at;
                    }
                    self.depth += 1;
                }
                b'}' | b']' if !outside => {
                    self.depth -= 1;
                    if self.depth == self.base {
                        let (value, rest) = bytes.split_at(at + 1);
                        self.end_value(&value[value_at..], on_value);
                        return rest;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        if self.depth != self.base {
            self.keep(&bytes[value_at..]);
        }
        &[]
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.value.extend_from_slice(bytes);
        if self.value.len() > PART_CAP {
            self.cut = true;
            keep_end(&mut self.value);
        }
    }

    /// Adds a byte at an unknown depth. A line that begins with a brace begins a value: within one, lines are indented.
    fn push_lost(&mut self, byte: u8, on_value: &mut impl FnMut(Piece<'_>)) {
        if byte == b'{' && self.value.last() == Some(&b'\n') {
            self.end_value(&[], on_value);
            self.lost = false;
            self.in_string = false;
            self.escaped = false;
            self.depth = self.base + 1;
        }
        self.value.push(byte);
        if self.value.len() > PART_CAP {
            keep_end(&mut self.value);
        }
    }

    /// Ends the present value, of which `last` are the last bytes. Those that come at once are not copied.
    fn end_value(&mut self, last: &[u8], on_value: &mut impl FnMut(Piece<'_>)) {
        self.count = self.count.saturating_add(1);
        if self.value.is_empty() && !self.cut && last.len() <= PART_CAP {
            let name = b"";
            return on_value(Piece::Whole { name, data: last });
        }
        self.keep(last);
        if std::mem::take(&mut self.cut) {
            keep_end(&mut self.value);
            on_value(Piece::End(&self.value));
        } else {
            on_value(Piece::Whole {
                name: b"",
                data: &self.value,
            });
        }
        self.value.clear();
    }
}

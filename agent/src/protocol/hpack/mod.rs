//! Decodes HPACK (RFC 7541), the header fields of HTTP/2, as far as the wanted fields need it.
//!
//! The table keeps every entry, but values only of wanted fields. On a connection that was joined midway, older entries are
//! unknown: fields that refer to them are reported as [`Field::Unknown`], and later fields are still correct.
//! Does not depend on: frames.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use httlib_huffman::DecoderSpeed;

/// Default size of the table, bytes (RFC 9113, 6.5.2).
const TABLE_DEFAULT: u32 = 4096;
/// Largest table that is followed, bytes.
const TABLE_CAP: u32 = 64 << 10;
/// What an entry counts for besides its name and value, bytes (RFC 7541, 4.1).
const ENTRY_OVERHEAD: u32 = 32;
/// Longest value that is kept, bytes; it is cut there.
const VALUE_CAP: usize = 1024;
/// Length of the name of each entry of the static table (RFC 7541, appendix A), bytes.
const STATIC_NAME_LENS: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// A field that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// `grpc-status`
    GrpcStatus,
    /// `content-encoding`
    ContentEncoding,
    /// `content-type`
    ContentType,
    /// `content-length`
    ContentLength,
    /// `user-agent`
    UserAgent,
}

/// What a field of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// A wanted field and its value, cut at 1024 bytes.
    Wanted(Name, &'a [u8]),
    /// A field that refers to an entry from before the connection was joined.
    Unknown,
}

/// The block is not HPACK, or the table differs from its sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Wanted(Name),
    Other,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: Key,
    name_len: u32,
    /// As the table counts it, bytes.
    size: u32,
    /// Empty unless the field is wanted.
    value: Box<[u8]>,
}

/// The fields of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    /// The dynamic table, newest first.
    entries: VecDeque<Entry>,
    /// Sum of the entries' sizes, bytes.
    size: u32,
    /// Largest `size`, bytes.
    limit: u32,
    /// Largest `limit` that the sender may choose, bytes.
    allowed: u32,
    /// Whether the sender chose `limit`.
    chosen: bool,
    /// Whether there may be older entries than `entries` holds.
    joined: bool,
    scratch: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: TABLE_DEFAULT,
            allowed: TABLE_DEFAULT,
            chosen: false,
            joined: false,
            scratch: Vec::new(),
        }
    }
}

impl Decoder {
    /// Records that blocks were sent before the first one read here.
    ///
    /// The size of the table is then unknown. One too large does no harm: entries count from the newest, so no sender uses
    /// the index of an entry that is kept too long.
    pub fn join(&mut self) {
        self.joined = true;
        self.allow(TABLE_CAP);
    }

    /// Processes the other side's `SETTINGS_HEADER_TABLE_SIZE`, bytes.
    ///
    /// Only growth matters here, because a sender that makes the table smaller says so in its next block.
    pub fn allow(&mut self, bytes: u32) {
        self.allowed = self.allowed.max(bytes.min(TABLE_CAP));
        if !self.chosen {
            self.limit = self.allowed;
        }
    }

    /// Decodes a whole block, and calls `on_field` for its wanted fields in order.
    pub fn read(
        &mut self,
        mut block: &[u8],
        mut on_field: impl FnMut(Field<'_>),
    ) -> Result<(), Invalid> {
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                self.indexed(index, &mut on_field)?;
            } else if first & 0xe0 == 0x20 {
                let limit = integer(&mut block, 5)?;
                if limit > self.allowed {
                    return Err(Invalid);
                }
                self.chosen = true;
                self.limit = limit;
                self.evict();
            } else {
                let indexed = first & 0x40 != 0;
                let name = integer(&mut block, if indexed { 6 } else { 4 })?;
                self.literal(&mut block, name, indexed, &mut on_field)?;
            }
        }
        self.scratch.shrink_to(VALUE_CAP);
        Ok(())
    }

    /// Reports the entry at `index`.
    fn indexed(&self, index: u32, on_field: &mut impl FnMut(Field<'_>)) -> Result<(), Invalid> {
        if let Some((name, value)) = static_field(index) {
            on_field(Field::Wanted(name, value));
            return Ok(());
        }
        match self.key(index)? {
            (Key::Wanted(name), _) => {
                let value = self.entry(index).map_or(&[][..], |entry| &entry.value);
                on_field(Field::Wanted(name, value));
            }
            (Key::Unknown, _) => on_field(Field::Unknown),
            (Key::Other, _) => {}
        }
        Ok(())
    }

    /// Decodes a literal field after its first integer, `name`: the index of its name, or 0.
    fn literal(
        &mut self,
        block: &mut &[u8],
        name: u32,
        indexed: bool,
        on_field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Invalid> {
        let (key, name_len) = if name == 0 {
            let (raw, huffman) = string(block)?;
            let name = plain(raw, huffman, &mut self.scratch)?;
            (key_of(name), len_u32(name)?)
        } else {
            self.key(name)?
        };
        let (raw, huffman) = string(block)?;
        if key == Key::Other && !indexed {
            return Ok(());
        }
        let value = plain(raw, huffman, &mut self.scratch)?;
        let value_len = len_u32(value)?;
        let kept = match key {
            Key::Wanted(name) => {
                let kept = &value[..value.len().min(VALUE_CAP)];
                on_field(Field::Wanted(name, kept));
                kept
            }
            Key::Unknown => {
                on_field(Field::Unknown);
                &[]
            }
            Key::Other => &[],
        };
        if indexed {
            // Neither length comes near the end of the range: a block is one buffer.
            let size = ENTRY_OVERHEAD + name_len + value_len;
            let value = kept.into();
            self.entries.push_front(Entry {
                key,
                name_len,
                size,
                value,
            });
            self.size += size;
            self.evict();
        }
        Ok(())
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size;
        }
    }

    /// Returns the name of the entry at `index`, and the name's length; 0 if it is unknown.
    fn key(&self, index: u32) -> Result<(Key, u32), Invalid> {
        let place = index.checked_sub(1).ok_or(Invalid)?;
        if let Some(&name_len) = STATIC_NAME_LENS.get(place as usize) {
            let key = match index {
                2 | 3 => Key::Wanted(Name::Method),
                4 | 5 => Key::Wanted(Name::Path),
                8..=14 => Key::Wanted(Name::Status),
                26 => Key::Wanted(Name::ContentEncoding),
                28 => Key::Wanted(Name::ContentLength),
                58 => Key::Wanted(Name::UserAgent),
                31 => Key::Wanted(Name::ContentType),
                _ => Key::Other,
            };
            return Ok((key, name_len.into()));
        }
        match self.entry(index) {
            Some(entry) => Ok((entry.key, entry.name_len)),
            None if self.joined => Ok((Key::Unknown, 0)),
            None => Err(Invalid),
        }
    }

    /// Returns the entry of the dynamic table at `index`.
    fn entry(&self, index: u32) -> Option<&Entry> {
        let place = (index as usize).checked_sub(STATIC_NAME_LENS.len() + 1)?;
        self.entries.get(place)
    }
}

/// Returns a wanted field of the static table.
fn static_field(index: u32) -> Option<(Name, &'static [u8])> {
    Some(match index {
        2 => (Name::Method, b"GET"),
        3 => (Name::Method, b"POST"),
        4 => (Name::Path, b"/"),
        5 => (Name::Path, b"/index.html"),
        8 => (Name::Status, b"200"),
        9 => (Name::Status, b"204"),
        10 => (Name::Status, b"206"),
        11 => (Name::Status, b"304"),
        12 => (Name::Status, b"400"),
        13 => (Name::Status, b"404"),
        14 => (Name::Status, b"500"),
        _ => return None,
    })
}

fn key_of(name: &[u8]) -> Key {
    match name {
        b":method" => Key::Wanted(Name::Method),
        b":path" => Key::Wanted(Name::Path),
        b":status" => Key::Wanted(Name::Status),
        b"grpc-status" => Key::Wanted(Name::GrpcStatus),
        b"content-encoding" => Key::Wanted(Name::ContentEncoding),
        b"content-type" => Key::Wanted(Name::ContentType),
        b"content-length" => Key::Wanted(Name::ContentLength),
        b"user-agent" => Key::Wanted(Name::UserAgent),
        _ => Key::Other,
    }
}

/// Removes an integer from the block: the low `prefix` bits of a byte, and up to four more bytes.
fn integer(block: &mut &[u8], prefix: u32) -> Result<u32, Invalid> {
    let (&first, mut rest) = block.split_first().ok_or(Invalid)?;
    let full = (1_u32 << prefix) - 1;
    let mut value = u32::from(first) & full;
    if value == full {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(Invalid)?;
            rest = after;
            value += u32::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift == 28 {
                return Err(Invalid);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Removes a string from the block; returns its bytes as sent, and whether they are in Huffman code.
fn string<'a>(block: &mut &'a [u8]) -> Result<(&'a [u8], bool), Invalid> {
    let huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(block, 7)? as usize;
    let (raw, rest) = block.split_at_checked(len).ok_or(Invalid)?;
    *block = rest;
    Ok((raw, huffman))
}

/// Returns a string as it was before it was coded.
fn plain<'a>(raw: &'a [u8], huffman: bool, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    if !huffman {
        return Ok(raw);
    }
    scratch.clear();
    httlib_huffman::decode(raw, scratch, DecoderSpeed::FourBits).map_err(|_| Invalid)?;
    Ok(scratch)
}

fn len_u32(bytes: &[u8]) -> Result<u32, Invalid> {
    u32::try_from(bytes.len()).map_err(|_| Invalid)
}

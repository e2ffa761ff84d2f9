//! Hellos of TLS, the walk over its records, and the beginnings of functions of its libraries.

use inferprobe::{
    exchange::tls::walk::{Of, Part, Walk},
    openssl::prologue,
    protocol::tls::hello::{self, Read},
};
use inferprobe_ebpf::{
    http2_frames::{DataKept, FrameCursor},
    tls_records::is_record_head,
};

/// A hello reads the same however much follows it, and is partial wherever it is cut.
pub fn tls_hello(data: &[u8]) {
    cuts(data, hello::client_hello);
    cuts(data, hello::server_start);
    hello::client_certificate(data);
}

/// What is invalid stays so whatever follows, and what is whole was partial before. A server's second hello may follow the
/// request for it, so only the first outcome is compared.
fn cuts<T: PartialEq + std::fmt::Debug>(data: &[u8], read: impl Fn(&[u8]) -> Read<T>) {
    let Some(first) = (0..=data.len()).find(|end| read(&data[..*end]) != Read::Partial) else {
        return;
    };
    let is_invalid = read(&data[..first]) == Read::Invalid;
    assert_eq!(read(data) == Read::Invalid, is_invalid, "cut at {first}");
    assert_ne!(read(data), Read::Partial);
}

/// What a function does is the same however much follows, and where it leads moves with it.
pub fn prologue(data: &[u8]) {
    let longer = [data, &[0xcc; 16]].concat();
    for follow in [prologue::forwards_to, prologue::first_call] {
        if let Some(target) = follow(data, 1 << 40) {
            assert_eq!(follow(&longer, 1 << 40), Some(target));
            assert_eq!(follow(data, (1 << 40) + 64), Some(target + 64));
        }
    }
    if let Some(at) = prologue::emulated_at(data) {
        assert_eq!(prologue::emulated_at(&longer), Some(at));
        assert!(at < data.len() as u64);
    }
    if let Some(target) = prologue::forwards_to(data, 1 << 40) {
        let is_call = prologue::first_call(data, 1 << 40);
        assert!(is_call.is_none_or(|call| call == target));
    }
}

/// Records come to the same at any cut, as long as each transfer is copied as the kernel half does.
pub fn tls_records(data: &[u8]) {
    let (whole, rest) = records(data);
    let at_once = walked(std::iter::once(whole));
    assert_eq!(walked(crate::pieces(whole)), at_once);
    let bytes: u64 = at_once.iter().map(|(_, _, bytes)| bytes).sum();
    assert_eq!(bytes, whole.len() as u64);
    // Anything may follow, and any of it may be missing.
    let mut walk = Walk::default();
    let mut taken = 0;
    for piece in crate::pieces(data).chain(crate::pieces(rest)) {
        let copied = &piece[..piece.len().min(usize::from(piece[0] >> 4))];
        walk.feed(copied, piece.len() as u64, piece[0] & 1 == 0, |part| {
            taken += part.bytes;
        });
    }
    assert_eq!(taken, (data.len() + rest.len()) as u64);
}

/// The whole records with which `data` begins, and the rest.
fn records(data: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    while let Some(head) = data[end..].first_chunk::<5>() {
        let rest = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let len = 5 + (rest & 0xffff) as usize;
        if !is_record_head(head[0], rest) || data.len() - end < len {
            break;
        }
        end += len;
    }
    data.split_at(end)
}

/// Type, fragment and bytes of each record in `transfers`.
fn walked<'a>(transfers: impl Iterator<Item = &'a [u8]>) -> Vec<(u8, u32, u64)> {
    let mut cursor = FrameCursor::BEFORE_RECORDS;
    let mut walk = Walk::default();
    let (mut found, mut bytes) = (Vec::new(), 0);
    for transfer in transfers {
        let copied = copied(&mut cursor, transfer);
        walk.feed(&copied, transfer.len() as u64, true, |part: Part| {
            bytes += part.bytes;
            let Of::Record {
                kind,
                fragment,
                ends,
                ..
            } = part.of
            else {
                panic!("{part:?} is no record");
            };
            if ends {
                found.push((kind, fragment, std::mem::take(&mut bytes)));
            }
        });
    }
    found
}

/// What the kernel half copies of a transfer.
fn copied(cursor: &mut FrameCursor, mut rest: &[u8]) -> Vec<u8> {
    let mut copied = Vec::new();
    cursor.on_transfer();
    while !rest.is_empty() {
        let kept = (cursor.keeps() as usize).min(rest.len());
        let step = match kept {
            0 => (cursor.skips() as usize).min(rest.len()),
            kept => kept,
        };
        copied.extend(&rest[..kept]);
        if cursor.is_in_head() {
            for &byte in &rest[..kept] {
                cursor.on_head(byte, DataKept::RESPONSES);
            }
        } else {
            cursor.on_payload(step as u32);
        }
        rest = &rest[step..];
    }
    copied
}

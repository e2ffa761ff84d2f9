//! Reads what a pass over the open sockets of this host has written.
//!
//! The loader runs the passes; the event loop uses what they report.
//! Does not depend on: how a pass runs.

use inferprobe_ebpf::{abi::OpenSocket, view::RecordView};

/// One open socket.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    /// What the pass says about it.
    pub socket: OpenSocket,
    /// What its server has read and not reported yet, as an entry of the record ring; empty if there is nothing.
    pub entry: &'a [u8],
}

impl<'a> Open<'a> {
    /// Returns the reads that are not reported yet.
    pub fn reads(&self) -> Option<RecordView<'a>> {
        RecordView::parse(self.entry)
    }
}

/// Returns the sockets in `written`, up to the first that is cut off.
pub fn parse(mut written: &[u8]) -> impl Iterator<Item = Open<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = written.split_at_checked(size_of::<OpenSocket>())?;
        let socket: OpenSocket = bytemuck::pod_read_unaligned(head);
        let (entry, rest) = rest.split_at_checked(usize::try_from(socket.len).ok()?)?;
        written = rest;
        Some(Open { socket, entry })
    })
}

#[cfg(test)]
mod tests {
    use inferprobe_ebpf::abi::Record;

    use super::*;

    #[test]
    fn sockets_are_read_up_to_the_first_that_is_cut_off() {
        let record = Record {
            cookie: 7,
            read_bytes: 3,
            total_bytes: 3,
            request_len: 3,
            ..Record::NONE
        };
        let entry = [bytemuck::bytes_of(&record), b"GET"].concat();
        let socket = |cookie, len: usize| OpenSocket {
            cookie,
            len: len.try_into().unwrap(),
            ..OpenSocket::default()
        };
        let written = [
            bytemuck::bytes_of(&socket(5, 0)),
            bytemuck::bytes_of(&socket(7, entry.len())),
            &entry,
        ]
        .concat();
        for end in 0..=written.len() {
            let found: Vec<_> = parse(&written[..end])
                .map(|open| (open.socket.cookie, open.reads().map(|view| view.request)))
                .collect();
            let whole = [(5, None), (7, Some(&b"GET"[..]))];
            let count = match end {
                _ if end == written.len() => 2,
                24.. => 1,
                _ => 0,
            };
            assert_eq!(found, whole[..count], "{end}");
        }
    }
}

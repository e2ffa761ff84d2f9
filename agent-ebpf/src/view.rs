//! Reads an entry of the `RECORDS` ring: a record and its payload, with their lengths checked.
//!
//! The agent makes one view for each entry, and all later stages work on it.
//! Does not depend on: maps, the ring, the meaning of the payload.

use crate::{abi::Record, arrival::Step};

/// Largest count of bytes in a valid record: no connection moves as many, and sums of such counts do not overflow.
const COUNT_CAP_BYTES: u64 = 1 << 48;

/// A record and its payload, borrowed from the ring.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// The record.
    pub record: Record,
    /// First bytes of the read segment.
    pub request: &'a [u8],
    /// First bytes of the write, or of the part of it that belongs to the response's beginning.
    pub response: &'a [u8],
    /// Steps in which bytes of the connection arrived, and that its record cannot hold ([`crate::abi::kind::ARRIVED`]).
    pub arrived: &'a [Step],
}

impl<'a> RecordView<'a> {
    /// Parses an entry of the ring; `None` if it is shorter than its lengths say, or if a count is over the cap.
    pub fn parse(entry: &'a [u8]) -> Option<Self> {
        let (head, payload) = entry.split_at_checked(size_of::<Record>())?;
        let record: Record = bytemuck::pod_read_unaligned(head);
        let counts = [record.read_bytes, record.written_bytes, record.total_bytes];
        if counts.iter().any(|bytes| *bytes > COUNT_CAP_BYTES) {
            return None;
        }
        let (request, rest) = payload.split_at_checked(record.request_len.into())?;
        let response = rest.get(..record.response_len.into())?;
        Some(Self {
            record,
            request,
            response,
            arrived: &[],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn entry() -> Vec<u8> {
        let record = Record {
            cookie: 9,
            request_len: 3,
            response_len: 2,
            ..Record::default()
        };
        let mut entry = bytemuck::bytes_of(&record).to_vec();
        entry.extend(b"GETHT\0\0\0");
        entry
    }

    #[test]
    fn payload_is_split_at_the_lengths_of_the_record() {
        let entry = entry();
        let view = RecordView::parse(&entry).unwrap();
        assert_eq!(view.record.cookie, 9);
        assert_eq!((view.request, view.response), (&b"GET"[..], &b"HT"[..]));
    }

    #[test]
    fn counts_that_would_overflow_are_refused() {
        let entry = |bytes: u64| {
            let record = Record {
                total_bytes: bytes,
                ..Record::default()
            };
            bytemuck::bytes_of(&record).to_vec()
        };
        assert!(RecordView::parse(&entry(COUNT_CAP_BYTES)).is_some());
        assert!(RecordView::parse(&entry(COUNT_CAP_BYTES + 1)).is_none());
    }

    #[test]
    fn short_entries_are_refused() {
        let entry = entry();
        for len in 0..size_of::<Record>() + 5 {
            assert!(RecordView::parse(&entry[..len]).is_none(), "{len}");
        }
    }
}

//! Records and writes for the tests of TLS.

use crate::{
    exchange::{tls::client_record::ClientRecord, writes::Writes},
    protocol::tls::record_type,
};

/// A record of data that arrived and was read at `at_ns`.
pub(super) fn record_at(at_ns: u64) -> ClientRecord {
    ClientRecord {
        kind: record_type::DATA,
        fragment: 142,
        head: 5,
        arrival_ns: Some(at_ns),
        first_read_ns: at_ns,
        last_read_ns: at_ns,
        last_arrival_ns: Some(at_ns),
        reader_tid: None,
    }
}

/// A write that began and returned at `at_ns`.
pub(super) fn writes_at(at_ns: u64) -> Writes<'static> {
    Writes {
        start_ns: at_ns,
        start_bounded: false,
        thread_wait: None,
        end_ns: at_ns,
        undrained_ns: None,
        sends: 1,
        bytes: 0,
        visible: &[],
        tail: 0,
    }
}

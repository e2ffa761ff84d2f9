//! Follows the handshake of one TLS connection, until the server has read the client's Finished.
//!
//! Up to TLS 1.2 the types of records say where it ends. In TLS 1.3 the lengths do, because the client's Finished is as long
//! as its hash, and the server sends nothing between the client's encrypted messages.
//! Does not depend on: requests, what follows the handshake.

use crate::{
    exchange::tls::client_record::ClientRecord,
    protocol::tls::{
        Alpn, Suite, Version,
        hello::{self, ClientHello, Read, ServerHello, ServerStart},
        record_type,
    },
};

/// Bytes of a handshake message's header.
const MESSAGE_HEAD: u32 = 4;
/// Bytes of EncryptedExtensions without any: header and length.
const NO_EXTENSIONS: u32 = MESSAGE_HEAD + 2;
/// Bytes of the extension of ALPN beyond the protocol's name: type, three lengths.
const ALPN_HEAD: u32 = 7;
/// Bytes of an extension without content: of `server_name`, and of `early_data`.
const EMPTY_EXTENSION: u32 = 4;
/// Bytes of a Certificate message that has none: header, context, and length of the list.
const NO_CERTIFICATE: u32 = MESSAGE_HEAD + 1 + 3;
/// Records of the client that are kept until it is known which of them belong to the handshake.
const FLIGHT_CAP: usize = 64;

/// A handshake, as far as it was observed.
#[derive(Debug, Default)]
pub struct Handshake {
    client: Option<ClientHello>,
    server: Option<ServerHello>,
    /// Whether a ClientHello was seen, and when its first byte became readable, ns.
    began: Option<Option<u64>>,
    /// Whether each side changed its cipher, client first.
    changed: [bool; 2],
    resumed: Option<bool>,
    client_certificate: Option<bool>,
    /// Fragment of the server's first encrypted record in TLS 1.3.
    first_encrypted: Option<u32>,
    /// The client's encrypted records in TLS 1.3, which end with its Finished.
    flight: Vec<ClientRecord>,
    /// Bytes of requests that came before the handshake was over.
    early_bytes: u64,
}

/// The end of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// When the server had read the client's Finished, ns.
    pub read_ns: u64,
    /// Records of data that followed it, and were read before the server wrote again.
    pub data: Vec<ClientRecord>,
}

impl Handshake {
    /// Whether a ClientHello was seen.
    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// What the client offers; `None` if that was not observed.
    pub fn client(&self) -> Option<ClientHello> {
        self.client
    }

    /// The version; `None` if it was not observed.
    pub fn version(&self) -> Option<Version> {
        self.server.map(|server| server.version)
    }

    /// What the cipher adds to each record; the most common one, if the ServerHello was not observed.
    pub fn suite(&self) -> Suite {
        match self.server {
            Some(server) => Suite::of(server.suite, server.version),
            None => Suite::of(0x1301, Version::Tls13),
        }
    }

    /// Whether a session was resumed; `None` if that was not observed.
    pub fn resumed(&self) -> Option<bool> {
        self.resumed
    }

    /// Whether the client sent a certificate; `None` if that was not observed.
    pub fn client_certificate(&self) -> Option<bool> {
        self.client_certificate
    }

    /// When the first byte of the ClientHello became readable, ns; `None` if that was not observed.
    pub fn arrival_ns(&self) -> Option<u64> {
        self.began.flatten()
    }

    /// Bytes of requests that came before the handshake was over.
    pub fn early_bytes(&self) -> u64 {
        self.early_bytes
    }

    /// The protocol that the server chose; `None` if its encrypted name leaves no trace.
    pub fn alpn(&self) -> Option<Alpn> {
        let server = self.server?;
        if server.alpn.is_some() {
            return server.alpn;
        }
        let client = self.client?;
        if !client.offers_protocols {
            return Some(Alpn::Nothing);
        }
        let extensions = self.suite().plaintext(self.first_encrypted?);
        let extensions = extensions.checked_sub(NO_EXTENSIONS)?;
        // The server may also acknowledge the host's name and early data.
        let others = if client.early_data { 2 } else { 1 };
        (0..=others).find_map(|others| {
            let name = extensions.checked_sub(others * EMPTY_EXTENSION)?;
            match name.checked_sub(ALPN_HEAD) {
                None if name == 0 => Some(Alpn::Nothing),
                Some(2) if client.offers_http2 => Some(Alpn::Http2),
                Some(8) => Some(Alpn::Http1),
                _ => None,
            }
        })
    }

    /// Adds a record of the client; `messages` are its handshake messages, as far as they were copied. Returns the end of the
    /// handshake, if the record shows it.
    pub fn on_client(&mut self, record: ClientRecord, messages: &[u8]) -> Option<Finished> {
        match record.kind {
            record_type::HANDSHAKE => {
                self.began.get_or_insert(record.arrival_ns);
                if self.client.is_none()
                    && let Read::Whole(client) = hello::client_hello(messages)
                {
                    self.client = Some(client);
                }
                let is_over = self.changed[0] && self.is_older();
                if is_over {
                    // In a short handshake the server changes its cipher first.
                    self.resumed.get_or_insert(self.changed[1]);
                    self.client_certificate = match self.resumed {
                        Some(true) => Some(false),
                        _ => hello::client_certificate(messages),
                    };
                }
                is_over.then(|| Finished {
                    read_ns: record.last_read_ns,
                    data: Vec::new(),
                })
            }
            record_type::CHANGE => {
                self.changed[0] = true;
                None
            }
            record_type::DATA if self.is_older() => {
                // Its Finished was not observed.
                Some(Finished {
                    read_ns: record.last_read_ns,
                    data: vec![record],
                })
            }
            record_type::DATA => self.on_encrypted(record),
            _ => None,
        }
    }

    fn on_encrypted(&mut self, record: ClientRecord) -> Option<Finished> {
        let may_be_early = self.client.is_some_and(|client| client.early_data);
        if self.server.is_none() && may_be_early {
            self.early_bytes += record.bytes();
            return None;
        }
        let finished = MESSAGE_HEAD + self.suite().hash_bytes;
        if self.suite().plaintext(record.fragment) == finished {
            let sent = self.flight.first();
            self.client_certificate = Some(sent.is_some_and(|first| {
                !may_be_early && self.suite().plaintext(first.fragment) > NO_CERTIFICATE
            }));
            if may_be_early {
                self.early_bytes += self.flight.iter().map(ClientRecord::bytes).sum::<u64>();
            }
            return Some(Finished {
                read_ns: record.last_read_ns,
                data: Vec::new(),
            });
        }
        if self.flight.len() < FLIGHT_CAP {
            self.flight.push(record);
        }
        None
    }

    /// Adds a record of the server, by its type and fragment; `messages` are its handshake messages, as far as they were
    /// copied. Returns the end of the handshake, if the record shows it, which it does not if the server has read only part of
    /// a record of the client: Go sends its tickets before it has read the Finished after a certificate.
    pub fn on_server(
        &mut self,
        kind: u8,
        fragment: u32,
        messages: &[u8],
        reads_record: bool,
    ) -> Option<Finished> {
        match kind {
            record_type::HANDSHAKE if self.server.is_none() => {
                if let Read::Whole(ServerStart::Hello(server)) = hello::server_start(messages) {
                    self.server = Some(server);
                    if server.version == Version::Tls13 {
                        self.resumed = Some(server.has_shared_key);
                    }
                }
                None
            }
            record_type::CHANGE => {
                self.changed[1] = true;
                None
            }
            record_type::DATA => {
                self.first_encrypted.get_or_insert(fragment);
                let is_alert = self.suite().plaintext(fragment) == 2;
                if self.flight.is_empty() || is_alert || reads_record {
                    return None;
                }
                // All messages of the client were one record. Without the hash's length, it may be its Finished alone.
                self.client_certificate = self.server.map(|_| true);
                let mut data = std::mem::take(&mut self.flight);
                let first = data.remove(0);
                Some(Finished {
                    read_ns: first.last_read_ns,
                    data,
                })
            }
            _ => None,
        }
    }

    /// Whether the version is known to be older than TLS 1.3.
    fn is_older(&self) -> bool {
        self.server
            .is_some_and(|server| server.version < Version::Tls13)
    }
}

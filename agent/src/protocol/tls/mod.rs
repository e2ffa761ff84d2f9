//! Parses what TLS leaves readable: types of records, and the messages of its handshake before they are encrypted.
//!
//! `hello` reads the two hellos.
//! Does not depend on: where records are, times, keys.

pub mod hello;

/// Types of records (RFC 8446, section 5.1).
pub mod record_type {
    /// `change_cipher_spec`
    pub const CHANGE: u8 = 20;
    /// `alert`
    pub const ALERT: u8 = 21;
    /// `handshake`
    pub const HANDSHAKE: u8 = 22;
    /// `application_data`; from TLS 1.3 on, everything that is encrypted.
    pub const DATA: u8 = 23;
}

/// Types of handshake messages (RFC 8446, section 4).
pub mod message_type {
    /// `client_hello`
    pub const CLIENT_HELLO: u8 = 1;
    /// `server_hello`
    pub const SERVER_HELLO: u8 = 2;
    /// `new_session_ticket`
    pub const NEW_SESSION_TICKET: u8 = 4;
    /// `certificate`
    pub const CERTIFICATE: u8 = 11;
    /// `client_key_exchange`, up to TLS 1.2.
    pub const CLIENT_KEY_EXCHANGE: u8 = 16;
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Returns the version with this number; `None` if it is none of TLS.
    pub const fn of(number: u16) -> Option<Self> {
        match number {
            0x0301 => Some(Self::Tls10),
            0x0302 => Some(Self::Tls11),
            0x0303 => Some(Self::Tls12),
            0x0304 => Some(Self::Tls13),
            _ => None,
        }
    }

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls10 => "1.0",
            Self::Tls11 => "1.1",
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// A protocol that ALPN names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// None: the server chose none.
    Nothing,
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
    /// Another one.
    Other,
}

impl Alpn {
    /// Returns the protocol with this name.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"h2" => Self::Http2,
            b"http/1.1" | b"http/1.0" => Self::Http1,
            _ => Self::Other,
        }
    }

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Other => "other",
        }
    }
}

/// What a cipher suite adds to each record, and how long its hash is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    /// Bytes that a record has beyond its plaintext; `None` if padding makes them vary.
    pub overhead_bytes: Option<u32>,
    /// Bytes of its hash, and so of a Finished message of TLS 1.3.
    pub hash_bytes: u32,
}

impl Suite {
    /// The suite with this number, of a version.
    pub const fn of(number: u16, version: Version) -> Self {
        if matches!(version, Version::Tls13) {
            return Self {
                // An authentication tag, and the type of the content.
                overhead_bytes: Some(if number == AES_128_CCM_8 { 8 } else { 16 } + 1),
                hash_bytes: if number == AES_256_GCM { 48 } else { 32 },
            };
        }
        let overhead_bytes = match number {
            // ChaCha20-Poly1305: a tag.
            0xcca8..=0xccae => Some(16),
            // CCM_8: an explicit nonce and a tag of 8 bytes.
            0xc0a0..=0xc0a3 | 0xc0a8..=0xc0ab | 0xc0ae..=0xc0af => Some(8 + 8),
            // CCM, and GCM of AES, ARIA and Camellia: an explicit nonce and a tag.
            0xc09c..=0xc09f
            | 0xc0a4..=0xc0a7
            | 0xc0ac..=0xc0ad
            | 0x009c..=0x00a7
            | 0xc02b..=0xc032
            | 0xc050..=0xc063
            | 0xc06a..=0xc06f
            | 0xc07a..=0xc093 => Some(8 + 16),
            _ => None,
        };
        Self {
            overhead_bytes,
            hash_bytes: 12,
        }
    }

    /// Bytes of plaintext in a record of `fragment` bytes: at most so many, if padding makes them vary.
    pub const fn plaintext(self, fragment: u32) -> u32 {
        match self.overhead_bytes {
            Some(overhead) => fragment.saturating_sub(overhead),
            None => fragment,
        }
    }
}

/// `TLS_AES_256_GCM_SHA384`, the only suite of TLS 1.3 with another hash than SHA-256 or one of its length.
const AES_256_GCM: u16 = 0x1302;
/// `TLS_AES_128_CCM_8_SHA256`
const AES_128_CCM_8: u16 = 0x1305;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_what_a_suite_leaves_of_a_record() {
        for (number, version, fragment, expected) in [
            (0x1301, Version::Tls13, 142, 125),
            (0x1302, Version::Tls13, 57, 40),
            (0x1303, Version::Tls13, 17, 0),
            (0x1305, Version::Tls13, 29, 20),
            (0xc02f, Version::Tls12, 149, 125),
            (0x009d, Version::Tls12, 64, 40),
            (0xcca8, Version::Tls12, 56, 40),
            (0xc0a0, Version::Tls12, 56, 40),
            (0xc0ac, Version::Tls12, 64, 40),
            // CBC pads.
            (0xc013, Version::Tls12, 64, 64),
            (0x002f, Version::Tls10, 64, 64),
            (0x1301, Version::Tls13, 3, 0),
        ] {
            let suite = Suite::of(number, version);
            assert_eq!(suite.plaintext(fragment), expected, "{number:x}");
        }
    }

    #[test]
    fn a_finished_message_is_as_long_as_the_hash() {
        let hash = |number| Suite::of(number, Version::Tls13).hash_bytes;
        assert_eq!([0x1301, 0x1302, 0x1303].map(hash), [32, 48, 32]);
    }

    #[test]
    fn versions_and_protocols_have_their_names() {
        let names = [0x0301, 0x0302, 0x0303, 0x0304].map(|number| Version::of(number).unwrap());
        assert_eq!(names.map(Version::name), ["1.0", "1.1", "1.2", "1.3"]);
        assert_eq!((Version::of(0x0300), Version::of(0x7f1c)), (None, None));
        for (name, expected) in [
            (&b"h2"[..], "h2"),
            (b"http/1.1", "http/1.1"),
            (b"h3", "other"),
            (b"", "other"),
        ] {
            assert_eq!(Alpn::of(name).name(), expected);
        }
    }
}

//! Reads the first messages of a TLS handshake: version, protocol, resumption, and whether the client has a certificate.
//!
//! The name of the host that a client asks for is not read: it may name a customer.
//! Does not depend on: records, keys, what is encrypted.

use crate::protocol::tls::{Alpn, Version, message_type};

/// Extensions (RFC 8446, section 4.2).
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
/// `random` of a ServerHello that asks for another ClientHello (RFC 8446, section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What reading a message resulted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<T> {
    /// More bytes may complete it.
    Partial,
    /// The message.
    Whole(T),
    /// The bytes are no such message.
    Invalid,
}

/// What a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Whether it offers any protocol by ALPN.
    pub offers_protocols: bool,
    /// Whether HTTP/2 is among them.
    pub offers_http2: bool,
    /// Whether data follows before the handshake is over.
    pub early_data: bool,
}

/// What a server chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello {
    /// The version.
    pub version: Version,
    /// Number of the cipher suite.
    pub suite: u16,
    /// The protocol; `None` if it is encrypted, as in TLS 1.3.
    pub alpn: Option<Alpn>,
    /// Whether it accepted a key that both sides had: in TLS 1.3, a resumed session.
    pub has_shared_key: bool,
}

/// What the messages of a server begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerStart {
    /// The request for another ClientHello; the answer to that one is still to come.
    Retry,
    /// The server's choice.
    Hello(ServerHello),
}

/// Reads the ClientHello with which handshake messages begin.
pub fn client_hello(messages: &[u8]) -> Read<ClientHello> {
    read(messages, message_type::CLIENT_HELLO, |mut body| {
        body.take(2 + 32)?;
        body.vector(1)?;
        body.vector(2)?;
        body.vector(1)?;
        let mut hello = ClientHello::default();
        for_each_extension(&mut body, |kind, mut content| {
            match kind {
                ALPN => {
                    let mut names = Cursor(content.vector(2)?);
                    while !names.0.is_empty() {
                        hello.offers_protocols = true;
                        hello.offers_http2 |= Alpn::of(names.vector(1)?) == Alpn::Http2;
                    }
                }
                EARLY_DATA => hello.early_data = true,
                _ => {}
            }
            Some(())
        })?;
        Some(hello)
    })
}

/// Reads what a server's handshake messages begin with: the ServerHello after a request for another ClientHello, if there was
/// one and it is known.
pub fn server_start(messages: &[u8]) -> Read<ServerStart> {
    let first = one_server_hello(messages);
    if first == Read::Whole(ServerStart::Retry)
        && let Some((_, _, after)) = split_message(messages)
        && let Read::Whole(second) = one_server_hello(after)
    {
        return Read::Whole(second);
    }
    first
}

fn one_server_hello(messages: &[u8]) -> Read<ServerStart> {
    read(messages, message_type::SERVER_HELLO, |mut body| {
        let legacy = body.number()?;
        let random = body.take(32)?;
        body.vector(1)?;
        let suite = body.number()?;
        body.take(1)?;
        let (mut version, mut alpn, mut has_shared_key) = (Version::of(legacy), None, false);
        for_each_extension(&mut body, |kind, mut content| {
            match kind {
                SUPPORTED_VERSIONS => version = Version::of(content.number()?),
                PRE_SHARED_KEY => has_shared_key = true,
                ALPN => alpn = Some(Alpn::of(Cursor(content.vector(2)?).vector(1)?)),
                _ => {}
            }
            Some(())
        })?;
        let version = version?;
        if random == RETRY {
            return Some(ServerStart::Retry);
        }
        let is_encrypted = version == Version::Tls13;
        Some(ServerStart::Hello(ServerHello {
            version,
            suite,
            alpn: (!is_encrypted).then_some(alpn.unwrap_or(Alpn::Nothing)),
            has_shared_key,
        }))
    })
}

/// Whether a client up to TLS 1.2 sent a certificate, by its handshake messages, which begin with the ClientHello; `None` if
/// they do not show it.
pub fn client_certificate(messages: &[u8]) -> Option<bool> {
    let mut rest = messages;
    loop {
        let kind = rest.first()?;
        match *kind {
            message_type::CLIENT_HELLO => rest = split_message(rest)?.2,
            // An empty list is three bytes of length.
            message_type::CERTIFICATE => return Some(Cursor(rest.get(1..)?).length(3)? > 3),
            message_type::CLIENT_KEY_EXCHANGE => return Some(false),
            _ => return None,
        }
    }
}

/// Splits the first message off: its type, its body, what follows; `None` if it is not whole.
fn split_message(messages: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = messages.split_first()?;
    let mut rest = Cursor(rest);
    let body = rest.vector(3)?;
    Some((*kind, body, rest.0))
}

fn read<T>(messages: &[u8], kind: u8, parse: impl FnOnce(Cursor<'_>) -> Option<T>) -> Read<T> {
    match messages.first() {
        None => return Read::Partial,
        Some(first) if *first != kind => return Read::Invalid,
        Some(_) => {}
    }
    let Some((_, body, _)) = split_message(messages) else {
        return Read::Partial;
    };
    parse(Cursor(body)).map_or(Read::Invalid, Read::Whole)
}

/// Calls `each` with type and content of every extension. A hello without any is valid up to TLS 1.2.
fn for_each_extension<'a>(
    body: &mut Cursor<'a>,
    mut each: impl FnMut(u16, Cursor<'a>) -> Option<()>,
) -> Option<()> {
    if body.0.is_empty() {
        return Some(());
    }
    let mut extensions = Cursor(body.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        each(kind, Cursor(extensions.vector(2)?))?;
    }
    Some(())
}

/// Bytes that are still to be read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of two bytes.
    fn number(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A length of `len` bytes.
    fn length(&mut self, len: usize) -> Option<usize> {
        let bytes = self.take(len)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    }

    /// Bytes after their length, which has `len` bytes.
    fn vector(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.length(len)?;
        self.take(bytes)
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// Bytes after their length, which has `len` bytes.
    fn vector(len: usize, bytes: &[u8]) -> Vec<u8> {
        let count = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&count[4 - len..], bytes].concat()
    }

    /// A handshake message.
    pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [vec![kind], vector(3, body)].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector(2, content)].concat()
    }

    fn protocols(names: &[&str]) -> Vec<u8> {
        let names: Vec<u8> = names
            .iter()
            .flat_map(|name| vector(1, name.as_bytes()))
            .collect();
        extension(ALPN, &vector(2, &names))
    }

    /// A ClientHello that offers these protocols.
    pub(crate) fn client(offered: &[&str], early_data: bool) -> Vec<u8> {
        let mut extensions = extension(0, &[0; 14]);
        if !offered.is_empty() {
            extensions.extend(protocols(offered));
        }
        if early_data {
            extensions.extend(extension(EARLY_DATA, &[]));
        }
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[1; 32]),
            &vector(2, &[0x13, 1, 0x13, 2]),
            &vector(1, &[0]),
            &vector(2, &extensions),
        ]
        .concat();
        message(message_type::CLIENT_HELLO, &body)
    }

    /// A ServerHello of TLS 1.3, of a resumed session or not.
    pub(crate) fn server(suite: u16, resumed: bool) -> Vec<u8> {
        let mut extensions = extension(SUPPORTED_VERSIONS, &[3, 4]);
        if resumed {
            extensions.extend(extension(PRE_SHARED_KEY, &[0, 0]));
        }
        server_with([9; 32], suite, Some(&extensions))
    }

    /// A ServerHello of TLS 1.2 that chose this protocol.
    pub(crate) fn older_server(suite: u16, chosen: Option<&str>) -> Vec<u8> {
        let extensions = chosen.map(|chosen| protocols(&[chosen]));
        server_with([9; 32], suite, extensions.as_deref())
    }

    /// A request for another ClientHello.
    pub(super) fn retry() -> Vec<u8> {
        server_with(RETRY, 0x1301, Some(&extension(SUPPORTED_VERSIONS, &[3, 4])))
    }

    fn server_with(random: [u8; 32], suite: u16, extensions: Option<&[u8]>) -> Vec<u8> {
        let extensions = extensions.map(|extensions| vector(2, extensions));
        let body = [
            &[3, 3][..],
            &random,
            &vector(1, &[1; 32]),
            &suite.to_be_bytes(),
            &[0],
            &extensions.unwrap_or_default(),
        ]
        .concat();
        message(message_type::SERVER_HELLO, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::{fixtures::*, *};

    const OLDER: ServerHello = ServerHello {
        version: Version::Tls12,
        suite: 0xc02f,
        alpn: Some(Alpn::Nothing),
        has_shared_key: false,
    };

    #[test]
    fn client_hello_says_what_is_offered() {
        for (offered, early_data, expected) in [
            (&[][..], false, (false, false)),
            (&["http/1.1"], false, (true, false)),
            (&["h2", "http/1.1"], true, (true, true)),
            (&["http/1.1", "h2"], false, (true, true)),
        ] {
            let hello = ClientHello {
                offers_protocols: expected.0,
                offers_http2: expected.1,
                early_data,
            };
            let read = client_hello(&client(offered, early_data));
            assert_eq!(read, Read::Whole(hello), "{offered:?}");
        }
    }

    #[test]
    fn server_hello_says_what_was_chosen() {
        let chosen = |messages: &[u8]| match server_start(messages) {
            Read::Whole(ServerStart::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        };
        for resumed in [false, true] {
            let expected = ServerHello {
                version: Version::Tls13,
                suite: 0x1302,
                alpn: None,
                has_shared_key: resumed,
            };
            assert_eq!(chosen(&server(0x1302, resumed)), expected);
        }
        assert_eq!(chosen(&older_server(0xc02f, None)), OLDER);
        let http2 = ServerHello {
            alpn: Some(Alpn::Http2),
            ..OLDER
        };
        assert_eq!(chosen(&older_server(0xc02f, Some("h2"))), http2);
    }

    #[test]
    fn hello_after_a_retry_counts() {
        let retried = retry();
        assert_eq!(server_start(&retried), Read::Whole(ServerStart::Retry));
        let both = [retried, server(0x1301, true)].concat();
        let Read::Whole(ServerStart::Hello(hello)) = server_start(&both) else {
            panic!("the second hello");
        };
        assert!(hello.has_shared_key);
    }

    #[test]
    fn hellos_are_partial_at_every_cut() {
        let (client, server) = (client(&["h2"], true), server(0x1301, true));
        for end in 0..client.len() {
            assert_eq!(client_hello(&client[..end]), Read::Partial, "{end}");
        }
        for end in 0..server.len() {
            assert_eq!(server_start(&server[..end]), Read::Partial, "{end}");
        }
        let followed = [&client[..], b"more"].concat();
        assert!(matches!(client_hello(&followed), Read::Whole(_)));
    }

    #[test]
    fn other_bytes_are_no_hello() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[2, 0, 0, 2, 3, 3],
            &[1, 0, 0, 2, 3, 3],
            &message(1, &[3; 40]),
        ] {
            assert_ne!(client_hello(bytes), Read::Partial, "{bytes:?}");
            assert!(!matches!(client_hello(bytes), Read::Whole(_)), "{bytes:?}");
        }
        let unknown = older_server(0xc02f, None);
        let draft: Vec<u8> = [&unknown[..4], &[0x7f, 0x1c], &unknown[6..]].concat();
        assert_eq!(server_start(&draft), Read::Invalid);
    }

    #[test]
    fn certificate_of_a_client_is_seen_up_to_tls_1_2() {
        let hello = client(&[], false);
        let with = |messages: &[Vec<u8>]| {
            let all = [&hello[..], &messages.concat()].concat();
            client_certificate(&all)
        };
        let key = message(message_type::CLIENT_KEY_EXCHANGE, &[4; 33]);
        let certificate = message(message_type::CERTIFICATE, &[0, 0, 4, 1, 2, 3, 4]);
        assert_eq!(with(&[]), None);
        assert_eq!(with(std::slice::from_ref(&key)), Some(false));
        assert_eq!(with(&[message(11, &[0, 0, 0]), key.clone()]), Some(false));
        assert_eq!(with(&[certificate.clone(), key]), Some(true));
        // Only its beginning was copied.
        assert_eq!(with(&[certificate[..5].to_vec()]), Some(true));
        assert_eq!(with(&[vec![20, 0, 0, 12]]), None);
    }
}

//! Sends requests over TLS, whose server lets its library or the kernel encrypt.
//!
//! The client always uses its library.

use std::{
    io::{Error, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustls::{
    ConnectionTrafficSecrets, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::{
    client::request,
    tls_client::{self, provider},
};

const CERTIFICATE: &[u8] = include_bytes!("../../servers/tls_cert.pem");
const KEY: &[u8] = include_bytes!("../../servers/tls_key.pem");
/// Most plaintext in one record, and what TLS 1.3 adds to it with these ciphers: header, type and tag.
const RECORD_BYTES: usize = 16_384;
const ADDED_BYTES: usize = 22;
/// Bytes of the bodies of each request and its response.
const BODIES: [(usize, usize); 4] = [(20, 30), (30_000, 50), (0, 40_000), (1, 1)];
const WORK: Duration = Duration::from_millis(5);

/// Who encrypts what the server sends and decrypts what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Library,
    /// The kernel encrypts; nobody decrypts, because the server knows how much comes.
    KernelSends,
    Kernel,
}

/// A connection.
pub(super) struct Case {
    /// Name, in messages.
    pub(super) name: &'static str,
    version: &'static SupportedProtocolVersion,
    by: By,
}

/// In the names of connections that need the kernel's TLS.
pub(super) const IN_KERNEL: &str = "in the kernel";
/// Every connection.
pub(super) const CASES: [Case; 5] = [
    case("TLS 1.2", &TLS12, By::Library),
    case("TLS 1.3", &TLS13, By::Library),
    case("TLS 1.2 in the kernel", &TLS12, By::Kernel),
    case("TLS 1.3 in the kernel", &TLS13, By::Kernel),
    case("TLS 1.3 in the kernel, sends", &TLS13, By::KernelSends),
];

const fn case(name: &'static str, version: &'static SupportedProtocolVersion, by: By) -> Case {
    Case { name, version, by }
}

impl Case {
    /// Whether it needs the kernel's TLS.
    pub(super) fn needs_kernel(&self) -> bool {
        self.by != By::Library
    }

    /// Opens a connection to `listener` and sends the requests, one after the other.
    pub(super) fn play(&self, listener: &TcpListener) {
        let (ready, is_ready) = mpsc::channel();
        thread::scope(|scope| {
            let server = scope.spawn(|| self.serve(listener, &ready));
            let address = listener.local_addr().expect("a listener has an address");
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_nodelay(true).expect("TCP");
            let mut tls = tls_client::connection(&[self.version]);
            while tls.is_handshaking() {
                tls.complete_io(&mut stream).expect("the server answers");
            }
            is_ready.recv().expect("the server is ready");
            let mut stream = StreamOwned::new(tls, stream);
            for (number, (request_bytes, response_bytes)) in BODIES.into_iter().enumerate() {
                stream
                    .write_all(&post(number, request_bytes))
                    .expect("the server reads");
                let expected = response(number, response_bytes);
                let mut received = vec![0; expected.len()];
                stream
                    .read_exact(&mut received)
                    .expect("the server answers");
                assert!(received == expected, "other bytes");
            }
            drop(stream);
            server.join().expect("the server answers each request");
        });
    }

    fn serve(&self, listener: &TcpListener, ready: &mpsc::Sender<()>) {
        let (mut stream, _) = listener.accept().expect("a client has connected");
        stream.set_nodelay(true).expect("TCP");
        let mut tls = ServerConnection::new(self.server()).expect("it is valid");
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut stream).expect("the client answers");
        }
        if self.by == By::Library {
            ready.send(()).expect("the client waits");
            answer_each(&mut StreamOwned::new(tls, stream), |bytes| bytes);
            return;
        }
        let secrets = tls.dangerous_extract_secrets().expect("it is allowed");
        set_kernel_tls(&stream).expect("the kernel has TLS");
        let keys = [(libc::TLS_TX, secrets.tx), (libc::TLS_RX, secrets.rx)];
        for (direction, (sequence, secret)) in keys {
            if direction == libc::TLS_TX || self.by == By::Kernel {
                let info = self.crypto_info(sequence, &secret);
                set_option(&stream, libc::SOL_TLS, direction, &info).expect("the kernel has AES");
            }
        }
        ready.send(()).expect("the client waits");
        match self.by {
            By::Kernel => answer_each(&mut stream, |bytes| bytes),
            _ => answer_each(&mut stream, |bytes| {
                bytes + bytes.div_ceil(RECORD_BYTES) * ADDED_BYTES
            }),
        }
    }

    fn server(&self) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[self.version])
            .expect("the cipher is known")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        if self.needs_kernel() {
            config.enable_secret_extraction = true;
            // They are sent with the library's keys.
            config.send_tls13_tickets = 0;
        }
        Arc::new(config)
    }

    /// Returns the kernel's `tls12_crypto_info_aes_gcm_128` (`include/uapi/linux/tls.h`, Linux 4.13).
    fn crypto_info(&self, sequence: u64, secret: &ConnectionTrafficSecrets) -> Vec<u8> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secret else {
            panic!("another cipher than was offered");
        };
        let (salt, iv) = iv.as_ref().split_at(4);
        let version = u16::from(self.version.version);
        [
            &version.to_ne_bytes()[..],
            &libc::TLS_CIPHER_AES_GCM_128.to_ne_bytes(),
            iv,
            key.as_ref(),
            salt,
            &sequence.to_be_bytes(),
        ]
        .concat()
    }
}

/// Whether the running kernel has TLS.
pub(super) fn is_in_kernel() -> bool {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let stream = TcpStream::connect(address).expect("it listens");
    set_kernel_tls(&stream).is_ok()
}

/// Reads the requests and responds; `read_bytes` says how much is read for a request of so many bytes.
fn answer_each(stream: &mut (impl Read + Write), read_bytes: impl Fn(usize) -> usize) {
    for (number, (request_bytes, response_bytes)) in BODIES.into_iter().enumerate() {
        let mut received = vec![0; read_bytes(post(number, request_bytes).len())];
        stream
            .read_exact(&mut received)
            .expect("the client sends a request");
        thread::sleep(WORK);
        stream
            .write_all(&response(number, response_bytes))
            .expect("the client reads");
    }
}

fn post(number: usize, body_bytes: usize) -> Vec<u8> {
    let target = format!("/v1/models/t{number}:predict");
    request("POST", &target, &[], &vec![b'x'; body_bytes])
}

fn response(number: usize, body_bytes: usize) -> Vec<u8> {
    let status = 200 + number;
    let head = format!("HTTP/1.1 {status} Fine\r\ncontent-length: {body_bytes}\r\n\r\n");
    [head.as_bytes(), &vec![b'r'; body_bytes]].concat()
}

fn set_kernel_tls(stream: &TcpStream) -> Result<(), Error> {
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

fn set_option(stream: &TcpStream, level: i32, name: i32, value: &[u8]) -> Result<(), Error> {
    let len = libc::socklen_t::try_from(value.len()).expect("a value is short");
    // SAFETY: the kernel reads `len` bytes of `value`, which outlives the call, and keeps no pointer.
    let outcome =
        unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    match outcome {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

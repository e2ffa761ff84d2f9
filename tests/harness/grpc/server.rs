//! A gRPC server on a thread of the test: it does what a call's message says, and stamps its own reads and writes.

use std::{
    net::TcpListener as StdListener,
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{net::TcpListener, runtime, task};

use crate::{
    clock::wait_for,
    grpc::{
        Call,
        stamped::{Stamped, Stamps},
    },
};

pub use crate::grpc::stamped::StreamStamp;

/// A message without a field.
const EMPTY: &[u8] = &[0; 5];
/// Longest time until the last responses are stamped.
const STAMPS_LIMIT: Duration = Duration::from_secs(10);

/// A server with one connection at a time, which serves until the test's process ends.
pub struct GrpcServer {
    /// Where it listens.
    pub port: u16,
    stamps: Stamps,
}

impl GrpcServer {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = StdListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        listener
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let stamps = Stamps::default();
        let kept = Arc::clone(&stamps);
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a thread can have a runtime");
            task::LocalSet::new().block_on(&runtime, serve(listener, &kept));
        });
        Self {
            port: address.port(),
            stamps,
        }
    }

    /// Returns the stamps of all calls in the order of their streams, once `count` of them have ended.
    pub fn stamps(&self, count: usize) -> Vec<StreamStamp> {
        wait_for("the last stamps of the server", STAMPS_LIMIT, || {
            let stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            let all: Vec<StreamStamp> = stamps.values().copied().collect();
            let ended = all.iter().filter(|stamp| stamp.last_write.is_some());
            (ended.count() >= count).then_some(all)
        })
    }
}

async fn serve(listener: StdListener, stamps: &Stamps) {
    let listener = TcpListener::from_std(listener).expect("the runtime takes a listener");
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("TCP has the option");
        let stamped = Stamped::new(stream, Arc::clone(stamps));
        let mut connection = h2::server::handshake(stamped).await.expect("it is HTTP/2");
        // The connection ends with the client.
        while let Some(Ok((request, respond))) = connection.accept().await {
            task::spawn_local(answer(request, respond));
        }
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        message.extend(&piece);
        // This fails if the client has gone.
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let call = Call::parse(&message);
    if call.work_us > 0 {
        tokio::time::sleep(Duration::from_micros(call.work_us.into())).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(call.code));
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).expect("the head is well formed");
    // These fail if the client has gone.
    if call.code == 0 {
        let Ok(mut stream) = respond.send_response(head, false) else {
            return;
        };
        let _ = stream.send_data(Bytes::from_static(EMPTY), false);
        let _ = stream.send_trailers(trailers);
    } else {
        let mut head = head;
        head.headers_mut().extend(trailers);
        let _ = respond.send_response(head, true);
    }
}

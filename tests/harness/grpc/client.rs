//! A gRPC client with one connection, on which calls run concurrently.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::{
    net::TcpStream,
    runtime::{self, Runtime},
    task::{JoinSet, LocalSet},
};

use crate::grpc::{Call, METHOD};

/// A client with one connection.
pub struct GrpcClient {
    runtime: Runtime,
    local: LocalSet,
    requests: SendRequest<Bytes>,
}

impl GrpcClient {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a thread can have a runtime");
        let local = LocalSet::new();
        let requests = local.block_on(&runtime, async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await;
            let stream = stream.expect("the server listens");
            stream.set_nodelay(true).expect("TCP has the option");
            let (requests, connection) = h2::client::handshake(stream).await.expect("it is HTTP/2");
            tokio::task::spawn_local(async move {
                // It ends with the client.
                let _ = connection.await;
            });
            requests.ready().await.expect("the server takes requests")
        });
        Self {
            runtime,
            local,
            requests,
        }
    }

    /// Makes the calls numbered `from..to`, `at_once` of them at a time; panics unless each ends with its own code.
    pub fn call(&mut self, from: usize, to: usize, at_once: usize) {
        let requests = &self.requests;
        self.local.block_on(&self.runtime, async {
            let next = Rc::new(Cell::new(from));
            let mut lanes = JoinSet::new();
            for _ in 0..at_once {
                let (next, requests) = (Rc::clone(&next), requests.clone());
                lanes.spawn_local(async move {
                    while next.get() < to {
                        let call = Call::nth(next.replace(next.get() + 1));
                        assert_eq!(make(&requests, call).await, call.code);
                    }
                });
            }
            while let Some(lane) = lanes.join_next().await {
                lane.expect("every call ends with its own code");
            }
        });
    }
}

/// Makes a call; its `grpc-status`.
async fn make(requests: &SendRequest<Bytes>, call: Call) -> u32 {
    let request = Request::post(format!("http://127.0.0.1{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(());
    let request = request.expect("the head is well formed");
    let requests = requests.clone().ready().await;
    let (answer, mut content) = requests
        .and_then(|mut requests| requests.send_request(request, false))
        .expect("the connection holds");
    content
        .send_data(call.message().into(), true)
        .expect("the stream is open");
    let (head, mut body) = answer.await.expect("an answer comes").into_parts();
    while let Some(piece) = body.data().await {
        let piece = piece.expect("it comes whole");
        let released = body.flow_control().release_capacity(piece.len());
        released.expect("no more than came");
    }
    let trailers = body.trailers().await.expect("they come whole");
    let code = trailers
        .as_ref()
        .unwrap_or(&head.headers)
        .get("grpc-status");
    let code = code.and_then(|code| code.to_str().ok()?.parse().ok());
    code.expect("an answer has a status")
}

//! Sends the example server a few requests per second, so that there is something to measure.
//!
//! One task for each model, over one connection each.
//! Does not depend on: the server's side.

use std::net::SocketAddr;

use anyhow::Result;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};

use crate::commands::demo_server::model::Model;

/// Sends requests over one connection, and opens a new one when it breaks.
pub(super) async fn send_forever(address: SocketAddr, model: &'static Model) {
    let mut ticks = interval(model.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(mut sender) = connect(address).await else {
            continue;
        };
        while send(&mut sender, address, model).await.is_ok() {
            ticks.tick().await;
        }
    }
}

/// Opens a connection.
pub(super) async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends one request and reads the response to its end.
pub(super) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    model: &Model,
) -> Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let request = Request::post(model.path)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(model.request.as_bytes())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

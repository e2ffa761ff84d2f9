//! Serves a metrics endpoint over HTTP, on a listener that the caller has bound.
//!
//! The agent and `autoscale` both serve a [`MetricsSource`] here. `respond` has the paths, `api` those of the API,
//! `page` the page; `host_name` checks who may read them;
//! `response` builds what they return.
//! Does not depend on: how anything is measured.

mod api;
pub mod endpoint;
mod host_name;
mod negotiate;
mod page;
mod parameters;
pub mod query;
mod respond;
mod response;
pub mod source;

use std::{
    collections::VecDeque, convert::Infallible, future::Future, io, sync::Arc, time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::{debug, warn};

use crate::exporter::{respond::Site, source::MetricsSource};

/// Most connections at once. One more closes the oldest, so that a client with many connections cannot block a scrape.
const MAX_CONNECTIONS: usize = 32;
/// Longest time for a request head, and for an idle connection: more than the usual scrape interval of a minute.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Largest request head, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Pause after `accept` failed: without free descriptors the next call would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time to finish open responses at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// Serves until `shutdown` completes, then finishes open responses and returns.
pub async fn serve(listener: TcpListener, source: Arc<impl MetricsSource>, shutdown: impl Future) {
    let site = Arc::new(Site::new(source));
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    let (closing, _) = watch::channel(());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            _ = &mut shutdown => break,
            Some(_) = connections.join_next() => {
                by_age.retain(|connection| !connection.is_finished());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if by_age.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = by_age.pop_front()
                {
                    oldest.abort();
                }
                let connection = serve_connection(stream, site.clone(), closing.subscribe());
                by_age.push_back(connections.spawn(connection));
            }
            Err(err) if is_of_the_peer(&err) => debug!(%err, "connection not accepted"),
            Err(err) => {
                warn!(%err, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(closing);
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, finished).await;
}

/// Serves one connection until it ends; its errors concern no other connection.
async fn serve_connection(
    stream: TcpStream,
    site: Arc<Site<impl MetricsSource>>,
    mut closing: watch::Receiver<()>,
) {
    let service = service_fn(move |request| {
        let response = site.respond(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    // A response takes several writes; without this the last one waits for the client's delayed acknowledgement.
    if let Err(err) = stream.set_nodelay(true) {
        debug!(%err, "TCP_NODELAY not set");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // The sender was dropped, because the endpoint shuts down.
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(err) = ended {
        debug!(%err, "connection ended early");
    }
}

/// Returns whether `accept` failed because of one connection, so that the next call may succeed.
fn is_of_the_peer(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

//! Serves a metrics endpoint over HTTP, on a listener that the caller has bound.
//!
//! The agent and `autoscale` both serve a [`MetricsSource`] here. `respond` has the paths, `api` those of the API,
//! `page` the page; `host_name` checks who may read them;
//! `response` builds what they return, `connections` limits their number.
//! Does not depend on: how anything is measured.

mod api;
mod connections;
pub mod endpoint;
mod host_name;
mod negotiate;
mod page;
mod parameters;
pub mod query;
mod respond;
mod response;
pub mod source;

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::exporter::{
    connections::{Connections, Use},
    respond::Site,
    source::MetricsSource,
};

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
    let mut tasks = JoinSet::new();
    let mut connections = Connections::default();
    let (closing, _) = watch::channel(());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            _ = &mut shutdown => break,
            Some(_) = tasks.join_next() => {
                connections.forget_ended();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let used = connections.admit();
                let served =
                    serve_connection(stream, site.clone(), used.clone(), closing.subscribe());
                connections.add(tasks.spawn(served), used);
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
    let finished = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, finished).await;
}

/// Serves one connection until it ends; its errors concern no other connection.
async fn serve_connection(
    stream: TcpStream,
    site: Arc<Site<impl MetricsSource>>,
    used: Use,
    mut closing: watch::Receiver<()>,
) {
    let service = service_fn(move |request| {
        used.note(site.is_scrape(request.uri().path()));
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

//! Makes the response to one request: paths, methods and hosts.
//!
//! `api` has the paths of the API. Any host may scrape `/metrics`, since Prometheus may know this one by any name.
//! Does not depend on: connections.

use std::sync::Arc;

use flate2::Compression;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{ACCEPT, ALLOW, HeaderValue, VARY},
};

use crate::exporter::{
    api::{self, Memo},
    host_name, negotiate, page, query,
    response::{
        TextResponse, accepts_gzip, compress, compressed_response, refusal, text_response, values,
    },
    source::{ApiSource, MetricsSource},
};

/// What is served, and what is kept to serve it again.
pub(crate) struct Site<S> {
    source: Arc<S>,
    live: Memo,
}

impl<S: MetricsSource> Site<S> {
    /// Serves `source`.
    pub(crate) fn new(source: Arc<S>) -> Self {
        Self {
            source,
            live: Memo::default(),
        }
    }

    /// Whether this path has the metrics.
    pub(super) fn is_scrape(&self, path: &str) -> bool {
        matches!(self.route(path), Some(Route::Metrics))
    }

    /// Returns the response to a request, whose body is ignored.
    pub(crate) fn respond<B>(&self, request: &Request<B>) -> TextResponse {
        let Some(route) = self.route(request.uri().path()) else {
            return not_found(self.source.api().is_some());
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed();
        }
        let query = request.uri().query().unwrap_or_default();
        if let Route::Page(source) | Route::Api(source, _) = route
            && let Some(host) = host_name::refused(request, source.host_names())
        {
            return wrong_host(&host);
        }
        match route {
            Route::Page(_) => page::respond(request.headers()),
            Route::Metrics => metrics(&*self.source, query, request.headers()),
            Route::Health => health(&*self.source),
            Route::Api(source, path) => {
                api::respond(source, path, query, request.headers(), &self.live)
            }
        }
    }

    fn route(&self, path: &str) -> Option<Route<'_>> {
        Some(match path {
            "/metrics" | "/metrics/" => Route::Metrics,
            "/healthz" => Route::Health,
            "/" => Route::Page(self.source.api()?),
            _ => Route::Api(self.source.api()?, api::Path::of(path)?),
        })
    }
}

/// What a path stands for.
enum Route<'a> {
    Metrics,
    Health,
    Page(&'a dyn ApiSource),
    Api(&'a dyn ApiSource, api::Path),
}

fn not_found(has_api: bool) -> TextResponse {
    let paths = match has_api {
        true => "GET /, /metrics, /healthz or /api/v1/live",
        false => "GET /metrics or /healthz",
    };
    refusal(
        StatusCode::NOT_FOUND,
        "ResourceNotFoundException",
        &format!("Requested resource is not found; {paths}."),
    )
}

fn wrong_host(host: &str) -> TextResponse {
    refusal(
        StatusCode::FORBIDDEN,
        "HostNotAllowedException",
        &format!(
            "The page and the API are not served as {host}; open them by the host's own name, an IP address or localhost, \
             or start the agent with --allowed-host NAME."
        ),
    )
}

fn not_allowed() -> TextResponse {
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowedException",
        "Requested method is not allowed; use GET or HEAD.",
    );
    let allowed = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn metrics(source: &impl MetricsSource, query: &str, headers: &HeaderMap) -> TextResponse {
    let selection = match query::selection(query.as_bytes()) {
        Ok(selection) => selection,
        // TorchServe returns 403 here, not 400.
        Err(err) => {
            return refusal(
                StatusCode::FORBIDDEN,
                "IllegalArgumentException",
                &err.to_string(),
            );
        }
    };
    let format = negotiate::format(values(headers, ACCEPT));
    let text = source.metrics(&selection, format);
    let gzip = accepts_gzip(headers);
    let body = if gzip {
        compress(&text, Compression::fast())
    } else {
        text.into()
    };
    let mut response = compressed_response(format.content_type(), body, gzip);
    let vary = HeaderValue::from_static("accept, accept-encoding");
    response.headers_mut().insert(VARY, vary);
    response
}

fn health(source: &impl MetricsSource) -> TextResponse {
    let (status, text) = match source.health() {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    let body = format!("{text}\n").into();
    text_response(status, "text/plain; charset=utf-8", body)
}

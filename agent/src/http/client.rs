//! Sends one HTTP request on a new connection, with limits on time and size, and follows no redirect.
//!
//! The management client, `autoscale` and the commands that read an agent use it.
//! Does not depend on: what the request and its response mean.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, LOCATION},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::http::url::HttpUrl;

/// Largest response head, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Limits of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time from name resolution to the last byte of the response.
    pub time: Duration,
    /// Largest content of the response, bytes.
    pub body_bytes: usize,
}

/// A complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: StatusCode,
    /// Target of a redirect; `None` if there is none.
    pub location: Option<String>,
    /// Content.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection was refused, or the host has no address.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// It took longer than [`Limits::time`].
    #[error("no complete response within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The response is not HTTP/1, or the connection ended early.
    #[error("no HTTP response: {0}")]
    Protocol(#[from] hyper::Error),
    /// The content is larger than [`Limits::body_bytes`].
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
}

/// Sends a request without a body and reads the response; `bearer` is a complete `Authorization` value.
pub async fn fetch(
    method: Method,
    url: &HttpUrl,
    bearer: Option<HeaderValue>,
    limits: Limits,
) -> Result<HttpResponse, FetchError> {
    let exchanged = async {
        let stream = TcpStream::connect((url.host(), url.port())).await?;
        exchange(stream, method, url, bearer, limits).await
    };
    in_time(limits.time, exchanged).await
}

/// Sends a `GET` without a body through a unix socket, and reads the response.
pub async fn get_through(
    socket: &Path,
    url: &HttpUrl,
    limits: Limits,
) -> Result<HttpResponse, FetchError> {
    let exchanged = async {
        let stream = UnixStream::connect(socket).await?;
        exchange(stream, Method::GET, url, None, limits).await
    };
    in_time(limits.time, exchanged).await
}

async fn in_time(
    limit: Duration,
    exchanged: impl Future<Output = Result<HttpResponse, FetchError>>,
) -> Result<HttpResponse, FetchError> {
    let exchanged = tokio::time::timeout(limit, exchanged).await;
    exchanged.unwrap_or(Err(FetchError::Timeout(limit)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    url: &HttpUrl,
    bearer: Option<HeaderValue>,
    limits: Limits,
) -> Result<HttpResponse, FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = url
        .target()
        .parse()
        .expect("a target is part of a parsed address, or percent-encoded");
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(url.authority()).expect("an authority is visible ASCII");
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.extend(bearer.map(|bearer| (AUTHORIZATION, bearer)));
    let answered = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let location = head.headers.get(LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let body = Limited::new(body, limits.body_bytes).collect().await;
        let body = body.map_err(|err| match err.downcast::<hyper::Error>() {
            Ok(err) => FetchError::Protocol(*err),
            Err(err) => {
                debug_assert!(err.is::<LengthLimitError>(), "{err}");
                FetchError::TooLarge(limits.body_bytes)
            }
        })?;
        Ok(HttpResponse {
            status: head.status,
            location: location.map(str::to_owned),
            body: body.to_bytes(),
        })
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        response = &mut answered => response,
        // The request reports the error that ended the connection.
        _ = connection => answered.await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    const LIMITS: Limits = Limits {
        time: Duration::from_secs(20),
        body_bytes: 1000,
    };

    /// Responds on one connection with `bytes`, then with `rest` forever unless it is empty; returns what it read.
    async fn server(bytes: &'static str, rest: &'static str) -> (HttpUrl, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                read.push(stream.read_u8().await.unwrap());
            }
            // The client may go away at any time.
            let mut sent = stream.write_all(bytes.as_bytes()).await;
            while sent.is_ok() && !rest.is_empty() {
                sent = stream.write_all(rest.as_bytes()).await;
            }
            String::from_utf8(read).unwrap()
        });
        (url, served)
    }

    fn url(address: SocketAddr) -> HttpUrl {
        format!("http://{address}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_request_names_host_and_target_and_closes() {
        let (url, served) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "").await;
        let url = url.join(&["models", "a b"]).with_pair("min_worker", "1");
        let bearer = HeaderValue::from_static("Bearer key");
        let response = fetch(Method::PUT, &url, Some(bearer), LIMITS)
            .await
            .unwrap();
        let expected = HttpResponse {
            status: StatusCode::OK,
            location: None,
            body: "ok".into(),
        };
        assert_eq!(response, expected);
        let expected = format!(
            "PUT /models/a%20b?min_worker=1 HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nauthorization: Bearer key\r\n",
            url.authority()
        );
        let request = served.await.unwrap();
        assert!(request.starts_with(&expected), "{request}");
    }

    #[tokio::test]
    async fn redirect_is_returned_and_not_followed() {
        let (url, _) = server(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            "",
        )
        .await;
        let response = fetch(Method::GET, &url, None, LIMITS).await.unwrap();
        assert_eq!(response.status, StatusCode::FOUND);
        assert_eq!(response.location.as_deref(), Some("http://127.0.0.1:1/"));
    }

    #[tokio::test]
    async fn a_closed_port_cannot_be_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap());
        drop(listener);
        let err = fetch(Method::GET, &url, None, LIMITS).await.unwrap_err();
        assert!(matches!(err, FetchError::Connect(_)), "{err:?}");
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_off() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
        ] {
            let (url, served) = server(head, "xxxxxxxx").await;
            let err = fetch(Method::GET, &url, None, LIMITS).await.unwrap_err();
            assert!(matches!(err, FetchError::TooLarge(1000)), "{err:?}");
            served.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off() {
        let (url, served) = server("HTTP/1.1 200 OK\r\n", "x: y\r\n").await;
        let err = fetch(Method::GET, &url, None, LIMITS).await.unwrap_err();
        assert!(matches!(err, FetchError::Protocol(_)), "{err:?}");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn other_bytes_and_early_end_are_no_response() {
        for bytes in [
            "SSH-2.0-OpenSSH\r\n",
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        ] {
            let (url, _) = server(bytes, "").await;
            let err = fetch(Method::GET, &url, None, LIMITS).await.unwrap_err();
            assert!(matches!(err, FetchError::Protocol(_)), "{bytes:?}: {err:?}");
        }
    }

    #[tokio::test]
    async fn silent_server_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap());
        let time = Duration::from_millis(20);
        let limits = Limits { time, ..LIMITS };
        let err = fetch(Method::GET, &url, None, limits).await.unwrap_err();
        assert!(matches!(err, FetchError::Timeout(_)), "{err:?}");
        assert_eq!(err.to_string(), "no complete response within 0.02 s");
    }
}

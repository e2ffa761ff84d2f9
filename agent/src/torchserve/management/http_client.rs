//! One HTTP exchange with a local server: a connection of its own, bounded in time and size, no redirect followed.
//!
//! Does not know what is asked, nor what an answer means.

use std::{io, time::Duration};

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, LOCATION},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::torchserve::management::url::HttpUrl;

/// Size of an answer's head, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the look-up of the host to the last byte of the answer.
    pub time: Duration,
    /// Content of the answer.
    pub body_bytes: usize,
}

/// An answer that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: StatusCode,
    /// Where a redirection leads.
    pub location: Option<String>,
    /// Content.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there, or the host has no address.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// It took longer than [`Limits::time`].
    #[error("no whole answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// What came is not HTTP/1, or the connection ended early.
    #[error("no HTTP answer: {0}")]
    Protocol(#[from] hyper::Error),
    /// The content is larger than [`Limits::body_bytes`].
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Sends a request without a body and reads the answer; `bearer` is a complete `Authorization` value.
pub async fn fetch(
    method: Method,
    url: &HttpUrl,
    bearer: Option<HeaderValue>,
    limits: Limits,
) -> Result<HttpResponse, FetchError> {
    let exchanged = tokio::time::timeout(limits.time, exchange(method, url, bearer, limits));
    exchanged
        .await
        .unwrap_or(Err(FetchError::Timeout(limits.time)))
}

async fn exchange(
    method: Method,
    url: &HttpUrl,
    bearer: Option<HeaderValue>,
    limits: Limits,
) -> Result<HttpResponse, FetchError> {
    let stream = TcpStream::connect((url.host(), url.port())).await?;
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
        // What the connection has to say of its end, the request has heard as well.
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

    /// Answers one connection with `bytes`, and once more and more of `rest` if there is any; gives what it read.
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
    async fn a_redirection_is_handed_over_and_not_followed() {
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
    async fn what_is_not_http_or_ends_early_is_no_response() {
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
    async fn a_server_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(listener.local_addr().unwrap());
        let time = Duration::from_millis(20);
        let limits = Limits { time, ..LIMITS };
        let err = fetch(Method::GET, &url, None, limits).await.unwrap_err();
        assert!(matches!(err, FetchError::Timeout(_)), "{err:?}");
        assert_eq!(err.to_string(), "no whole answer within 0.02 s");
    }
}

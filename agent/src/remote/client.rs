//! Asks an agent for its JSON, and explains why there is none, with the remedy.
//!
//! Does not depend on: what is shown of it.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::{
    api::{
        self, Source,
        history::{History, Wanted},
        live::Live,
        requests::Requests,
    },
    http::{
        client::{self, FetchError, HttpResponse, Limits},
        url::HttpUrl,
    },
    remote::{
        target::{SshHost, Target},
        tunnel::Tunnel,
    },
};

/// Limits of one answer: 4,096 requests are about 4 MB.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(10),
    body_bytes: 32 << 20,
};
/// Requests in one answer: all that an agent keeps.
const MAX_REQUESTS: &str = "4096";
/// Most characters of a refusal that are shown.
const MAX_MESSAGE_CHARS: usize = 300;

/// Reads one agent.
#[derive(Debug)]
pub struct Client {
    target: Target,
    tunnel: Option<Tunnel>,
}

/// An answer, whose version of the API is checked before the rest is used.
trait Answer: DeserializeOwned {
    fn source(&self) -> &Source;
}

impl Answer for Live {
    fn source(&self) -> &Source {
        &self.source
    }
}

impl Answer for Requests {
    fn source(&self) -> &Source {
        &self.source
    }
}

impl Answer for History {
    fn source(&self) -> &Source {
        &self.source
    }
}

impl Client {
    /// Creates a client; opens the tunnel if there is one, for which ssh may ask for a password.
    pub async fn connect(target: Target) -> Result<Self> {
        let tunnel = match &target {
            Target::Http(_) => None,
            Target::Ssh(host) => Some(Tunnel::open(host).await?),
        };
        Ok(Self { target, tunnel })
    }

    /// Returns what is known now.
    pub async fn live(&self) -> Result<Live> {
        self.get(&self.url("live")).await
    }

    /// Returns the requests that finished after request number `after`; the latest ones if that is `None`.
    pub async fn requests(&self, after: Option<u64>) -> Result<Requests> {
        let mut url = self.url("requests").with_pair("limit", MAX_REQUESTS);
        if let Some(after) = after {
            url = url.with_pair("after", &after.to_string());
        }
        self.get(&url).await
    }

    /// Returns the windows that are wanted.
    pub async fn history(&self, wanted: &Wanted) -> Result<History> {
        let url = wanted
            .parameters()
            .iter()
            .fold(self.url("history"), |url, (name, value)| {
                url.with_pair(name, value)
            });
        self.get(&url).await
    }

    fn url(&self, name: &str) -> HttpUrl {
        let endpoint = match &self.target {
            Target::Http(url) => url,
            Target::Ssh(SshHost { endpoint, .. }) => endpoint,
        };
        endpoint.join(&["api", &format!("v{}", api::VERSION), name])
    }

    async fn get<T: Answer>(&self, url: &HttpUrl) -> Result<T> {
        let response = match &self.tunnel {
            None => client::fetch(Method::GET, url, None, LIMITS).await,
            Some(tunnel) => client::get_through(&tunnel.socket(), url, LIMITS).await,
        };
        let response = response.map_err(|err| self.unreachable(&err))?;
        parse(&response).map_err(|fault| anyhow!("{}: {fault}", self.target))
    }

    fn unreachable(&self, err: &FetchError) -> anyhow::Error {
        let remedy = match (&self.target, err) {
            (_, FetchError::Timeout(_)) => "it is busy, or something between drops packets; try again".to_owned(),
            (_, FetchError::TooLarge(_)) => "give the address of an inferprobe agent".to_owned(),
            (Target::Http(_), _) => {
                "start the agent there (systemctl start inferprobe), or give the address of one; `inferprobe top --demo` needs none"
                    .to_owned()
            }
            (Target::Ssh(host), _) => format!(
                "ssh works, but no agent answers at {} of that host: start it there, or give its address as --remote",
                host.endpoint.authority()
            ),
        };
        anyhow!("{}: {err}; {remedy}", self.target)
    }
}

fn parse<T: Answer>(response: &HttpResponse) -> Result<T> {
    match response.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => bail!(
            "it answers, but has no /api/v{}: no inferprobe agent, or an older one; update that, or give the agent's address",
            api::VERSION
        ),
        StatusCode::UNAUTHORIZED => {
            bail!("it asks for a password, which this command cannot give; use ssh://USER@HOST")
        }
        status => bail!("it refuses with {status}: {}", message(&response.body)),
    }
    let parsed: serde_json::Result<T> = serde_json::from_slice(&response.body);
    match parsed {
        Ok(answer) if answer.source().api_version == api::VERSION => Ok(answer),
        Ok(answer) => bail!(
            "it speaks version {} of the API, and this command version {}; use the same version of both",
            answer.source().api_version,
            api::VERSION
        ),
        Err(err) => bail!("not an answer of an inferprobe agent: {err}; give the address of one"),
    }
}

/// Returns the message of a refusal, as one line.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    fn response(status: u16, body: &str) -> HttpResponse {
        HttpResponse {
            status: StatusCode::from_u16(status).unwrap(),
            location: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn what_is_no_answer_is_explained() {
        let other = serde_json::to_string(&Live {
            source: Source {
                api_version: api::VERSION + 1,
                ..Source::default()
            },
            ..Live::default()
        })
        .unwrap();
        for (status, body, part) in [
            (404, "", "no inferprobe agent, or an older one"),
            (401, "", "ssh://USER@HOST"),
            (
                403,
                "{\"code\": 403, \"message\": \"The Host\\u001b header\\n is not allowed.\"}",
                "403 Forbidden: The Host header is not allowed.",
            ),
            (500, "no JSON", "500 Internal Server Error: no JSON"),
            (200, "<html>", "not an answer of an inferprobe agent"),
            (200, "{}", "not an answer of an inferprobe agent"),
            (200, &other, "use the same version of both"),
        ] {
            let err = parse::<Live>(&response(status, body))
                .unwrap_err()
                .to_string();
            assert!(err.contains(part), "{status} {body}: {err}");
        }
    }

    #[tokio::test]
    async fn no_agent_is_explained_with_the_remedy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let target = Target::parse("URL", Some(&address), None).unwrap();
        let client = Client::connect(target).await.unwrap();
        let err = client.live().await.unwrap_err().to_string();
        let begin = format!("http://{address}: cannot connect");
        assert!(
            err.starts_with(&begin) && err.contains("top --demo"),
            "{err}"
        );
    }
}

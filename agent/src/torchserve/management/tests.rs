//! The client against a server that answers as scripted.

use std::{future::Future, io::Write as _, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// What TorchServe 0.12.0 answers to describe while it starts the second of two workers.
const DESCRIBED: &str = r#"[
  {
    "modelName": "tiny",
    "modelVersion": "1.0",
    "minWorkers": 2,
    "maxWorkers": 4,
    "workers": [
      {"id": "9000", "status": "READY", "pid": 31001, "gpu": false},
      {"id": "9001", "status": "UNLOADING", "pid": -1, "gpu": false}
    ],
    "jobQueueStatus": {"remainingCapacity": 93, "pendingRequests": 7}
  }
]
"#;

fn model() -> Model {
    Model {
        name: "tiny".into(),
        version: None,
    }
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Does `call` against a server that gives one `answer`; its outcome, the request's head and the server's address.
async fn against<T, F>(
    response: String,
    token_file: Option<&Path>,
    call: impl FnOnce(Management) -> F,
) -> (Result<T>, String, String)
where
    F: Future<Output = Result<T>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(response.as_bytes()).await.unwrap();
        String::from_utf8(read).unwrap()
    });
    let management = Management::new(
        address.parse().unwrap(),
        token_file.map(Path::to_owned),
        Duration::from_secs(20),
    );
    let outcome = call(management).await;
    (outcome, served.await.unwrap(), address)
}

async fn scale_error(response: String, token_file: Option<&Path>) -> (String, String) {
    let scale =
        |management: Management| async move { management.scale(&model(), 1, 2, false).await };
    let (outcome, _, address) = against(response, token_file, scale).await;
    (format!("{:#}", outcome.unwrap_err()), address)
}

#[tokio::test]
async fn scaling_sends_bounds_and_synchronous() {
    let body = "{\n  \"status\": \"Workers scaled to 2 for model: tiny\"\n}\n";
    let versioned = Model {
        version: Some("1.0".into()),
        ..model()
    };
    let (outcome, request, _) = against(response("200 ", body), None, |management| async move {
        management.scale(&versioned, 2, 3, true).await
    })
    .await;
    let expected = Scaled {
        status: "Workers scaled to 2 for model: tiny".into(),
        partial: false,
    };
    assert_eq!(outcome.unwrap(), expected);
    let line = "PUT /models/tiny/1.0?min_worker=2&max_worker=3&synchronous=true HTTP/1.1\r\n";
    assert!(request.starts_with(line), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn response_before_the_end_is_partial() {
    let body = r#"{"status": "Workers scaling in progress..."}"#;
    let response = response("206 Partial Content", body);
    let (outcome, _, _) = against(response, None, |management| async move {
        management.scale(&model(), 2, 2, true).await
    })
    .await;
    assert!(outcome.unwrap().partial);
}

#[tokio::test]
async fn a_description_counts_ready_and_desired_workers_and_pending_requests() {
    let (outcome, request, _) = against(
        response("200 OK", DESCRIBED),
        None,
        |management| async move { management.describe(&model()).await },
    )
    .await;
    let expected = Description {
        ready: 1,
        desired: 2,
        pending: 7,
    };
    assert_eq!(outcome.unwrap(), expected);
    assert!(
        request.starts_with("GET /models/tiny HTTP/1.1\r\n"),
        "{request}"
    );
}

#[test]
fn workers_outside_torchserves_bounds_are_not_desired() {
    for (min, max, desired) in [(1, 1, 1), (1, 4, 2), (3, 4, 3), (0, 0, 0)] {
        let text = DESCRIBED
            .replace("\"minWorkers\": 2", &format!("\"minWorkers\": {min}"))
            .replace("\"maxWorkers\": 4", &format!("\"maxWorkers\": {max}"));
        let described = description(text.as_bytes()).unwrap();
        assert_eq!(described.desired, desired, "{min} to {max}");
    }
}

#[test]
fn a_description_cut_anywhere_is_an_error() {
    let text = DESCRIBED.trim_end();
    for end in 0..text.len() {
        description(&text.as_bytes()[..end]).unwrap_err();
    }
    for text in ["[]", "{}", "null", "[1]", "[{}]"] {
        description(text.as_bytes()).unwrap_err();
    }
    let inverted = text.replace("\"minWorkers\": 2", "\"minWorkers\": 5");
    description(inverted.as_bytes()).unwrap_err();
}

#[tokio::test]
async fn refusal_is_one_line_with_message_and_remedy() {
    let json = |code: u16, kind: &str, message: &str| {
        format!(
            "{{\n  \"code\": {code},\n  \"type\": \"{kind}\",\n  \"message\": \"{message}\"\n}}\n"
        )
    };
    for (status, body, expected) in [
        (
            "404 Not Found",
            json(404, "ModelNotFoundException", "Model not found: tiny"),
            "404 ModelNotFoundException Model not found: tiny; GET ADDRESS/models lists its models",
        ),
        (
            "404 Not Found",
            json(
                404,
                "ResourceNotFoundException",
                "Requested resource is not found",
            ),
            "404 ResourceNotFoundException Requested resource is not found; \
             give TorchServe's management_address as --management",
        ),
        (
            "500 Internal Server Error",
            json(500, "InternalServerException", r"Failed to\nstart\tworkers"),
            "500 InternalServerException Failed to start workers; \
             see TorchServe's log (logs/ts_log.log in the folder where it was started)",
        ),
        (
            "500 Internal Server Error",
            "\u{1b}[31mno\r\njson".into(),
            "500 [31mno json; see TorchServe's log (logs/ts_log.log in the folder where it was started)",
        ),
        (
            "503 Service Unavailable",
            String::new(),
            "503; see TorchServe's log (logs/ts_log.log in the folder where it was started)",
        ),
        (
            "400 Bad Request",
            json(400, "InvalidKeyException", "Token Authorization failed."),
            "400 InvalidKeyException Token Authorization failed; it requires a key: \
             give --token-file with the key_file.json from the folder where TorchServe was started",
        ),
        (
            "401 Unauthorized",
            String::new(),
            "401; it requires a key: \
             give --token-file with the key_file.json from the folder where TorchServe was started",
        ),
        (
            "302 Found",
            String::new(),
            "302; it redirects to nowhere, and redirects are not followed: \
             give TorchServe's own address as --management",
        ),
    ] {
        let (err, address) = scale_error(response(status, &body), None).await;
        let expected = expected.replace("ADDRESS", &address);
        let request = "models/tiny?min_worker=1&max_worker=2&synchronous=false";
        assert_eq!(
            err,
            format!("PUT {address}/{request}: TorchServe refused: {expected}")
        );
    }
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let (err, _) = scale_error(response("500 Oops", &"ä".repeat(100_000)), None).await;
    assert!(err.chars().count() < MAX_MESSAGE_CHARS + 300, "{err}");
}

#[tokio::test]
async fn response_of_another_server_is_an_error() {
    for body in ["", "hello", "{}", r#"{"status": 5}"#, "[]"] {
        let (err, address) = scale_error(response("200 OK", body), None).await;
        assert!(
            err.starts_with(&format!("PUT {address}/models/tiny?")),
            "{err}"
        );
        assert!(err.contains(": not a response of TorchServe: "), "{err}");
        assert!(
            err.ends_with("; give TorchServe's management_address as --management"),
            "{err}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_torchserve_is_named_with_the_remedy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let limit = Duration::from_secs(20);
    let management = Management::new(address.parse().unwrap(), None, limit);
    let err = management.describe(&model()).await.unwrap_err();
    assert_eq!(
        format!("{err:#}"),
        format!(
            "GET {address}/models/tiny: cannot connect: Connection refused (os error 111); \
             start TorchServe, or give its management_address as --management"
        )
    );
}

#[tokio::test]
async fn the_management_key_is_sent_and_a_refused_one_names_its_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let keys =
        r#"{"management": {"key": "m4n", "expiration time": "2026"}, "inference": {"key": "inf"}}"#;
    file.write_all(keys.as_bytes()).unwrap();
    let describe = |management: Management| async move { management.describe(&model()).await };
    let (_, request, _) = against(response("200 OK", "[]"), Some(file.path()), describe).await;
    assert!(
        request.contains("\r\nauthorization: Bearer m4n\r\n"),
        "{request}"
    );
    let refused = response("400 Bad Request", r#"{"type": "InvalidKeyException"}"#);
    let (err, _) = scale_error(refused, Some(file.path())).await;
    let expected = format!(
        "the management key in {} is wrong or has expired",
        file.path().display()
    );
    assert!(err.contains(&expected), "{err}");
    assert!(!err.contains("m4n"), "{err}");
}

#[tokio::test]
async fn token_file_without_a_key_is_an_error_before_any_call() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("missing", None),
        ("garbage", Some("key")),
        ("no-key", Some(r#"{"inference": {"key": "a"}}"#)),
        ("no-header", Some(r#"{"management": {"key": "a\nb"}}"#)),
    ] {
        let path = folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let address = "http://127.0.0.1:1".parse().unwrap();
        let management = Management::new(address, Some(path.clone()), Duration::from_secs(20));
        let err = management.describe(&model()).await.unwrap_err();
        let expected = format!(
            "--token-file {}: give the key_file.json from the folder where TorchServe was started: ",
            path.display()
        );
        assert!(format!("{err:#}").starts_with(&expected), "{err:#}");
    }
}

#[test]
fn started_workers_have_their_model() {
    let versions: Vec<RawVersion> = serde_json::from_str(DESCRIBED).unwrap();
    let running: Vec<RunningWorker> = versions.into_iter().flat_map(RawVersion::running).collect();
    let one = RunningWorker {
        pid: 31001,
        model: "tiny".into(),
        version: "1.0".into(),
    };
    assert_eq!(running, [one]);
}

#[tokio::test]
async fn no_models_are_no_workers() {
    let listed = response("200 OK", r#"{"models": []}"#);
    let running = |management: Management| async move { management.running().await };
    let (running, asked, _) = against(listed, None, running).await;
    assert_eq!(running.unwrap(), []);
    assert!(asked.starts_with("GET /models?limit=1000 "), "{asked}");
}

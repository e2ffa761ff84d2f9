//! Checks the built-in entries against their own examples, and the rules that no example can show.

use super::*;
use crate::protocol::{genai::Operation, grpc::NamedBy};

fn catalogue() -> Catalogue {
    Catalogue::new(Vec::new()).unwrap()
}

fn own_entries(text: &str) -> Vec<FileServer> {
    #[derive(serde::Deserialize)]
    struct File {
        server: Vec<FileServer>,
    }
    toml::from_str::<File>(text).unwrap().server
}

fn line(words: &str) -> CommandLine {
    CommandLine::parse(words.replace(' ', "\0").as_bytes()).unwrap()
}

/// A title that a process gave itself: one argument.
fn title(text: &str) -> CommandLine {
    CommandLine::parse(text.as_bytes()).unwrap()
}

fn recognised<'a>(
    catalogue: &'a Catalogue,
    line: &CommandLine,
) -> Option<(&'a str, Role, Option<String>)> {
    let (entry, role) = catalogue.recognise(line)?;
    let model = entry.model_in(line, &OptionsFile::default());
    Some((&entry.name, role, model))
}

fn entry<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a Entry> {
    let mut entries = catalogue.entries.iter();
    entries
        .find(|entry| *entry.name == *name)
        .map(|entry| &**entry)
}

fn http<'a>(method: &'a str, target: &'a str) -> RequestInfo<'a> {
    RequestInfo {
        method,
        target,
        is_grpc: false,
        is_upgraded: false,
        on_unix: false,
        named: None,
        user_agent: None,
    }
}

fn named(by: NamedBy, model: &str) -> ModelName {
    ModelName {
        by,
        model: model.into(),
        version: None,
    }
}

#[test]
fn every_built_in_entry_holds_its_examples() {
    let catalogue = catalogue();
    let built_in = Catalogue::built_in();
    for server in &built_in.server {
        assert!(
            !server.examples.is_empty(),
            "{} has no examples",
            server.name
        );
        catalogue.check_examples(server).unwrap();
    }
    let requests = &built_in.default_rules.request_examples;
    let checked = catalogue.check_requests("default_rules.request_examples", None, requests);
    checked.unwrap();
}

#[test]
fn an_example_that_does_not_hold_is_an_error_with_a_remedy() {
    let entry = "[[server]]\nname = \"s\"\nprocess = ['run']\nmodel_options = [\"-m\"]\nadmin = [\"GET /x\"]\n";
    for (line, expected) in [
        ("examples = [\"run -m a -> a\", \"/bin/run\"]", None),
        (
            "request_examples = [\"GET /x -> admin\", \"POST /x -> inference\"]",
            None,
        ),
        (
            "examples = [\"run -m a -> b\"]",
            Some(
                "server.examples \"run -m a -> b\": matches a server process of \"s\" with model \"a\"; correct the entry or \
                 the example",
            ),
        ),
        (
            "examples = [\"walk\"]",
            Some("server.examples \"walk\": matches no server; correct the entry or the example"),
        ),
        (
            "worker_examples = [\"run\"]",
            Some(
                "server.worker_examples \"run\": matches a server process of \"s\" with model \"-\"; correct the entry \
                 or the example",
            ),
        ),
        (
            "request_examples = [\"POST /x -> admin\"]",
            Some(
                "server.request_examples \"POST /x -> admin\": /x is inference with model \"-\", version \"-\"; correct the entry or \
                 the example",
            ),
        ),
    ] {
        let own = own_entries(&format!("{entry}{line}"));
        let message = Catalogue::new(own).err().map(|err| err.to_string());
        assert_eq!(message.as_deref(), expected, "{line}");
    }
}

#[test]
fn a_command_line_that_only_mentions_a_server_is_not_recognised() {
    let catalogue = catalogue();
    for command in [
        "vim vllm.py",
        "vi /v/ts/model_service_worker.py --sock-type unix",
        "grep -r uvicorn .",
        "grep org.pytorch.serve.ModelServer",
        "java -jar app.jar",
        "pip install vllm",
        "python3 -m pip install vllm uvicorn",
        "python3 /usr/bin/pip install uvicorn",
        "curl http://x/v1/completions",
        "docker run vllm/vllm-openai vllm serve m",
        "bash -c uvicorn main:app",
        "vllm bench serve --model m",
        "vllm chat",
        "ollama run llama3",
        "ollama",
        "bentoml build",
        "mlserver build .",
        "litserve dockerize server.py",
        "python3 app.py uvicorn",
        "python3 uvicorn.py main:app",
        "python3 -c import uvicorn",
        "python3",
        "ray start --head",
        "fastapi --version",
        "tritonserver-client",
        "/usr/bin/text-generation-server serve m",
        "sleep 600 uvicorn",
    ] {
        assert_eq!(recognised(&catalogue, &line(command)), None, "{command}");
    }
    for text in [
        "VLLM::EngineCore",
        "VLLM::Worker_TP0",
        "ray::IDLE",
        "ray::ServeReplica:app:Deployment",
        "sglang::scheduler",
    ] {
        assert_eq!(recognised(&catalogue, &title(text)), None, "{text}");
    }
}

#[test]
fn a_probe_is_never_inference_whatever_it_asks_for() {
    let catalogue = catalogue();
    let own =
        own_entries("[[server]]\nname = \"own\"\nprocess = ['x']\nprobe_agents = [\"mine/\"]");
    let with_own = Catalogue::new(own).unwrap();
    for (server, method, target, user_agent, purpose) in [
        ("", "POST", "/rank", Some("kube-probe/1.31"), Purpose::Admin),
        (
            "",
            "POST",
            "/v1/completions",
            Some("Blackbox Exporter/0.25"),
            Purpose::Admin,
        ),
        (
            "",
            "POST",
            "/rank",
            Some("elb-healthchecker/2.0"),
            Purpose::Admin,
        ),
        ("", "POST", "/rank", Some("GoogleHC/1.0"), Purpose::Admin),
        (
            "ray-serve",
            "GET",
            "/app",
            Some("kube-probe/1.31"),
            Purpose::Admin,
        ),
        (
            "ray-serve",
            "GET",
            "/app",
            Some("Prometheus/3.0"),
            Purpose::Admin,
        ),
        (
            "ray-serve",
            "GET",
            "/app",
            Some("curl/8"),
            Purpose::Inference,
        ),
        ("ray-serve", "GET", "/app", None, Purpose::Inference),
        (
            "",
            "POST",
            "/rank",
            Some("my kube-probe/1"),
            Purpose::Inference,
        ),
        ("", "POST", "/rank", Some("kube"), Purpose::Inference),
        ("", "POST", "/rank", Some(""), Purpose::Inference),
        ("own", "POST", "/rank", Some("mine/2"), Purpose::Admin),
        (
            "own",
            "POST",
            "/rank",
            Some("kube-probe/1.31"),
            Purpose::Inference,
        ),
    ] {
        let catalogue = if server == "own" {
            &with_own
        } else {
            &catalogue
        };
        let request = RequestInfo {
            user_agent,
            ..http(method, target)
        };
        let route = catalogue.route(entry(catalogue, server), request);
        assert_eq!(route.purpose, purpose, "{server} {target} {user_agent:?}");
    }
}

#[test]
fn a_get_is_inference_if_the_entry_says_so() {
    let own = own_entries(
        "[[server]]\nname = \"own\"\nprocess = ['x']\ninference = [\"GET /ask\", \"POST /health\"]\napis = [\"gemini\"]\nrest = \"admin\"",
    );
    let catalogue = Catalogue::new(own).unwrap();
    let own = entry(&catalogue, "own");
    for (method, target, purpose) in [
        ("GET", "/ask", Purpose::Inference),
        ("POST", "/health", Purpose::Inference),
        ("POST", "/x/m:generateContent", Purpose::Inference),
        ("POST", "/v1/completions", Purpose::Admin),
    ] {
        assert_eq!(
            catalogue.route(own, http(method, target)).purpose,
            purpose,
            "{target}"
        );
    }
    let unknown = catalogue.route(None, http("GET", "/ask"));
    assert_eq!(unknown.purpose, Purpose::Admin);
}

#[test]
fn a_web_socket_is_inference_on_the_paths_of_an_api_only() {
    let catalogue = catalogue();
    for (target, purpose) in [
        ("/v1/realtime", Purpose::Inference),
        ("/predictions/chat", Purpose::Inference),
        ("/v1/audio/transcriptions", Purpose::Inference),
        ("/ws", Purpose::Admin),
        ("/", Purpose::Admin),
    ] {
        let request = RequestInfo {
            is_upgraded: true,
            ..http("GET", target)
        };
        assert_eq!(catalogue.route(None, request).purpose, purpose, "{target}");
    }
}

#[test]
fn a_request_shows_an_inference_server_if_no_other_has_its_path() {
    let catalogue = catalogue();
    for (method, target, is_grpc, is_plain, says_nothing) in [
        ("POST", "/v1/completions", false, true, false),
        ("POST", "/v1/chat/completions", false, true, false),
        ("POST", "/v2/models/m/infer", false, true, false),
        ("POST", "/v1/models/m:predict", false, true, false),
        ("POST", "/invocations", false, true, false),
        ("POST", "/predict", false, true, false),
        (
            "POST",
            "/v1beta/models/m:streamGenerateContent",
            false,
            true,
            false,
        ),
        (
            "POST",
            "/inference.GRPCInferenceService/ModelInfer",
            true,
            true,
            false,
        ),
        (
            "POST",
            "/inference.GRPCInferenceService/ServerReady",
            true,
            false,
            false,
        ),
        ("POST", "/my.own.Service/Run", true, false, false),
        ("POST", "/grpc.health.v1.Health/Check", true, false, true),
        ("POST", "/rank", false, false, false),
        ("POST", "/v1/messages", false, false, false),
        ("POST", "/generate", false, false, false),
        ("POST", "/v1/messages/count_tokens", false, false, true),
        ("GET", "/v1/completions", false, false, false),
        ("GET", "/", false, false, false),
        ("GET", "/healthz", false, false, true),
        ("GET", "/metrics", false, false, true),
    ] {
        let request = RequestInfo {
            is_grpc,
            ..http(method, target)
        };
        assert_eq!(catalogue.is_plain(request), is_plain, "{method} {target}");
        assert_eq!(
            catalogue.says_nothing(request),
            says_nothing,
            "{method} {target}"
        );
        let probe = RequestInfo {
            user_agent: Some("kube-probe/1.31"),
            ..request
        };
        assert!(!catalogue.is_plain(probe) && catalogue.says_nothing(probe));
    }
}

#[test]
fn a_path_says_what_is_asked_of_a_language_model() {
    let catalogue = catalogue();
    for (server, target, expected) in [
        ("", "/v1/chat/completions", Some("chat")),
        ("", "/openai/v1/chat/completions?x=1", Some("chat")),
        ("", "/openai/deployments/m/chat/completions", Some("chat")),
        ("vllm", "/v1/chat/completions/batch", Some("chat")),
        ("vllm", "/v1/responses", Some("chat")),
        ("", "/v1/messages", Some("chat")),
        ("vllm", "/v1/messages/count_tokens", None),
        ("ollama", "/api/chat", Some("chat")),
        ("", "/model/m/converse", Some("chat")),
        ("", "/v1/completions/", Some("text_completion")),
        (
            "torchserve",
            "/predictions/m/1.0/v1/completions",
            Some("text_completion"),
        ),
        ("llama-server", "/completion", Some("text_completion")),
        ("tgi", "/generate_stream", Some("text_completion")),
        ("sglang", "/generate", Some("text_completion")),
        ("", "/api/generate", Some("text_completion")),
        (
            "triton",
            "http://h:1/v2/models/m/generate",
            Some("text_completion"),
        ),
        (
            "triton",
            "/v2/models/m/versions/1/generate_stream",
            Some("text_completion"),
        ),
        ("", "/v1/embeddings", Some("embeddings")),
        ("tei", "/embed", Some("embeddings")),
        ("ollama", "/api/embed", Some("embeddings")),
        (
            "",
            "/v1beta/models/m:streamGenerateContent",
            Some("generate_content"),
        ),
        ("", "/v1beta/models/m:countTokens", None),
        ("", "/v1/models/m:predict", None),
        ("triton", "/v2/models/m/infer", None),
        ("torchserve", "/predictions/m", None),
        ("vllm", "/tokenize", None),
        ("", "/", None),
        ("", "", None),
        ("", "*", None),
    ] {
        let route = catalogue.route(entry(&catalogue, server), http("POST", target));
        assert_eq!(
            route.operation.map(Operation::name),
            expected,
            "{server} {target}"
        );
        let route = catalogue.route(entry(&catalogue, server), http("HEAD", target));
        assert!(
            route.operation.is_none() || server == "torchserve",
            "{target}"
        );
    }
}

#[test]
fn torchserve_decodes_a_path_before_it_splits_it() {
    let catalogue = catalogue();
    let torchserve = entry(&catalogue, "torchserve");
    let route = |method, target| {
        let route = catalogue.route(torchserve, http(method, target));
        (route.purpose, route.model, route.version)
    };
    let tiny = |version: Option<&str>| {
        let version = version.map(str::to_owned);
        (Purpose::Inference, Some("tiny".to_owned()), version)
    };
    for (target, version) in [
        ("/tiny/1.0/predict", Some("1.0")),
        ("/predictions/tiny/1.0/extra", Some("1.0")),
        ("/predictions/tiny/1.0?x=/health", Some("1.0")),
        ("/predictions/tiny%2F1.0", Some("1.0")),
        ("/t%69ny/predict/", None),
    ] {
        assert_eq!(route("POST", target), tiny(version), "{target}");
    }
    for method in ["GET", "HEAD", "PUT", "TRACE", "FOO"] {
        assert_eq!(route(method, "/predictions/tiny"), tiny(None), "{method}");
    }
    for target in [
        "//predictions/tiny",
        "/predictions//tiny",
        "/predictions/",
        "/Predictions/tiny",
        "http://h/predictions/tiny",
        "/models/tiny/1.0/invoke",
        "/anything",
    ] {
        assert_eq!(route("POST", target).0, Purpose::Admin, "{target}");
    }
}

#[test]
fn a_body_names_the_model_if_the_entry_says_so() {
    let catalogue = catalogue();
    let body = named(NamedBy::Body, "from-body");
    let message = named(NamedBy::Message, "from-message");
    for (server, target, expected) in [
        ("vllm", "/v1/chat/completions", Some("from-body")),
        ("ollama", "/api/chat", Some("from-body")),
        ("uvicorn", "/v1/chat/completions", Some("from-body")),
        ("", "/v1/completions", Some("from-body")),
        ("uvicorn", "/infer", None),
        ("triton", "/v2/models/m/infer", Some("m")),
        ("tgi", "/generate", None),
        ("llama-server", "/completion", Some("from-body")),
        ("", "/completion", Some("from-body")),
    ] {
        let request = RequestInfo {
            named: Some(&body),
            ..http("POST", target)
        };
        let route = catalogue.route(entry(&catalogue, server), request);
        assert_eq!(route.model.as_deref(), expected, "{server} {target}");
        let request = RequestInfo {
            named: Some(&message),
            ..request
        };
        let route = catalogue.route(entry(&catalogue, server), request);
        assert_ne!(route.model.as_deref(), Some("from-message"));
    }
}

#[test]
fn a_grpc_message_names_the_model_of_inference_only() {
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
    const READY: &str = "/inference.GRPCInferenceService/ModelReady";
    let catalogue = catalogue();
    let name = named(NamedBy::Message, "m");
    for (server, target, expected) in [
        ("triton", INFER, Some("m")),
        ("triton", READY, None),
        ("", INFER, Some("m")),
        ("", READY, None),
    ] {
        let request = RequestInfo {
            is_grpc: true,
            named: Some(&name),
            ..http("POST", target)
        };
        let route = catalogue.route(entry(&catalogue, server), request);
        assert_eq!(route.model.as_deref(), expected, "{server} {target}");
    }
}

#[test]
fn a_grpc_path_over_plain_http_is_internal_only_if_the_method_is() {
    let catalogue = catalogue();
    for (target, purpose) in [
        ("/ray.rpc.CoreWorkerService/PushTask", Purpose::Internal),
        // It looks like a gRPC method and is none.
        ("/v1.0/chat", Purpose::Inference),
    ] {
        let route = catalogue.route(None, http("POST", target));
        assert_eq!(route.purpose, purpose, "{target}");
    }
}

#[test]
fn a_request_on_a_unix_socket_is_internal_if_the_entry_says_so() {
    let catalogue = catalogue();
    let request = RequestInfo {
        on_unix: true,
        ..http("POST", "/encode")
    };
    for (server, purpose) in [
        ("bentoml", Purpose::Internal),
        ("uvicorn", Purpose::Inference),
        ("", Purpose::Inference),
    ] {
        let route = catalogue.route(entry(&catalogue, server), request);
        assert_eq!(route.purpose, purpose, "{server}");
    }
}

#[test]
fn a_users_entries_come_before_the_built_in_ones() {
    let own = own_entries(
        r#"
        [[server]]
        name = "shop"
        process = ['shop\.py', 'uvicorn shop:app']
        model_options = ["--ranker"]
        inference_by_body = ["POST /rank"]
        admin = ["* /warm-up"]
        internal = ["POST /gossip/**"]
        [[server]]
        name = "lit"
        like = "litserve"
        process = ['server\.py']
        "#,
    );
    let catalogue = Catalogue::new(own).unwrap();
    let ranked = recognised(&catalogue, &line("python shop.py --ranker best"));
    assert_eq!(ranked, Some(("shop", Role::Server, Some("best".into()))));
    let uvicorn = recognised(&catalogue, &line("uvicorn shop:app"));
    assert_eq!(uvicorn.unwrap().0, "shop");
    assert_eq!(
        recognised(&catalogue, &line("uvicorn x:app")).unwrap().0,
        "uvicorn"
    );
    assert_eq!(
        recognised(&catalogue, &line("python server.py")).unwrap().0,
        "lit"
    );
    let shop = entry(&catalogue, "shop");
    let body = named(NamedBy::Body, "m");
    let rank = RequestInfo {
        named: Some(&body),
        ..http("POST", "/rank")
    };
    assert_eq!(catalogue.route(shop, rank).model.as_deref(), Some("m"));
    for (target, purpose) in [
        ("/warm-up", Purpose::Admin),
        ("/gossip/a/b", Purpose::Internal),
        ("/other", Purpose::Inference),
        ("/health", Purpose::Admin),
    ] {
        let route = catalogue.route(shop, http("POST", target));
        assert_eq!(route.purpose, purpose, "{target}");
    }
    let lit = entry(&catalogue, "lit");
    let shutdown = catalogue.route(lit, http("POST", "/shutdown"));
    assert_eq!(shutdown.purpose, Purpose::Admin);
}

#[test]
fn a_call_without_a_path_is_inference_only_if_its_message_names_a_model() {
    let catalogue = catalogue();
    let purpose = |server: &str, model: Option<&str>| {
        let named = model.map(|model| named(NamedBy::Message, model));
        let request = RequestInfo {
            is_grpc: true,
            named: named.as_ref(),
            ..http("", "")
        };
        let route = catalogue.route(entry(&catalogue, server), request);
        (route.purpose, route.model)
    };
    for (server, otherwise) in [
        ("ray-serve", Purpose::Internal),
        ("triton", Purpose::Admin),
        ("no-such-server", Purpose::Admin),
    ] {
        let inference = (Purpose::Inference, Some("ranker".to_owned()));
        assert_eq!(purpose(server, Some("ranker")), inference);
        assert_eq!(
            purpose(server, Some(grpc::UNKNOWN_MODEL)),
            (otherwise, None)
        );
        assert_eq!(purpose(server, None), (otherwise, None));
    }
}

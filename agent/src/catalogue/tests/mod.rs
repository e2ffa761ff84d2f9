//! The catalogue's data, against command lines and paths of real servers.

mod processes;

use super::*;

fn catalogue() -> Catalogue {
    Catalogue::new(Vec::new()).unwrap()
}

fn with_own(text: &str) -> Catalogue {
    #[derive(serde::Deserialize)]
    struct File {
        server: Vec<FileServer>,
    }
    let file: File = toml::from_str(text).unwrap();
    Catalogue::new(file.server).unwrap()
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
    Some((&entry.name, role, entry.model_in(line)))
}

fn entry<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a Entry> {
    let mut entries = catalogue.entries.iter();
    entries
        .find(|entry| entry.name == name)
        .map(|entry| &**entry)
}

fn asked<'a>(method: &'a str, target: &'a str) -> RequestInfo<'a> {
    RequestInfo {
        method,
        target,
        is_grpc: false,
        on_unix: false,
        named: None,
    }
}

fn named(by: NamedBy, model: &str) -> ModelName {
    ModelName {
        by,
        model: model.into(),
        version: None,
    }
}

/// Whether requests are inference, and the model and version that their path names.
#[test]
fn inference_has_its_paths() {
    let catalogue = catalogue();
    for (server, targets) in [
        (
            "triton",
            "/v2/models/{m}/infer /v2/models/{m}/versions/{v}/infer /v2/models/{m}/generate \
             /v2/models/{m}/generate_stream",
        ),
        (
            "mlserver",
            "/v2/models/{m}/infer /v2/models/{m}/versions/{v}/infer /v2/models/{m}/infer_stream \
             /v2/models/{m}/generate /my-own",
        ),
        (
            "kserve",
            "/v1/models/{m}:predict /v1/models/{m}:explain /v2/models/{m}/infer /openai/v1/chat/completions \
             /openai/v1/completions /openai/v1/embeddings /openai/v1/rerank",
        ),
        (
            "vllm",
            "/v1/completions /v1/chat/completions /v1/chat/completions/batch /v1/responses /v1/messages \
             /v1/embeddings /pooling /score /rerank /classify /invocations /inference/v1/generate /generative_scoring \
             /v1/audio/transcriptions",
        ),
        (
            "sglang",
            "/generate /v1/completions /v1/chat/completions /v1/embeddings /encode /classify /v1/rerank /v1/score \
             /v1/responses",
        ),
        (
            "tgi",
            "/ /generate /generate_stream /v1/chat/completions /v1/completions /invocations /vertex \
             /v2/models/{m}/versions/{v}/infer",
        ),
        (
            "tei",
            "/ /embed /embed_all /embed_sparse /predict /rerank /embeddings /v1/embeddings /invocations /vertex",
        ),
        (
            "ollama",
            "/api/generate /api/chat /api/embed /api/embeddings /v1/completions /v1/chat/completions /v1/embeddings \
             /v1/responses /v1/messages /v1/images/generations /v1/audio/transcriptions",
        ),
        (
            "llama-server",
            "/completion /v1/completions /v1/chat/completions /v1/responses /v1/messages /embedding /v1/embeddings \
             /v1/rerank /infill /v1/audio/transcriptions",
        ),
        (
            "llama-cpp-python",
            "/v1/completions /v1/chat/completions /v1/embeddings /v1/engines/copilot-codex/completions",
        ),
        (
            "tf-serving",
            "/v1/models/{m}:predict /v1/models/{m}:classify /v1/models/{m}:regress \
             /v1/models/{m}/versions/{v}:predict /v1/models/{m}/labels/{v}:regress",
        ),
        (
            "torchserve",
            "/predictions/{m} /predictions/{m}/{v} /explanations/{m} /invocations?x=1&model_name={m} \
             /models/{m}/invoke /v1/models/{m}:predict /v2/models/{m}/infer /{m}/predict /{m}/{v}/predict",
        ),
        ("ray-serve", "/{m} /{m}/x/y / /v1/chat/completions"),
        ("bentoml", "/summarize /summarize/submit"),
        (
            "litserve",
            "/predict /v1/chat/completions /v1/embeddings /own",
        ),
        (
            "uvicorn",
            "/ /infer /generate /v1/chat/completions /predictions/{m}/{v} /invocations",
        ),
        ("gunicorn", "/ /score"),
        ("hypercorn", "/ /v2/models/{m}/infer"),
        (
            "",
            "/ /predict /v1/completions /predictions/{m} /models/{m}/invoke /invocations /invocations?model_name={m} \
             http://h:1/v2/models/{m}/generate_stream",
        ),
    ] {
        for target in targets.split(' ') {
            let sent = target.replace("{m}", "res%20net").replace("{v}", "2");
            let route = catalogue.route(entry(&catalogue, server), asked("POST", &sent));
            let expected = Route {
                purpose: Purpose::Inference,
                model: target.contains("{m}").then(|| "res net".to_owned()),
                version: target.contains("{v}").then(|| "2".to_owned()),
            };
            assert_eq!(route, expected, "{server} {target}");
        }
    }
}

#[test]
fn questions_about_a_server_are_not_inference() {
    let catalogue = catalogue();
    for (server, requests) in [
        (
            "triton",
            "GET /v2 /v2/health/live /v2/models/m /v2/models/m/versions/1 /v2/models/m/ready /v2/models/stats \
             /metrics \
             POST /v2/models/m/trace/setting /v2/repository/index /v2/repository/models/m/load /v2/logging \
             /v2/systemsharedmemory/region/x/register",
        ),
        (
            "mlserver",
            "GET /v2 /v2/health/ready /v2/models/m /v2/models/m/ready /v2/docs /v2/models/m/docs /metrics \
             POST /v2/repository/index",
        ),
        (
            "kserve",
            "GET / /v2 /v2/health/live /v1/models /v1/models/m /v2/models/m/ready /openai/v1/models /metrics \
             POST /v2/repository/models/m/load",
        ),
        (
            "vllm",
            "GET /health /ping /metrics /version /load /v1/models /v1/responses/r1 /docs \
             POST /ping /tokenize /detokenize /v1/messages/count_tokens /v1/completions/render \
             /v1/chat/completions/derender /v1/responses/r1/cancel /scale_elastic_ep /inference/v1/abort_requests \
             /v1/load_lora_adapter",
        ),
        (
            "sglang",
            "GET /health /health_generate /model_info /get_model_info /get_server_info /metrics /v1/models \
             POST /flush_cache /update_weights_from_disk",
        ),
        (
            "tgi",
            "GET / /health /ping /info /metrics /v1/models /docs \
             POST /tokenize /chat_tokenize",
        ),
        (
            "tei",
            "GET / /health /info \
             POST /tokenize /decode",
        ),
        (
            "ollama",
            "HEAD / \
             GET / /api/version /api/tags /api/ps /v1/models \
             POST /api/show /api/pull /api/push /api/create /api/copy /api/me /api/blobs/sha256:x \
             DELETE /api/delete",
        ),
        (
            "llama-server",
            "GET /health /v1/health /metrics /props /slots /v1/models /models \
             POST /props /tokenize /detokenize /apply-template /v1/responses/input_tokens /v1/messages/count_tokens \
             /lora-adapters",
        ),
        (
            "llama-cpp-python",
            "GET /v1/models \
             POST /extras/tokenize /extras/tokenize/count /extras/detokenize",
        ),
        (
            "tf-serving",
            "GET /v1/models/m /v1/models/m/versions/1 /v1/models/m/metadata /monitoring/prometheus/metrics",
        ),
        (
            "torchserve",
            "GET /ping /predictions /metrics \
             OPTIONS / /predictions/m \
             POST /models?url=x /v1/models/m:unload /invocations \
             PUT /models/m \
             DELETE /models/m",
        ),
        ("ray-serve", "GET /-/routes /-/healthz /app/docs /v1/models"),
        (
            "bentoml",
            "GET /healthz /livez /readyz /metrics /docs.json /schema.json / /summarize/status",
        ),
        (
            "litserve",
            "GET / /health /info /docs /openapi.json \
             POST /shutdown",
        ),
        (
            "uvicorn",
            "GET /docs /openapi.json /healthz \
             HEAD / \
             OPTIONS /infer \
             POST /ping",
        ),
        (
            "",
            "GET /health /v2/health/ready /metrics?name[]=x /v1/models /v1/models/m /v2/models/m \
             /v2/models/m/versions/1/ready \
             POST /v2/repository/index /v2/repository/models/m/load /v1/models/m:unload /tokenize \
             HEAD / \
             OPTIONS /predictions/m \
             TRACE /predictions/m",
        ),
    ] {
        // A word in capitals is the method of the paths behind it.
        let mut method = "";
        for word in requests.split(' ') {
            if !word.contains('/') {
                method = word;
                continue;
            }
            let route = catalogue.route(entry(&catalogue, server), asked(method, word));
            let expected = Route::of(Purpose::Admin);
            assert_eq!(route, expected, "{server} {method} {word}");
        }
    }
}

#[test]
fn an_unknown_server_predicts_also_by_get() {
    let catalogue = catalogue();
    for server in ["", "uvicorn"] {
        for target in ["/", "/infer?x=1", "/predictions/m"] {
            let route = catalogue.route(entry(&catalogue, server), asked("GET", target));
            assert_eq!(route.purpose, Purpose::Inference, "{server} {target}");
        }
    }
}

#[test]
fn torchserve_decodes_a_path_before_it_splits_it() {
    let catalogue = catalogue();
    let torchserve = entry(&catalogue, "torchserve");
    let route = |method, target| {
        let route = catalogue.route(torchserve, asked(method, target));
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
fn a_body_names_the_model_where_the_entry_says_so() {
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
    ] {
        let question = RequestInfo {
            named: Some(&body),
            ..asked("POST", target)
        };
        let route = catalogue.route(entry(&catalogue, server), question);
        assert_eq!(route.model.as_deref(), expected, "{server} {target}");
        let question = RequestInfo {
            named: Some(&message),
            ..question
        };
        let route = catalogue.route(entry(&catalogue, server), question);
        assert_ne!(route.model.as_deref(), Some("from-message"));
    }
}

#[test]
fn methods_of_grpc_tell_inference_from_the_rest() {
    const PREDICT: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
    let catalogue = catalogue();
    let name = named(NamedBy::Message, "m");
    let route = |server: &str, path: &str| {
        let question = RequestInfo {
            is_grpc: true,
            named: Some(&name),
            ..asked("POST", path)
        };
        catalogue.route(entry(&catalogue, server), question)
    };
    for (server, purpose, paths) in [
        (
            "",
            Purpose::Inference,
            &[
                PREDICT,
                INFER,
                "/tensorflow.serving.PredictionService/Predict",
                "/my.own.Service/Run",
                "/tei.v1.Embed/EmbedStream",
                "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
            ][..],
        ),
        (
            "",
            Purpose::Admin,
            &[
                "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping",
                "/org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel",
                "/inference.GRPCInferenceService/ServerReady",
                "/inference.GRPCInferenceService/SystemSharedMemoryStatus",
                "/tensorflow.serving.PredictionService/GetModelMetadata",
                "/tensorflow.serving.ModelService/GetModelStatus",
                "/grpc.health.v1.Health/Check",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                "/ray.serve.RayServeAPIService/Healthz",
            ],
        ),
        (
            "",
            Purpose::Internal,
            &[
                "/ray.rpc.CoreWorkerService/PushTask",
                "/generate.v3.TextGenerationService/Decode",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            ],
        ),
        (
            "triton",
            Purpose::Inference,
            &[INFER, "/inference.GRPCInferenceService/ModelStreamInfer"],
        ),
        (
            "triton",
            Purpose::Admin,
            &[
                "/inference.GRPCInferenceService/ModelReady",
                "/my.own.Service/Run",
            ],
        ),
        ("torchserve", Purpose::Inference, &[PREDICT, INFER]),
        (
            "torchserve",
            Purpose::Admin,
            &["/my.own.Service/Run", "/grpc.health.v1.Health/Check"],
        ),
        (
            "ray-serve",
            Purpose::Inference,
            &["/userdefined.Service/Predict"],
        ),
        (
            "ray-serve",
            Purpose::Internal,
            &["/ray.rpc.CoreWorkerService/PushTask"],
        ),
        ("uvicorn", Purpose::Inference, &["/my.own.Service/Run"]),
    ] {
        for path in paths {
            let route = route(server, path);
            assert_eq!(route.purpose, purpose, "{server} {path}");
            let is_named = route.model.as_deref() == Some("m");
            assert_eq!(is_named, purpose == Purpose::Inference, "{server} {path}");
        }
    }
    let over_http = catalogue.route(None, asked("POST", "/ray.rpc.CoreWorkerService/PushTask"));
    assert_eq!(over_http.purpose, Purpose::Internal);
    // A path that looks like a call's and is none.
    assert_eq!(
        catalogue.route(None, asked("POST", "/v1.0/chat")).purpose,
        Purpose::Inference
    );
}

#[test]
fn what_comes_on_a_unix_socket_is_inner_where_the_entry_says_so() {
    let catalogue = catalogue();
    let question = RequestInfo {
        on_unix: true,
        ..asked("POST", "/encode")
    };
    for (server, purpose) in [
        ("bentoml", Purpose::Internal),
        ("uvicorn", Purpose::Inference),
        ("", Purpose::Inference),
    ] {
        let route = catalogue.route(entry(&catalogue, server), question);
        assert_eq!(route.purpose, purpose, "{server}");
    }
}

#[test]
fn a_users_entries_come_before_the_built_in_ones() {
    let catalogue = with_own(
        r#"
        [[server]]
        name = "shop"
        process = ['shop\.py', 'uvicorn shop:app']
        model_options = ["--ranker"]
        inference_by_body = ["POST /rank"]
        admin = ["* /warm-up"]
        inner = ["POST /gossip/**"]
        [[server]]
        name = "lit"
        like = "litserve"
        process = ['server\.py']
        "#,
    );
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
        ..asked("POST", "/rank")
    };
    assert_eq!(catalogue.route(shop, rank).model.as_deref(), Some("m"));
    for (target, purpose) in [
        ("/warm-up", Purpose::Admin),
        ("/gossip/a/b", Purpose::Internal),
        ("/other", Purpose::Inference),
        ("/health", Purpose::Admin),
    ] {
        let route = catalogue.route(shop, asked("POST", target));
        assert_eq!(route.purpose, purpose, "{target}");
    }
    let lit = entry(&catalogue, "lit");
    let shutdown = catalogue.route(lit, asked("POST", "/shutdown"));
    assert_eq!(shutdown.purpose, Purpose::Admin);
}

//! The catalogue's data, against command lines and paths of real servers.

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

fn asked<'a>(method: &'a str, target: &'a str) -> Question<'a> {
    Question {
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

#[test]
fn processes_of_servers_are_recognised() {
    use Role::{Inner, Server, Worker};

    let catalogue = catalogue();
    for (command, name, role, model) in [
        (
            "/usr/bin/java -Dmodel_server_home=/v/ts -cp .:/v/ts/frontend/* org.pytorch.serve.ModelServer --python /v/bin/python",
            "torchserve",
            Server,
            None,
        ),
        (
            "java org.pytorch.serve.ModelServer",
            "torchserve",
            Server,
            None,
        ),
        (
            "/v/bin/python3 /v/ts/model_service_worker.py --sock-type unix --sock-name /tmp/.ts.sock.9000",
            "torchserve",
            Worker,
            None,
        ),
        (
            "/opt/tritonserver/bin/tritonserver --model-repository=/m",
            "triton",
            Server,
            None,
        ),
        (
            "/usr/bin/python3 /usr/local/bin/vllm serve org/m",
            "vllm",
            Server,
            Some("org/m"),
        ),
        (
            "vllm serve --port=1 org/m --served-model-name tiny big",
            "vllm",
            Server,
            Some("tiny"),
        ),
        (
            "python -m vllm.entrypoints.openai.api_server --model m",
            "vllm",
            Server,
            Some("m"),
        ),
        (
            "python -m vllm.entrypoints.openai.api_server --served_model_name=n --model m",
            "vllm",
            Server,
            Some("n"),
        ),
        (
            "python3 -m sglang.launch_server --model-path org/m --port 30000",
            "sglang",
            Server,
            Some("org/m"),
        ),
        (
            "text-generation-router --port 80 --tokenizer-name org/m",
            "tgi",
            Server,
            Some("org/m"),
        ),
        (
            "text-generation-launcher --model-id org/m",
            "tgi",
            Server,
            Some("org/m"),
        ),
        (
            "/usr/local/bin/text-embeddings-router --model-id org/e",
            "tei",
            Server,
            Some("org/e"),
        ),
        ("/usr/local/bin/ollama serve", "ollama", Server, None),
        (
            "/usr/local/bin/ollama runner --ollama-engine --model /b/sha --port 41234",
            "ollama",
            Inner,
            None,
        ),
        (
            "/usr/bin/llama-server -m /m/q.gguf --port 8080",
            "llama-server",
            Server,
            Some("/m/q.gguf"),
        ),
        (
            "llama-server -m /m/q.gguf --alias q",
            "llama-server",
            Server,
            Some("q"),
        ),
        (
            "python3 -m llama_cpp.server --model m.gguf --model_alias q",
            "llama-cpp-python",
            Server,
            Some("q"),
        ),
        (
            "/usr/bin/tensorflow_model_server --rest_api_port=8501 --model_name=half --model_base_path=/m",
            "tf-serving",
            Server,
            Some("half"),
        ),
        (
            "python -m sklearnserver --model_name=iris --model_dir=/mnt",
            "kserve",
            Server,
            Some("iris"),
        ),
        (
            "python -m huggingfaceserver --model_name llm",
            "kserve",
            Server,
            Some("llm"),
        ),
        (
            "/v/bin/python /v/bin/mlserver start .",
            "mlserver",
            Server,
            None,
        ),
        (
            "/v/bin/python /v/bin/bentoml serve service:Summarizer",
            "bentoml",
            Server,
            Some("service:Summarizer"),
        ),
        (
            "/v/bin/python -m _bentoml_impl.worker.service service:S --fd 3 --service-name summarizer --worker-id 1",
            "bentoml",
            Server,
            Some("summarizer"),
        ),
        (
            "python -m bentoml_cli.worker.http_api_server svc --fd 3",
            "bentoml",
            Server,
            None,
        ),
        (
            "python -m bentoml_cli.worker.runner svc --fd 3",
            "bentoml",
            Inner,
            None,
        ),
        (
            "python /v/bin/litserve serve server.py",
            "litserve",
            Server,
            None,
        ),
        (
            "/venv/bin/python /venv/bin/uvicorn main:app",
            "uvicorn",
            Server,
            Some("main:app"),
        ),
        (
            "python3 -m uvicorn --host 127.0.0.1 --port 8000 a.b:make_app --factory",
            "uvicorn",
            Server,
            Some("a.b:make_app"),
        ),
        (
            "uvicorn --uds /run/x.sock main:app",
            "uvicorn",
            Server,
            Some("main:app"),
        ),
        (
            "python /venv/bin/fastapi run main.py",
            "uvicorn",
            Server,
            None,
        ),
        (
            "/usr/bin/python3 /usr/bin/gunicorn --workers 3 --bind unix:x.sock -m 007 wsgi:app",
            "gunicorn",
            Server,
            Some("wsgi:app"),
        ),
        (
            "gunicorn --bind 127.0.0.1:80 wsgi",
            "gunicorn",
            Server,
            None,
        ),
        (
            "python -m hypercorn --bind localhost:8000 main:app",
            "hypercorn",
            Server,
            Some("main:app"),
        ),
    ] {
        let expected = Some((name, role, model.map(str::to_owned)));
        assert_eq!(
            recognised(&catalogue, &line(command)),
            expected,
            "{command}"
        );
    }
    for (text, name, model) in [
        ("gunicorn: worker [main:app]", "gunicorn", Some("main:app")),
        ("gunicorn: master [main:app]", "gunicorn", Some("main:app")),
        ("gunicorn: master [wsgi]", "gunicorn", None),
        ("ray::ProxyActor", "ray-serve", None),
        ("ray::ProxyActor.ready()", "ray-serve", None),
        ("VLLM::APIServer_0", "vllm", None),
    ] {
        let expected = Some((name, Server, model.map(str::to_owned)));
        assert_eq!(recognised(&catalogue, &title(text)), expected, "{text}");
    }
}

#[test]
fn what_only_speaks_of_a_server_is_none() {
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

/// Whether requests are inference, and the model and version that their path names.
#[test]
fn inference_has_its_paths() {
    let catalogue = catalogue();
    for (server, targets) in [
        (
            "triton",
            &[
                "/v2/models/{m}/infer",
                "/v2/models/{m}/versions/{v}/infer",
                "/v2/models/{m}/generate",
                "/v2/models/{m}/generate_stream",
            ][..],
        ),
        (
            "mlserver",
            &[
                "/v2/models/{m}/infer",
                "/v2/models/{m}/versions/{v}/infer",
                "/v2/models/{m}/infer_stream",
                "/v2/models/{m}/generate",
                "/my-own",
            ],
        ),
        (
            "kserve",
            &[
                "/v1/models/{m}:predict",
                "/v1/models/{m}:explain",
                "/v2/models/{m}/infer",
                "/openai/v1/chat/completions",
                "/openai/v1/completions",
                "/openai/v1/embeddings",
                "/openai/v1/rerank",
            ],
        ),
        (
            "vllm",
            &[
                "/v1/completions",
                "/v1/chat/completions",
                "/v1/chat/completions/batch",
                "/v1/responses",
                "/v1/messages",
                "/v1/embeddings",
                "/pooling",
                "/score",
                "/rerank",
                "/classify",
                "/invocations",
                "/inference/v1/generate",
                "/generative_scoring",
                "/v1/audio/transcriptions",
            ],
        ),
        (
            "sglang",
            &[
                "/generate",
                "/v1/completions",
                "/v1/chat/completions",
                "/v1/embeddings",
                "/encode",
                "/classify",
                "/v1/rerank",
                "/v1/score",
                "/v1/responses",
            ],
        ),
        (
            "tgi",
            &[
                "/",
                "/generate",
                "/generate_stream",
                "/v1/chat/completions",
                "/v1/completions",
                "/invocations",
                "/vertex",
                "/v2/models/{m}/versions/{v}/infer",
            ],
        ),
        (
            "tei",
            &[
                "/",
                "/embed",
                "/embed_all",
                "/embed_sparse",
                "/predict",
                "/rerank",
                "/embeddings",
                "/v1/embeddings",
                "/invocations",
                "/vertex",
            ],
        ),
        (
            "ollama",
            &[
                "/api/generate",
                "/api/chat",
                "/api/embed",
                "/api/embeddings",
                "/v1/completions",
                "/v1/chat/completions",
                "/v1/embeddings",
                "/v1/responses",
                "/v1/messages",
                "/v1/images/generations",
                "/v1/audio/transcriptions",
            ],
        ),
        (
            "llama-server",
            &[
                "/completion",
                "/v1/completions",
                "/v1/chat/completions",
                "/v1/responses",
                "/v1/messages",
                "/embedding",
                "/v1/embeddings",
                "/v1/rerank",
                "/infill",
                "/v1/audio/transcriptions",
            ],
        ),
        (
            "llama-cpp-python",
            &[
                "/v1/completions",
                "/v1/chat/completions",
                "/v1/embeddings",
                "/v1/engines/copilot-codex/completions",
            ],
        ),
        (
            "tf-serving",
            &[
                "/v1/models/{m}:predict",
                "/v1/models/{m}:classify",
                "/v1/models/{m}:regress",
                "/v1/models/{m}/versions/{v}:predict",
                "/v1/models/{m}/labels/{v}:regress",
            ],
        ),
        (
            "torchserve",
            &[
                "/predictions/{m}",
                "/predictions/{m}/{v}",
                "/explanations/{m}",
                "/invocations?x=1&model_name={m}",
                "/models/{m}/invoke",
                "/v1/models/{m}:predict",
                "/v2/models/{m}/infer",
                "/{m}/predict",
                "/{m}/{v}/predict",
            ],
        ),
        (
            "ray-serve",
            &["/{m}", "/{m}/x/y", "/", "/v1/chat/completions"],
        ),
        ("bentoml", &["/summarize", "/summarize/submit"]),
        (
            "litserve",
            &["/predict", "/v1/chat/completions", "/v1/embeddings", "/own"],
        ),
        (
            "uvicorn",
            &[
                "/",
                "/infer",
                "/generate",
                "/v1/chat/completions",
                "/predictions/{m}/{v}",
                "/invocations",
            ],
        ),
        ("gunicorn", &["/", "/score"]),
        ("hypercorn", &["/", "/v2/models/{m}/infer"]),
        (
            "",
            &[
                "/",
                "/predict",
                "/v1/completions",
                "/predictions/{m}",
                "/models/{m}/invoke",
                "/invocations",
                "/invocations?model_name={m}",
                "http://h:1/v2/models/{m}/generate_stream",
            ],
        ),
    ] {
        for target in targets {
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
            &[
                "GET /v2",
                "GET /v2/health/live",
                "GET /v2/models/m",
                "GET /v2/models/m/versions/1",
                "GET /v2/models/m/ready",
                "POST /v2/models/m/trace/setting",
                "GET /v2/models/stats",
                "POST /v2/repository/index",
                "POST /v2/repository/models/m/load",
                "POST /v2/logging",
                "POST /v2/systemsharedmemory/region/x/register",
                "GET /metrics",
            ][..],
        ),
        (
            "mlserver",
            &[
                "GET /v2",
                "GET /v2/health/ready",
                "GET /v2/models/m",
                "GET /v2/models/m/ready",
                "GET /v2/docs",
                "GET /v2/models/m/docs",
                "POST /v2/repository/index",
                "GET /metrics",
            ],
        ),
        (
            "kserve",
            &[
                "GET /",
                "GET /v2",
                "GET /v2/health/live",
                "GET /v1/models",
                "GET /v1/models/m",
                "GET /v2/models/m/ready",
                "POST /v2/repository/models/m/load",
                "GET /openai/v1/models",
                "GET /metrics",
            ],
        ),
        (
            "vllm",
            &[
                "GET /health",
                "GET /ping",
                "POST /ping",
                "GET /metrics",
                "GET /version",
                "GET /load",
                "GET /v1/models",
                "POST /tokenize",
                "POST /detokenize",
                "POST /v1/messages/count_tokens",
                "POST /v1/completions/render",
                "POST /v1/chat/completions/derender",
                "GET /v1/responses/r1",
                "POST /v1/responses/r1/cancel",
                "POST /scale_elastic_ep",
                "POST /inference/v1/abort_requests",
                "GET /docs",
                "POST /v1/load_lora_adapter",
            ],
        ),
        (
            "sglang",
            &[
                "GET /health",
                "GET /health_generate",
                "GET /model_info",
                "GET /get_model_info",
                "GET /get_server_info",
                "GET /metrics",
                "POST /flush_cache",
                "GET /v1/models",
                "POST /update_weights_from_disk",
            ],
        ),
        (
            "tgi",
            &[
                "GET /",
                "GET /health",
                "GET /ping",
                "GET /info",
                "GET /metrics",
                "GET /v1/models",
                "POST /tokenize",
                "POST /chat_tokenize",
                "GET /docs",
            ],
        ),
        (
            "tei",
            &[
                "GET /",
                "GET /health",
                "GET /info",
                "POST /tokenize",
                "POST /decode",
            ],
        ),
        (
            "ollama",
            &[
                "HEAD /",
                "GET /",
                "GET /api/version",
                "GET /api/tags",
                "GET /api/ps",
                "POST /api/show",
                "POST /api/pull",
                "POST /api/push",
                "POST /api/create",
                "POST /api/copy",
                "POST /api/me",
                "POST /api/blobs/sha256:x",
                "DELETE /api/delete",
                "GET /v1/models",
            ],
        ),
        (
            "llama-server",
            &[
                "GET /health",
                "GET /v1/health",
                "GET /metrics",
                "GET /props",
                "POST /props",
                "GET /slots",
                "GET /v1/models",
                "GET /models",
                "POST /tokenize",
                "POST /detokenize",
                "POST /apply-template",
                "POST /v1/responses/input_tokens",
                "POST /v1/messages/count_tokens",
                "POST /lora-adapters",
            ],
        ),
        (
            "llama-cpp-python",
            &[
                "GET /v1/models",
                "POST /extras/tokenize",
                "POST /extras/tokenize/count",
                "POST /extras/detokenize",
            ],
        ),
        (
            "tf-serving",
            &[
                "GET /v1/models/m",
                "GET /v1/models/m/versions/1",
                "GET /v1/models/m/metadata",
                "GET /monitoring/prometheus/metrics",
            ],
        ),
        (
            "torchserve",
            &[
                "GET /ping",
                "OPTIONS /",
                "OPTIONS /predictions/m",
                "GET /predictions",
                "POST /models?url=x",
                "PUT /models/m",
                "DELETE /models/m",
                "GET /metrics",
                "POST /v1/models/m:unload",
                "POST /invocations",
            ],
        ),
        (
            "ray-serve",
            &[
                "GET /-/routes",
                "GET /-/healthz",
                "GET /app/docs",
                "GET /v1/models",
            ],
        ),
        (
            "bentoml",
            &[
                "GET /healthz",
                "GET /livez",
                "GET /readyz",
                "GET /metrics",
                "GET /docs.json",
                "GET /schema.json",
                "GET /",
                "GET /summarize/status",
            ],
        ),
        (
            "litserve",
            &[
                "GET /",
                "GET /health",
                "GET /info",
                "GET /docs",
                "GET /openapi.json",
                "POST /shutdown",
            ],
        ),
        (
            "uvicorn",
            &[
                "GET /docs",
                "GET /openapi.json",
                "GET /healthz",
                "HEAD /",
                "OPTIONS /infer",
                "POST /ping",
            ],
        ),
        (
            "",
            &[
                "GET /health",
                "GET /v2/health/ready",
                "GET /metrics?name[]=x",
                "GET /v1/models",
                "GET /v1/models/m",
                "GET /v2/models/m",
                "GET /v2/models/m/versions/1/ready",
                "POST /v2/repository/index",
                "POST /v2/repository/models/m/load",
                "POST /v1/models/m:unload",
                "HEAD /",
                "OPTIONS /predictions/m",
                "TRACE /predictions/m",
                "POST /tokenize",
            ],
        ),
    ] {
        for request in requests {
            let (method, target) = request.split_once(' ').unwrap();
            let route = catalogue.route(entry(&catalogue, server), asked(method, target));
            assert_eq!(route, Route::of(Purpose::Admin), "{server} {request}");
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
        let question = Question {
            named: Some(&body),
            ..asked("POST", target)
        };
        let route = catalogue.route(entry(&catalogue, server), question);
        assert_eq!(route.model.as_deref(), expected, "{server} {target}");
        let question = Question {
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
        let question = Question {
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
            Purpose::Inner,
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
            Purpose::Inner,
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
    assert_eq!(over_http.purpose, Purpose::Inner);
    // A path that looks like a call's and is none.
    assert_eq!(
        catalogue.route(None, asked("POST", "/v1.0/chat")).purpose,
        Purpose::Inference
    );
}

#[test]
fn what_comes_on_a_unix_socket_is_inner_where_the_entry_says_so() {
    let catalogue = catalogue();
    let question = Question {
        on_unix: true,
        ..asked("POST", "/encode")
    };
    for (server, purpose) in [
        ("bentoml", Purpose::Inner),
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
    let rank = Question {
        named: Some(&body),
        ..asked("POST", "/rank")
    };
    assert_eq!(catalogue.route(shop, rank).model.as_deref(), Some("m"));
    for (target, purpose) in [
        ("/warm-up", Purpose::Admin),
        ("/gossip/a/b", Purpose::Inner),
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

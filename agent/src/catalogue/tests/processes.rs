//! Command lines of real servers, and of what only speaks of them.

use super::*;

#[test]
fn processes_of_servers_are_recognised() {
    use Role::{Internal, Server, Worker};

    let catalogue = catalogue();
    for row in [
        "/usr/bin/java -Dmodel_server_home=/v/ts -cp .:/v/ts/frontend/* org.pytorch.serve.ModelServer \
             --python /v/bin/python -> torchserve",
        "java org.pytorch.serve.ModelServer -> torchserve",
        "/v/bin/python3 /v/ts/model_service_worker.py --sock-type unix --sock-name /tmp/.ts.sock.9000 -> \
             torchserve Worker",
        "/opt/tritonserver/bin/tritonserver --model-repository=/m -> triton",
        "/usr/bin/python3 /usr/local/bin/vllm serve org/m -> vllm of org/m",
        "vllm serve --port=1 org/m --served-model-name tiny big -> vllm of tiny",
        "python -m vllm.entrypoints.openai.api_server --model m -> vllm of m",
        "python -m vllm.entrypoints.openai.api_server --served_model_name=n --model m -> vllm of n",
        "python3 -m sglang.launch_server --model-path org/m --port 30000 -> sglang of org/m",
        "text-generation-router --port 80 --tokenizer-name org/m -> tgi of org/m",
        "text-generation-launcher --model-id org/m -> tgi of org/m",
        "/usr/local/bin/text-embeddings-router --model-id org/e -> tei of org/e",
        "/usr/local/bin/ollama serve -> ollama",
        "/usr/local/bin/ollama runner --ollama-engine --model /b/sha --port 41234 -> ollama Internal",
        "/usr/bin/llama-server -m /m/q.gguf --port 8080 -> llama-server of /m/q.gguf",
        "llama-server -m /m/q.gguf --alias q -> llama-server of q",
        "python3 -m llama_cpp.server --model m.gguf --model_alias q -> llama-cpp-python of q",
        "/usr/bin/tensorflow_model_server --rest_api_port=8501 --model_name=half --model_base_path=/m -> \
             tf-serving of half",
        "python -m sklearnserver --model_name=iris --model_dir=/mnt -> kserve of iris",
        "python -m huggingfaceserver --model_name llm -> kserve of llm",
        "/v/bin/python /v/bin/mlserver start . -> mlserver",
        "/v/bin/python /v/bin/bentoml serve service:Summarizer -> bentoml of service:Summarizer",
        "/v/bin/python -m _bentoml_impl.worker.service service:S --fd 3 --service-name summarizer \
             --worker-id 1 -> bentoml of summarizer",
        "python -m bentoml_cli.worker.http_api_server svc --fd 3 -> bentoml",
        "python -m bentoml_cli.worker.runner svc --fd 3 -> bentoml Internal",
        "python /v/bin/litserve serve server.py -> litserve",
        "/venv/bin/python /venv/bin/uvicorn main:app -> uvicorn of main:app",
        "python3 -m uvicorn --host 127.0.0.1 --port 8000 a.b:make_app --factory -> uvicorn of a.b:make_app",
        "uvicorn --uds /run/x.sock main:app -> uvicorn of main:app",
        "python /venv/bin/fastapi run main.py -> uvicorn",
        "/usr/bin/python3 /usr/bin/gunicorn --workers 3 --bind unix:x.sock -m 007 wsgi:app -> gunicorn of \
             wsgi:app",
        "gunicorn --bind 127.0.0.1:80 wsgi -> gunicorn",
        "python -m hypercorn --bind localhost:8000 main:app -> hypercorn of main:app",
    ] {
        let (command, found) = row.split_once(" -> ").unwrap();
        let (server, model) = match found.split_once(" of ") {
            Some((server, model)) => (server, Some(model.to_owned())),
            None => (found, None),
        };
        let (name, role) = match server.split_once(' ') {
            Some((name, "Worker")) => (name, Worker),
            Some((name, _)) => (name, Internal),
            None => (server, Server),
        };
        let expected = Some((name, role, model));
        let line = line(command);
        assert_eq!(recognised(&catalogue, &line), expected, "{row}");
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

//! Servers that are recognised by themselves, from the command line of their process.

/// A server that needs no configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownServer {
    /// TorchServe's frontend: the Java process that takes the requests.
    TorchServe,
    /// One of TorchServe's workers: the Python process that runs a model's handler.
    TorchServeWorker,
}

impl KnownServer {
    /// The server's name in the `server` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TorchServe | Self::TorchServeWorker => "torchserve",
        }
    }

    /// Whether all its inference has paths of its own, and everything else is about the server itself.
    pub const fn predicts_only_by_path(self) -> bool {
        match self {
            Self::TorchServe | Self::TorchServeWorker => true,
        }
    }
}

/// Recognises a server by its command line (arguments joined by spaces).
///
/// TorchServe's launcher starts `java ... org.pytorch.serve.ModelServer ...` (ts/model_server.py of 0.12.0), and that
/// starts `python .../ts/model_service_worker.py --sock-type ...` (ts/model_service_worker.py).
pub fn recognise(command_line: &str) -> Option<KnownServer> {
    let mut arguments = command_line.split(' ');
    let program = arguments.next()?.rsplit('/').next()?;
    if program == "java" && arguments.any(|argument| argument == "org.pytorch.serve.ModelServer") {
        return Some(KnownServer::TorchServe);
    }
    (program.starts_with("python") && command_line.contains(WORKER_SCRIPT))
        .then_some(KnownServer::TorchServeWorker)
}

/// Script of TorchServe's workers, and the first of its arguments.
const WORKER_SCRIPT: &str = "/ts/model_service_worker.py --sock-type ";

/// Words of a command line that tell of an inference server which needs a watch of its own, and the server's name.
const UNWATCHED: [(&str, &str); 13] = [
    ("vllm", "vLLM"),
    ("sglang", "SGLang"),
    ("tritonserver", "Triton"),
    ("text-generation-launcher", "TGI"),
    ("text-embeddings-router", "TEI"),
    ("ollama", "Ollama"),
    ("llama-server", "llama-server"),
    ("tensorflow_model_server", "TF Serving"),
    ("mlserver", "MLServer"),
    ("bentoml", "BentoML"),
    ("uvicorn", "uvicorn"),
    ("gunicorn", "gunicorn"),
    ("hypercorn", "hypercorn"),
];

/// Name of an inference server that is not watched unless it is asked for, by the program or script that it runs.
pub fn name_of_unwatched(command_line: &str) -> Option<&'static str> {
    let mut words = command_line
        .split(' ')
        .map(|word| word.rsplit('/').next().unwrap_or_default());
    let program = words.next()?;
    // An interpreter's script, or module behind -m, says more than the interpreter.
    let script = match program.starts_with("python") {
        true => words
            .find(|word| !word.starts_with('-'))
            .unwrap_or_default(),
        false => program,
    };
    let module = script.split('.').next().unwrap_or_default();
    UNWATCHED
        .iter()
        .find(|(word, _)| *word == module)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_are_told_by_their_program_or_script() {
        for (line, name) in [
            (
                "/usr/bin/python3 /usr/local/bin/uvicorn main:app",
                Some("uvicorn"),
            ),
            (
                "python3 -m vllm.entrypoints.openai.api_server --model m",
                Some("vLLM"),
            ),
            (
                "/opt/tritonserver/bin/tritonserver --model-repository=/m",
                Some("Triton"),
            ),
            ("/usr/bin/ollama serve", Some("Ollama")),
            ("vi /home/x/uvicorn.py", None),
            ("python3 app.py uvicorn", None),
            ("", None),
        ] {
            assert_eq!(name_of_unwatched(line), name, "{line}");
        }
    }

    #[test]
    fn torchserve_is_its_frontend_and_its_workers() {
        let frontend = "/usr/bin/java -Dmodel_server_home=/v/ts -cp .:/v/ts/frontend/* org.pytorch.serve.ModelServer --python /v/bin/python";
        assert_eq!(recognise(frontend), Some(KnownServer::TorchServe));
        let worker = "/v/bin/python3 /v/ts/model_service_worker.py --sock-type unix --sock-name /tmp/.ts.sock.9000";
        assert_eq!(recognise(worker), Some(KnownServer::TorchServeWorker));
        for other in [
            "vi /v/ts/model_service_worker.py --sock-type unix",
            "grep org.pytorch.serve.ModelServer",
            "java -jar app.jar",
            "",
        ] {
            assert_eq!(recognise(other), None, "{other}");
        }
    }
}

//! Servers that are recognised by themselves, from the command line of their process.

/// A server that needs no configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownServer {
    /// TorchServe's frontend: the Java process that takes the requests.
    TorchServe,
}

impl KnownServer {
    /// The server's name in the `server` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TorchServe => "torchserve",
        }
    }

    /// Whether all its inference has paths of its own, and everything else is about the server itself.
    pub const fn predicts_only_by_path(self) -> bool {
        match self {
            Self::TorchServe => true,
        }
    }
}

/// Recognises a server by its command line (arguments joined by spaces).
///
/// TorchServe's launcher starts `java ... org.pytorch.serve.ModelServer ...` (ts/model_server.py of 0.12.0).
pub fn recognise(command_line: &str) -> Option<KnownServer> {
    let mut arguments = command_line.split(' ');
    let program = arguments.next()?.rsplit('/').next()?;
    (program == "java" && arguments.any(|argument| argument == "org.pytorch.serve.ModelServer"))
        .then_some(KnownServer::TorchServe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchserve_is_its_java_process_alone() {
        let frontend = "/usr/bin/java -Dmodel_server_home=/v/ts -cp .:/v/ts/frontend/* org.pytorch.serve.ModelServer --python /v/bin/python";
        assert_eq!(recognise(frontend), Some(KnownServer::TorchServe));
        for other in [
            "/v/bin/python3 /v/ts/model_service_worker.py --sock-type unix",
            "grep org.pytorch.serve.ModelServer",
            "java -jar app.jar",
            "",
        ] {
            assert_eq!(recognise(other), None, "{other}");
        }
    }
}

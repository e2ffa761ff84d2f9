//! Tells an inference server from another process by the files that it has mapped: a library that runs models, and one
//! that serves requests, or the file of a model.
//!
//! Scripts such as `python app.py` are found so. What is mapped says nothing about the requests: the default rules do.
//! Does not depend on: command lines, which processes are watched.

use std::{fs, io::Read as _};

/// Most bytes that are read of a process's list of mapped files.
const MAPS_CAP: u64 = 8 << 20;
/// Libraries that run models, by a part of the path of their file.
const RUNTIMES: [(&str, &str); 15] = [
    ("/libtorch_cpu.so", "torch"),
    ("/libtorch.so", "torch"),
    ("/libonnxruntime.so", "onnxruntime"),
    ("/onnxruntime_pybind11_state", "onnxruntime"),
    ("/libtensorflow_framework.so", "tensorflow"),
    ("/libtensorflow_cc.so", "tensorflow"),
    ("/libtensorflowlite", "tflite"),
    ("/libllama.so", "llama.cpp"),
    ("/libnvinfer.so", "tensorrt"),
    ("/libopenvino.so", "openvino"),
    ("/libctranslate2", "ctranslate2"),
    ("/libpaddle", "paddle"),
    ("/jaxlib/", "jax"),
    ("/libxgboost.so", "xgboost"),
    ("/lib_lightgbm.so", "lightgbm"),
];
/// Libraries that receive requests, and that no client has.
const SERVERS: [(&str, &str); 4] = [
    ("/httptools/parser/", "httptools"),
    ("/uvloop/loop.", "uvloop"),
    ("/granian/_granian.", "granian"),
    ("/robyn/robyn.", "robyn"),
];
/// Files of models that stay mapped while they are used.
const MODELS: [&str; 3] = [".gguf", ".ggml", ".llamafile"];
/// Libraries of processes that have the others too, but are no servers: workers of Ray, and notebooks.
const OTHERS: [&str; 2] = ["/ray/_raylet.", "/zmq/backend/cython/_zmq."];

/// Returns which mapped files show that a process is an inference server, in words; `None` if none do.
pub(super) fn of_process(pid: u32) -> Option<String> {
    let mut text = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/maps")).ok()?;
    file.take(MAPS_CAP).read_to_end(&mut text).ok()?;
    signs(&String::from_utf8_lossy(&text))
}

/// Returns the signs in a list of mapped files.
fn signs(maps: &str) -> Option<String> {
    let files = || {
        maps.lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]))
    };
    let find = |known: &[(&str, &'static str)]| {
        let of_file = |file: &str| known.iter().find(|(part, _)| file.contains(part));
        files().find_map(|file| of_file(file).map(|(_, name)| *name))
    };
    if files().any(|file| OTHERS.iter().any(|other| file.contains(other))) {
        return None;
    }
    let model = files().find(|file| MODELS.iter().any(|end| file.ends_with(end)));
    if let Some(model) = model {
        let name = model.rsplit('/').next().unwrap_or_default();
        return Some(format!("the model file {name}"));
    }
    Some(format!("{} and {}", find(&RUNTIMES)?, find(&SERVERS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(files: &[&str]) -> String {
        let line = |file: &&str| format!("7f00-7f01 r--p 00000000 08:01 12  {file}\n");
        let files: String = files.iter().map(line).collect();
        format!("7ffe-7fff rw-p 00000000 00:00 0 [stack]\n{files}")
    }

    #[test]
    fn a_runtime_and_a_server_are_an_inference_server() {
        let torch = "/v/site-packages/torch/lib/libtorch_cpu.so";
        let uvloop = "/v/site-packages/uvloop/loop.cpython-311-x86_64-linux-gnu.so";
        let raylet = "/v/site-packages/ray/_raylet.so";
        let zmq = "/v/site-packages/zmq/backend/cython/_zmq.cpython-311.so";
        for (files, expected) in [
            (&[torch, uvloop][..], Some("torch and uvloop")),
            (&[torch], None),
            (&[uvloop], None),
            (&[torch, uvloop, raylet], None),
            (&[torch, uvloop, zmq], None),
            (&["/models/q.gguf"], Some("the model file q.gguf")),
            (&["/models/q.gguf", zmq], None),
            (&["/models/q.gguf.txt"], None),
            (&["/lib/libc.so.6"], None),
            (&[], None),
        ] {
            assert_eq!(signs(&maps(files)).as_deref(), expected, "{files:?}");
        }
    }

    #[test]
    fn this_process_is_none() {
        assert_eq!(of_process(std::process::id()), None);
        assert_eq!(of_process(u32::MAX), None);
    }
}

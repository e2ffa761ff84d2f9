//! Starts a vLLM on CPUs, and reads its own counters.

use std::{
    env,
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use inferprobe_tests::{
    agent::free_port, client, clock::wait_for, process::Owned, server_counters::Counters,
};

/// Names the folder with vLLM and its models.
const FOLDER: &str = "INFERPROBE_VLLM_DIR";
/// Longest time until it serves.
const START_LIMIT: Duration = Duration::from_secs(500);
/// Longest time until its process has ended after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running vLLM with a model `tiny` and the adapters `terse` and `polite`.
pub(crate) struct Vllm {
    /// Its port.
    pub(crate) port: u16,
    process: Owned,
}

impl Vllm {
    /// Starts it, and waits until it serves.
    pub(crate) fn start() -> Self {
        let folder = env::var_os(FOLDER).expect("INFERPROBE_VLLM_DIR names the folder of vLLM");
        let folder = PathBuf::from(folder);
        let port = free_port();
        let log = File::create(folder.join("vllm.log")).unwrap();
        let process = Command::new(folder.join("venv/bin/vllm"))
            .current_dir(&folder)
            .args(["serve", "./tiny", "--served-model-name", "tiny"])
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args([
                "--enforce-eager",
                "--max-model-len",
                "1024",
                "--max-num-seqs",
                "8",
            ])
            .args(["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"])
            .args(["--lora-modules", "terse=./terse", "polite=./polite"])
            .env("HF_HUB_OFFLINE", "1")
            .env("VLLM_NO_USAGE_STATS", "1")
            .env("VLLM_CPU_KVCACHE_SPACE", "1")
            .env("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut vllm = Self {
            port,
            process: Owned(process),
        };
        wait_for("vLLM that serves", START_LIMIT, || {
            let ended = vllm.process.wait(Duration::ZERO);
            assert!(
                ended.is_none(),
                "{ended:?}; see vllm.log in {}",
                folder.display()
            );
            matches!(client::get(port, "/health"), Ok((200, _))).then_some(())
        });
        vllm
    }

    /// Reads its counters.
    pub(crate) fn counters(&self) -> Counters {
        Counters::read(self.port)
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        // Its children end with it, but not if it is killed.
        let _ = self.process.terminate(STOP_LIMIT);
    }
}

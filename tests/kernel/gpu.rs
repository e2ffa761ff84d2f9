//! Joins requests of a real server with the processes of a stand-in for NVML: who used the GPU's energy.

use std::{path::Path, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    exposition::Exposition,
    nvml::Nvml,
    require_kernel::require_kernel,
    server::Server,
};

const LIMIT: Duration = Duration::from_secs(30);
const TOTAL: &str = "inferprobe_gpu_energy_joules_total";
const PARTS: &str = "inferprobe_gpu_energy_attributed_joules_total";

fn energy(page: &Exposition, to: &str) -> f64 {
    page.sum(PARTS, &[("device", "0"), ("to", to)])
}

#[test]
fn energy_goes_to_the_model_whose_requests_a_process_serves() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let nvml = Nvml::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let server = Server::start(&[]);
    let (pid, port) = (server.pid(), server.port().to_string());
    nvml.control("device 0 energy 0\ndevice 0 busy 60\n");
    let library = nvml.library();
    let library = library.to_str().unwrap();
    let agent = Agent::start(&["--watch-port", &port, "--nvml-library", library]);
    agent.wait_sum("inferprobe_gpu_power_watts", &[("device", "0")], 1.0);
    let mut client = Connection::open(&server.place).unwrap();
    let mut ask = || {
        let bytes = request("POST", "/predictions/m?handler_us=50000", &[], b"{}");
        assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
    };
    let mut joules = 0;
    // The server uses three times as much of the GPU as the other process, which has an id that none can have.
    wait_for("energy of a model", LIMIT, || {
        joules += 100;
        nvml.control(&format!(
            "device 0 energy {}\ndevice 0 busy 80\ndevice 0 process {pid} 60 5 1048576\n\
             device 0 process 4194305 20 5 1048576\n",
            joules * 1_000
        ));
        ask();
        let page = agent.metrics();
        (energy(&page, "model") > 100.0).then_some(())
    });
    let page = agent.metrics();
    let parts = page.sum(PARTS, &[("device", "0")]);
    let total = page.sum(TOTAL, &[("device", "0")]);
    assert!((parts - total).abs() < 1e-6, "{parts} J are not {total} J");
    let row = [("device", "0"), ("pid", &*pid.to_string())];
    let served = page
        .samples("inferprobe_requests_total", &[])
        .next()
        .unwrap();
    for name in ["server", "model"] {
        let used = page.samples("inferprobe_gpu_process_sm_ratio", &row).next();
        assert_eq!(used.unwrap().label(name), served.label(name), "{name}");
        let mut shares = page.samples(PARTS, &[("to", "model")]);
        assert!(
            shares.all(|share| share.label(name) == served.label(name)),
            "{name}"
        );
    }
    let stranger = [("pid", "4194305")];
    let stranger = page
        .samples("inferprobe_gpu_process_sm_ratio", &stranger)
        .next();
    assert_eq!(stranger.unwrap().label("server"), Some(""));
    let labels = [("server", served.label("server").unwrap())];
    wait_for("CPU time of the server", LIMIT, || {
        ask();
        let cpu_s = agent
            .metrics()
            .sum("inferprobe_server_cpu_seconds_total", &labels);
        (cpu_s > 0.0).then_some(())
    });
    agent.stop();
}

//! Every expression of the Grafana dashboards and of the rules returns series from a real Prometheus that scrapes a real
//! agent under load. The GPU of this test is the stand-in for NVML of `tests/nvml-stub`.

use std::{fs, path::Path, time::Duration, time::Instant};

use inferprobe_tests::{
    agent::Agent, nvml::Nvml, report::row, require_kernel::require_kernel, server::Server,
    torchserve, torchserve::TorchServe,
};
use serde_json::Value;

use crate::{
    load, rules,
    server::{Prometheus, program},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Families that not every host has, and what they need.
const NOT_EVERYWHERE: [(&str, &str); 1] = [(
    "inferprobe_server_throttled_seconds_total",
    "a cgroup with a CPU limit",
)];

/// An expression, and where it is from.
struct Expression {
    from: String,
    expr: String,
}

/// Returns every query of every panel, and the selectors of every variable.
fn of_dashboards() -> Vec<Expression> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana");
    let mut expressions = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let title = board["title"].as_str().unwrap();
        let mut add = |what: &Value, expr: &str| {
            expressions.push(Expression {
                from: format!("{title}: {}", what.as_str().unwrap()),
                expr: filled(expr),
            });
        };
        for panel in board["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().into_iter().flatten();
            for target in targets {
                add(&panel["title"], target["expr"].as_str().unwrap());
            }
        }
        for variable in board["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else {
                continue;
            };
            let values = query.strip_prefix("label_values(").unwrap();
            add(&variable["name"], values.rsplit_once(", ").unwrap().0);
        }
    }
    expressions
}

/// Replaces Grafana's variables by what they are if the user chooses nothing.
fn filled(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "10s");
    let chosen = ["$instance", "$server", "$model", "$namespace", "$pod"];
    let expr = chosen
        .iter()
        .fold(expr, |expr, name| expr.replace(name, ".*"));
    assert!(!expr.contains('$'), "{expr}");
    expr
}

/// Returns every expression of the rules, and every series that one records. Those of alerts return a series also if
/// nothing is wrong: their comparisons become values.
fn of_rules() -> Vec<Expression> {
    let mut expressions = Vec::new();
    for rule in rules::all() {
        let mut expr = rule.expr;
        if rule.is_alert {
            for operator in ["==", ">=", ">", "<"] {
                expr = expr.replace(&format!("{operator} "), &format!("{operator} bool "));
            }
            assert!(expr.contains("bool"), "{expr}");
        } else {
            expressions.push(Expression {
                from: format!("record {}", rule.name),
                expr: rule.name.clone(),
            });
        }
        let from = format!("rule {}", rule.name);
        expressions.push(Expression { from, expr });
    }
    expressions
}

#[test]
fn every_expression_of_dashboards_and_rules_returns_series() {
    let (Some(program), Some(installed)) = (program("prometheus"), torchserve::installed()) else {
        return;
    };
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let torchserve = TorchServe::start(&installed, &[]);
    let server = Server::start(&["--read-sleep-ms", "1"]);
    let chats = load::serve_chats();
    let nvml = Nvml::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let control = |round: usize| {
        nvml.control(&format!(
            "device 0 energy {0}000\ndevice 0 busy 80\ndevice 1 lacks energy\ndevice 0 violation 0 {0}000000\n\
             device 0 process {1} 60 5 1048576\n",
            100 * round,
            server.pid(),
        ));
    };
    control(0);
    let (port, chats_port) = (server.port().to_string(), chats.to_string());
    let library = nvml.library();
    let agent = Agent::start(&[
        "--watch-port",
        &port,
        "--watch-port",
        &chats_port,
        "--nvml-library",
        library.to_str().unwrap(),
    ]);
    let jobs = [("inferprobe", agent.port)];
    let prometheus = Prometheus::start_with_rules(&program, &jobs, &[rules::file()]);

    let mut pending = of_dashboards();
    pending.extend(of_rules());
    let all = pending.len();
    let start = Instant::now();
    let mut round = 0;
    let is_here = |family: &str| {
        let page = agent.get("/metrics").1;
        page.lines().any(|line| line.starts_with(family))
    };
    let lacking = |one: &Expression| {
        let of_it = |(family, _): &&(&str, &str)| one.expr.contains(family);
        let found = NOT_EVERYWHERE.iter().find(of_it);
        found.filter(|(family, _)| !is_here(family))
    };
    while pending.iter().any(|one| lacking(one).is_none()) && start.elapsed() < LIMIT {
        round += 1;
        control(round);
        load::round(torchserve.ports, &server, chats, round);
        let returns_series = |one: &Expression| {
            let values = prometheus.values(&one.expr);
            values.iter().any(|value| value.is_finite())
        };
        pending.retain(|one| !returns_series(one));
    }
    let mut skipped = 0;
    pending.retain(|one| {
        let Some((family, needs)) = lacking(one) else {
            return true;
        };
        row(&one.from, family, "not on this host", "no series", needs);
        skipped += 1;
        false
    });
    let missing: Vec<String> = pending
        .iter()
        .map(|one| format!("{}\n    {}", one.from, one.expr))
        .collect();
    assert!(
        missing.is_empty(),
        "no series after {LIMIT:?}:\n{}\n{}",
        missing.join("\n"),
        agent.errors()
    );
    let rules = prometheus.ask("/api/v1/rules");
    let groups = rules["data"]["groups"].as_array().unwrap().iter();
    for rule in groups.flat_map(|group| group["rules"].as_array().unwrap()) {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    row(
        "dashboards and rules, GPUs by the stand-in for NVML",
        "expressions that return series",
        &all.to_string(),
        &(all - skipped).to_string(),
        "all but those of families that this host lacks",
    );
    agent.stop();
    torchserve.stop();
}

//! Tests the doctor from facts to findings, table and JSON.

use super::*;
use crate::{
    bpf::{
        attach_mode::ProgramType,
        capabilities::{Capabilities, Capability},
        hook_id::HookId,
        preemption::{Model, Preemption},
        report::{HookReport, RefusalKind, Refused},
        user_namespace::UserNamespace,
    },
    doctor::{
        facts::{
            Facts,
            filesystems::{Cgroups, Tracefs},
            gpus::{Gpus, Nvml},
            host::{Host, RingBuffer},
            pods::{LogFolder, Pods},
            probing::{Probing, SelfTest},
            processes::PidNamespace,
            security::{Jit, Lockdown, Unprivileged},
            tls::{LibraryTls, PlaceTls, ServerTls},
        },
        finding::Severity,
        report::{Outcome, Report},
    },
};

const ALL: u64 = 0x1ff_ffff_ffff;

/// A host on which everything is measured.
fn sound() -> Facts {
    Facts {
        attach_mode: None,
        host: Host {
            kernel: "6.18.15-cloud-amd64".into(),
            architecture: "x86_64".into(),
            btf_bytes: Some(5_010_000),
            jit: Some(Jit::On),
            ring_buffer: RingBuffer::Usable,
            lockdown: Some(Lockdown::None),
            security_modules: Some(vec!["capability".into(), "bpf".into()]),
            unprivileged_bpf: Some(Unprivileged::Forbidden),
            user_id: 0,
            capabilities: Capabilities::from_mask(ALL),
            user_namespace: UserNamespace::Host,
            pid_namespace: PidNamespace::Host,
            hidepid: None,
            cgroups: Cgroups::V2,
            tracefs: Tracefs::Usable,
            preemption: Preemption {
                model: Model::Voluntary,
                is_dynamic: false,
                in_tracepoints: false,
            },
        },
        pods: Pods::default(),
        gpus: Gpus {
            present: false,
            expected: false,
            nvml: Nvml::Unusable {
                reason: "no library".into(),
            },
        },
        probing: Probing {
            refusal: None,
            hooks: vec![HookReport {
                hook: HookId::Readable,
                program_type: Some(ProgramType::TpBtf),
                refused: Vec::new(),
            }],
            self_test: SelfTest::Passed,
        },
        tls: Vec::new(),
    }
}

fn without(capabilities: &[Capability]) -> Capabilities {
    let mask = |one: &Capability| 1 << one.number();
    let lacked: u64 = capabilities.iter().map(mask).sum();
    Capabilities::from_mask(ALL & !lacked)
}

fn refused(reason: &str) -> Probing {
    Probing {
        refusal: Some(reason.into()),
        hooks: Vec::new(),
        self_test: SelfTest::NotRun,
    }
}

/// Returns the report on a sound host that `change` changes.
fn report(change: impl FnOnce(&mut Facts)) -> Report {
    let mut facts = sound();
    change(&mut facts);
    Report::conclude(facts)
}

fn assert_finding(report: &Report, outcome: Outcome, severity: Severity, parts: [&str; 3]) {
    let [finding] = &report.missing[..] else {
        panic!("{:#?}", report.missing);
    };
    assert_eq!(
        (report.outcome, finding.severity),
        (outcome, severity),
        "{finding:?}"
    );
    for (text, part) in [&finding.what, &finding.why, &finding.remedy]
        .into_iter()
        .zip(parts)
    {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn sound_host_has_no_findings() {
    let report = report(|_| {});
    assert_eq!(report.missing, []);
    assert_eq!(report.outcome.exit_code(), 0);
}

#[test]
fn missing_capabilities_are_separate_findings() {
    let (admin, bpf, perfmon) = (Capability::SYS_ADMIN, Capability::BPF, Capability::PERFMON);
    for (lacked, expected) in [
        (&[admin, bpf][..], &["CAP_BPF is missing"][..]),
        (&[admin, perfmon], &["CAP_PERFMON is missing"]),
        (
            &[admin, bpf, perfmon],
            &["CAP_BPF is missing", "CAP_PERFMON is missing"],
        ),
    ] {
        let report = report(|facts| {
            facts.host.capabilities = without(lacked);
            facts.probing = refused("refused");
        });
        let why: Vec<&str> = report.missing.iter().map(|finding| &*finding.why).collect();
        assert_eq!(why, expected);
        assert_eq!(report.outcome.exit_code(), 2);
    }
}

#[test]
fn cause_that_prevents_the_probes_is_named() {
    let everything = |report: &Report, why: &str, remedy: &str| {
        let parts = ["all request, model and worker metrics", why, remedy];
        assert_finding(report, Outcome::Nothing, Severity::Everything, parts);
    };
    let locked = report(|facts| {
        facts.host.lockdown = Some(Lockdown::Confidentiality);
        facts.probing = refused("refused");
    });
    everything(&locked, "confidentiality", "lockdown=integrity");
    let nested = report(|facts| {
        facts.host.user_namespace = UserNamespace::Nested;
        facts.probing = refused("refused");
    });
    everything(&nested, "user namespace", "--userns=host");
    let untyped = report(|facts| {
        facts.host.btf_bytes = None;
        facts.probing = refused("refused");
    });
    everything(&untyped, "no BTF", "CONFIG_DEBUG_INFO_BTF");
    let old = report(|facts| {
        facts.host.ring_buffer = RingBuffer::Unknown;
        facts.probing = refused("refused");
    });
    everything(&old, "ring buffers", "Linux 5.8");
    let other = report(|facts| facts.probing = refused("no such thing; do this; or that"));
    everything(&other, "no such thing", "do this; or that");
    let plain = report(|facts| facts.probing = refused("no such thing"));
    everything(&plain, "no such thing", "RUST_LOG=debug");
    let failed = report(|facts| {
        facts.probing.self_test = SelfTest::Failed {
            reason: "wrong payload".into(),
        };
    });
    everything(&failed, "self-test failed: wrong payload", "another kernel");
}

#[test]
fn missing_hook_is_a_finding() {
    let report = report(|facts| {
        facts.probing.hooks = vec![HookReport {
            hook: HookId::SendStart,
            program_type: None,
            refused: vec![Refused {
                program_type: ProgramType::TpBtf,
                target: "tcp_sendmsg_locked",
                kind: RefusalKind::Unavailable,
                reason: "absent".into(),
            }],
        }];
    });
    let parts = [
        "inferprobe_request_handler_seconds",
        "send_start",
        "Linux 6.16",
    ];
    assert_finding(&report, Outcome::Some, Severity::Some, parts);
    assert_eq!(report.outcome.exit_code(), 1);
}

#[test]
fn hooks_are_no_findings_if_nothing_is_attached() {
    let report = report(|facts| {
        facts.probing = refused("none; newer");
        facts.probing.hooks = vec![HookReport {
            hook: HookId::Recv,
            program_type: None,
            refused: Vec::new(),
        }];
    });
    assert_eq!(report.missing.len(), 1);
}

#[test]
fn missing_capabilities_hide_other_users_processes() {
    let (ptrace, dac, read) = (
        Capability::SYS_PTRACE,
        Capability::DAC_OVERRIDE,
        Capability::DAC_READ_SEARCH,
    );
    let unreadable = report(|facts| facts.host.capabilities = without(&[ptrace, dac, read]));
    let parts = [
        "inferprobe_workers",
        "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing",
        "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
    ];
    assert_finding(&unreadable, Outcome::Some, Severity::Some, parts);
    let hidden = report(|facts| {
        facts.host.capabilities = without(&[ptrace]);
        facts.host.hidepid = Some("invisible".into());
    });
    let parts = ["servers of other users", "hidepid=invisible", "hidepid"];
    assert_finding(&hidden, Outcome::Some, Severity::Some, parts);
    let visible = report(|facts| {
        facts.host.capabilities = without(&[read]);
        facts.host.hidepid = Some("invisible".into());
    });
    assert_eq!(visible.missing, []);
}

#[test]
fn nested_pid_namespace_hides_servers() {
    for (namespace, what) in [
        (PidNamespace::Nested, "command lines"),
        (PidNamespace::NestedWithOuterProc, "listening before"),
    ] {
        let report = report(|facts| facts.host.pid_namespace = namespace);
        let parts = [what, "pid namespace", "--pid=host"];
        assert_finding(&report, Outcome::Some, Severity::Some, parts);
    }
}

#[test]
fn gpus_are_a_finding_only_if_expected() {
    for (present, expected, remedy) in [
        (true, false, "install the driver's"),
        (false, true, "set --nvml-library"),
    ] {
        let report = report(|facts| {
            facts.gpus.present = present;
            facts.gpus.expected = expected;
        });
        let parts = ["GPUUtilization", "no library", remedy];
        assert_finding(&report, Outcome::Some, Severity::Some, parts);
    }
    let read = report(|facts| {
        facts.gpus.present = true;
        facts.gpus.nvml = Nvml::Loaded {
            read: 8,
            refused: Vec::new(),
        };
    });
    assert_eq!(read.missing, []);
    let refused = report(|facts| {
        facts.gpus.nvml = Nvml::Loaded {
            read: 7,
            refused: vec!["device 3: lost".into()],
        };
    });
    let parts = ["of some GPUs", "device 3: lost", "nvidia-smi"];
    assert_finding(&refused, Outcome::Some, Severity::Some, parts);
}

#[test]
fn finding_about_an_option_keeps_exit_code_0() {
    for (tracefs, remedy) in [
        (Tracefs::NotMounted, "mount -t tracefs"),
        (Tracefs::Forbidden, "CAP_DAC_READ_SEARCH"),
        (Tracefs::WithoutSystemCalls, "CONFIG_FTRACE_SYSCALLS"),
    ] {
        let report = report(|facts| facts.host.tracefs = tracefs);
        let parts = ["--accept-wait", "trace", remedy];
        assert_finding(&report, Outcome::All, Severity::Option, parts);
        assert_eq!(report.outcome.exit_code(), 0);
    }
}

#[test]
fn most_severe_finding_comes_first() {
    let report = report(|facts| {
        facts.host.tracefs = Tracefs::NotMounted;
        facts.gpus.present = true;
        facts.probing = refused("no; yes");
    });
    let severities: Vec<Severity> = report
        .missing
        .iter()
        .map(|finding| finding.severity)
        .collect();
    assert_eq!(
        severities,
        [Severity::Everything, Severity::Some, Severity::Option]
    );
}

#[test]
fn table_is_aligned_and_at_most_100_columns_wide() {
    let report = report(|facts| {
        facts.host.pid_namespace = PidNamespace::Nested;
        facts.host.lockdown = None;
        facts.probing.hooks.push(HookReport {
            hook: HookId::SendStart,
            program_type: None,
            refused: vec![Refused {
                program_type: ProgramType::TpBtf,
                target: "tcp_sendmsg_locked",
                kind: RefusalKind::Unavailable,
                reason: "a reason with many words ".repeat(9),
            }],
        });
    });
    let text = render::table(&report);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert_eq!(line, line.trim_end());
    }
    for part in [
        "\nHost\n  kernel            6.18.15-cloud-amd64\n",
        "\n  BTF               5.0 MB\n",
        "\n  lockdown          unknown: securityfs is not mounted",
        "\n  capabilities      CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_SYS_PTRACE CAP_SYS_ADMIN CAP_PERFMON\n                    CAP_BPF and 35 others\n",
        "\nHooks\n  readable          tp_btf\n  send_start        none          tp_btf tcp_sendmsg_locked: a",
        "\n  self-test         passed\n",
        "\nWhat will be missing\n  some       servers that",
        "\n    remedy   run in the host's pid namespace",
        "\nSome metrics will be missing (exit code 1).\n",
    ] {
        assert!(text.contains(part), "lacks {part:?}:\n{text}");
    }
}

#[test]
fn json_keys_are_stable() {
    let report = report(|facts| facts.attach_mode = Some(AttachMode::Tracepoint));
    let json = serde_json::to_value(&report).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let object = value.as_object().unwrap();
        object.keys().cloned().collect()
    };
    assert_eq!(
        keys(&json),
        [
            "attach_mode",
            "gpus",
            "host",
            "missing",
            "outcome",
            "pods",
            "probes",
            "tls",
            "version"
        ]
    );
    assert_eq!(
        keys(&json["host"]),
        [
            "architecture",
            "btf_bytes",
            "capabilities",
            "cgroups",
            "hidepid",
            "jit",
            "kernel",
            "lockdown",
            "pid_namespace",
            "preemption",
            "ring_buffer",
            "security_modules",
            "tracefs",
            "unprivileged_bpf",
            "user_id",
            "user_namespace",
        ]
    );
    assert_eq!(json["attach_mode"], "tracepoint");
    assert_eq!(json["host"]["lockdown"], "none");
    assert_eq!(json["host"]["capabilities"][39], "CAP_BPF");
    assert_eq!(json["host"]["ring_buffer"]["state"], "usable");
    assert_eq!(json["probes"]["hooks"][0]["kind"], "tp_btf");
    assert_eq!(json["probes"]["self_test"]["state"], "passed");
    assert_eq!(json["gpus"]["nvml"]["reason"], "no library");
    assert_eq!(json["outcome"], "all");
}

#[test]
fn each_server_has_a_row_about_tls() {
    let place = |functions: &[&'static str], offset, cost| PlaceTls {
        functions: functions.to_vec(),
        offset,
        cost,
    };
    let server = |pid, libraries, refusal| ServerTls {
        pid,
        server: "uvicorn".into(),
        libraries,
        refusal,
    };
    let library = LibraryTls {
        path: "/usr/lib/libssl.so.3".into(),
        places: vec![
            place(&["SSL_read_ex", "SSL_read"], 0x35290, "emulated"),
            place(&["SSL_write"], 0x35980, "stepped"),
        ],
    };
    let report = Report::conclude(Facts {
        tls: vec![
            server(7, vec![library], None),
            server(8, Vec::new(), None),
            server(9, Vec::new(), Some("permission denied".into())),
        ],
        ..sound()
    });
    assert_eq!(report.outcome, Outcome::All);
    let table = render::table(&report);
    let rows = table.split("\nTLS of servers that run\n").nth(1).unwrap();
    let rows = rows.split("\n\n").next().unwrap();
    let words: Vec<&str> = rows.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "uvicorn 7 timed, or read with --tls openssl, in /usr/lib/libssl.so.3: SSL_read_ex and SSL_read at 0x35290 (emulated, less than 1 µs), \
         SSL_write at 0x35980 (single-stepped, 1 to 13 µs) \
         uvicorn 8 timed; no mapped file exports OpenSSL's functions \
         uvicorn 9 timed; its mapped files cannot be read: permission denied"
    );
    assert!(!render::table(&Report::conclude(sound())).contains("TLS"));
}

#[test]
fn pods_without_names_are_a_finding() {
    let folder = |path: &str, refusal: Option<&str>| LogFolder {
        path: path.into(),
        refusal: refusal.map(str::to_owned),
    };
    let absent = Some("No such file or directory (os error 2)");
    let pods = |refusal, unnamed| Pods {
        folders: vec![
            folder("/var/log/pods", None),
            folder("/var/log/containers", refusal),
        ],
        containers: 3,
        unnamed,
    };
    assert_eq!(report(|facts| facts.pods = pods(None, 0)).missing, []);
    for (refusal, why) in [
        (absent, "/var/log/containers is not readable: No such file"),
        (
            None,
            "/var/log/pods and /var/log/containers do not name them",
        ),
    ] {
        let report = report(|facts| facts.pods = pods(refusal, 2));
        let what = "labels namespace, pod and container of 2 of 3 containers in pods";
        let parts = [what, why, "podLogs"];
        assert_finding(&report, Outcome::Some, Severity::Some, parts);
        let table = render::table(&report);
        assert!(
            table.contains("  pod names         known of 1 of 3 containers in pods"),
            "{table}"
        );
    }
    let report = report(|facts| facts.pods.folders = pods(absent, 0).folders);
    assert_eq!(report.missing, [], "no process runs in a pod");
}

//! Forgets containers that ended long ago, and keeps what they add to TorchServe's families.
//!
//! Does not depend on: how it is known that a container ended.

use std::{collections::HashSet, time::Instant};

use crate::{
    identity::{Identity, Instance, Replica},
    metrics::requests::Requests,
};

impl Requests {
    /// Forgets the replicas that ended long ago, if only those in `running` run; returns them.
    pub(crate) fn forget_replicas(
        &mut self,
        running: &HashSet<Replica>,
        now: Instant,
    ) -> HashSet<Replica> {
        let forgotten = self.cardinality.forget_replicas(running, now);
        if forgotten.is_empty() {
            return forgotten;
        }
        let is_kept = |server: &Instance| !forgotten.contains(&server.replica);
        self.by_identity.retain(|identity, served| {
            let is_forgotten = forgotten.contains(&identity.replica);
            if is_forgotten {
                let identity = Identity {
                    replica: Replica::default(),
                    ..identity.clone()
                };
                let totals = self.forgotten.entry(identity).or_default();
                totals.absorb(&served.torchserve);
            }
            !is_forgotten
        });
        self.admin.retain(|server, _| is_kept(server));
        self.carried.retain(|server, _| is_kept(server));
        self.accept_wait.retain(|server, _| is_kept(server));
        self.internal.retain(|server, _| is_kept(server));
        self.from_gateways.retain(|(server, _), _| is_kept(server));
        self.losses.retain(|server, _| is_kept(server));
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{Container, KEPT_AFTER_END, ShownLabels, fixtures::pod},
        metrics::requests::tests::{lines, observation},
        observation::Observation,
    };

    fn of(replica: Replica) -> Observation {
        let observation = observation("tiny", 200);
        Observation {
            identity: Identity {
                replica,
                ..observation.identity
            },
            ..observation
        }
    }

    fn on_port(port: u16) -> Observation {
        let container = Container::default();
        of(Replica::new(Some(port), &container, ShownLabels::ALL))
    }

    #[test]
    fn servers_of_one_model_have_series_of_their_own_and_torchserves_sums_stay() {
        let mut requests = Requests::new();
        for port in [8000, 8001, 8000] {
            requests.observe(&on_port(port));
        }
        requests.observe(&of(pod(0)));
        let labels = r#"model="tiny",version="default",server="torchserve",code="200""#;
        let counts = [
            (r#"port="8000",namespace="",pod="",container="""#, 2),
            (
                r#"port="8000",namespace="llm",pod="vllm-0",container="server""#,
                1,
            ),
            (r#"port="8001",namespace="",pod="",container="""#, 1),
        ];
        let expected = counts.map(|(replica, count)| {
            format!("inferprobe_requests_total{{{labels},{replica}}} {count}")
        });
        assert_eq!(lines(&requests, "inferprobe_requests_total"), expected);
        assert_eq!(
            lines(&requests, "ts_inference_requests_total"),
            [
                r#"ts_inference_requests_total{model_name="tiny",model_version="default",hostname="vm"} 4.0"#
            ]
        );
        let durations = lines(&requests, "inferprobe_request_duration_seconds");
        let counts = durations.iter().filter(|line| line.contains("_count{"));
        assert_eq!(counts.count(), 3);
    }

    #[test]
    fn a_pod_that_ended_is_forgotten_and_torchserves_sums_do_not_fall() {
        let mut requests = Requests::new();
        let start = Instant::now();
        for number in [0, 1, 1] {
            requests.observe(&of(pod(number)));
        }
        let sums = |requests: &Requests| {
            [
                "ts_inference_requests_total",
                "ts_inference_latency_microseconds",
                "ts_queue_latency_microseconds",
                "HandlerTime",
                "QueueTime",
                "Requests2XX",
            ]
            .map(|name| lines(requests, name))
        };
        let before = sums(&requests);
        let running = HashSet::from([pod(0)]);
        assert!(requests.forget_replicas(&running, start).is_empty());
        assert_eq!(lines(&requests, "inferprobe_requests_total").len(), 2);
        let forgotten = requests.forget_replicas(&running, start + KEPT_AFTER_END);
        assert_eq!(forgotten, HashSet::from([pod(1)]));
        let left = lines(&requests, "inferprobe_requests_total");
        assert!(left.len() == 1 && left[0].contains("vllm-0"), "{left:?}");
        assert_eq!(sums(&requests), before);
        requests.observe(&of(pod(1)));
        let back = lines(&requests, "inferprobe_requests_total");
        assert!(back[1].ends_with(" 1"), "{back:?}");
    }

    #[test]
    fn three_hundred_pods_keep_the_series_few_and_the_counts_whole() {
        let mut requests = Requests::new();
        for number in 0..300 {
            requests.observe(&of(pod(number)));
        }
        let counts = lines(&requests, "inferprobe_requests_total");
        assert_eq!(counts.len(), 257);
        let of_other = r#"port="other",namespace="other",pod="other",container="other"} 44"#;
        assert!(counts.iter().any(|line| line.ends_with(of_other)));
        let redirected = lines(&requests, "inferprobe_label_overflow_total");
        let expected = r#"inferprobe_label_overflow_total{label="replica"} 44"#;
        assert!(redirected.iter().any(|line| line == expected));
    }
}

//! Checks the command line of `autoscale`.
//!
//! The control loop uses the result.
//! Does not depend on: the network.

use std::{net::SocketAddr, time::Duration};

use crate::{
    cli::AutoscaleArgs,
    commands::{
        arguments::{check_model, check_seconds, check_url, check_workers, management},
        autoscale::{decision::Policy, queue},
    },
    config::listen,
    http::url::HttpUrl,
    torchserve::management::{Management, Model},
    usage::{UsageError, invalid},
};

/// Time limit for a call to TorchServe that does not wait for workers.
const MANAGEMENT_LIMIT: Duration = Duration::from_secs(10);

/// Checked options of `autoscale`.
#[derive(Debug)]
pub struct Options {
    /// Model to scale.
    pub model: Model,
    /// When to change its number of workers.
    pub policy: Policy,
    /// Time between two decisions.
    pub interval: Duration,
    /// Whether to print decisions without changing anything.
    pub dry_run: bool,
    /// The agent's metrics endpoint, restricted to the families that are used.
    pub metrics: HttpUrl,
    /// TorchServe's management API.
    pub management: Management,
    /// Where the command's own metrics are served.
    pub listen: SocketAddr,
}

impl Options {
    /// Checks the command line.
    pub fn check(args: &AutoscaleArgs) -> Result<Self, UsageError> {
        let min = check_workers("--min", &args.min)?;
        let max = check_workers("--max", &args.max)?;
        if max == 0 || max < min {
            let reason = format!("too few workers; give at least 1, and at least --min {min}");
            return Err(invalid("--max", &max.to_string(), reason));
        }
        let target_queue_ms = args.target_queue_ms;
        if !(target_queue_ms.is_finite() && target_queue_ms > 0.0) {
            let reason = "not a queue time; give milliseconds above 0";
            let value = target_queue_ms.to_string();
            return Err(invalid("--target-queue-ms", &value, reason.into()));
        }
        if args.down_after == 0 {
            let reason = "too few intervals; give at least 1";
            return Err(invalid("--down-after", "0", reason.into()));
        }
        let metrics = check_url("--metrics", &args.metrics)?;
        Ok(Self {
            model: check_model("--model", &args.model, &args.torchserve)?,
            policy: Policy {
                min,
                max,
                target_queue_ms,
                cool_down: check_seconds("--cool-down", args.cool_down)?,
                down_after: args.down_after,
            },
            interval: check_seconds("--interval", args.interval)?,
            dry_run: args.dry_run,
            metrics: queue::families()
                .iter()
                .fold(metrics, |url, family| url.with_pair("name[]", family)),
            management: management(&args.torchserve, MANAGEMENT_LIMIT)?,
            listen: listen::parse("--listen", &args.listen)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn check(flags: &str) -> Result<Options, UsageError> {
        let words = ["inferprobe", "autoscale", "--model", "tiny"].into_iter();
        let cli = Cli::try_parse_from(words.chain(flags.split(' '))).unwrap();
        match cli.command {
            Some(Command::Autoscale(args)) => Options::check(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let options = check("--min 1 --max 4 --target-queue-ms 20").unwrap();
        let expected = Policy {
            min: 1,
            max: 4,
            target_queue_ms: 20.0,
            cool_down: Duration::from_secs(30),
            down_after: 3,
        };
        assert_eq!(options.policy, expected);
        assert_eq!(options.interval, Duration::from_secs(5));
        assert_eq!(options.listen.to_string(), "127.0.0.1:8083");
        let metrics = options.metrics.to_string();
        let page =
            "http://127.0.0.1:8082/metrics?name%5B%5D=inferprobe_request_inner_queue_seconds&";
        assert!(metrics.starts_with(page), "{metrics}");
    }

    #[test]
    fn a_value_out_of_range_is_a_usage_error() {
        for (flags, expected) in [
            (
                "--min 3 --max 2 --target-queue-ms 20",
                "--max \"2\": too few workers; give at least 1, and at least --min 3",
            ),
            (
                "--min 0 --max 0 --target-queue-ms 20",
                "--max \"0\": too few workers; give at least 1, and at least --min 0",
            ),
            (
                "--min -1 --max 2 --target-queue-ms 20",
                "--min \"-1\": not a number of workers; give a whole number, 0 or more",
            ),
            (
                "--min 1 --max 2 --target-queue-ms 0",
                "--target-queue-ms \"0\": not a queue time; give milliseconds above 0",
            ),
            (
                "--min 1 --max 2 --target-queue-ms -5",
                "--target-queue-ms \"-5\": not a queue time; give milliseconds above 0",
            ),
            (
                "--min 1 --max 2 --target-queue-ms NaN",
                "--target-queue-ms \"NaN\": not a queue time; give milliseconds above 0",
            ),
            (
                "--min 1 --max 2 --target-queue-ms 20 --interval 0",
                "--interval \"0\": out of range; give whole seconds from 1 to 3600",
            ),
            (
                "--min 1 --max 2 --target-queue-ms 20 --cool-down 0",
                "--cool-down \"0\": out of range; give whole seconds from 1 to 3600",
            ),
            (
                "--min 1 --max 2 --target-queue-ms 20 --down-after 0",
                "--down-after \"0\": too few intervals; give at least 1",
            ),
            (
                "--min 1 --max 2 --target-queue-ms 20 --listen 8083",
                "--listen \"8083\": not an address and port; write it like 127.0.0.1:8082 or [::1]:8082",
            ),
            (
                "--min 1 --max 2 --target-queue-ms 20 --metrics localhost:8082",
                "--metrics \"localhost:8082\": not an address; write it like http://127.0.0.1:8081",
            ),
        ] {
            let err = check(flags).unwrap_err();
            assert_eq!(err.to_string(), expected);
        }
    }
}

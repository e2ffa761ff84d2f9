//! Runs `inferprobe scale`: one call to TorchServe's management API, whose own sentence is printed.
//!
//! `torchserve::management` makes the call.
//! Does not depend on: HTTP.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use crate::{
    cli::ScaleArgs,
    commands::{
        arguments::{check_model, check_seconds, check_workers, management},
        runtime,
    },
    torchserve::management::{Management, Model},
    usage::{UsageError, invalid},
};

/// Time for a response that does not wait for workers, seconds.
const RESPONSE_LIMIT_S: u64 = 10;
/// Time for a response that does, seconds: by default TorchServe gives a worker 120 s to start.
const SYNCHRONOUS_LIMIT_S: u64 = 150;

/// A checked `scale` command.
#[derive(Debug)]
pub struct Scale {
    management: Management,
    model: Model,
    min: u32,
    max: u32,
    synchronous: bool,
}

impl Scale {
    /// Checks the command line.
    pub fn check(args: &ScaleArgs) -> Result<Self, UsageError> {
        let min = check_workers("--min-worker", &args.min_worker)?;
        let max = match &args.max_worker {
            None => min,
            Some(max) => check_workers("--max-worker", max)?,
        };
        if max < min {
            return Err(invalid(
                "--max-worker",
                &max.to_string(),
                format!("less than --min-worker {min}; give {min} or more"),
            ));
        }
        let limit_s = args.timeout.unwrap_or(match args.synchronous {
            true => SYNCHRONOUS_LIMIT_S,
            false => RESPONSE_LIMIT_S,
        });
        Ok(Self {
            management: management(&args.torchserve, check_seconds("--timeout", limit_s)?)?,
            model: check_model("MODEL", &args.model, &args.torchserve)?,
            min,
            max,
            synchronous: args.synchronous,
        })
    }

    /// Makes the call; returns the sentence to print.
    async fn call(&self) -> Result<String> {
        let Self {
            management,
            model,
            min,
            max,
            synchronous,
        } = self;
        let scaled = management.scale(model, *min, *max, *synchronous).await?;
        Ok(match scaled.partial {
            false => scaled.status,
            true => format!(
                "{} (206: TorchServe accepted the request, but not every worker is running yet)",
                scaled.status
            ),
        })
    }
}

/// Scales the model, and prints TorchServe's sentence.
pub fn run(scale: Scale) -> Result<()> {
    runtime::block_on(async move {
        let sentence = scale.call().await?;
        writeln!(io::stdout(), "{sentence}").context("print TorchServe's response")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn check(flags: &str) -> Result<Scale, UsageError> {
        let words = ["inferprobe", "scale"].into_iter();
        let cli = Cli::try_parse_from(words.chain(flags.split(' '))).unwrap();
        match cli.command {
            Some(Command::Scale(args)) => Scale::check(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn max_is_min_unless_given() {
        let scale = check("tiny --min-worker 2").unwrap();
        assert_eq!((scale.min, scale.max), (2, 2));
        let scale = check("tiny --min-worker 0 --max-worker 3 --synchronous").unwrap();
        assert_eq!((scale.min, scale.max, scale.synchronous), (0, 3, true));
    }

    #[test]
    fn a_value_that_torchserve_would_misread_is_a_usage_error() {
        for (flags, expected) in [
            (
                "tiny --min-worker -1",
                "--min-worker \"-1\": not a number of workers; give a whole number, 0 or more",
            ),
            (
                "tiny --min-worker 1 --max-worker -1",
                "--max-worker \"-1\": not a number of workers; give a whole number, 0 or more",
            ),
            (
                "tiny --min-worker 1.5",
                "--min-worker \"1.5\": not a number of workers; give a whole number, 0 or more",
            ),
            (
                "tiny --min-worker 2147483648",
                "--min-worker \"2147483648\": not a number of workers; give a whole number, 0 or more",
            ),
            (
                "tiny --min-worker 3 --max-worker 1",
                "--max-worker \"1\": less than --min-worker 3; give 3 or more",
            ),
            (
                "tiny/1.0 --min-worker 1",
                "MODEL \"tiny/1.0\": not a valid TorchServe name; give a name without a slash, \
                 and a version as --model-version",
            ),
            (
                "tiny --min-worker 1 --timeout 0",
                "--timeout \"0\": out of range; give whole seconds from 1 to 3600",
            ),
            (
                "tiny --min-worker 1 --management https://127.0.0.1:8081",
                "--management \"https://127.0.0.1:8081\": https:// is not supported; \
                 give an http:// address, such as one on loopback",
            ),
            (
                "tiny --min-worker 1 --management unix:/tmp/m.sock",
                "--management \"unix:/tmp/m.sock\": unix sockets are not supported; give an http:// address",
            ),
        ] {
            let err = check(flags).unwrap_err();
            assert_eq!(err.to_string(), expected);
        }
    }
}

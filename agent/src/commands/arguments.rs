//! Checks of what `scale` and `autoscale` both take from the command line. Nothing here calls anyone.

use std::time::Duration;

use crate::{
    cli::ModelArgs,
    torchserve::management::{
        Management, Model,
        url::{HttpUrl, UrlError},
    },
    usage::{UsageError, invalid},
};

/// The largest number that TorchServe reads as one; above it, it silently takes 1.
const MAX_WORKERS: u32 = i32::MAX as u32;

/// The management API that the command line names.
pub(crate) fn management(args: &ModelArgs, time_limit: Duration) -> Result<Management, UsageError> {
    let address = check_url("--management", &args.management)?;
    Ok(Management::new(
        address,
        args.token_file.clone(),
        time_limit,
    ))
}

/// An address that can be asked.
pub(crate) fn check_url(flag: &str, text: &str) -> Result<HttpUrl, UsageError> {
    text.parse()
        .map_err(|err: UrlError| invalid(flag, text, err.to_string()))
}

/// The model `name` that `flag` gave, in the version of the command line.
pub(crate) fn check_model(flag: &str, name: &str, args: &ModelArgs) -> Result<Model, UsageError> {
    let version = args.model_version.as_deref();
    let version = version.map(|version| check_name("--model-version", version));
    Ok(Model {
        name: check_name(flag, name)?,
        version: version.transpose()?,
    })
}

/// A name that stays one segment of a path: TorchServe takes an encoded slash for a slash.
fn check_name(flag: &str, name: &str) -> Result<String, UsageError> {
    if name.is_empty() || name.contains('/') || name.chars().any(char::is_control) {
        let reason = "not a name in TorchServe; give one without a slash (a version goes into --model-version)";
        return Err(invalid(flag, name, reason.into()));
    }
    Ok(name.to_owned())
}

/// A count that TorchServe understands: it ends every worker on a negative one, and takes what it cannot read for 1.
pub(crate) fn check_workers(flag: &str, text: &str) -> Result<u32, UsageError> {
    let count = text.parse().ok();
    count.filter(|count| *count <= MAX_WORKERS).ok_or_else(|| {
        let reason = "not a number of workers; give a whole number, 0 or more";
        invalid(flag, text, reason.into())
    })
}

/// Whole seconds up to an hour.
pub(crate) fn check_seconds(flag: &str, seconds: u64) -> Result<Duration, UsageError> {
    if (1..=3600).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let reason = "out of range; give whole seconds from 1 to 3600";
    Err(invalid(flag, &seconds.to_string(), reason.into()))
}

//! Checks the options that `scale` and `autoscale` share.
//!
//! Both turn them into a model and a management API.
//! Does not depend on: the network.

use std::time::Duration;

use crate::{
    cli::ModelArgs,
    http::url::{HttpUrl, UrlError},
    torchserve::management::{Management, Model},
    usage::{UsageError, invalid},
};

/// Largest number of workers that TorchServe can parse; it replaces a larger one by 1 without an error.
const MAX_WORKERS: u32 = i32::MAX as u32;

/// Returns the management API that the command line names.
pub(crate) fn management(args: &ModelArgs, time_limit: Duration) -> Result<Management, UsageError> {
    let address = check_url("--management", &args.management)?;
    Ok(Management::new(
        address,
        args.token_file.clone(),
        time_limit,
    ))
}

/// Parses an address that plain HTTP can reach.
pub(crate) fn check_url(flag: &str, text: &str) -> Result<HttpUrl, UsageError> {
    text.parse()
        .map_err(|err: UrlError| invalid(flag, text, err.to_string()))
}

/// Checks the model `name` of option `flag`, and the version of the command line.
pub(crate) fn check_model(flag: &str, name: &str, args: &ModelArgs) -> Result<Model, UsageError> {
    let version = args.model_version.as_deref();
    let version = version.map(|version| check_name("--model-version", version));
    Ok(Model {
        name: check_name(flag, name)?,
        version: version.transpose()?,
    })
}

/// Checks that a name stays one segment of a path, because TorchServe decodes an encoded slash.
fn check_name(flag: &str, name: &str) -> Result<String, UsageError> {
    if name.is_empty() || name.contains('/') || name.chars().any(char::is_control) {
        let reason = "not a valid TorchServe name; give a name without a slash, and a version as --model-version";
        return Err(invalid(flag, name, reason.into()));
    }
    Ok(name.to_owned())
}

/// Checks a number of workers. TorchServe ends every worker for a negative one, and uses 1 for what it cannot parse.
pub(crate) fn check_workers(flag: &str, text: &str) -> Result<u32, UsageError> {
    let count = text.parse().ok();
    count.filter(|count| *count <= MAX_WORKERS).ok_or_else(|| {
        let reason = "not a number of workers; give a whole number, 0 or more";
        invalid(flag, text, reason.into())
    })
}

/// Checks a time of whole seconds, up to one hour.
pub(crate) fn check_seconds(flag: &str, seconds: u64) -> Result<Duration, UsageError> {
    if (1..=3600).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let reason = "out of range; give whole seconds from 1 to 3600";
    Err(invalid(flag, &seconds.to_string(), reason.into()))
}

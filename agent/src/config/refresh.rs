//! Chooses the time between readings of host and GPU metrics.
//!
//! The option wins over the file's key, that over TorchServe's `metric_time_interval`, that over the default.
//! Does not depend on: the collectors.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    torchserve::properties::TorchServeFile,
    usage::{UsageError, invalid},
};

const DEFAULT_S: u64 = 5;
const RANGE_S: RangeInclusive<u64> = 1..=3600;
const REMEDY: &str = "out of range; give whole seconds from 1 to 3600";

/// Chooses the time; `given_s` is the name and value of the option or key.
pub(super) fn choose(
    given_s: Option<(&str, u64)>,
    torchserve: Option<&TorchServeFile>,
) -> Result<Duration, UsageError> {
    let seconds = match (given_s, torchserve) {
        (Some((name, seconds)), _) => {
            if !RANGE_S.contains(&seconds) {
                return Err(invalid(name, &seconds.to_string(), REMEDY.into()));
            }
            seconds
        }
        (None, Some(file)) => of_torchserve_s(file)?.unwrap_or(DEFAULT_S),
        (None, None) => DEFAULT_S,
    };
    Ok(Duration::from_secs(seconds))
}

/// Returns TorchServe's interval, if its file has one.
fn of_torchserve_s(file: &TorchServeFile) -> Result<Option<u64>, UsageError> {
    let setting = file.metric_time_interval_s;
    let Some(line) = setting.line else {
        return Ok(None);
    };
    let seconds = u64::from(setting.value);
    if RANGE_S.contains(&seconds) {
        return Ok(Some(seconds));
    }
    Err(UsageError::Property {
        path: file.path.clone(),
        line,
        key: "metric_time_interval".into(),
        value: seconds.to_string(),
        reason: format!("{REMEDY}, or give --refresh-interval SECONDS"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchserves_interval_is_checked_only_if_it_is_used() {
        let file = TorchServeFile::parse("ts", b"\nmetric_time_interval=3601").unwrap();
        let message = choose(None, Some(&file)).unwrap_err().to_string();
        assert_eq!(
            message,
            "ts:2: metric_time_interval \"3601\": out of range; give whole seconds from 1 to 3600, \
             or give --refresh-interval SECONDS"
        );
        let given = Some(("refresh_interval_s", 3600));
        assert_eq!(
            choose(given, Some(&file)).unwrap(),
            Duration::from_secs(3600)
        );
    }
}

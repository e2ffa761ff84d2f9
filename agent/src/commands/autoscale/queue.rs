//! Computes how long requests waited in one interval, from two scrapes of the agent.
//!
//! The control loop scrapes; `decision` uses the result.
//! Does not depend on: the network.

use crate::{
    metrics::families,
    metrics::page::{self, Sample},
    torchserve::management::Model,
};

/// Value of label `server` of requests to TorchServe.
const TORCHSERVE: &str = "torchserve";
/// Value of label `collector` of the probes, without which no request is measured.
const PROBES: &str = "probes";
/// Label with the name of the model.
const MODEL: &str = "model";

/// Counters of one model in one scrape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Start of the agent, seconds since the Unix epoch; `None` if the page does not contain it.
    started_s: Option<f64>,
    /// Requests that waited for a worker, since the start.
    finished: f64,
    /// Sum of their queue times, seconds.
    waited_s: f64,
    /// Answered requests, whether or not they waited.
    answered: f64,
}

/// Requests and queue times between two scrapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Queue {
    /// Requests that waited for a worker and were answered.
    pub finished: u64,
    /// Sum of their queue times, milliseconds.
    pub waited_ms: f64,
    /// All answered requests, including those that TorchServe refused without a worker.
    pub answered: u64,
}

impl Queue {
    /// Returns the mean queue time, milliseconds; `None` if no request finished.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.finished > 0).then(|| self.waited_ms / self.finished as f64)
    }
}

/// Why an interval's queue time is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The page is not the agent's.
    #[error("not the agent's metrics: {0}; give the agent's endpoint as --metrics")]
    Malformed(String),
    /// The agent runs without probes and measures no requests.
    #[error("the agent's probes are not attached; see its log")]
    NoProbes,
    /// There is no earlier scrape to compare with.
    #[error("first reading of the agent")]
    First,
    /// The agent's counters restarted.
    #[error("the agent was restarted")]
    Restarted,
}

/// Returns the families that [`Reading::of`] reads.
pub fn families() -> [&'static str; 4] {
    [
        families::REQUEST_INNER_QUEUE.name,
        families::REQUESTS.name,
        families::COLLECTOR_UP.name,
        families::PROCESS_START.name,
    ]
}

impl Reading {
    /// Parses the agent's metrics.
    pub fn of(page: &str, model: &Model) -> Result<Self, Missing> {
        let samples = page::parse(page).map_err(|fault| Missing::Malformed(fault.to_string()))?;
        let probes = samples.iter().find(|sample| {
            sample.name == families::COLLECTOR_UP.name && sample.has("collector", PROBES)
        });
        match probes {
            None => {
                let lack = format!("it lacks {}", families::COLLECTOR_UP.name);
                return Err(Missing::Malformed(lack));
            }
            Some(probes) if probes.value != 1.0 => return Err(Missing::NoProbes),
            Some(_) => {}
        }
        let start = samples
            .iter()
            .find(|sample| sample.name == families::PROCESS_START.name);
        let total = |suffix: &str, family: &str| {
            let meant = samples.iter().filter(|sample| {
                sample.name.strip_prefix(family) == Some(suffix) && is_of(sample, model)
            });
            let total: f64 = meant.map(|sample| sample.value).sum();
            match total.is_finite() && total >= 0.0 {
                true => Ok(total),
                false => Err(Missing::Malformed(format!("{family}{suffix} is {total}"))),
            }
        };
        Ok(Self {
            started_s: start.map(|sample| sample.value),
            finished: total("_count", families::REQUEST_INNER_QUEUE.name)?,
            waited_s: total("_sum", families::REQUEST_INNER_QUEUE.name)?,
            answered: total("", families::REQUESTS.name)?,
        })
    }

    /// Returns what happened since the scrape `before`.
    pub fn since(&self, before: Option<&Self>) -> Result<Queue, Missing> {
        let before = before.ok_or(Missing::First)?;
        let fell = self.finished < before.finished
            || self.waited_s < before.waited_s
            || self.answered < before.answered;
        if fell || self.started_s != before.started_s {
            return Err(Missing::Restarted);
        }
        Ok(Queue {
            finished: (self.finished - before.finished) as u64,
            waited_ms: s_to_ms(self.waited_s - before.waited_s),
            answered: (self.answered - before.answered) as u64,
        })
    }
}

/// Whether a sample counts requests of `model`, of every version if `model` names none.
fn is_of(sample: &Sample, model: &Model) -> bool {
    let version = model.version.as_deref();
    sample.has(MODEL, &model.name)
        && sample.has("server", TORCHSERVE)
        && version.is_none_or(|version| sample.has("version", version))
}

fn s_to_ms(seconds: f64) -> f64 {
    seconds * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(version: Option<&str>) -> Model {
        Model {
            name: "tiny".into(),
            version: version.map(str::to_owned),
        }
    }

    /// A page as the agent serves it, with these series of the inner queue and of answered requests.
    fn page(series: &[(&str, f64, u64)], answered: u64) -> String {
        let mut page = String::from(
            "# TYPE inferprobe_collector_up gauge\n\
             inferprobe_collector_up{collector=\"gpu\"} 0\n\
             inferprobe_collector_up{collector=\"probes\"} 1\n\
             process_start_time_seconds 1795320846.12\n",
        );
        for (labels, sum, count) in series {
            page.push_str(&format!(
                "inferprobe_request_inner_queue_seconds_sum{{{labels}}} {sum}\n\
                 inferprobe_request_inner_queue_seconds_count{{{labels}}} {count}\n\
                 inferprobe_request_inner_queue_seconds_bucket{{le=\"+Inf\",{labels}}} {count}\n"
            ));
        }
        page.push_str(&format!(
            "inferprobe_requests_total{{model=\"tiny\",version=\"default\",server=\"torchserve\",code=\"200\"}} {answered}\n\
             inferprobe_requests_total{{model=\"twin\",version=\"default\",server=\"torchserve\",code=\"200\"}} 9\n"
        ));
        page
    }

    const DEFAULT: &str = r#"model="tiny",version="default",server="torchserve""#;
    const SECOND: &str = r#"model="tiny",version="2.0",server="torchserve""#;
    const TWIN: &str = r#"model="twin",version="default",server="torchserve""#;
    const ELSEWHERE: &str = r#"model="tiny",version="default",server="demo""#;

    #[test]
    fn the_mean_is_of_the_models_requests_in_the_interval() {
        let before = page(&[(DEFAULT, 10.0, 100), (TWIN, 1.0, 1)], 100);
        let after = page(
            &[
                (DEFAULT, 10.5, 105),
                (SECOND, 0.25, 5),
                (TWIN, 99.0, 9),
                (ELSEWHERE, 99.0, 9),
            ],
            112,
        );
        for (version, mean_ms, finished) in [
            (None, 75.0, 10),
            (Some("default"), 100.0, 5),
            (Some("2.0"), 50.0, 5),
        ] {
            let model = model(version);
            let before = Reading::of(&before, &model).unwrap();
            let queue = Reading::of(&after, &model)
                .unwrap()
                .since(Some(&before))
                .unwrap();
            assert_eq!(queue.mean_ms(), Some(mean_ms), "{version:?}");
            assert_eq!(queue.finished, finished, "{version:?}");
        }
        let model = model(None);
        let before = Reading::of(&before, &model).unwrap();
        let queue = Reading::of(&after, &model)
            .unwrap()
            .since(Some(&before))
            .unwrap();
        assert_eq!(queue.answered, 12);
    }

    #[test]
    fn a_model_without_series_had_no_requests() {
        let reading = Reading::of(&page(&[], 0), &model(None)).unwrap();
        let queue = reading.since(Some(&reading)).unwrap();
        assert_eq!((queue.finished, queue.mean_ms()), (0, None));
    }

    #[test]
    fn counters_that_begin_anew_say_nothing() {
        let model = model(None);
        let read = |page: &str| Reading::of(page, &model).unwrap();
        let before = read(&page(&[(DEFAULT, 10.0, 100)], 100));
        assert_eq!(before.since(None), Err(Missing::First));
        let later = page(&[(DEFAULT, 20.0, 200)], 200).replace("846.12", "900.5");
        for after in [
            page(&[(DEFAULT, 20.0, 99)], 100),
            page(&[(DEFAULT, 9.0, 101)], 100),
            page(&[(DEFAULT, 10.0, 100)], 99),
            page(&[], 0),
            later,
        ] {
            assert_eq!(
                read(&after).since(Some(&before)),
                Err(Missing::Restarted),
                "{after}"
            );
        }
    }

    #[test]
    fn a_page_without_working_probes_says_nothing() {
        let page = page(&[(DEFAULT, 10.0, 100)], 100);
        let off = page.replace("collector=\"probes\"} 1", "collector=\"probes\"} 0");
        assert_eq!(Reading::of(&off, &model(None)), Err(Missing::NoProbes));
        for other in [
            "",
            "# TYPE a gauge\na 1\n",
            "<html>",
            "inferprobe_collector_up 1\n",
        ] {
            let read = Reading::of(other, &model(None));
            assert!(
                matches!(read, Err(Missing::Malformed(_))),
                "{other}: {read:?}"
            );
        }
    }

    #[test]
    fn values_that_no_counter_has_are_refused() {
        for value in ["NaN", "+Inf", "-1"] {
            let page = page(&[], 0)
                + &format!("inferprobe_request_inner_queue_seconds_sum{{{DEFAULT}}} {value}\n");
            let read = Reading::of(&page, &model(None));
            assert!(
                matches!(read, Err(Missing::Malformed(_))),
                "{value}: {read:?}"
            );
        }
    }
}

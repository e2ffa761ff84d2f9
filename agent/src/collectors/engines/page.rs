//! Reads what an engine says of itself from its Prometheus page.
//!
//! The names are those of the engines' documentation. Series of several models or ranks add up.
//! Does not depend on: where the page comes from.

/// What an engine says of itself; `None` if it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Figures {
    /// Which engine it is.
    pub(super) engine: &'static str,
    /// Requests that it works on.
    pub(super) running: Option<f64>,
    /// Requests that wait.
    pub(super) waiting: Option<f64>,
    /// Share of its KV cache in use, 0 to 1: of the fullest one, if there are several.
    pub(super) kv_cache: Option<f64>,
    /// Requests that it stopped to free KV cache, since its start.
    pub(super) preemptions: Option<f64>,
    /// Requests in its current batch.
    pub(super) batch: Option<f64>,
    /// Requests that it executed, and executions, since its start.
    pub(super) executed: Option<(f64, f64)>,
}

/// Series with a name, and with a value of a label.
type Series = (&'static str, Option<(&'static str, &'static str)>);

/// The series of one engine that mean the same in different versions: the first that is there counts.
struct Names {
    engine: &'static str,
    running: &'static [Series],
    waiting: &'static [Series],
    kv_cache: &'static [Series],
    preemptions: &'static [Series],
    batch: &'static [Series],
    /// Requests executed, then executions.
    executed: Option<(Series, Series)>,
}

const fn plain(name: &'static str) -> Series {
    (name, None)
}

const TRT_LLM: &str = "nv_trt_llm_request_metrics";
const TRT_LLM_CACHE: &str = "nv_trt_llm_kv_cache_block_metrics";

/// In the order in which they are looked for: Ray Serve's page has those of a vLLM in it, too.
const ENGINES: [Names; 6] = [
    Names {
        engine: "ray-serve",
        running: &[plain("ray_serve_replica_processing_queries")],
        waiting: &[plain("ray_serve_deployment_queued_queries")],
        kv_cache: &[],
        preemptions: &[],
        batch: &[],
        executed: None,
    },
    Names {
        engine: "vllm",
        running: &[plain("vllm:num_requests_running")],
        waiting: &[plain("vllm:num_requests_waiting")],
        kv_cache: &[
            plain("vllm:kv_cache_usage_perc"),
            plain("vllm:gpu_cache_usage_perc"),
        ],
        preemptions: &[plain("vllm:num_preemptions_total")],
        batch: &[],
        executed: None,
    },
    Names {
        engine: "sglang",
        running: &[plain("sglang:num_running_reqs")],
        waiting: &[plain("sglang:num_queue_reqs")],
        kv_cache: &[plain("sglang:token_usage")],
        preemptions: &[plain("sglang:num_retracted_requests_total")],
        batch: &[],
        executed: None,
    },
    Names {
        engine: "tgi",
        running: &[plain("tgi_batch_current_size")],
        waiting: &[plain("tgi_queue_size")],
        kv_cache: &[],
        preemptions: &[],
        batch: &[plain("tgi_batch_current_size")],
        executed: None,
    },
    Names {
        engine: "llama.cpp",
        running: &[plain("llamacpp:requests_processing")],
        waiting: &[plain("llamacpp:requests_deferred")],
        kv_cache: &[plain("llamacpp:kv_cache_usage_ratio")],
        preemptions: &[],
        batch: &[],
        executed: None,
    },
    Names {
        engine: "triton",
        running: &[(TRT_LLM, Some(("request_type", "scheduled")))],
        waiting: &[
            (TRT_LLM, Some(("request_type", "waiting"))),
            plain("nv_inference_pending_request_count"),
        ],
        kv_cache: &[(TRT_LLM_CACHE, Some(("kv_cache_block_type", "fraction")))],
        preemptions: &[],
        batch: &[],
        executed: Some((
            plain("nv_inference_count"),
            plain("nv_inference_exec_count"),
        )),
    },
];

impl Figures {
    /// Reads a page; `None` if it is of no engine that is known.
    pub(super) fn of(page: &str) -> Option<Self> {
        ENGINES.iter().find_map(|names| Self::by(names, page))
    }

    fn by(names: &Names, page: &str) -> Option<Self> {
        let first = |series: &[Series], fold: fn(f64, f64) -> f64| {
            series.iter().find_map(|one| value(page, one, fold))
        };
        let sum = |series: &[Series]| first(series, |one, other| one + other);
        let figures = Self {
            engine: names.engine,
            running: sum(names.running),
            waiting: sum(names.waiting),
            kv_cache: first(names.kv_cache, f64::max),
            preemptions: sum(names.preemptions),
            batch: sum(names.batch),
            executed: names
                .executed
                .and_then(|(requests, executions)| sum(&[requests]).zip(sum(&[executions]))),
        };
        (figures.running.is_some() || figures.waiting.is_some()).then_some(figures)
    }
}

/// Returns the value of a series, folded over all that differ in other labels; `None` if there is none.
fn value(page: &str, (name, label): &Series, fold: fn(f64, f64) -> f64) -> Option<f64> {
    let of_name = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        match rest.strip_prefix('{') {
            Some(rest) => sample(rest),
            None => Some(("", rest.strip_prefix(' ')?)),
        }
    });
    let matching = of_name.filter(|(labels, _)| {
        label.is_none_or(|(name, value)| labels.contains(&format!("{name}=\"{value}\"")))
    });
    let values = matching.filter_map(|(_, rest)| {
        let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    });
    values.reduce(fold)
}

/// Splits what follows the opening brace of a sample into its labels and the rest; a label's value may contain a brace.
fn sample(text: &str) -> Option<(&str, &str)> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = text.bytes().position(|byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            b'"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        byte == b'}' && !is_quoted
    })?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &str = include_str!("../../../tests/engines/vllm.txt");

    #[test]
    fn a_page_of_vllm_is_read() {
        let expected = Figures {
            engine: "vllm",
            running: Some(8.0),
            waiting: Some(13.0),
            kv_cache: Some(0.9875),
            preemptions: Some(21.0),
            ..Figures::default()
        };
        assert_eq!(Figures::of(VLLM), Some(expected));
    }

    #[test]
    fn each_engine_is_known_by_its_own_names() {
        for (page, engine, running, waiting, kv_cache, preemptions, batch) in [
            (
                "vllm:num_requests_running{engine=\"0\",model_name=\"a}b\"} 2.0\n\
                 vllm:num_requests_running{engine=\"1\",model_name=\"a}b\"} 3.0\n\
                 vllm:num_requests_waiting{engine=\"0\",model_name=\"a}b\"} 1\n\
                 vllm:gpu_cache_usage_perc{engine=\"0\"} 0.25\nvllm:gpu_cache_usage_perc{engine=\"1\"} 0.5\n",
                "vllm",
                Some(5.0),
                Some(1.0),
                Some(0.5),
                None,
                None,
            ),
            (
                "sglang:num_running_reqs{model_name=\"m\",tp_rank=\"0\"} 4.0\nsglang:num_queue_reqs{m=\"\"} 9\n\
                 sglang:token_usage{m=\"\"} 0.28\nsglang:num_retracted_requests_total{m=\"\"} 3\n",
                "sglang",
                Some(4.0),
                Some(9.0),
                Some(0.28),
                Some(3.0),
                None,
            ),
            (
                "tgi_batch_current_size 4\ntgi_queue_size 7\n",
                "tgi",
                Some(4.0),
                Some(7.0),
                None,
                None,
                Some(4.0),
            ),
            (
                "llamacpp:requests_processing 1\nllamacpp:requests_deferred 46 1700000000000\n",
                "llama.cpp",
                Some(1.0),
                Some(46.0),
                None,
                None,
                None,
            ),
            (
                "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 5\n\
                 nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 16\n\
                 nv_trt_llm_request_metrics{model=\"m\",request_type=\"active\",version=\"1\"} 21\n\
                 nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"m\"} 0.75\n\
                 nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"used\",model=\"m\"} 30\n",
                "triton",
                Some(16.0),
                Some(5.0),
                Some(0.75),
                None,
                None,
            ),
            (
                "ray_serve_replica_processing_queries{deployment=\"d\"} 2\n\
                 ray_serve_deployment_queued_queries{deployment=\"d\"} 6\n",
                "ray-serve",
                Some(2.0),
                Some(6.0),
                None,
                None,
                None,
            ),
        ] {
            let expected = Figures {
                engine,
                running,
                waiting,
                kv_cache,
                preemptions,
                batch,
                executed: None,
            };
            assert_eq!(Figures::of(page), Some(expected));
        }
    }

    #[test]
    fn executions_of_triton_are_counted() {
        let page = "nv_inference_pending_request_count{model=\"m\",version=\"1\"} 3\n\
                    nv_inference_count{model=\"m\"} 80\nnv_inference_exec_count{model=\"m\"} 20\n";
        let figures = Figures::of(page).unwrap();
        assert_eq!((figures.running, figures.waiting), (None, Some(3.0)));
        assert_eq!(figures.executed, Some((80.0, 20.0)));
    }

    #[test]
    fn a_page_without_figures_says_nothing() {
        for page in [
            "",
            "process_cpu_seconds_total 3\n",
            "# HELP vllm:num_requests_running Number of requests\n",
            "vllm:num_requests_running NaN\n",
            "vllm:num_requests_running -1\n",
            "vllm:num_requests_running{model=\"m\" 3\n",
            "vllm:num_requests_running_total 3\n",
            "vllm:num_requests_running",
            "<html>vllm:num_requests_running 3</html>",
        ] {
            assert_eq!(Figures::of(page), None, "{page:?}");
        }
        for end in 0..VLLM.len() {
            // Cut off, it has fewer figures or shorter numbers, and is still read.
            if VLLM.is_char_boundary(end) {
                let _ = Figures::of(&VLLM[..end]);
            }
        }
    }
}

//! What a request is for, and the model its path names.

use crate::latency::Purpose;

/// A request's purpose, and the model and version in its path where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What the request is for.
    pub purpose: Purpose,
    /// Model named by the path.
    pub model: Option<String>,
    /// Version named by the path.
    pub version: Option<String>,
}

impl Route {
    /// Of a request whose path was not seen: it may be an inference.
    pub const UNKNOWN: Self = Self {
        purpose: Purpose::Inference,
        model: None,
        version: None,
    };
    const ADMIN: Self = Self {
        purpose: Purpose::Admin,
        model: None,
        version: None,
    };

    fn inference(model: Option<&str>, version: Option<&str>) -> Self {
        Self {
            purpose: Purpose::Inference,
            model: model.map(str::to_owned),
            version: version.map(str::to_owned),
        }
    }
}

/// Last path segments that ask about a server, not of a model.
const ADMIN_SEGMENTS: [&str; 17] = [
    "config",
    "docs",
    "favicon.ico",
    "health",
    "healthz",
    "info",
    "live",
    "livez",
    "metadata",
    "metrics",
    "models",
    "openapi.json",
    "ping",
    "ready",
    "readyz",
    "stats",
    "version",
];

/// Reads the purpose off a method and a request target.
///
/// `predicts_only_by_path`: the server (TorchServe) is known to predict under its own paths alone; on any other, all
/// that is not plainly about the server itself is inference.
pub fn classify(method: &str, target: &str, predicts_only_by_path: bool) -> Route {
    if predicts_only_by_path {
        return classify_torchserve(method, target);
    }
    if matches!(method, "OPTIONS" | "TRACE" | "CONNECT") {
        return Route::ADMIN;
    }
    let segments: Vec<String> = path_of(target)
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let Some(route) = classify_path(&segments) {
        return route;
    }
    if segments == ["invocations"] && method != "GET" {
        let model = query_value(target, "model_name");
        return Route::inference(model.as_deref(), None);
    }
    let last = segments.last().copied().unwrap_or_default();
    let asks = method == "HEAD" || (method == "GET" && ADMIN_SEGMENTS.contains(&last));
    match asks {
        true => Route::ADMIN,
        false => Route::inference(None, None),
    }
}

/// As [`classify`], by the rules of TorchServe 0.12.0: it predicts at its own paths, whatever the method but OPTIONS
/// (InferenceRequestHandler.java), once they are decoded and their last slashes are off.
fn classify_torchserve(method: &str, target: &str) -> Route {
    let path = decode(target.split(['?', '#']).next().unwrap_or_default());
    let Some(path) = path.strip_prefix('/') else {
        return Route::ADMIN;
    };
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    if method == "OPTIONS" || segments.contains(&"") {
        return Route::ADMIN;
    }
    match segments[..] {
        // The legacy paths.
        [model, "predict"] => Route::inference(Some(model), None),
        [model, version, "predict"] => Route::inference(Some(model), Some(version)),
        ["invocations"] => match query_value(target, "model_name") {
            Some(model) => Route::inference(Some(&model), None),
            None => Route::ADMIN,
        },
        _ => classify_path(&segments).unwrap_or(Route::ADMIN),
    }
}

/// What the segments of a path say; `None` if nothing.
fn classify_path(segments: &[&str]) -> Option<Route> {
    let route = match segments[..] {
        ["predictions" | "explanations", model] => Route::inference(Some(model), None),
        ["predictions" | "explanations", model, version, ..] => {
            Route::inference(Some(model), Some(version))
        }
        ["models", model, "invoke"] => Route::inference(Some(model), None),
        ["v1", "models", model_and_verb] => {
            let (model, verb) = model_and_verb.rsplit_once(':')?;
            predict_verb(model, verb, None)
        }
        [
            "v1",
            "models",
            model,
            "versions" | "labels",
            version_and_verb,
        ] => {
            let (version, verb) = version_and_verb.rsplit_once(':')?;
            predict_verb(model, verb, Some(version))
        }
        ["v2", "models", model, verb] if is_v2_verb(verb) => Route::inference(Some(model), None),
        ["v2", "models", model, "versions", version, verb] if is_v2_verb(verb) => {
            Route::inference(Some(model), Some(version))
        }
        ["v2", "repository" | "models", ..] | ["v2"] => Route::ADMIN,
        _ => return None,
    };
    Some(route)
}

fn predict_verb(model: &str, verb: &str, version: Option<&str>) -> Route {
    if matches!(verb, "predict" | "explain" | "classify" | "regress") {
        Route::inference(Some(model), version)
    } else {
        Route::ADMIN
    }
}

fn is_v2_verb(verb: &str) -> bool {
    matches!(
        verb,
        "infer" | "infer_stream" | "generate" | "generate_stream"
    )
}

/// The path of a request target: without scheme and authority, query and fragment.
pub(super) fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

/// Value of a query parameter of a request target.
fn query_value(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .map(decode)
}

fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_models_and_versions() {
        let cases = [
            ("/predictions/tiny", Some("tiny"), None),
            ("/predictions/tiny/1.0?x=/health", Some("tiny"), Some("1.0")),
            ("/v1/models/bert:predict", Some("bert"), None),
            (
                "/v1/models/bert/versions/3:predict",
                Some("bert"),
                Some("3"),
            ),
            ("/v2/models/res%20net/infer", Some("res net"), None),
            (
                "/v2/models/resnet/versions/2/infer",
                Some("resnet"),
                Some("2"),
            ),
            ("http://h:1/v2/models/m/generate_stream", Some("m"), None),
            ("/models/m/invoke", Some("m"), None),
            ("/v1/chat/completions", None, None),
            ("/", None, None),
        ];
        for (target, model, version) in cases {
            let route = classify("POST", target, false);
            assert_eq!(route.purpose, Purpose::Inference, "{target}");
            assert_eq!(
                (route.model.as_deref(), route.version.as_deref()),
                (model, version),
                "{target}"
            );
        }
    }

    #[test]
    fn questions_about_the_server_are_not_inference() {
        for (method, target) in [
            ("GET", "/health"),
            ("GET", "/v2/health/ready"),
            ("GET", "/metrics?name[]=x"),
            ("GET", "/v1/models"),
            ("GET", "/v2/models/m"),
            ("GET", "/v2/models/m/versions/1/ready"),
            ("POST", "/v2/repository/index"),
            ("POST", "/v2/repository/models/m/load"),
            ("POST", "/v1/models/m:unload"),
            ("HEAD", "/"),
            ("OPTIONS", "/predictions/m"),
        ] {
            assert_eq!(
                classify(method, target, false),
                Route::ADMIN,
                "{method} {target}"
            );
        }
    }

    #[test]
    fn torchserve_also_predicts_under_its_legacy_paths() {
        let models = |target| {
            let route = classify("POST", target, true);
            (route.purpose, route.model, route.version)
        };
        let tiny = |version: Option<&str>| {
            (
                Purpose::Inference,
                Some("tiny".to_owned()),
                version.map(str::to_owned),
            )
        };
        assert_eq!(models("/tiny/predict"), tiny(None));
        assert_eq!(models("/tiny/1.0/predict"), tiny(Some("1.0")));
        assert_eq!(models("/predictions/tiny/1.0/extra"), tiny(Some("1.0")));
        assert_eq!(models("/invocations?x=1&model_name=tiny"), tiny(None));
        assert_eq!(models("/t%69ny/predict/"), tiny(None));
        assert_eq!(models("/predictions/tiny%2F1.0"), tiny(Some("1.0")));
        for target in [
            "/invocations",
            "//predictions/tiny",
            "/predictions//tiny",
            "/predictions/",
            "/Predictions/tiny",
            "http://h/predictions/tiny",
            "/models/tiny/1.0/invoke",
        ] {
            assert_eq!(models(target).0, Purpose::Admin, "{target}");
        }
    }

    #[test]
    fn torchserve_predicts_whatever_the_method_but_options() {
        for method in ["GET", "HEAD", "PUT", "TRACE", "FOO"] {
            let route = classify(method, "/predictions/tiny", true);
            assert_eq!(route.purpose, Purpose::Inference, "{method}");
        }
        let route = classify("OPTIONS", "/predictions/tiny", true);
        assert_eq!(route, Route::ADMIN);
    }

    #[test]
    fn a_server_known_to_predict_by_path_does_nothing_else() {
        assert_eq!(classify("POST", "/models?url=x", true), Route::ADMIN);
        assert_eq!(classify("GET", "/anything", true), Route::ADMIN);
        assert_eq!(
            classify("GET", "/predictions/m", true).purpose,
            Purpose::Inference
        );
    }
}

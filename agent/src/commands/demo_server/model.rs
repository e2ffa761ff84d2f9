//! Describes the two models that the example server pretends to have.
//!
//! `server` answers for them and `client` sends requests to them.
//! Does not depend on: HTTP.

use std::time::Duration;

/// An invented model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    /// Path of its requests.
    pub path: &'static str,
    /// Typical handler time; single requests take 20 % less to 20 % more.
    pub typical: Duration,
    /// Time between two of the requests that the server sends to itself.
    pub period: Duration,
    /// Body of a request.
    pub request: &'static str,
    /// Body of its response.
    pub response: &'static str,
}

/// Together they receive five requests per second.
pub(super) static MODELS: [Model; 2] = [
    Model {
        path: "/predictions/tiny",
        typical: Duration::from_millis(5),
        period: Duration::from_millis(250),
        request: r#"{"text":"a fine day"}"#,
        response: r#"{"label":"positive","score":0.98}"#,
    },
    Model {
        path: "/v2/models/resnet/versions/2/infer",
        typical: Duration::from_millis(40),
        period: Duration::from_millis(1000),
        request: r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[0,1,2,3]}]}"#,
        response: r#"{"model_name":"resnet","model_version":"2","outputs":[{"name":"class","datatype":"INT64","shape":[1],"data":[281]}]}"#,
    },
];

impl Model {
    /// Handler time of the server's `number`th request: `typical` times 0.8 to 1.2.
    pub(super) fn handler_time(&self, number: u64) -> Duration {
        // Multiplication by a large odd number spreads the numbers; the top bits are the well-mixed ones.
        let spread = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 41;
        self.typical * u32::try_from(80 + spread).expect("below 121") / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handler_times_vary_by_a_fifth_to_both_sides() {
        let model = Model {
            typical: Duration::from_millis(100),
            ..MODELS[0]
        };
        let times: Vec<_> = (0..1000).map(|number| model.handler_time(number)).collect();
        assert_eq!(times.iter().min(), Some(&Duration::from_millis(80)));
        assert_eq!(times.iter().max(), Some(&Duration::from_millis(120)));
    }
}

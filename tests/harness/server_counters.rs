//! Reads the counters that an inference server exports of itself, which judge the agent's.
//!
//! Does not depend on: any server.

use crate::client;

/// A page of a server's counters.
#[derive(Debug)]
pub struct Counters(String);

impl Counters {
    /// Reads the page `/metrics` of the server on `port`.
    ///
    /// # Panics
    /// If the server does not respond with it.
    pub fn read(port: u16) -> Self {
        let (status, text) = client::get(port, "/metrics").expect("the server answers");
        assert_eq!(status, 200, "{text}");
        Self(text)
    }

    /// Returns the sum of all samples of `name`.
    ///
    /// # Panics
    /// If a sample is no number.
    pub fn sum(&self, name: &str) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_named = series.split('{').next() == Some(name);
            is_named.then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }
}

//! Median and extremes of what was measured several times.

/// Values in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extremes {
    pub(crate) least: f64,
    /// The upper one of an even number.
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Extremes {
    /// Returns the spread of `values`; `None` if there is none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            least: *values.first()?,
            median: *values.get(values.len() / 2)?,
            most: *values.last()?,
        })
    }

    /// Returns the median and the extremes as text.
    pub(crate) fn in_words(self) -> (String, String) {
        let Self {
            least,
            median,
            most,
        } = self;
        (format!("{median:.3}"), format!("{least:.3} to {most:.3}"))
    }
}

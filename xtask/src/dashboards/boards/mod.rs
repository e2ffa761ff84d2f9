//! What each dashboard shows.

mod fleet;
mod model;
mod overview;
mod torchserve;
mod trust;

use crate::dashboards::schema::Dashboard;

/// Each board with the name of its file.
pub(crate) fn all() -> [(&'static str, Dashboard); 5] {
    [
        ("torchserve", torchserve::board()),
        ("overview", overview::board()),
        ("model", model::board()),
        ("fleet", fleet::board()),
        ("trust", trust::board()),
    ]
}

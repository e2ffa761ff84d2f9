//! Says why a model's requests are slow, from one window of its requests and the window before it.
//!
//! Pure functions of values: `window` sums the components of requests, `evidence` holds what is known about the server
//! beside them, `judge` concludes, `slow` names the component that made one request slow, `words` is what a person reads.
//! A cause needs its own evidence. Where that is missing, the verdict says which, and for how many requests.
//! Does not depend on: how anything is measured, metrics, a clock.

pub mod component;
pub mod evidence;
pub mod judge;
pub mod slow;
pub mod window;
pub mod words;

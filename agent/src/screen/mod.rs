//! Draws what an agent or a recording knows, as lines of text: pure functions of a state and a size.
//!
//! `state` is what is known and chosen, `page` puts a whole screen together from `strip`, `waterfall`, `requests`,
//! `heat`, `gpu` and `why`; `place` tells replicas apart. `look`, `text` and `bar` are what they draw with.
//! Does not depend on: terminals, where values come from, a clock.

mod bar;
mod columns;
mod gpu;
mod heat;
pub mod look;
mod moments;
pub mod page;
mod place;
mod requests;
pub mod state;
mod strip;
pub mod text;
mod waterfall;
pub mod why;

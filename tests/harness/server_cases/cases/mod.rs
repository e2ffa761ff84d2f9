//! The cases of HTTP/1.1: ways in which clients send, and servers read and respond.
//!
//! Each case makes its requests, plays them, and records in the play what the agent must report.

mod chunks;
mod ends;
mod parts;
mod together;
mod whole;

use crate::server_cases::{hosts::Kind, play::Play};

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, in messages and marks.
    pub name: &'static str,
    /// Whether it applies to a server.
    pub on: fn(Kind) -> bool,
    /// Plays it.
    pub act: fn(&mut Play),
}

/// Every case, in an order that does not matter.
pub const CASES: &[Case] = &[
    any("one-after-another", whole::one_after_another),
    any("codes", whole::codes),
    any("bodiless", whole::bodiless),
    any("get", whole::get),
    any("admin", whole::admin),
    any("big-head", whole::big_head),
    any("absolute-form", whole::absolute_form),
    any("http-1.0", whole::http_1_0),
    any("leading-crlf", whole::leading_crlf),
    any("close", ends::close),
    any("close-before-another", ends::close_before_another),
    any("connection-close", ends::connection_close),
    any("body-like-a-request", parts::body_like_a_request),
    any("early", ends::early),
    any("early-sent-whole", ends::early_sent_whole),
    any("pipelined", together::pipelined),
    any("pipelined-bodies", together::pipelined_bodies),
    any("pipelined-ten", together::pipelined_ten),
    any("pipelined-big-answers", together::pipelined_big_answers),
    any("second-while-first-runs", together::second_while_first_runs),
    any("third-while-first-runs", together::third_while_first_runs),
    any(
        "second-in-parts-while-first-runs",
        together::second_in_parts_while_first_runs,
    ),
    any("byte-by-byte", parts::byte_by_byte),
    any("first-24-bytes", parts::first_24_bytes),
    any("cut-anywhere", parts::cut_anywhere),
    any("two-cut-anywhere", together::two_cut_anywhere),
    any("body-later", parts::body_later),
    any("body-in-parts", parts::body_in_parts),
    quick("big-body", parts::big_body),
    any("continue", parts::waits_to_continue),
    any("chunked", chunks::chunked),
    any("chunked-in-parts", chunks::chunked_in_parts),
    any("chunked-pipelined", chunks::chunked_pipelined),
    any("chunked-long", chunks::chunked_long),
    any("chunked-answer", chunks::chunked_answer),
    any("events", chunks::events),
    any("big-answer", chunks::big_answer),
    any("big-chunks", chunks::big_chunks),
    any("half-closed", ends::half_closed),
    any("half-a-body", ends::half_a_body),
    any("reset", ends::reset),
    any("reset-in-the-body", ends::reset_in_the_body),
    any("gone-idle", ends::gone_idle),
    any("model-in-the-body", whole::model_in_the_body),
    any("model-late-in-the-body", whole::model_late_in_the_body),
    Case {
        name: "websocket",
        on: Kind::is_asgi,
        act: whole::websocket,
    },
];

const fn any(name: &'static str, act: fn(&mut Play)) -> Case {
    let on = Kind::is_http1;
    Case { name, on, act }
}

/// Returns a case with too many bytes for a server that reads one at a time.
const fn quick(name: &'static str, act: fn(&mut Play)) -> Case {
    let on = |kind: Kind| kind.is_http1() && !kind.is_slow();
    Case { name, on, act }
}

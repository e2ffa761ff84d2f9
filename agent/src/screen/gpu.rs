//! Draws the GPUs: how busy they are, and who uses them.
//!
//! Does not depend on: the rest of the screen.

use ratatui::text::{Line, Span};

use crate::{
    api::live::{Gpu, GpuProcess},
    screen::{bar, columns, look::Look, state::State, text},
    verdict::component::Component,
};

/// Width of a bar.
const BAR: usize = 20;

/// Returns the lines.
pub(super) fn lines(state: &State, look: Look, width: usize) -> Vec<Line<'static>> {
    let Some(live) = &state.live else {
        return Vec::new();
    };
    if live.gpus.devices.is_empty() {
        let none = match live.gpus.readable {
            true => "this host has no NVIDIA GPU",
            false => {
                "no NVIDIA GPU can be read here: there is none, or its driver is missing; `inferprobe doctor` says which"
            }
        };
        return columns::note(none, width, look);
    }
    live.gpus
        .devices
        .iter()
        .flat_map(|gpu| device(gpu, look, width))
        .collect()
}

fn device(gpu: &Gpu, look: Look, width: usize) -> Vec<Line<'static>> {
    let name = match gpu.mig.as_str() {
        "" => format!("GPU {}", gpu.device),
        mig => format!("GPU {} MIG {mig}", gpu.device),
    };
    let mut facts = Vec::new();
    let of = |used: Option<f64>, limit: Option<f64>, unit: &str| match (used, limit) {
        (Some(used), Some(limit)) => Some(format!("{used:.0} of {limit:.0} {unit}")),
        (Some(used), None) => Some(format!("{used:.0} {unit}")),
        (None, _) => None,
    };
    facts.extend(of(gpu.power_watts, gpu.power_limit_watts, "W"));
    facts.extend(of(gpu.temperature_celsius, None, look.either("°C", "C")));
    let throttled = (!gpu.throttled_by.is_empty())
        .then(|| format!("throttled by {}", gpu.throttled_by.join(", ")));
    let memory_ratio = match (gpu.memory_used_bytes, gpu.memory_total_bytes) {
        (Some(used), Some(total)) if total > 0 => Some(used as f64 / total as f64),
        _ => None,
    };
    let percent = |share: Option<f64>| {
        share.map_or_else(
            || "    ?".into(),
            |share| format!("{:>5}", text::percent(share)),
        )
    };
    let memory = match (gpu.memory_used_bytes, gpu.memory_total_bytes) {
        (Some(used), Some(total)) => format!("{} of {}", text::bytes(used), text::bytes(total)),
        (Some(used), None) => text::bytes(used),
        (None, _) => text::UNKNOWN.into(),
    };
    let mut lines = vec![Line::from(vec![
        Span::styled(text::left(&name, 16, look), look.heading()),
        Span::raw(text::cut(&facts.join("  "), 24, look)),
        Span::raw("  "),
        Span::styled(
            throttled.map_or_else(String::new, |text| {
                text::cut(&text, width.saturating_sub(44), look)
            }),
            look.bad(),
        ),
    ])];
    for (name, share, of) in [
        ("  busy", gpu.busy_ratio, String::new()),
        ("  memory", memory_ratio, memory),
    ] {
        let mut spans = vec![Span::raw(text::left(name, 10, look))];
        spans.extend(bar::share(share, BAR, look.part(Component::Rest), look));
        spans.push(Span::raw(format!(" {} %  {of}", percent(share))));
        lines.push(Line::from(spans));
    }
    let mut users: Vec<&GpuProcess> = gpu.processes.iter().collect();
    users.sort_by(|a, b| {
        b.busy_ratio
            .unwrap_or(0.0)
            .total_cmp(&a.busy_ratio.unwrap_or(0.0))
            .then(b.memory_bytes.cmp(&a.memory_bytes))
    });
    for user in users {
        let whose = match (user.server.as_str(), user.model.as_str()) {
            ("", _) => "not watched".to_owned(),
            (server, "") => server.to_owned(),
            (server, model) => format!("{server} {model}"),
        };
        let memory = user
            .memory_bytes
            .map_or_else(|| text::UNKNOWN.into(), text::bytes);
        lines.push(Line::raw(text::cut(
            &format!(
                "    pid {:<9} {} %  {memory:>9}  {whose}",
                user.pid,
                percent(user.busy_ratio)
            ),
            width,
            look,
        )));
    }
    lines.push(Line::default());
    lines
}

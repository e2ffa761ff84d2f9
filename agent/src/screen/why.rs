//! Explains one model, and draws single requests: what `inferprobe why` prints.
//!
//! Does not depend on: how a verdict is reached.

use ratatui::text::{Line, Span};

use crate::{
    api::{Source, live::Model, requests::Request, verdict::Span as TimeSpan},
    screen::{bar, columns, look::Look, moments, place, requests, text},
};

/// Width of the names on the left.
const NAME: usize = 12;
/// Longest bar.
const MAX_BAR: usize = 40;
/// Parts with a smaller share of the duration, now and before, are left out.
const SHOWN: f64 = 0.005;

/// Returns why the requests of a model are slow: its stages now and before, the verdict, and what it rests on.
pub fn model(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines = title(model, look, width);
    let (now, before) = (&model.now, model.before.as_ref());
    lines.extend(stages(now, before, look, width));
    let verdict = &model.verdict;
    let mut say = |name: &'static str, sentence: &str| {
        for (at, line) in columns::wrap(sentence, width.saturating_sub(NAME), look)
            .into_iter()
            .enumerate()
        {
            let name = if at == 0 { name } else { "" };
            lines.push(Line::from(vec![
                Span::styled(text::left(name, NAME, look), look.heading()),
                Span::raw(line),
            ]));
        }
    };
    say("because", &verdict.headline);
    if let Some(focus) = &verdict.focus {
        let mean = text::duration(focus.mean_ns as u64);
        let share = text::percent(focus.share);
        let before = focus
            .before_ns
            .map(|ns| format!("; it was {} before", text::duration(ns as u64)));
        say(
            "",
            &format!(
                "{}: {mean}, {share} % of the duration{}",
                focus.noun,
                before.unwrap_or_default()
            ),
        );
    }
    say("load", &load(now, before));
    if !verdict.ruled_out.is_empty() {
        say("not", &verdict.ruled_out.join(", "));
    }
    if let Some(word) = &verdict.own_word {
        say("it says", word);
    }
    if let Some(advice) = &verdict.advice {
        say("try", advice);
    }
    say("sure", &verdict.certainty);
    lines
}

/// Returns the verdict on a model in one line, which tells it apart from others of the same name among `models`.
pub fn brief(model: &Model, models: &[&Model]) -> String {
    let place = place::apart(&model.served, &model.labels, models.iter().copied());
    let names = std::iter::once(model.served.model.clone()).chain(place);
    let name = names.collect::<Vec<_>>().join(" ");
    format!("{name}: {}", model.verdict.headline)
}

/// Returns who it is, in as many lines as that needs.
fn title(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let served = &model.served;
    let figures = &model.figures;
    let mut parts = vec![served.server.clone(), format!("version {}", served.version)];
    parts.extend(place::all(&model.labels));
    parts.push(format!("p50 {}", text::known(figures.p50_ns)));
    parts.push(format!("p99 {}", text::known(figures.p99_ns)));
    let name = text::cut(&served.model, width / 2, look);
    let mut lines = vec![Line::styled(name, look.heading())];
    for part in parts {
        let part = "  ".to_owned() + &text::cut(&part, width.saturating_sub(2), look);
        let last = lines.last_mut().expect("there is a first line");
        match last.width() + Line::raw(part.clone()).width() <= width {
            true => last.spans.push(Span::raw(part)),
            false => lines.push(Line::raw(part)),
        }
    }
    lines
}

/// Returns a line for each part that has a share of the duration, now or before.
fn stages(
    now: &TimeSpan,
    before: Option<&TimeSpan>,
    look: Look,
    width: usize,
) -> Vec<Line<'static>> {
    let before = before.filter(|before| before.complete > 0);
    let total_ns = now.sums_ns.total_ns();
    let total_before_ns = before.map_or(0, |before| before.sums_ns.total_ns());
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let width_of_bar = width.saturating_sub(NAME + 18 + 20).min(MAX_BAR);
    let mut lines = Vec::new();
    for (at, (component, sum_ns)) in bar::parts(&now.sums_ns).into_iter().enumerate() {
        let sum_before_ns = before.map(|before| bar::parts(&before.sums_ns)[at].1);
        let is_shown = share(sum_ns, total_ns) >= SHOWN
            || share(sum_before_ns.unwrap_or(0), total_before_ns) >= SHOWN;
        if now.complete == 0 || !is_shown {
            continue;
        }
        let share_now = share(sum_ns, total_ns);
        let full = (share_now * width_of_bar as f64).round() as usize;
        let name = component.name().replace('_', " ");
        let mean = text::duration(sum_ns / now.complete);
        let was = before.map(|before| {
            let mean_ns = sum_before_ns.unwrap_or(0) / before.complete;
            format!("  {} before", text::duration(mean_ns))
        });
        lines.push(Line::from(vec![
            Span::raw(text::left(&format!("  {name}"), NAME, look)),
            Span::raw(text::right(&mean, 9, look)),
            Span::raw(text::right(&format!("{:.0} %", share_now * 100.0), 7, look)),
            Span::raw("  "),
            Span::styled(look.letter(component).repeat(full), look.part(component)),
            Span::raw(" ".repeat(width_of_bar - full)),
            Span::styled(text::cut(&was.unwrap_or_default(), 20, look), look.faint()),
        ]));
    }
    lines
}

/// Returns how many requests there are, and how busy who reads them is, now and before.
fn load(now: &TimeSpan, before: Option<&TimeSpan>) -> String {
    let per_second = |span: &TimeSpan| {
        (span.span_ns > 0).then(|| text::rate(span.requests as f64 / (span.span_ns as f64 / 1e9)))
    };
    let mut parts = vec![match per_second(now) {
        None => format!("{} requests", text::count(now.requests)),
        Some(rate) => {
            let seconds = text::duration(now.span_ns);
            format!(
                "{rate} requests a second, {} in {seconds}",
                text::count(now.requests)
            )
        }
    }];
    if let Some(rate) = before.and_then(per_second) {
        parts.push(format!("{rate} a second before"));
    }
    for (noun, threads, busy) in [
        ("reader", now.readers, now.readers_busy),
        ("worker", now.workers, now.workers_busy),
    ] {
        if let Some(threads) = threads {
            let busy = busy.map(|busy| format!(", busy {} %", text::percent(busy)));
            let plural = if threads == 1 { "" } else { "s" };
            parts.push(format!(
                "{threads} {noun}{plural}{}",
                busy.unwrap_or_default()
            ));
        }
    }
    parts.join("; ")
}

/// Returns the `number` slowest of `requests`; those with an unknown duration are last.
pub fn slowest<'a>(requests: &[&'a Request], number: usize) -> Vec<&'a Request> {
    let mut slowest = requests.to_vec();
    slowest.sort_by_key(|request| std::cmp::Reverse(moments::duration_ns(request)));
    slowest.truncate(number);
    slowest
}

/// Draws requests, each as long as it took compared with the longest.
pub fn requests(
    drawn: &[&Request],
    source: &Source,
    look: Look,
    width: usize,
) -> Vec<Line<'static>> {
    let durations = drawn
        .iter()
        .filter_map(|request| moments::duration_ns(request));
    let longest_ns = durations.max().unwrap_or(0);
    let lines = drawn
        .iter()
        .flat_map(|request| one(request, source, longest_ns, look, width));
    lines.collect()
}

/// Draws one request: a bar, and its parts in figures.
fn one(
    request: &Request,
    source: &Source,
    longest_ns: u64,
    look: Look,
    width: usize,
) -> Vec<Line<'static>> {
    let mut facts = vec![
        format!("status {}", requests::status(request)),
        text::known(moments::duration_ns(request)),
    ];
    facts
        .extend(moments::first_ns(request).map(|ns| format!("first chunk {}", text::duration(ns))));
    let output = request.tokens.as_ref().and_then(|tokens| tokens.output);
    facts.extend(output.map(|tokens| format!("{} tokens", text::count(tokens))));
    facts.push(format!(
        "{} in, {} out",
        text::bytes(request.request_bytes),
        text::bytes(request.response_bytes)
    ));
    facts.extend(
        request
            .gateway
            .as_ref()
            .map(|gateway| format!("from {gateway}")),
    );
    facts.extend(place::all(&request.labels));
    facts.push(format!("pid {}", request.pid));
    let because = match &request.because {
        Some(because) => format!("slow because of {}", because.replace('_', " ")),
        None => "not slow for its model".into(),
    };
    facts.push(because);
    let title = format!(
        "{} UTC  {}  {}",
        requests::ended(request, source),
        text::cut(&request.served.model, 32, look),
        facts.join(", ")
    );
    let mut lines: Vec<Line> = columns::wrap(&title, width, look)
        .into_iter()
        .map(|line| Line::styled(line, look.heading()))
        .collect();
    let mut spans = vec![Span::raw("  ")];
    spans.extend(requests::bar_of(
        request,
        longest_ns,
        width.saturating_sub(2),
        look,
    ));
    lines.push(Line::from(spans));
    let parts = match &request.stages_ns {
        None => "some of its moments are unknown, so it cannot be split into parts".to_owned(),
        Some(stages) => {
            let parts = bar::parts(stages).into_iter().filter(|(_, ns)| *ns > 0);
            let parts = parts.map(|(component, ns)| {
                let name = component.name().replace('_', " ");
                format!("{} {name} {}", look.letter(component), text::duration(ns))
            });
            parts.collect::<Vec<_>>().join(", ")
        }
    };
    for line in columns::wrap(&parts, width.saturating_sub(2), look) {
        lines.push(Line::from(vec![Span::raw("  "), Span::raw(line)]));
    }
    lines
}

//! Draws durations as bars: their parts side by side, each with its letter and colour.
//!
//! Does not depend on: where durations come from.

use ratatui::{style::Style, text::Span};

use crate::{api::stages::Stages, screen::look::Look, verdict::component::Component};

/// Returns each part of `stages` with its component, in the order of a request's life.
pub(super) fn parts(stages: &Stages) -> [(Component, u64); Component::ALL.len()] {
    let values = stages.named();
    let mut at = 0;
    Component::ALL.map(|component| {
        let (_, ns) = values[at];
        at += 1;
        (component, ns)
    })
}

/// Draws the parts of a duration that is `whole_ns` long at `width` columns; shorter ones fill a part of the width.
///
/// Always `width` columns: the rest is space.
pub(super) fn stacked(
    stages: &Stages,
    whole_ns: u64,
    width: usize,
    look: Look,
) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let mut drawn = 0;
    let mut sum_ns = 0_u64;
    for (component, ns) in parts(stages) {
        sum_ns = sum_ns.saturating_add(ns);
        let end = column(sum_ns, whole_ns, width);
        if end > drawn {
            let letters = look.letter(component).repeat(end - drawn);
            spans.push(Span::styled(letters, look.part(component)));
            drawn = end;
        }
    }
    // What took time at all is seen.
    if drawn == 0 && sum_ns > 0 && width > 0 {
        let (longest, _) = longest(stages);
        spans.push(Span::styled(look.letter(longest), look.part(longest)));
        drawn = 1;
    }
    spans.push(Span::raw(" ".repeat(width - drawn)));
    spans
}

/// Returns the longest part.
pub(super) fn longest(stages: &Stages) -> (Component, u64) {
    let longest = parts(stages).into_iter().rev().max_by_key(|(_, ns)| *ns);
    longest.unwrap_or((Component::Rest, 0))
}

/// Draws a share from 0 to 1 as a bar of `width` columns.
pub(super) fn share(
    share: Option<f64>,
    width: usize,
    style: Style,
    look: Look,
) -> Vec<Span<'static>> {
    let Some(share) = share else {
        return vec![Span::styled(
            look.either("·", ".").repeat(width),
            look.faint(),
        )];
    };
    let full = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    vec![
        Span::styled(look.either("█", "#").repeat(full), style),
        Span::styled(look.either("·", ".").repeat(width - full), look.faint()),
    ]
}

/// Returns the column at which `ns` of `whole_ns` end.
fn column(ns: u64, whole_ns: u64, width: usize) -> usize {
    if whole_ns == 0 {
        return 0;
    }
    let share = (ns as f64 / whole_ns as f64).min(1.0);
    (share * width as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look {
        utf8: false,
        color: false,
    };

    fn text(spans: &[Span]) -> String {
        spans.iter().map(|span| span.content.as_ref()).collect()
    }

    #[test]
    fn parts_have_their_share_of_the_width() {
        let stages = Stages {
            queue: 80,
            receive: 1,
            handler: 19,
            ..Stages::default()
        };
        assert_eq!(text(&stacked(&stages, 100, 10, LOOK)), "qqqqqqqqhh");
        assert_eq!(text(&stacked(&stages, 200, 10, LOOK)), "qqqqh     ");
        assert_eq!(text(&stacked(&stages, 50, 10, LOOK)), "qqqqqqqqqq");
        assert_eq!(text(&stacked(&stages, 0, 4, LOOK)), "q   ");
        assert_eq!(text(&stacked(&stages, 1_000_000, 4, LOOK)), "q   ");
        assert_eq!(text(&stacked(&Stages::default(), 100, 4, LOOK)), "    ");
        assert_eq!(text(&stacked(&stages, 100, 0, LOOK)), "");
    }

    #[test]
    fn components_are_those_of_the_api() {
        for (component, (name, _)) in parts(&Stages::default())
            .map(|(component, _)| component)
            .into_iter()
            .zip(Stages::default().named())
        {
            assert_eq!(component.name(), name);
        }
    }

    #[test]
    fn unknown_share_is_not_empty() {
        assert_eq!(text(&share(Some(0.5), 4, Style::new(), LOOK)), "##..");
        assert_eq!(text(&share(Some(7.0), 4, Style::new(), LOOK)), "####");
        assert_eq!(text(&share(None, 4, Style::new(), LOOK)), "....");
    }
}

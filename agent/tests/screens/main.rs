//! Compares whole screens of `top` and `why` with the files in `tests/golden/screens`; `UPDATE_GOLDEN=1` rewrites them.
//!
//! Each is drawn on a terminal in memory, so a line that is too long, or a letter of another width, shows.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

mod example;

use std::{fs, path::Path};

use inferprobe::{
    cli::{Sort, View},
    screen::{look::Look, page, state::State, why},
};
use ratatui::{Terminal, backend::TestBackend, text::Text};

const UTF8: Look = Look {
    utf8: true,
    color: false,
};
const ASCII: Look = Look {
    utf8: false,
    color: false,
};
const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 50);

/// Draws a screen as the terminal shows it.
fn drawn(state: &State, look: Look, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            let lines = page::screen(state, look, width.into(), height.into());
            assert_eq!(lines.len(), usize::from(height));
            for line in &lines {
                assert!(line.width() <= width.into(), "{}: {line}", line.width());
            }
            frame.render_widget(Text::from(lines), frame.area());
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in buffer.content().chunks(width.into()) {
        let row: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn assert_golden(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/screens");
    let path = folder.join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} differs from {}; run with UPDATE_GOLDEN=1 and review the diff:\n{text}",
        path.display()
    );
}

#[test]
fn screens_are_those_of_the_golden_files() {
    let begin = example::state();
    let shown = |view| State {
        view,
        ..begin.clone()
    };
    let detail = State {
        detail: true,
        ..begin.clone()
    };
    let help = State {
        help: true,
        ..begin.clone()
    };
    let typing = State {
        typing: true,
        filter: "rank".into(),
        ..begin.clone()
    };
    for (name, state, size) in [
        ("waterfall-80x24", &begin, SMALL),
        ("waterfall-200x50", &begin, LARGE),
        ("requests-80x24", &shown(View::Requests), SMALL),
        ("requests-200x50", &shown(View::Requests), LARGE),
        ("heat-80x24", &shown(View::Heat), SMALL),
        ("gpu-80x24", &shown(View::Gpu), SMALL),
        ("detail-80x24", &detail, SMALL),
        ("help-80x24", &help, SMALL),
        ("typing-80x24", &typing, SMALL),
        ("trouble-80x24", &example::trouble(), SMALL),
        ("replicas-80x24", &example::replicas(View::Waterfall), SMALL),
        (
            "replicas-requests-80x24",
            &example::replicas(View::Requests),
            SMALL,
        ),
        (
            "replicas-200x50",
            &example::replicas(View::Waterfall),
            LARGE,
        ),
    ] {
        assert_golden(name, &drawn(state, UTF8, size));
    }
}

#[test]
fn every_screen_fits_any_size_and_keeps_names_harmless() {
    let mut states = vec![State::default(), example::state(), example::trouble()];
    for view in [View::Requests, View::Heat, View::Gpu] {
        states.push(State {
            view,
            ..example::state()
        });
    }
    states.push(State {
        filter: "no such model".into(),
        sort: Sort::P99,
        ..example::state()
    });
    for state in &states {
        for look in [UTF8, ASCII] {
            for width in [1, 2, 10, 39, 79, 80, 95, 100, 119, 120, 150, 200, 400] {
                for height in [1, 2, 3, 8, 24, 60] {
                    let text = drawn(state, look, (width, height));
                    assert!(
                        !text.contains('\u{1b}') && !text.contains('\u{202e}'),
                        "{text}"
                    );
                    if !look.utf8 {
                        assert!(text.is_ascii(), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn chosen_model_is_on_the_screen_among_many() {
    let mut state = example::state();
    let live = state.live.as_mut().unwrap();
    let model = live.models[0].clone();
    for number in 0..100 {
        let mut model = model.clone();
        model.served.model = format!("model-{number:03}");
        live.models.push(model);
    }
    state.sort = Sort::Name;
    state.step(isize::MIN);
    for step in 0..100 {
        let name = state.chosen_model().unwrap().served.model.clone();
        for size in [SMALL, LARGE] {
            let text = drawn(&state, UTF8, size);
            let name: String = name.chars().take(9).collect();
            assert!(text.contains(&name), "{step}: {name}\n{text}");
        }
        state.step(1);
    }
}

#[test]
fn explanation_says_what_was_why_and_how_sure() {
    let state = example::state();
    let live = state.live.as_ref().unwrap();
    let model = live
        .models
        .iter()
        .find(|model| model.served.model == "ranker");
    let lines = why::model(model.unwrap(), UTF8, 100);
    let text: String = lines
        .iter()
        .map(|line| format!("{}\n", line.to_string().trim_end()))
        .collect();
    assert_golden("why", &text);
    let requests: Vec<_> = state.requests.iter().collect();
    let slowest = why::slowest(&requests, 2);
    let lines = why::requests(&slowest, &live.source, UTF8, 100);
    let text: String = lines
        .iter()
        .map(|line| format!("{}\n", line.to_string().trim_end()))
        .collect();
    assert_golden("slowest", &text);
}

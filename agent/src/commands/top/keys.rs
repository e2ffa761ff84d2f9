//! Says what a key does to the state of the screen.
//!
//! Does not depend on: the terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::{cli::View, screen::state::State};

/// Models that a page of keys moves by.
const PAGE: isize = 10;
/// How far an arrow moves in a recording, ms.
const STEP_MS: i64 = 10_000;
/// Longest filter, letters.
const MAX_FILTER: usize = 100;

/// What a key asks for beyond the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// End the program.
    Quit,
    /// Stop the program, as the shell's Ctrl-Z does.
    Suspend,
    /// Move in the recording.
    Seek(i64),
}

/// Applies a key.
pub(super) fn press(state: &mut State, key: KeyEvent) -> Option<Act> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Some(Act::Quit),
            KeyCode::Char('z') => Some(Act::Suspend),
            _ => None,
        };
    }
    if state.typing {
        typed(state, key.code);
        return None;
    }
    match key.code {
        KeyCode::Char('q') => return Some(Act::Quit),
        KeyCode::Char('?') => state.help = !state.help,
        KeyCode::Esc if state.help => state.help = false,
        KeyCode::Esc if state.detail => state.detail = false,
        KeyCode::Esc => state.filter.clear(),
        KeyCode::Char('w') => show(state, View::Waterfall),
        KeyCode::Char('r') => {
            state.slowest_first = state.view == View::Requests && !state.slowest_first;
            show(state, View::Requests);
        }
        KeyCode::Char('h') => show(state, View::Heat),
        KeyCode::Char('g') => show(state, View::Gpu),
        KeyCode::Char('s') => state.sort = state.sort.next(),
        KeyCode::Char(' ') => state.frozen = !state.frozen,
        KeyCode::Char('/') => state.typing = true,
        KeyCode::Enter => {
            let is_open = state.view == View::Waterfall && state.detail;
            show(state, View::Waterfall);
            state.detail = !is_open;
        }
        KeyCode::Up | KeyCode::Char('k') => state.step(-1),
        KeyCode::Down | KeyCode::Char('j') => state.step(1),
        KeyCode::PageUp => state.step(-PAGE),
        KeyCode::PageDown => state.step(PAGE),
        KeyCode::Home => state.step(isize::MIN),
        KeyCode::End => state.step(isize::MAX),
        KeyCode::Left => return Some(Act::Seek(-STEP_MS)),
        KeyCode::Right => return Some(Act::Seek(STEP_MS)),
        _ => {}
    }
    None
}

fn show(state: &mut State, view: View) {
    state.view = view;
    state.help = false;
    state.detail = false;
}

fn typed(state: &mut State, code: KeyCode) {
    match code {
        KeyCode::Enter => state.typing = false,
        KeyCode::Esc => {
            state.typing = false;
            state.filter.clear();
        }
        KeyCode::Backspace => {
            state.filter.pop();
        }
        KeyCode::Char(letter) if state.filter.chars().count() < MAX_FILTER => {
            state.filter.push(letter);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press_all(state: &mut State, keys: &str) -> Vec<Act> {
        let codes = keys.chars().map(|key| match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '<' => KeyCode::Left,
            key => KeyCode::Char(key),
        });
        let acts = codes.map(|code| press(state, KeyEvent::new(code, KeyModifiers::NONE)));
        acts.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    #[test]
    fn keys_choose_a_view_and_leave_it() {
        let mut state = State::default();
        assert_eq!(press_all(&mut state, "g?"), []);
        assert_eq!((state.view, state.help), (View::Gpu, true));
        press_all(&mut state, "r");
        assert_eq!(
            (state.view, state.help, state.slowest_first),
            (View::Requests, false, false)
        );
        press_all(&mut state, "r");
        assert!(state.slowest_first);
        press_all(&mut state, "\n");
        assert_eq!((state.view, state.detail), (View::Waterfall, true));
        press_all(&mut state, "\u{1b}");
        assert!(!state.detail);
        assert_eq!(press_all(&mut state, "<q"), [Act::Seek(-10_000), Act::Quit]);
    }

    #[test]
    fn letters_of_a_filter_are_no_commands() {
        let mut state = State::default();
        assert_eq!(press_all(&mut state, "/quux\u{8}\n"), []);
        assert_eq!((state.filter.as_str(), state.typing), ("quu", false));
        press_all(&mut state, "\u{1b}");
        assert_eq!(state.filter, "");
        press_all(&mut state, &format!("/{}\n", "x".repeat(1000)));
        assert_eq!(state.filter.len(), MAX_FILTER);
    }

    #[test]
    fn control_keys_end_and_stop_the_program_also_while_typing() {
        let mut state = State {
            typing: true,
            ..State::default()
        };
        for (letter, act) in [('c', Act::Quit), ('z', Act::Suspend)] {
            let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
            assert_eq!(press(&mut state, key), Some(act));
        }
    }
}

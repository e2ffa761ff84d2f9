//! Skips every event of the scripted connections, as a kernel may skip a program, and compares what comes of the rest with
//! the truth: a request is equal to it, or counts as unknown, and never differs.
//!
//! The events pass through the kernel half's own decisions, and through the agent's connections.

mod hooks;
mod transfer;

use std::collections::BTreeSet;

use hooks::{Hooks, Outcome};
use inferprobe::exchange::{Exchange, event::Loss};
use inferprobe_tests::scripted_server::{cases::CASES, script::Script};
use transfer::{Skip, Transfer, transfers};

/// Positions of the events to skip: all of them, or the first and last and some in between of very many.
fn positions(count: usize) -> impl Iterator<Item = usize> {
    let is_chosen = move |position: &usize| {
        count <= 40 || *position < 8 || *position + 8 >= count || position.is_multiple_of(count / 8)
    };
    (0..count).filter(is_chosen)
}

/// What is wrong with `found`, an exchange of which events were skipped; `None` if each value is that of `truth`, or
/// unknown.
fn difference(found: &Exchange, truth: &Exchange) -> Option<String> {
    let (request, response) = (&found.request, &found.response);
    let (real, answer) = (&truth.request, &truth.response);
    // The end of a request that is not complete was not observed, and no time of the handler is reported.
    let ends_unobserved = !request.complete && found.overlaps();
    let values = [
        ("method", request.method == real.method),
        ("target", request.target == real.target),
        ("request bytes", request.bytes == real.bytes),
        ("model", request.named == real.named || request.content_cut),
        ("first read", request.first_read_ns == real.first_read_ns),
        (
            "last read",
            request.last_read_ns == real.last_read_ns || ends_unobserved,
        ),
        ("arrival", is_known_as(request.arrival_ns, real.arrival_ns)),
        ("status", response.status == answer.status),
        ("response bytes", response.bytes == answer.bytes),
        (
            "first write",
            response.first_write_bounded || response.first_write_ns == answer.first_write_ns,
        ),
        (
            "last write",
            is_known_as(response.last_write_ns, answer.last_write_ns),
        ),
        ("chunks", response.chunks == answer.chunks),
        ("generation", response.generation == answer.generation),
    ];
    let (name, _) = values.iter().find(|(_, is_equal)| !is_equal)?;
    Some(format!("{name}: {found:#?}\nis not\n{truth:#?}"))
}

/// Whether a time is that of the truth, or unknown.
fn is_known_as(found: Option<u64>, truth: Option<u64>) -> bool {
    found.is_none() || found == truth
}

/// Returns the first difference of what came of a connection with skipped events to each of `truths`.
fn first_difference(outcome: &Outcome, truths: &[&Outcome]) -> Option<String> {
    outcome.finished.iter().find_map(|found| {
        let is_same = |real: &&Exchange| {
            (&real.request.target, real.request.first_read_ns)
                == (&found.request.target, found.request.first_read_ns)
        };
        let compared = truths.iter().map(|truth| {
            let real = truth.finished.iter().find(is_same);
            match real {
                Some(real) => difference(found, real),
                None => Some(format!("nothing like {found:#?}")),
            }
        });
        compared.min().flatten()
    })
}

/// One scripted connection.
struct Played {
    name: &'static str,
    script: Script,
    all: Vec<Transfer>,
    /// What comes of it if no event is skipped.
    truth: Outcome,
}

impl Played {
    /// Every scripted connection; `has_positions` as in [`Hooks::play`].
    fn cases(has_positions: bool) -> impl Iterator<Item = Self> {
        CASES.iter().map(move |case| {
            let script = (case.script)();
            let all = transfers(&script);
            let truth = Hooks::play(&script, &all, &[], has_positions);
            assert!(!truth.lost.contains(&Loss::Unobserved), "{}", case.name);
            let answered = script.asked.iter().filter(|asked| asked.status > 0);
            assert_eq!(truth.finished.len(), answered.count(), "{}", case.name);
            Self {
                name: case.name,
                script,
                all,
                truth,
            }
        })
    }

    /// Checks what comes of the connection without these events; returns how many requests are not known.
    fn hold_without(&self, skips: &[Skip]) -> usize {
        let what = format!("{}, without {skips:?}", self.name);
        let outcome = Hooks::play(&self.script, &self.all, skips, true);
        let late: Vec<Skip> = skips.iter().filter_map(|skip| skip.at_best()).collect();
        let at_best = Hooks::play(&self.script, &self.all, &late, true);
        if let Some(difference) = first_difference(&outcome, &[&self.truth, &at_best]) {
            panic!("{what}: {difference}");
        }
        assert_eq!(outcome.bytes, self.truth.bytes, "{what}");
        let unknown = self
            .truth
            .finished
            .len()
            .saturating_sub(outcome.finished.len());
        let is_flagged = outcome.lost.contains(&Loss::Unobserved);
        assert!(
            unknown == 0 || is_flagged,
            "{what}: {unknown} are missing, and nothing says so: {:?} {:?}",
            outcome.unfinished,
            outcome.lost
        );
        unknown
    }
}

#[test]
fn a_skipped_event_makes_no_value_wrong() {
    let (mut skips, mut unknown, mut known) = (0, 0, 0);
    for played in Played::cases(true) {
        for position in positions(played.all.len()) {
            for skip in [Skip::Return(position), Skip::Start(position)] {
                let missing = played.hold_without(&[skip]);
                unknown += missing;
                known += played.truth.finished.len() - missing;
                skips += 1;
            }
        }
    }
    println!("{skips} skipped events: {known} requests known, {unknown} not");
    assert!(skips > 400 && known > 400);
}

#[test]
fn two_skipped_events_make_no_value_wrong() {
    for played in Played::cases(true) {
        for first in positions(played.all.len()) {
            for apart in [1, 2, 5] {
                let second = first + apart;
                played.hold_without(&[Skip::Return(first), Skip::Return(second)]);
                played.hold_without(&[Skip::Return(first), Skip::Start(second)]);
                played.hold_without(&[Skip::Start(first), Skip::Return(second)]);
            }
            played.hold_without(&[Skip::Start(first), Skip::Return(first)]);
        }
    }
}

/// The kernel keeps no positions of unix sockets: docs/limits.md says so.
#[test]
fn without_positions_a_skipped_event_may_give_a_wrong_number() {
    let mut wrong = BTreeSet::new();
    for played in Played::cases(false) {
        for position in positions(played.all.len()) {
            let skip = [Skip::Return(position)];
            let outcome = Hooks::play(&played.script, &played.all, &skip, false);
            if first_difference(&outcome, &[&played.truth]).is_some() {
                wrong.insert(played.name);
            }
        }
    }
    assert!(!wrong.is_empty());
}

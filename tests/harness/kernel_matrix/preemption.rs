//! Changes the preemption model of the running kernel again and again, where it can be changed.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// The models of the running kernel, the present one in parentheses.
const MODELS: &str = "/sys/kernel/debug/sched/preempt";
/// Time between two changes.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs `act` while the model changes; returns what it returns, and how often the model changed.
pub(super) fn changing<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let models = models(&fs::read_to_string(MODELS).expect("debugfs has the models"));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut changes = 0;
            for model in models.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(MODELS, model).expect("the model can be changed");
                changes += 1;
                thread::sleep(PAUSE);
            }
            changes
        });
        let outcome = act();
        ended.store(true, Ordering::Relaxed);
        (outcome, changes.join().expect("it only writes"))
    })
}

/// Returns the names of the models in `text`.
fn models(text: &str) -> Vec<String> {
    let names = text.split_whitespace();
    let names = names.map(|name| name.trim_matches(['(', ')']).to_owned());
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_model_is_one_of_them() {
        assert_eq!(
            models("none voluntary (full) lazy \n"),
            ["none", "voluntary", "full", "lazy"]
        );
    }
}

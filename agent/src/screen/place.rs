//! Names where a server runs: in short, or so that it is told apart from others of the same model.
//!
//! Does not depend on: how it is drawn.

use crate::api::{Labels, Served, live::Model};

/// Labels that say where a server runs, most specific first.
const LABELS: [&str; 4] = ["pod", "container", "namespace", "port"];

/// Returns the most specific label; empty if none is known.
pub(super) fn short(labels: &Labels) -> String {
    let known = LABELS.iter().map(|name| labels.get(name));
    known
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .next()
        .unwrap_or_default()
}

/// Returns all that is known of it, with the names of the labels.
pub(super) fn all(labels: &Labels) -> Vec<String> {
    let labels = LABELS.iter().map(|name| (name, labels.get(name)));
    let known = labels.filter(|(_, value)| !value.is_empty());
    known
        .map(|(name, value)| format!("{name} {value}"))
        .collect()
}

/// Returns in what it differs from others that serve a model of this name; `None` if there is none among `models`, or
/// if it is not known.
pub(super) fn apart<'a>(
    served: &Served,
    labels: &Labels,
    models: impl IntoIterator<Item = &'a Model>,
) -> Option<String> {
    let is_other = |one: &&Model| {
        one.served.model == served.model && (one.served != *served || one.labels != *labels)
    };
    let others: Vec<&Model> = models.into_iter().filter(is_other).collect();
    let mut parts = Vec::new();
    if others.iter().any(|one| one.served.server != served.server) {
        parts.push(served.server.clone());
    }
    if others
        .iter()
        .any(|one| one.served.version != served.version)
    {
        parts.push(format!("version {}", served.version));
    }
    for name in LABELS {
        let value = labels.get(name);
        if others.iter().any(|one| one.labels.get(name) != value) && !value.is_empty() {
            parts.push(format!("{name} {value}"));
        }
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, server: &str, labels: [&str; 4]) -> Model {
        Model {
            served: Served {
                model: name.into(),
                version: "1".into(),
                server: server.into(),
            },
            labels: Labels::new(labels),
            ..Model::default()
        }
    }

    fn apart_of(models: &[Model]) -> Vec<Option<String>> {
        let each = models.iter();
        each.map(|one| apart(&one.served, &one.labels, models))
            .collect()
    }

    #[test]
    fn only_what_differs_tells_apart() {
        let some = |text: &str| Some(text.to_owned());
        let host = |name, port| model(name, "vllm", [port, "", "", ""]);
        let pod = |pod| model("a", "vllm", ["8000", "llm", pod, "server"]);
        let cases = [
            (vec![host("a", "1"), host("b", "2")], vec![None, None]),
            (
                vec![host("a", "1"), host("a", "2"), host("b", "1")],
                vec![some("port 1"), some("port 2"), None],
            ),
            (vec![pod("x"), pod("y")], vec![some("pod x"), some("pod y")]),
            (
                vec![host("a", "1"), model("a", "triton", ["1", "", "", ""])],
                vec![some("vllm"), some("triton")],
            ),
            // One is on the host itself, at the same port.
            (
                vec![pod("x"), host("a", "8000")],
                vec![some("pod x container server namespace llm"), None],
            ),
        ];
        for (models, expected) in cases {
            assert_eq!(apart_of(&models), expected);
        }
    }

    #[test]
    fn the_most_specific_label_is_the_short_name() {
        assert_eq!(short(&Labels::new(["1", "n", "p", "c"])), "p");
        assert_eq!(short(&Labels::new(["1", "n", "", ""])), "n");
        assert_eq!(short(&Labels::default()), "");
        assert_eq!(all(&Labels::new(["1", "", "p", ""])), ["pod p", "port 1"]);
    }
}

//! Runs `inferprobe why`: says why the requests of a model are slow, or draws the slowest requests.
//!
//! Does not depend on: how a verdict is reached.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::{
    api::{
        Source,
        live::{Live, Model},
        requests::Request as Finished,
    },
    cli::WhyArgs,
    commands::{print, runtime},
    remote::{client::Client, target::Target},
    screen::{look::Look, text, why},
    usage::UsageError,
};

/// Models that are named if the wanted one is not known.
const NAMED: usize = 10;

/// A checked command.
#[derive(Debug)]
pub struct Request {
    target: Target,
    model: Option<String>,
    slowest: Option<usize>,
    json: bool,
    look: Look,
}

/// What `--json` prints: who said it, and what was asked for.
#[derive(Serialize)]
struct Answer<'a> {
    source: &'a Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<&'a [&'a Model]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<&'a [&'a Finished]>,
}

impl Request {
    /// Checks the command line.
    pub fn check(args: &WhyArgs) -> Result<Self, UsageError> {
        Ok(Self {
            target: Target::of(&args.agent)?,
            model: args.model.clone(),
            slowest: args.slowest.map(usize::from),
            json: args.json,
            look: print::look(args.no_color),
        })
    }
}

/// Asks the agent, and prints what it says.
pub fn run(request: Request) -> Result<()> {
    runtime::block_on(async move {
        let Request {
            target,
            model,
            slowest,
            json,
            look,
        } = request;
        let client = Client::connect(target).await?;
        let live = client.live().await?;
        let name = model.as_deref();
        let models = chosen(&live, name)?;
        let width = print::width();
        let Some(number) = slowest else {
            return match json {
                true => print_json(&live.source, Some(&models), None),
                false => print::lines(&explained(&models, name.is_some(), look, width), look),
            };
        };
        let answer = client.requests(None).await?;
        let of_model = answer
            .requests
            .iter()
            .filter(|one| name.is_none_or(|name| one.served.model == name));
        let slowest = why::slowest(&of_model.collect::<Vec<_>>(), number);
        match json {
            true => print_json(&answer.source, None, Some(&slowest)),
            false => {
                let lines = why::requests(&slowest, &answer.source, look, width);
                print::lines(&lines, look)
            }
        }
    })
}

/// Returns the models with this name, or all of them.
fn chosen<'a>(live: &'a Live, name: Option<&str>) -> Result<Vec<&'a Model>> {
    let is_named = |model: &&Model| name.is_none_or(|name| model.served.model == name);
    let models: Vec<&Model> = live.models.iter().filter(is_named).collect();
    if !models.is_empty() {
        return Ok(models);
    }
    let mut known: Vec<String> = live
        .models
        .iter()
        .map(|model| text::clean(&model.served.model))
        .collect();
    known.dedup();
    match name {
        None => bail!(
            "no inference request has ended yet on {}; `inferprobe top` shows what is watched",
            text::clean(&live.source.hostname)
        ),
        Some(name) if known.is_empty() => {
            bail!("MODEL {name:?}: no inference request has ended yet")
        }
        Some(name) => {
            let more = match known.len() > NAMED {
                true => ", and others",
                false => "",
            };
            known.truncate(NAMED);
            bail!(
                "MODEL {name:?}: not among the models of this agent; it has {}{more}",
                known.join(", ")
            )
        }
    }
}

/// Returns the explanation of each model; of all models only those that are slow, unless one was asked for.
fn explained(
    models: &[&Model],
    is_asked_for: bool,
    look: Look,
    width: usize,
) -> Vec<ratatui::text::Line<'static>> {
    let is_slow = |model: &Model| {
        !matches!(model.verdict.cause.as_str(), "fine" | "idle") || !model.verdict.fails.is_empty()
    };
    let (explained, others): (Vec<&Model>, Vec<&Model>) = models
        .iter()
        .copied()
        .partition(|model| is_asked_for || is_slow(model));
    let mut lines = Vec::new();
    for model in explained {
        lines.extend(why::model(model, look, width));
        lines.push(ratatui::text::Line::default());
    }
    for model in others {
        let line = why::brief(model, models);
        lines.push(ratatui::text::Line::raw(text::cut(&line, width, look)));
    }
    if lines.last().is_some_and(|line| line.spans.is_empty()) {
        lines.pop();
    }
    lines
}

fn print_json(
    source: &Source,
    models: Option<&[&Model]>,
    requests: Option<&[&Finished]>,
) -> Result<()> {
    let answer = Answer {
        source,
        models,
        requests,
    };
    let json = serde_json::to_string(&answer).context("write JSON")?;
    print::text(&(text::clean_json(&json) + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Served, verdict::Verdict};

    fn model(name: &str, cause: &str) -> Model {
        Model {
            served: Served {
                model: name.into(),
                ..Served::default()
            },
            verdict: Verdict {
                cause: cause.into(),
                headline: format!("it is {cause}"),
                ..Verdict::default()
            },
            ..Model::default()
        }
    }

    fn live() -> Live {
        Live {
            models: vec![
                model("slow", "queue"),
                model("fine", "fine"),
                model("x\u{1b}y", "idle"),
            ],
            ..Live::default()
        }
    }

    fn text_of(live: &Live, name: Option<&str>) -> String {
        let look = Look {
            utf8: true,
            color: false,
        };
        let models = chosen(live, name).unwrap();
        let lines = explained(&models, name.is_some(), look, 80);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn slow_models_are_explained_and_others_named() {
        let text = text_of(&live(), None);
        assert!(text.contains("because     it is queue"), "{text}");
        assert!(
            text.ends_with("\nfine: it is fine\nx\u{fffd}y: it is idle\n"),
            "{text}"
        );
        let text = text_of(&live(), Some("fine"));
        assert!(text.contains("because     it is fine"), "{text}");
        assert!(!text.contains("queue"), "{text}");
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_known_ones() {
        let err = chosen(&live(), Some("nope")).unwrap_err().to_string();
        assert_eq!(
            err,
            "MODEL \"nope\": not among the models of this agent; it has slow, fine, x\u{fffd}y"
        );
        let none = Live::default();
        for name in [None, Some("nope")] {
            let err = chosen(&none, name).unwrap_err().to_string();
            assert!(err.contains("no inference request has ended yet"), "{err}");
        }
    }
}

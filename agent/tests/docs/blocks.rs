//! Renders the tables of the documentation from those of the code.
//!
//! Does not depend on: the pages.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use inferprobe::{
    catalogue::{
        Catalogue,
        file::{Fallback, FileServer},
    },
    cli::Cli,
    commands::assets::ASSETS,
    config::keys::KEYS,
    exchange::event::{Loss, Unfinished},
    metrics::{
        families::{AUTOSCALE_FAMILIES, FAMILIES},
        family::Group,
        stages,
    },
};
use inferprobe_ebpf::abi::DropReason;

/// Instructions of a request, as `cargo xtask kernel-test` counted them.
const INSTRUCTIONS: &str = include_str!("../../../tests/golden/instructions.txt");
/// Stands in a cell without a value.
const NONE: &str = "–";

/// Returns the names of all tables.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = Group::ALL
        .iter()
        .map(|group| format!("families-{}", group.name()))
        .collect();
    names.extend(command_names().map(|name| format!("options-{name}")));
    let fixed = [
        "loss-reasons",
        "unfinished-reasons",
        "drop-reasons",
        "stages",
        "config-keys",
        "servers",
        "assets",
        "apis",
        "probes",
        "instructions",
    ];
    names.extend(fixed.map(str::to_owned));
    names
}

/// Returns the table `name`; `None` if there is none of this name.
pub(crate) fn render(name: &str) -> Option<String> {
    if let Some(group) = name.strip_prefix("families-") {
        let group = Group::ALL.into_iter().find(|one| one.name() == group)?;
        return Some(families(group));
    }
    if let Some(command) = name.strip_prefix("options-") {
        return Some(options(Cli::command().find_subcommand(command)?));
    }
    match name {
        "loss-reasons" => Some(reasons(Loss::ALL.map(|loss| (loss.name(), loss.help())))),
        "unfinished-reasons" => Some(reasons(
            Unfinished::ALL.map(|reason| (reason.name(), reason.help())),
        )),
        "drop-reasons" => Some(reasons(
            DropReason::ALL.map(|reason| (reason.name(), reason.help())),
        )),
        "stages" => Some(stages()),
        "config-keys" => Some(config_keys()),
        "servers" => Some(servers()),
        "assets" => Some(assets()),
        "apis" => Some(apis()),
        "probes" => Some(probes()),
        "instructions" => Some(instructions()),
        _ => None,
    }
}

fn families(group: Group) -> String {
    let families = FAMILIES.iter().chain(AUTOSCALE_FAMILIES);
    let rows = families
        .filter(|family| family.group == group)
        .map(|family| {
            let help = format!("{} {}", family.help(), family.note);
            [
                code(family.name),
                family.kind.name().to_owned(),
                list(family.labels),
                help.trim_end().to_owned(),
            ]
        });
    table(["Family", "Type", "Labels", "Help"], rows)
}

fn reasons<const N: usize>(reasons: [(&str, &str); N]) -> String {
    let rows = reasons.map(|(name, help)| [code(name), help.to_owned()]);
    table(["Reason", "Meaning"], rows)
}

fn assets() -> String {
    let rows = ASSETS.iter().map(|asset| {
        let path = asset.path;
        let link = match path.strip_prefix("docs/") {
            Some(page) => page.to_owned(),
            None => format!("../{path}"),
        };
        [
            code(asset.name),
            asset.help.to_owned(),
            format!("[`{path}`]({link})"),
        ]
    });
    table(["Name", "File", "In the repository"], rows)
}

fn stages() -> String {
    let rows = stages::ALL.map(|stage| {
        [
            code(stage.name),
            stage.from.to_owned(),
            stage.to.to_owned(),
            stage
                .family
                .map_or_else(|| NONE.to_owned(), |family| code(family.name)),
        ]
    });
    table(["Stage", "From", "To", "Family"], rows)
}

fn command_names() -> impl Iterator<Item = String> {
    let names: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    names.into_iter()
}

fn options(command: &Command) -> String {
    let rows = command.get_arguments().map(|arg| {
        let values = arg.get_value_names().unwrap_or_default();
        let value = values.first().map(|value| code(value));
        let has_value = !matches!(arg.get_action(), ArgAction::SetTrue);
        let help = arg.get_help().map(ToString::to_string);
        let (help, default) = split_default(&help.unwrap_or_default());
        match arg.get_long() {
            Some(long) => [
                code(&format!("--{long}")),
                value.filter(|_| has_value).unwrap_or(NONE.to_owned()),
                default_of(arg, default),
                help,
            ],
            None => [
                value.unwrap_or_default(),
                NONE.to_owned(),
                default_of(arg, default),
                help,
            ],
        }
    });
    table(["Option", "Value", "Default", "Help"], rows)
}

fn default_of(arg: &Arg, in_help: Option<String>) -> String {
    let defaults = arg.get_default_values();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        "off".to_owned()
    } else if let Some(default) = defaults.first() {
        code(&default.to_string_lossy())
    } else if arg.is_required_set() {
        "required".to_owned()
    } else {
        match in_help {
            Some(default) if default.contains(' ') => default,
            Some(default) => code(&default),
            None => NONE.to_owned(),
        }
    }
}

/// Splits `help [a; default: b]` into `help [a]` and `b`.
fn split_default(help: &str) -> (String, Option<String>) {
    let found = help
        .strip_suffix(']')
        .and_then(|help| help.rsplit_once("default: "));
    let Some((rest, default)) = found else {
        return (help.to_owned(), None);
    };
    let rest = match rest.strip_suffix("; ") {
        Some(rest) => format!("{rest}]"),
        None => rest.trim_end_matches('[').trim_end().to_owned(),
    };
    (rest, Some(default.to_owned()))
}

fn config_keys() -> String {
    let rows = KEYS.iter().map(|key| {
        let name = match key.value {
            "array of tables" => format!("[[{}]]", key.name),
            _ => key.name.to_owned(),
        };
        let default = match key.default {
            "" => NONE.to_owned(),
            default => code(default),
        };
        let mut options = list(key.options);
        if key.default == "true" {
            options.push_str(" sets `false`");
        }
        [code(&name), key.value.to_owned(), default, options]
    });
    table(["Key", "Type", "Default", "Option"], rows)
}

fn servers() -> String {
    let built_in = Catalogue::built_in();
    let rows = built_in.server.iter().map(|server| {
        [
            code(&server.name),
            recognised_by(server),
            model_from(server),
            purposes(server),
        ]
    });
    table(["Server", "Recognised by", "Model from", "Purposes"], rows)
}

fn recognised_by(server: &FileServer) -> String {
    let mut text = list(all(&server.process));
    for (what, patterns) in [
        ("workers", &server.worker_process),
        ("internal", &server.internal_process),
    ] {
        let patterns = all(patterns);
        if !patterns.is_empty() {
            write!(text, "; {what}: {}", list(patterns)).expect("writing to a String succeeds");
        }
    }
    text
}

fn model_from(server: &FileServer) -> String {
    let options: Vec<&str> = all(&server.model_options)
        .iter()
        .map(|option| match option.as_str() {
            "ARGUMENT" => "its argument",
            option => option,
        })
        .collect();
    let options = options.as_slice();
    match (options.is_empty(), &server.model_pattern) {
        (false, Some(_)) => format!("{}, else the command line", list(options)),
        (true, Some(_)) => "the command line".to_owned(),
        (_, None) => list(options),
    }
}

fn purposes(server: &FileServer) -> String {
    let counts = [
        (
            all(&server.inference).len() + all(&server.inference_by_body).len(),
            "path",
        ),
        (all(&server.grpc_inference).len(), "gRPC method"),
    ];
    let mut counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    let apis = all(&server.apis);
    if !apis.is_empty() {
        counts.push(format!("those of {}", list(apis)));
    }
    let rest = match server.fallback.unwrap_or_default() {
        Fallback::Admin => "all else admin",
        Fallback::DefaultRules => "all else by the default rules",
    };
    match counts.is_empty() {
        true => rest.to_owned(),
        false => format!("inference: {}; {rest}", counts.join(", ")),
    }
}

fn apis() -> String {
    let built_in = Catalogue::built_in();
    let rows = built_in.api.iter().map(|api| {
        let kinds = [
            &api.chat,
            &api.text_completion,
            &api.embeddings,
            &api.generate_content,
            &api.inference,
        ];
        let inference: Vec<&str> = kinds.into_iter().flatten().map(String::as_str).collect();
        [code(&api.name), list(&inference), list(&api.admin)]
    });
    table(["API", "Inference", "Not inference"], rows)
}

fn probes() -> String {
    let rules = Catalogue::built_in().default_rules;
    let rows = [
        [
            "`User-Agent` begins with, in any case".to_owned(),
            list(&rules.probe_agents),
        ],
        ["path".to_owned(), list(&rules.admin)],
    ];
    table(["Not inference", "Values"], rows)
}

fn instructions() -> String {
    let rows = INSTRUCTIONS.lines().map(|line| {
        let cells: Vec<_> = line.split(' ').map(grouped).collect();
        let cells: [String; 6] = cells.try_into().expect("a line has six words");
        cells
    });
    let head = [
        "Linux",
        "Preemption model",
        "Attach mode",
        "A request without the agent",
        "Added in the kernel",
        "Added by the agent",
    ];
    table(head, rows)
}

/// Returns a whole number with commas between thousands, and anything else as it is.
fn grouped(word: &str) -> String {
    if !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.to_owned();
    }
    let groups: Vec<_> = word.as_bytes().rchunks(3).rev().collect();
    String::from_utf8(groups.join(&b',')).expect("digits are text")
}

/// Returns what an entry lists under a key; nothing if it lacks the key.
fn all(key: &Option<Vec<String>>) -> &[String] {
    key.as_deref().unwrap_or_default()
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let cells = row.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        writeln!(text, "| {} |", cells.join(" | ")).expect("writing to a String succeeds");
    }
    text
}

fn list(items: &[impl AsRef<str>]) -> String {
    let items: Vec<String> = items.iter().map(|item| code(item.as_ref())).collect();
    if items.is_empty() {
        return NONE.to_owned();
    }
    items.join(", ")
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

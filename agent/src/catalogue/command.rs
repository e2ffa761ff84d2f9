//! Parses a process's command line into the program, script or module that runs, and its arguments.
//!
//! The catalogue's patterns match the result.
//! Does not depend on: servers.

use serde::Deserialize;

use crate::catalogue::wrapper::{self, Starts};

/// Largest number of wrappers around one program.
const WRAPPERS_CAP: usize = 8;
/// Letters of Python options whose value is the rest of the argument, or else the next argument.
const WITH_VALUE: &str = "XW";

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// All arguments, joined by spaces.
    pub given: String,
    /// Name of the program, or of the script or module that Python runs, and its arguments, joined by spaces; without
    /// the wrappers that started it.
    pub command: String,
    /// Path of the program.
    pub program: String,
    /// The command as separate words.
    words: Vec<String>,
}

/// How a program reads its arguments, as far as its one argument that is no option needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArgumentSyntax {
    /// Words before the argument that are part of the command.
    pub subcommands: Vec<String>,
    /// Options without a value; a `*` at the end stands for anything.
    pub flags: Vec<String>,
    /// Options that take every word up to the next option.
    pub lists: Vec<String>,
}

impl ArgumentSyntax {
    fn is_flag(&self, option: &str) -> bool {
        let option = dashed(option);
        self.flags.iter().any(|flag| match flag.strip_suffix('*') {
            Some(start) => option.starts_with(start),
            None => option == *flag,
        })
    }

    fn is_list(&self, option: &str) -> bool {
        let option = dashed(option);
        self.lists.contains(&option)
    }
}

impl CommandLine {
    /// Parses the content of `/proc/PID/cmdline`: arguments that each end with NUL. `None` if there are none, as for a
    /// kernel thread.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(raw);
        // A process that sets its own title pads it with NULs.
        let arguments: Vec<&str> = text.trim_end_matches('\0').split('\0').collect();
        arguments.first().filter(|program| !program.is_empty())?;
        let words = words_of(&arguments, Starts::Program);
        Some(Self {
            given: arguments.join(" "),
            command: words.join(" "),
            program: arguments[0].to_owned(),
            words,
        })
    }

    /// Returns the name of the program, or of the script or module that Python runs.
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// Whether it is a child that Python's `multiprocessing` started anew; only its parent's command line shows what it
    /// serves.
    pub fn is_spawned(&self) -> bool {
        let code = self.words.get(1).filter(|_| self.words[0] == "-c");
        code.is_some_and(|code| {
            ["spawn", "forkserver"]
                .iter()
                .any(|how| code.starts_with(&format!("from multiprocessing.{how} import ")))
        })
    }

    /// Returns the first argument that is neither an option nor the value of one, nor a subcommand.
    ///
    /// An option that is unknown takes the next word as its value. So a new flag in front of the argument hides it, but
    /// no value is ever taken for the argument.
    pub fn argument(&self, syntax: &ArgumentSyntax) -> Option<&str> {
        let mut words = self.words.iter().skip(1).map(String::as_str).peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                return words.next();
            }
            if !word.starts_with('-') {
                match syntax.subcommands.iter().any(|known| known == word) {
                    true => continue,
                    false => return Some(word).filter(|word| !word.is_empty()),
                }
            }
            if word.contains('=') || syntax.is_flag(word) {
                continue;
            }
            let takes = if syntax.is_list(word) { usize::MAX } else { 1 };
            for _ in 0..takes {
                if words.next_if(|next| !next.starts_with('-')).is_none() {
                    break;
                }
            }
        }
        None
    }

    /// Returns the value of an option: `--name value` or `--name=value`, with dashes or underscores inside the name.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.words.iter().skip(1);
        while let Some(word) = words.next() {
            let (given, value) = match word.split_once('=') {
                Some((given, value)) => (given, Some(value)),
                None => (word.as_str(), None),
            };
            if given == name || (name.starts_with("--") && dashed(given) == name) {
                let value = value.or_else(|| words.next().map(String::as_str));
                return value.filter(|value| !value.is_empty() && !value.starts_with('-'));
            }
        }
        None
    }
}

/// Returns an option with dashes in place of underscores.
fn dashed(option: &str) -> String {
    option.replace('_', "-")
}

/// Returns the program that runs behind all wrappers, or the script or module that Python runs, and its arguments.
fn words_of(arguments: &[&str], starts: Starts) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    let mut starts = starts;
    for _ in 0..WRAPPERS_CAP {
        let program = arguments.first().copied().unwrap_or_default();
        let name = base_name(program);
        let is_python = name.starts_with("python") || name.starts_with("pypy");
        let words = match (starts, is_python) {
            (Starts::Python, _) => script_of(&arguments),
            (Starts::Program, true) => script_of(&arguments[1..]),
            (Starts::Program, false) => Some([&[name], &arguments[1..]].concat()),
        };
        let Some(words) = words else {
            return owned(&[name]);
        };
        let unwrapped = wrapper::unwrap(words[0], &words[1..]);
        let Some(unwrapped) = unwrapped else {
            return owned(&words);
        };
        (arguments, starts) = (unwrapped.arguments, unwrapped.starts);
    }
    owned(&arguments)
}

/// Returns the last part of a path; a title that is not a path stays whole.
fn base_name(program: &str) -> &str {
    let first = program.split(' ').next().unwrap_or_default();
    match first.contains('/') {
        true => program.rsplit('/').next().unwrap_or_default(),
        false => program,
    }
}

/// Returns what Python runs, and its arguments: the name of a script or module, or `-c` and its code.
fn script_of<'a>(arguments: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut at = 0;
    loop {
        let argument = *arguments.get(at)?;
        at += 1;
        let Some(letters) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return Some([&[base_name(argument)], &arguments[at..]].concat());
        };
        if letters.starts_with('-') {
            at += usize::from(letters == "-check-hash-based-pycs");
            continue;
        }
        let Some(which) =
            letters.find(|letter| "mc".contains(letter) || WITH_VALUE.contains(letter))
        else {
            continue;
        };
        let (letter, value) = (letters.as_bytes()[which], &letters[which + 1..]);
        let value = match value.is_empty() {
            false => value,
            true => {
                at += 1;
                *arguments.get(at - 1)?
            }
        };
        match letter {
            b'm' => return Some([&[value], &arguments[at..]].concat()),
            b'c' => return Some([&["-c", value], &arguments[at..]].concat()),
            _ => {}
        }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> CommandLine {
        let raw: String = line.iter().map(|word| format!("{word}\0")).collect();
        CommandLine::parse(raw.as_bytes()).unwrap()
    }

    #[test]
    fn a_command_is_the_program_that_runs_and_its_arguments() {
        for (line, command) in [
            (&["/usr/bin/ollama", "serve"][..], "ollama serve"),
            (
                &["python3", "/venv/bin/uvicorn", "main:app"],
                "uvicorn main:app",
            ),
            (
                &["/v/bin/python3.11", "-m", "uvicorn", "a:b"],
                "uvicorn a:b",
            ),
            (&["python", "-Im", "uvicorn", "a:b"], "uvicorn a:b"),
            (
                &["python", "-X", "dev", "-Wignore", "-u", "-muvicorn", "a:b"],
                "uvicorn a:b",
            ),
            (
                &[
                    "python",
                    "--check-hash-based-pycs",
                    "never",
                    "x/a.py",
                    "-m",
                    "b",
                ],
                "a.py -m b",
            ),
            (
                &["python", "-c", "import vllm", "serve"],
                "-c import vllm serve",
            ),
            (&["pypy3", "-m"], "pypy3"),
            (&["python"], "python"),
            (
                &["gunicorn: worker [my/app:app]", "", ""],
                "gunicorn: worker [my/app:app]",
            ),
            (&["/opt/my tools/bin/ollama", "serve"], "ollama serve"),
            (&["ray::ProxyActor"], "ray::ProxyActor"),
            (&["vim", "/x/vllm.py"], "vim /x/vllm.py"),
            (
                &["/usr/bin/tini", "-g", "--", "vllm", "serve", "m"],
                "vllm serve m",
            ),
            (&["dumb-init", "ollama", "serve"], "ollama serve"),
            (&["nohup", "python3", "-m", "uvicorn", "a:b"], "uvicorn a:b"),
            (
                &["numactl", "-N", "0", "--membind=0", "vllm", "serve"],
                "vllm serve",
            ),
            (
                &["numactl", "-m", "0", "-C", "0-3", "vllm", "serve"],
                "vllm serve",
            ),
            (
                &["env", "-u", "X", "A=b", "C_D=/e f", "vllm", "serve"],
                "vllm serve",
            ),
            (&["taskset", "-c", "0-3", "vllm", "serve"], "vllm serve"),
            (&["timeout", "-k", "5", "30", "vllm", "serve"], "vllm serve"),
            (
                &[
                    "/lib64/ld-linux-x86-64.so.2",
                    "--library-path",
                    "/l",
                    "/usr/bin/python3",
                    "/v/bin/uvicorn",
                    "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &["uv", "run", "--with", "x", "uvicorn", "a:b"],
                "uvicorn a:b",
            ),
            (&["uv", "run", "-m", "uvicorn", "a:b"], "uvicorn a:b"),
            (&["uv", "run", "serve.py"], "serve.py"),
            (
                &[
                    "conda",
                    "run",
                    "--no-capture-output",
                    "-n",
                    "env",
                    "python",
                    "-m",
                    "vllm.entrypoints.openai.api_server",
                ],
                "vllm.entrypoints.openai.api_server",
            ),
            (
                &["python", "/usr/bin/poetry", "run", "uvicorn", "a:b"],
                "uvicorn a:b",
            ),
            (
                &[
                    "python",
                    "-m",
                    "debugpy",
                    "--listen",
                    "5678",
                    "--wait-for-client",
                    "-m",
                    "uvicorn",
                    "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &[
                    "python",
                    "-Xfrozen_modules=off",
                    "-m",
                    "debugpy",
                    "--listen",
                    "0:5",
                    "/x/app.py",
                    "-m",
                ],
                "app.py -m",
            ),
            (
                &[
                    "python", "-m", "memray", "run", "-o", "out", "-m", "uvicorn", "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &[
                    "python",
                    "/v/bin/coverage",
                    "run",
                    "-p",
                    "--source",
                    "x",
                    "-m",
                    "uvicorn",
                    "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &[
                    "python",
                    "-m",
                    "cProfile",
                    "-o",
                    "f",
                    "/v/bin/vllm",
                    "serve",
                    "m",
                ],
                "vllm serve m",
            ),
            (
                &[
                    "python",
                    "/v/bin/torchrun",
                    "--standalone",
                    "--nproc_per_node",
                    "2",
                    "serve.py",
                    "--x",
                ],
                "serve.py --x",
            ),
            (
                &[
                    "torchrun",
                    "--nproc-per-node=2",
                    "--module",
                    "uvicorn",
                    "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &[
                    "python",
                    "/v/bin/accelerate",
                    "launch",
                    "--num_processes",
                    "2",
                    "--multi_gpu",
                    "-m",
                    "uvicorn",
                    "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &[
                    "tini", "--", "numactl", "-N", "0", "uv", "run", "python", "-m", "debugpy",
                    "--listen", "1", "-m", "uvicorn", "a:b",
                ],
                "uvicorn a:b",
            ),
            (
                &[
                    "mpirun",
                    "-n",
                    "2",
                    "--allow-run-as-root",
                    "trtllm-llmapi-launch",
                    "trtllm-serve",
                    "m",
                ],
                "trtllm-serve m",
            ),
            (&["uv", "sync"], "uv sync"),
            (&["numactl", "--hardware"], "numactl --hardware"),
            (&["python", "-m", "coverage", "report"], "coverage report"),
            (
                &[
                    "nice", "nice", "nice", "nice", "nice", "nice", "nice", "nice", "nice", "a",
                ],
                "nice a",
            ),
        ] {
            assert_eq!(parsed(line).command, command, "{line:?}");
        }
        for raw in [&b""[..], b"\0", b"\0\0\0"] {
            assert_eq!(CommandLine::parse(raw), None);
        }
        assert_eq!(parsed(&["/bin/a", "-x", "y z"]).given, "/bin/a -x y z");
        assert_eq!(
            CommandLine::parse(b"a\xff\0b").unwrap().command,
            "a\u{fffd} b"
        );
    }

    #[test]
    fn a_spawned_child_is_recognised_by_its_code() {
        for code in [
            "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=7, pipe_handle=9)",
            "from multiprocessing.forkserver import main; main(4, 7, [])",
        ] {
            let line = ["python3", "-c", code, "--multiprocessing-fork"];
            assert!(parsed(&line).is_spawned(), "{code}");
            assert!(!parsed(&["vim", "-c", code]).is_spawned());
        }
        let tracker = "from multiprocessing.resource_tracker import main;main(5)";
        assert!(!parsed(&["python3", "-c", tracker]).is_spawned());
        assert!(!parsed(&["python3", "a.py", tracker]).is_spawned());
    }

    #[test]
    fn an_argument_is_found_behind_options_with_and_without_values() {
        let list = |words: &str| words.split(' ').map(str::to_owned).collect();
        let syntax = ArgumentSyntax {
            subcommands: list("serve"),
            flags: list("--enable-* --eager"),
            lists: list("--names"),
        };
        for (line, expected) in [
            ("s serve m", Some("m")),
            ("s serve --port 1 --enable-lora m", Some("m")),
            ("s serve --port=1 --eager m --x y", Some("m")),
            ("s serve --enable_lora m", Some("m")),
            ("s serve m other", Some("m")),
            ("s serve --names a b --eager m", Some("m")),
            ("s serve --names a b m", None),
            ("s serve --new-flag m", None),
            ("s serve --new-flag m n", Some("n")),
            ("s serve --port 1 -- m", Some("m")),
            ("s serve --eager", None),
            ("s serve", None),
            ("s", None),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(parsed(&words).argument(&syntax), expected, "{line}");
        }
    }

    #[test]
    fn options_have_values() {
        let line = parsed(&[
            "s",
            "--model=a",
            "--served_model_name",
            "b",
            "-m",
            "c",
            "--on",
            "--off",
        ]);
        for (name, value) in [
            ("--model", Some("a")),
            ("--served-model-name", Some("b")),
            ("-m", Some("c")),
            ("--on", None),
            ("--off", None),
            ("--other", None),
            ("s", None),
        ] {
            assert_eq!(line.option(name), value, "{name}");
        }
    }
}

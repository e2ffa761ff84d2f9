//! Parses a process's command line into the program, script or module that runs, and its arguments.
//!
//! The catalogue's patterns match the result.
//! Does not depend on: servers.

/// Letters of Python options whose value is the rest of the argument, or else the next argument.
const WITH_VALUE: &str = "XW";

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// All arguments, joined by spaces.
    pub given: String,
    /// Name of the program, or of the script or module that Python runs, and its arguments, joined by spaces.
    pub command: String,
    /// The same as separate words.
    words: Vec<String>,
}

impl CommandLine {
    /// Parses the content of `/proc/PID/cmdline`: arguments that each end with NUL. `None` if there are none, as for a
    /// kernel thread.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(raw);
        // A process that sets its own title pads it with NULs.
        let arguments: Vec<&str> = text.trim_end_matches('\0').split('\0').collect();
        let program = base_name(arguments.first().filter(|program| !program.is_empty())?);
        let is_python = program.starts_with("python") || program.starts_with("pypy");
        let words = match is_python {
            true => script_of(&arguments[1..]).unwrap_or_else(|| vec![program.to_owned()]),
            false => owned(program, &arguments[1..]),
        };
        Some(Self {
            given: arguments.join(" "),
            command: words.join(" "),
            words,
        })
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

    /// Returns the value of an option: `--name value` or `--name=value`, with dashes or underscores inside the name.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.words.iter().skip(1);
        while let Some(word) = words.next() {
            let (given, value) = match word.split_once('=') {
                Some((given, value)) => (given, Some(value)),
                None => (word.as_str(), None),
            };
            if given == name || (name.starts_with("--") && given.replace('_', "-") == name) {
                let value = value.or_else(|| words.next().map(String::as_str));
                return value.filter(|value| !value.is_empty() && !value.starts_with('-'));
            }
        }
        None
    }
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
fn script_of(arguments: &[&str]) -> Option<Vec<String>> {
    let mut at = 0;
    loop {
        let argument = *arguments.get(at)?;
        at += 1;
        let Some(letters) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return Some(owned(base_name(argument), &arguments[at..]));
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
            b'm' => return Some(owned(value, &arguments[at..])),
            b'c' => return Some(owned("-c", &[&[value], &arguments[at..]].concat())),
            _ => {}
        }
    }
}

fn owned(first: &str, rest: &[&str]) -> Vec<String> {
    std::iter::once(&first)
        .chain(rest)
        .map(|word| (*word).to_owned())
        .collect()
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

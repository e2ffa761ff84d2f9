//! A Python script in a process of its own, told line by line what to do.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use crate::process::Owned;

/// A process that is told what to do line by line; it ends when dropped.
pub struct Script {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Owned,
}

impl Script {
    /// Has `python` run the text of a script.
    pub fn start(python: &Path, script: &str, args: &[&str]) -> Self {
        let child = Command::new(python)
            .args(["-c", script])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Owned(child.expect("set-up made an environment of Python"));
        let input = process.0.stdin.take().expect("it was asked for");
        let output = process.0.stdout.take().expect("it was asked for");
        Self {
            input,
            output: BufReader::new(output),
            _process: process,
        }
    }

    /// Says a line; the line that the script answers.
    pub fn ask(&mut self, words: &str) -> String {
        writeln!(self.input, "{words}").expect("the script is there");
        self.line()
    }

    /// The next line that the script writes.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        assert!(
            read.expect("the script writes text") > 0,
            "the script ended"
        );
        line.trim_end().to_owned()
    }
}

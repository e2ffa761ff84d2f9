//! Runs a Python script in another process, which reads commands line by line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use crate::process::Owned;

/// A process that reads commands line by line; it ends when dropped.
pub struct Script {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Owned,
}

impl Script {
    /// Runs the text of a script with `python`.
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

    /// Sends a line, and returns the line that the script prints in response.
    pub fn ask(&mut self, words: &str) -> String {
        writeln!(self.input, "{words}").expect("the script is there");
        self.line()
    }

    /// Returns the next line that the script prints.
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

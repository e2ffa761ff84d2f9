//! Entry point: turns the command line into a run, and its outcome into an exit code.

fn main() {}

//! Shows `top` in a real terminal, tmux, at several sizes, and reads the screen after each key and each change of size.

use std::{
    path::PathBuf,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use inferprobe_tests::{
    process::{binary, cpu_s, rss_bytes},
    require_kernel::skip,
};

/// Names tmux's program; `cargo xtask test` sets it.
const TMUX: &str = "INFERPROBE_TMUX";
/// Sizes of the terminal: a small one, a large one, a narrow one, and one that is smaller than anything useful.
const SIZES: [(usize, usize); 4] = [(80, 24), (200, 50), (40, 60), (12, 4)];
/// From a change to its reading: `top` asks once a second.
const SETTLE: Duration = Duration::from_millis(300);
/// Most memory that `top` may take more at the end than at the start, and most CPU time of a second.
const MOST_MORE_KIB: u64 = 4096;
const MOST_CPUS: f64 = 0.1;

/// A session of tmux, which ends with its handle.
struct Session {
    tmux: PathBuf,
    socket: String,
}

impl Session {
    /// Has tmux run `command` in a terminal of 80 columns and 24 lines.
    fn start(tmux: PathBuf, command: &str) -> Self {
        let socket = format!("inferprobe-test-{}", std::process::id());
        let session = Self { tmux, socket };
        let started = session.tmux(&["new-session", "-d", "-x", "80", "-y", "24", command]);
        assert!(started.status.success(), "{started:?}");
        session.asks(&["set-option", "-g", "status", "off"]);
        session.resize(SIZES[0]);
        session
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.tmux);
        command
            .args(["-L", &self.socket, "-f", "/dev/null", "-u"])
            .args(arguments);
        command
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .env_remove("NO_COLOR");
        command.output().unwrap()
    }

    fn asks(&self, arguments: &[&str]) -> String {
        let output = self.tmux(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn resize(&self, (width, height): (usize, usize)) {
        let (width, height) = (width.to_string(), height.to_string());
        self.asks(&["resize-window", "-x", &width, "-y", &height]);
    }

    fn press(&self, key: &str) {
        self.asks(&["send-keys", key]);
    }

    fn lines(&self) -> Vec<String> {
        let screen = self.asks(&["capture-pane", "-p"]);
        screen.lines().map(str::to_owned).collect()
    }

    fn pid(&self) -> u32 {
        let pid = self.asks(&["display-message", "-p", "#{pane_pid}"]);
        pid.trim().parse().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// What each view has in its first lines below the strip.
const VIEWS: [(&str, &str); 4] = [
    ("w", "MODEL"),
    ("r", "ENDED"),
    ("h", "LATENCY"),
    ("g", "GPU can be read here"),
];

/// Returns what is wrong with a screen; `None` if it is whole: the strip once at the top, the view, and the keys once at
/// the bottom.
fn fault(lines: &[String], (width, height): (usize, usize), heading: &str) -> Option<String> {
    let is_footer = |line: &String| line.starts_with("[w]aterfall");
    // A narrow screen cuts it.
    let is_strip = |line: &String| line.starts_with("infer");
    let count = |is: &dyn Fn(&String) -> bool| lines.iter().filter(|line| is(line)).count();
    if lines.len() != height {
        return Some(format!("{} lines", lines.len()));
    }
    if let Some(long) = lines.iter().find(|line| line.chars().count() > width) {
        return Some(format!("a line is too long: {long}"));
    }
    // Below this size there is no room for all of it.
    if width < 40 || height < 10 {
        return (!is_footer(&lines[height - 1])).then(|| "no keys".into());
    }
    if !is_strip(&lines[0]) || count(&is_strip) != 1 {
        return Some("the strip is not once at the top".into());
    }
    if !is_footer(&lines[height - 1]) || count(&is_footer) != 1 {
        return Some("the keys are not once at the bottom".into());
    }
    let has_heading = lines[1..8].iter().any(|line| line.contains(heading));
    (!has_heading).then(|| format!("no {heading}"))
}

/// Waits until the screen is whole at this size.
fn assert_whole(session: &Session, size: (usize, usize), heading: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        thread::sleep(SETTLE);
        let lines = session.lines();
        match fault(&lines, size, heading) {
            None => return,
            Some(fault) => assert!(
                Instant::now() < deadline,
                "{size:?} {heading}: {fault}\n{}",
                lines.join("\n")
            ),
        }
    }
}

/// Shows all views at all sizes, for this time at least.
fn show(time: Duration) {
    let Some(tmux) = std::env::var_os(TMUX) else {
        skip("no tmux; `cargo xtask test terminal` installs it");
        return;
    };
    let agent = binary("inferprobe", Some("INFERPROBE_BIN"));
    let command = format!("exec '{}' top --demo", agent.display());
    let session = Session::start(tmux.into(), &command);
    assert_whole(&session, SIZES[0], "MODEL");
    let pid = session.pid();
    let (begun, began_s, began_kib) = (Instant::now(), cpu_s(pid), rss_bytes(pid) / 1024);
    loop {
        for size in SIZES {
            session.resize(size);
            for (key, heading) in VIEWS {
                session.press(key);
                assert_whole(&session, size, heading);
            }
        }
        if begun.elapsed() >= time {
            break;
        }
    }
    let cpus = (cpu_s(pid) - began_s) / begun.elapsed().as_secs_f64();
    let more_kib = (rss_bytes(pid) / 1024).saturating_sub(began_kib);
    println!(
        "`top` took {:.1} % of a CPU, and {more_kib} KiB more memory",
        cpus * 100.0
    );
    assert!(cpus < MOST_CPUS, "{cpus}");
    assert!(more_kib < MOST_MORE_KIB, "{more_kib} KiB");
    session.press("q");
    thread::sleep(SETTLE);
    assert!(
        !session.tmux(&["has-session"]).status.success(),
        "q ends it"
    );
}

#[test]
fn every_view_is_whole_at_every_size() {
    show(Duration::ZERO);
}

#[test]
#[ignore = "takes ten minutes: `cargo xtask test terminal -- -- --ignored --nocapture`"]
fn every_view_stays_whole_for_ten_minutes() {
    show(Duration::from_secs(600));
}

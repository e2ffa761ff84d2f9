//! What threads of a server waited for a CPU agrees with the kernel's own sums, also in a pool of threads.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics; the helpers here are not test functions to clippy"
)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use inferprobe::{
    collectors::servers,
    discovery::roster::{Member, Roster, ServedTimes},
    identity::Replica,
    metrics::{Format, Metrics, Selection},
};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_setaffinity},
};

const UNREAD: &str = "inferprobe_server_threads_unread_total";
/// Longest wait.
const DEADLINE: Duration = Duration::from_secs(20);

/// Environment variable that makes this program the pool.
const IS_POOL: &str = "INFERPROBE_TEST_POOL";

/// A process with four threads that compute without a pause, all on one CPU.
struct Pool(Child);

impl Pool {
    const COMPUTING: usize = 4;

    /// Starts this program again.
    fn start() -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pool", "--ignored", "--quiet"])
            .env(IS_POOL, "1")
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Seconds on a CPU, and waiting for one, as the kernel sums them up.
    fn sums(&self) -> Option<(f64, f64)> {
        let mut sums = (0.0, 0.0);
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id())).ok()? {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            let mut ns = text.split(' ').map(|ns| ns.parse::<f64>().ok());
            sums.0 += ns.next()?? / 1e9;
            sums.1 += ns.next()?? / 1e9;
        }
        Some(sums)
    }

    /// Waits until its threads have waited this long.
    fn await_starved(&self, seconds: f64) {
        await_condition(|| self.sums().is_some_and(|sums| sums.1 > seconds));
    }

    /// Stops all its threads: their sums do not change any more, after a moment.
    fn stop(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::STOP).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        await_condition(|| state().contains(") T "));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the other tests start it as a process"]
fn pool() {
    if std::env::var_os(IS_POOL).is_none() {
        return;
    }
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus).unwrap();
    let end = Instant::now() + 3 * DEADLINE;
    let compute = move || {
        while Instant::now() < end {
            std::hint::black_box(0);
        }
    };
    let threads: Vec<_> = (1..Pool::COMPUTING)
        .map(|_| thread::spawn(compute))
        .collect();
    compute();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn await_condition(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A collector that reads these processes as the server `pool`.
fn collector(pids: &[u32]) -> (Arc<Metrics>, Arc<Roster>) {
    let metrics = Arc::new(Metrics::new("vm"));
    let roster = Arc::new(Roster::default());
    publish(&roster, pids);
    let interval = Duration::from_millis(50);
    servers::spawn(&metrics, Arc::default(), interval, roster.clone()).unwrap();
    (metrics, roster)
}

fn publish(roster: &Roster, pids: &[u32]) {
    let member = Member {
        server: "pool".into(),
        model: "m".into(),
        replica: Replica::default(),
        is_loaded: false,
        recognised: None,
    };
    let members: HashMap<_, _> = pids.iter().map(|pid| (*pid, member.clone())).collect();
    roster.publish(members, ServedTimes::new());
}

fn value(metrics: &Metrics, family: &str) -> Option<f64> {
    let text = metrics.encode(&Selection::named([family]), Format::Text);
    let line = text.lines().find(|line| line.contains("server=\"pool\""))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn counted(metrics: &Metrics) -> (f64, f64) {
    let value = |family| value(metrics, family).unwrap_or(0.0);
    (
        value("inferprobe_server_cpu_seconds_total"),
        value("inferprobe_server_starved_seconds_total"),
    )
}

/// Whether a sum of the agent is that of the kernel, to 1 %.
fn is_close(ours: f64, kernels: f64) -> bool {
    (ours - kernels).abs() < 0.01 * kernels
}

#[test]
fn a_pool_of_threads_is_starved_as_long_as_the_kernel_says() {
    let (metrics, roster) = collector(&[]);
    let pool = Pool::start();
    publish(&roster, &[pool.0.id()]);
    pool.await_starved(2.0);
    let threads = value(&metrics, "inferprobe_server_threads").unwrap_or(0.0);
    assert!(threads >= Pool::COMPUTING as f64, "{threads}");
    pool.stop();
    await_condition(|| {
        let (sums, (ran, starved)) = (pool.sums().unwrap(), counted(&metrics));
        is_close(ran, sums.0) && is_close(starved, sums.1)
    });
}

#[test]
fn what_a_server_waited_before_it_is_read_does_not_count() {
    let pool = Pool::start();
    pool.await_starved(2.0);
    let before = pool.sums().unwrap();
    let (metrics, _roster) = collector(&[pool.0.id()]);
    await_condition(|| counted(&metrics).1 > 1.0);
    let starved = counted(&metrics).1;
    let after = pool.sums().unwrap();
    assert!(
        starved <= after.1 - before.1 + 1e-6,
        "{starved} s of {before:?} to {after:?}"
    );
}

#[test]
fn a_total_stays_when_its_processes_end() {
    let pool = Pool::start();
    let (metrics, roster) = collector(&[pool.0.id()]);
    await_condition(|| counted(&metrics).1 > 0.5);
    drop(pool);
    publish(&roster, &[]);
    await_condition(|| value(&metrics, "inferprobe_server_threads") == Some(0.0));
    assert!(counted(&metrics).1 > 0.5);
    let text = metrics.encode(&Selection::named([UNREAD]), Format::Text);
    let ended = format!("{UNREAD}{{server=\"pool\",reason=\"ended\",");
    let ended = text.lines().find(|line| line.starts_with(&ended)).unwrap();
    let (_, ended) = ended.rsplit_once(' ').unwrap();
    let ended: usize = ended.parse().unwrap();
    assert!(ended >= Pool::COMPUTING, "{ended}");
}

/// A cgroup that may use 2 % of a CPU: less than it gets on a busy machine.
struct Limited(PathBuf);

impl Limited {
    /// Creates it; `None` if this user, or this host, cannot.
    fn new() -> Option<Self> {
        let name = format!("inferprobe-test-{}", std::process::id());
        let (v1, v2) = (Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup"));
        let v1 = v1.join(&name);
        if fs::create_dir(&v1).is_ok() {
            let limited = Self(v1);
            fs::write(limited.0.join("cpu.cfs_quota_us"), "2000").ok()?;
            return Some(limited);
        }
        let v2 = v2.join(&name);
        fs::create_dir(&v2).ok()?;
        let limited = Self(v2);
        fs::write(limited.0.join("cpu.max"), "2000 100000").ok()?;
        Some(limited)
    }

    /// Seconds that it was stopped.
    fn throttled(&self) -> f64 {
        let text = fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        let value = |name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let v1 = value("throttled_time").map(|ns| ns / 1e9);
        v1.or(value("throttled_usec").map(|us| us / 1e6)).unwrap()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // A cgroup is empty a moment after its last process has ended.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_cpu_limit_counts_as_its_cgroup_says() {
    let Some(limited) = Limited::new() else {
        eprintln!("skipped: no cgroup with a CPU limit can be created here");
        return;
    };
    let pool = Pool::start();
    fs::write(limited.0.join("cgroup.procs"), pool.0.id().to_string()).unwrap();
    let (metrics, _roster) = collector(&[pool.0.id()]);
    let throttled = || value(&metrics, "inferprobe_server_throttled_seconds_total");
    await_condition(|| throttled().is_some());
    let before = limited.throttled();
    await_condition(|| limited.throttled() > before + 2.0);
    pool.stop();
    // The first reading was before `before`; what was before that reading does not count.
    await_condition(|| {
        let (ours, all) = (throttled().unwrap_or(0.0), limited.throttled());
        all - before - 1e-6 <= ours && ours <= all + 1e-6
    });
    drop(pool);
}

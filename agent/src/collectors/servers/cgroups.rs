//! Reads what the cgroups of a process report: time stopped by a CPU limit, and pressure.
//!
//! A limit may be set on any cgroup above that of the process. Both versions of cgroups have it, in different units.
//! Does not depend on: servers.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use crate::collectors::servers::pressure::{self, Pressure, RESOURCES};

/// Most folders to follow from a process's cgroup upwards.
const MAX_DEPTH: usize = 32;

/// Where the cgroups of this host are mounted.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Version 2.
    unified: Option<Mount>,
    /// Version 1, the controller `cpu`.
    cpu: Option<Mount>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Cgroup that is mounted: `/`, or one below.
    root: PathBuf,
    /// Folder that it is mounted on.
    folder: PathBuf,
}

/// The folders of a process's cgroups, from its own upwards. The root is not among them: it has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cgroups {
    /// Those that have a CPU controller.
    cpu: Vec<PathBuf>,
    /// Its own of version 2, which has pressure files.
    own: Option<PathBuf>,
}

impl Mounts {
    /// Reads the mounts of this process.
    pub(super) fn read() -> Self {
        fs::read_to_string("/proc/self/mountinfo")
            .map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, source)) = line.split_once(" - ") else {
                continue;
            };
            let fields: Vec<&str> = mount.split(' ').collect();
            let (Some(root), Some(folder)) = (fields.get(3), fields.get(4)) else {
                continue;
            };
            let mut source = source.split(' ');
            let mount = Mount {
                root: root.into(),
                folder: unescaped(folder).into(),
            };
            match (source.next(), source.nth(1)) {
                (Some("cgroup2"), _) => drop(mounts.unified.get_or_insert(mount)),
                (Some("cgroup"), Some(options))
                    if options.split(',').any(|option| option == "cpu") =>
                {
                    mounts.cpu.get_or_insert(mount);
                }
                _ => {}
            }
        }
        mounts
    }

    /// Finds the cgroups of a process; `None` if they are not visible here.
    pub(super) fn of(&self, pid: u32) -> Option<Cgroups> {
        self.find(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
    }

    fn find(&self, cgroup: &str) -> Option<Cgroups> {
        let mut found = Cgroups::default();
        let mut is_visible = false;
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let is_unified = controllers.is_empty();
            let mount = match is_unified {
                true => self.unified.as_ref(),
                false if controllers.split(',').any(|name| name == "cpu") => self.cpu.as_ref(),
                false => None,
            };
            let Some(folders) = mount.and_then(|mount| mount.folders(Path::new(path))) else {
                continue;
            };
            is_visible = true;
            if is_unified {
                found.own = folders.first().cloned();
            }
            found.cpu.extend(folders);
        }
        is_visible.then_some(found)
    }
}

impl Mount {
    /// Folders of a cgroup and of those above it, without the root; `None` if it is not below this mount.
    fn folders(&self, cgroup: &Path) -> Option<Vec<PathBuf>> {
        let below = cgroup.strip_prefix(&self.root).ok()?;
        // Seen from another cgroup namespace, it may be beside the mounted one.
        if below.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        let folders = below
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty());
        Some(
            folders
                .take(MAX_DEPTH)
                .map(|path| self.folder.join(path))
                .collect(),
        )
    }
}

/// A mount point as mountinfo spells it: spaces and the like in octal.
fn unescaped(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// What the cgroups report, since the first reading.
#[derive(Debug, Default)]
pub(super) struct Readings {
    throttled: HashMap<PathBuf, Growing>,
    pressure: HashMap<PathBuf, [Option<PressureGrowth>; RESOURCES.len()]>,
}

/// A total that was read, and by how much it grew since the reading before.
#[derive(Debug, Clone, Copy, Default)]
struct Growing {
    total: u64,
    growth: u64,
    /// Whether there was no reading before, so that the growth is unknown and counts as 0.
    is_first: bool,
}

#[derive(Debug, Clone, Copy)]
struct PressureGrowth {
    some: Growing,
    full: Option<Growing>,
}

impl Growing {
    fn read(before: Option<Self>, total: u64) -> Self {
        Self {
            total,
            growth: before.map_or(0, |before| total.saturating_sub(before.total)),
            is_first: before.is_none(),
        }
    }
}

/// Stalled time of a server since the reading before, µs, of each resource; `None` if it is not counted.
pub(super) type Stalls = [Option<Pressure>; RESOURCES.len()];

impl Readings {
    /// Reads all cgroups of these processes once, and forgets all others.
    pub(super) fn read<'a>(&mut self, all: impl Iterator<Item = &'a Cgroups>) {
        let before = std::mem::take(self);
        for cgroups in all {
            for folder in &cgroups.cpu {
                if self.throttled.contains_key(folder) {
                    continue;
                }
                if let Some(total_ns) = throttled_ns(folder) {
                    let growing = Growing::read(before.throttled.get(folder).copied(), total_ns);
                    self.throttled.insert(folder.clone(), growing);
                }
            }
            if let Some(own) = &cgroups.own
                && !self.pressure.contains_key(own)
            {
                let last = before.pressure.get(own);
                let mut growths = [None; RESOURCES.len()];
                for (index, resource) in RESOURCES.iter().enumerate() {
                    let last = last.and_then(|last| last[index]);
                    let now = pressure::read(&own.join(format!("{resource}.pressure")));
                    growths[index] = now.map(|now| PressureGrowth {
                        some: Growing::read(last.map(|last| last.some), now.some_us),
                        full: now
                            .full_us
                            .map(|full_us| Growing::read(last.and_then(|last| last.full), full_us)),
                    });
                }
                self.pressure.insert(own.clone(), growths);
            }
        }
    }

    /// Time since the reading before in which a server with these cgroups was stopped by a limit, ns; `None` if no
    /// cgroup counts it.
    ///
    /// Of a cgroup and those above it, the one that was stopped longest counts; one that is above several counts once.
    pub(super) fn throttled_ns<'a>(
        &self,
        cgroups: impl Iterator<Item = &'a Cgroups>,
    ) -> Option<u64> {
        let mut longest: HashMap<&Path, u64> = HashMap::new();
        let mut is_counted = false;
        for cgroups in cgroups {
            let counted = cgroups.cpu.iter().filter_map(|folder| {
                let growing = self.throttled.get(folder)?;
                Some((growing.growth, folder.as_path()))
            });
            if let Some((growth, folder)) = counted.max_by_key(|(growth, _)| *growth) {
                is_counted = true;
                longest.insert(folder, growth);
            }
        }
        is_counted.then(|| longest.values().sum())
    }

    /// Whether one of these cgroups was read for the first time, so that it is unknown how long it stopped a server.
    pub(super) fn are_new<'a>(&self, mut cgroups: impl Iterator<Item = &'a Cgroups>) -> bool {
        cgroups.any(|cgroups| {
            let mut read = cgroups
                .cpu
                .iter()
                .filter_map(|folder| self.throttled.get(folder));
            read.any(|growing| growing.is_first)
        })
    }

    /// Stalls of a server with these cgroups: of its longest one.
    pub(super) fn stalls<'a>(&self, cgroups: impl Iterator<Item = &'a Cgroups>) -> Stalls {
        let mut stalls: Stalls = [None; RESOURCES.len()];
        let owns = cgroups.filter_map(|cgroups| self.pressure.get(cgroups.own.as_ref()?));
        for growths in owns {
            for (stall, growth) in stalls.iter_mut().zip(growths) {
                let Some(growth) = growth else {
                    continue;
                };
                let longest = stall.get_or_insert_default();
                longest.some_us = longest.some_us.max(growth.some.growth);
                let full = growth.full.map(|full| full.growth);
                longest.full_us = longest.full_us.max(full);
            }
        }
        stalls
    }
}

/// Time that a cgroup was stopped, summed over CPUs, ns; `None` if it is not counted there.
fn throttled_ns(folder: &Path) -> Option<u64> {
    parse_throttled_ns(&fs::read_to_string(folder.join("cpu.stat")).ok()?)
}

/// Version 2 has µs, version 1 ns.
fn parse_throttled_ns(cpu_stat: &str) -> Option<u64> {
    let mut fields = cpu_stat.lines().filter_map(|line| line.split_once(' '));
    fields.find_map(|(name, value)| match name {
        "throttled_usec" => value.parse::<u64>().ok()?.checked_mul(1_000),
        "throttled_time" => value.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n\
        34 30 0:30 / /sys/fs/cgroup/cpuset rw shared:15 - cgroup cgroup rw,cpuset\n\
        35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct\n";

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn cgroups_of_both_versions_are_found_with_all_above_them() {
        let mounts = Mounts::parse(MOUNTS);
        let text = "5:cpuset:/\n4:cpu,cpuacct:/kube/pod:1/ctr\n1:name=systemd:/x\n0::/system.slice/a.service\n";
        let cgroups = Cgroups {
            cpu: paths(&[
                "/sys/fs/cgroup/cpu,cpuacct/kube/pod:1/ctr",
                "/sys/fs/cgroup/cpu,cpuacct/kube/pod:1",
                "/sys/fs/cgroup/cpu,cpuacct/kube",
                "/sys/fs/cgroup/unified/system.slice/a.service",
                "/sys/fs/cgroup/unified/system.slice",
            ]),
            own: Some("/sys/fs/cgroup/unified/system.slice/a.service".into()),
        };
        assert_eq!(mounts.find(text), Some(cgroups));
    }

    #[test]
    fn the_root_has_no_limit() {
        let mounts = Mounts::parse(MOUNTS);
        assert_eq!(mounts.find("0::/\n1:cpu:/\n"), Some(Cgroups::default()));
    }

    #[test]
    fn cgroups_that_are_not_visible_here_are_unknown() {
        let below = "31 30 0:27 /kube/a /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let mounts = Mounts::parse(below);
        assert_eq!(mounts.find("0::/kube/b\n"), None);
        let cgroups = mounts.find("0::/kube/a/x\n").unwrap();
        assert_eq!(cgroups.cpu, paths(&["/sys/fs/cgroup/x"]));
        let mounts = Mounts::parse(MOUNTS);
        assert_eq!(mounts.find("0::/../b\n"), None);
        assert_eq!(Mounts::default().find("0::/a\n"), None);
        assert_eq!(mounts.find(""), None);
    }

    #[test]
    fn a_folder_with_a_space_is_found() {
        let mounts = Mounts::parse("1 2 0:1 / /mnt/c\\040g rw - cgroup2 cgroup rw\n");
        let cgroups = mounts.find("0::/a\n").unwrap();
        assert_eq!(cgroups.own, Some("/mnt/c g/a".into()));
    }

    #[test]
    fn both_units_of_throttled_time_are_read() {
        let v2 = "usage_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1500\nnr_bursts 0\n";
        assert_eq!(parse_throttled_ns(v2), Some(1_500_000));
        let v1 = "nr_periods 3\nnr_throttled 2\nthrottled_time 1500\n";
        assert_eq!(parse_throttled_ns(v1), Some(1_500));
        for text in [
            "",
            "usage_usec 5\n",
            "throttled_usec x\n",
            "throttled_usec 18446744073709551615\n",
        ] {
            assert_eq!(parse_throttled_ns(text), None, "{text:?}");
        }
    }

    /// Two processes in cgroups of their own, below one that has a limit.
    #[test]
    fn a_limit_above_several_cgroups_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, throttled: u64| {
            fs::create_dir_all(root.join(path)).unwrap();
            let text = format!("nr_periods 1\nthrottled_usec {throttled}\n");
            fs::write(root.join(path).join("cpu.stat"), text).unwrap();
        };
        let of = |path: &str| Cgroups {
            cpu: vec![root.join(path), root.join("pod")],
            own: Some(root.join(path)),
        };
        let all = [of("pod/a"), of("pod/b")];
        let mut readings = Readings::default();
        for (pod, a, b, expected) in [
            (1_000, 5, 0, Some(0)),
            (1_500, 5, 0, Some(500_000)),
            (1_510, 45, 30, Some(70_000)),
            (1_510, 45, 30, Some(0)),
        ] {
            let is_first = pod == 1_000;
            write("pod", pod);
            write("pod/a", a);
            write("pod/b", b);
            readings.read(all.iter());
            assert_eq!(readings.throttled_ns(all.iter()), expected, "{pod} {a} {b}");
            assert_eq!(readings.are_new(all.iter()), is_first, "{pod}");
        }
        assert_eq!(readings.throttled_ns([Cgroups::default()].iter()), None);
    }

    #[test]
    fn the_longest_stall_of_a_servers_cgroups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| Cgroups {
            cpu: Vec::new(),
            own: Some(folder.path().join(name)),
        };
        let all = [of("a"), of("b")];
        let mut readings = Readings::default();
        for (a, b) in [(100, 900), (150, 920)] {
            for (name, total) in [("a", a), ("b", b)] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
                let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
                fs::write(folder.path().join(name).join("cpu.pressure"), text).unwrap();
            }
            readings.read(all.iter());
        }
        let longest = Pressure {
            some_us: 50,
            full_us: None,
        };
        assert_eq!(readings.stalls(all.iter()), [Some(longest), None, None]);
    }
}

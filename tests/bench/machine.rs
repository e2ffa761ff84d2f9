//! Describes the machine in one line, to be read with the numbers.

/// Returns CPU, cores, memory and kernel.
pub(crate) fn describe() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let name = rustix::system::uname();
    format!(
        "{}, {} cores, {} GiB, {} {} {}",
        value(&cpus, "model name").unwrap_or("unknown CPU"),
        std::thread::available_parallelism().map_or(0, usize::from),
        value(&memory, "MemTotal").map_or(0, gib),
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
        name.machine().to_string_lossy(),
    )
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

/// Returns a number of kB in whole GiB, rounded.
fn gib(kib: &str) -> u64 {
    let kib = kib.trim_end_matches(" kB").parse::<u64>();
    kib.map_or(0, |kib| (kib + (1 << 19)) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_they_are_padded() {
        let text = "processor\t: 0\nmodel name\t: A: B\nMemTotal:       16300000 kB\n";
        assert_eq!(value(text, "model name"), Some("A: B"));
        assert_eq!(value(text, "MemTotal").map(gib), Some(16));
        assert_eq!(value(text, "model"), None);
    }
}

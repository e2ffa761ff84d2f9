//! Runs every target on its corpus, whole and cut at each byte.

use std::{fs, panic, path::Path};

use inferprobe_fuzz::{TARGETS, Target};

/// Longest input that is cut at each of its bytes; a longer one is cut at 64 places.
const EVERY_CUT: usize = 1024;

#[test]
fn every_target_accepts_its_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let folder = corpora.join(name);
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
        let mut inputs = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            replay(target, &bytes, &path);
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
}

fn replay(target: Target, bytes: &[u8], path: &Path) {
    let step = bytes.len().div_ceil(EVERY_CUT).max(1);
    for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        let held = panic::catch_unwind(|| target(&bytes[..end]));
        assert!(held.is_ok(), "{}, the first {end} bytes", path.display());
    }
}

//! Reads from apt's sources, in either format, which Debian archives this machine uses.
//!
//! Fetches nothing. Does not depend on: any archive's address.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Names of Debian's releases, and of their roles.
const RELEASES: [&str; 10] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// The archives of Debian's packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archives {
    /// Address of the archive of releases.
    main: String,
    /// Address of the archive of security updates; `None` if apt has none.
    security: Option<String>,
}

/// An archive, and which of its suites apt fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    address: String,
    suites: Vec<String>,
}

impl Archives {
    /// Returns the archives of this machine.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
            let mut parts: Vec<PathBuf> = parts.flatten().map(|entry| entry.path()).collect();
            parts.sort();
            files.extend(parts);
        }
        let sources: Vec<Source> = files.iter().flat_map(|file| read(file)).collect();
        match Self::among(&sources) {
            Some(archives) => Ok(archives),
            None => bail!("no source of apt in /etc/apt is a Debian archive"),
        }
    }

    fn among(sources: &[Source]) -> Option<Self> {
        let of = |wanted: fn(&str) -> bool| {
            let found = sources
                .iter()
                .find(|source| source.suites.iter().any(|suite| wanted(suite)));
            found.map(|source| source.address.clone())
        };
        Some(Self {
            main: of(|suite| RELEASES.contains(&suite))?,
            security: of(is_security),
        })
    }

    /// Returns the address of the archive that has `suite`; `None` if apt has no such archive.
    pub(crate) fn of_suite(&self, suite: &str) -> Option<&str> {
        if is_security(suite) {
            self.security.as_deref()
        } else {
            Some(&self.main)
        }
    }
}

fn is_security(suite: &str) -> bool {
    suite
        .strip_suffix("-security")
        .is_some_and(|release| RELEASES.contains(&release))
}

/// Returns the sources in a file; none if it is unreadable, or in neither format.
fn read(path: &Path) -> Vec<Source> {
    let text = fs::read_to_string(path).unwrap_or_default();
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("sources") => stanzas(&text),
        Some("list") => text.lines().filter_map(line).collect(),
        _ => Vec::new(),
    }
}

/// Reads `deb [options] address suite component...`.
fn line(text: &str) -> Option<Source> {
    let rest = text.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().take_while(|word| *word != "#");
    let (address, suite) = (words.next()?, words.next()?);
    words.any(|component| component == "main").then(|| Source {
        address: address.to_owned(),
        suites: vec![suite.to_owned()],
    })
}

/// Reads stanzas of fields (deb822).
fn stanzas(text: &str) -> Vec<Source> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in lines {
        let stanza = stanzas.last_mut().expect("the list starts with one");
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas
        .iter()
        .flat_map(|stanza| of_stanza(stanza))
        .collect()
}

fn of_stanza(stanza: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<String> {
        let field = stanza.iter().find(|(field, _)| field == name);
        let value = field.map_or("", |(_, value)| value.as_str());
        value.split_whitespace().map(str::to_owned).collect()
    };
    let has = |name: &str, word: &str| words(name).iter().any(|found| found == word);
    if has("enabled", "no") || !has("types", "deb") || !has("components", "main") {
        return Vec::new();
    }
    let suites = words("suites");
    let of = |address| Source {
        address,
        suites: suites.clone(),
    };
    words("uris").into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb deb-src\n# a note\nURIs: http://a.example/debian\n\
        Suites: bookworm\n bookworm-updates\nComponents: main contrib\nSigned-By: /k\n\n\
        Types: deb\nURIs: http://b.example/sec\nSuites: bookworm-security\nComponents: main\n\n\
        Types: deb\nEnabled: no\nURIs: http://c.example/\nSuites: sid\nComponents: main\n";

    #[test]
    fn both_formats_name_the_same_archives() {
        let lines = "# deb http://z.example/ sid main\ndeb-src http://y.example/ sid main\n\
            deb http://other.example/apt tools main\n\
            deb [arch=amd64 signed-by=/k] http://a.example/debian bookworm main contrib\n\
            deb http://b.example/sec bookworm-security main # security\n";
        let of_lines: Vec<Source> = lines.lines().filter_map(line).collect();
        let expected = Archives {
            main: "http://a.example/debian".to_owned(),
            security: Some("http://b.example/sec".to_owned()),
        };
        assert_eq!(Archives::among(&of_lines), Some(expected.clone()));
        assert_eq!(Archives::among(&stanzas(STANZAS)), Some(expected));
    }

    #[test]
    fn security_suites_are_in_their_own_archive() {
        let archives = Archives::among(&stanzas(STANZAS)).unwrap();
        assert_eq!(
            archives.of_suite("trixie-backports"),
            Some("http://a.example/debian")
        );
        assert_eq!(
            archives.of_suite("trixie-security"),
            Some("http://b.example/sec")
        );
        let only_main = line("deb http://a.example/debian stable main").unwrap();
        let archives = Archives::among(&[only_main]).unwrap();
        assert_eq!(archives.of_suite("trixie-security"), None);
    }

    #[test]
    fn sources_of_other_distributions_are_ignored() {
        let other = line("deb http://other.example/ubuntu noble main").unwrap();
        assert_eq!(Archives::among(&[other]), None);
    }
}

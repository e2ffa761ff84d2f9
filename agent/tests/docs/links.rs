//! Finds relative links whose file or anchor is missing.
//!
//! Anchors follow GitHub's rules. Does not depend on: the tables.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use regex::Regex;

use crate::pages::{Page, root};

/// The end of `[text](target)` and of `![text](target)`, and `href` and `src` in HTML.
static LINK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"\]\(([^)\s]+)\)|(?:href|src|srcset)="([^"]+)""#).expect("compile")
});

/// Returns one line for each relative link of `page` that leads nowhere.
pub(crate) fn broken(page: &Page, pages: &[Page]) -> Vec<String> {
    let folder = Path::new(&page.path).parent().unwrap_or(Path::new(""));
    let prose = prose(&page.text);
    let mut broken = Vec::new();
    for link in targets(&prose) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let path = match file {
            "" => page.path.clone(),
            file => normal(&folder.join(file)),
        };
        if !root().join(&path).exists() {
            broken.push(format!("{}: no file {link}", page.path));
            continue;
        }
        let target = pages.iter().find(|other| other.path == path);
        if !anchor.is_empty() && !target.is_some_and(|target| has_anchor(target, anchor)) {
            broken.push(format!("{}: no anchor {link}", page.path));
        }
    }
    broken
}

fn targets(prose: &str) -> impl Iterator<Item = &str> {
    LINK.captures_iter(prose).map(|captures| {
        let target = captures.get(1).or(captures.get(2));
        target.expect("one of the two matched").as_str()
    })
}

fn has_anchor(page: &Page, anchor: &str) -> bool {
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    let prose = prose(&page.text);
    let mut headings = prose.lines().filter_map(heading);
    headings.any(|heading| {
        let slug = slug(heading);
        let count = used.entry(slug.clone()).or_default();
        let unique = match *count {
            0 => slug,
            n => format!("{slug}-{n}"),
        };
        *count += 1;
        unique == anchor
    })
}

/// The text of a heading; `None` if the line is none.
fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (1..=6)
        .contains(&(line.len() - text.len()))
        .then(|| text.strip_prefix(' '))?
}

/// The anchor of a heading: lower case, spaces as hyphens, without punctuation.
fn slug(heading: &str) -> String {
    let text = LINK.replace_all(heading.trim(), "").to_lowercase();
    let kept = text
        .chars()
        .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

/// The text without fenced code.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.iter().filter_map(|part| part.to_str()) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

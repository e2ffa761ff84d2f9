//! Reads Markdown as far as the checks of documentation need it: text without code, headings, links, generated blocks.

use std::collections::{BTreeMap, BTreeSet};

/// A part of a page between `<!-- NAME -->` and `<!-- /NAME -->`; more words may follow the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Written by a test, from the code's own tables.
    Generated,
    /// The list of words to avoid.
    Terms,
}

/// How the marks of a block begin.
const MARKS: [(Block, &str, &str); 2] = [
    (Block::Generated, "<!-- generated", "<!-- /generated"),
    (Block::Terms, "<!-- terms", "<!-- /terms"),
];

/// A line of a page.
pub(crate) struct Line<'a> {
    /// Counts from 1.
    pub(crate) number: usize,
    pub(crate) text: &'a str,
    /// Whether it is inside of a code fence, or is one.
    pub(crate) is_code: bool,
    /// The block that it is inside of, or is a mark of.
    pub(crate) block: Option<Block>,
}

/// Returns the lines of a page.
pub(crate) fn lines(page: &str) -> Vec<Line<'_>> {
    let mut fence: Option<&str> = None;
    let mut block = None;
    let mut lines = Vec::new();
    for (number, text) in (1..).zip(page.lines()) {
        let start = text.trim_start();
        let starting = |mark: &str| start.starts_with(mark);
        if let Some((started, ..)) = MARKS.iter().find(|(_, mark, _)| starting(mark)) {
            block = Some(*started);
        }
        let marker = ["```", "~~~"]
            .into_iter()
            .find(|marker| start.starts_with(marker));
        let is_code = fence.is_some() || marker.is_some();
        match (fence, marker) {
            (None, Some(_)) => fence = marker,
            (Some(open), Some(marker)) if open == marker => fence = None,
            _ => {}
        }
        lines.push(Line {
            number,
            text,
            is_code,
            block,
        });
        if MARKS.iter().any(|(_, _, end)| starting(end)) {
            block = None;
        }
    }
    lines
}

/// Returns the page with the same lines: empty ones for code fences and terms, and a backtick in place of each code span.
pub(crate) fn prose(page: &str) -> String {
    let is_prose = |line: &Line<'_>| !line.is_code && line.block != Some(Block::Terms);
    let prose: Vec<&str> = lines(page)
        .iter()
        .map(|line| if is_prose(line) { line.text } else { "" })
        .collect();
    let prose = prose.join("\n");
    let mut text = String::new();
    let mut rest = prose.as_str();
    while let Some(at) = rest.find('`') {
        text.push_str(&rest[..at]);
        let from_ticks = &rest[at..];
        let behind = from_ticks.trim_start_matches('`');
        let ticks = &from_ticks[..from_ticks.len() - behind.len()];
        let paragraph = &behind[..behind.find("\n\n").unwrap_or(behind.len())];
        text.push('`');
        rest = match find_run(paragraph, ticks) {
            Some(end) => {
                text.extend(paragraph[..end].matches('\n'));
                &behind[end + ticks.len()..]
            }
            None => behind,
        };
    }
    text.push_str(rest);
    text
}

/// Returns where a run of exactly the backticks `ticks` begins.
fn find_run(text: &str, ticks: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        if run == ticks.len() {
            return Some(start);
        }
        at = start + run;
    }
    None
}

/// Returns the code spans of a line.
pub(crate) fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Returns the targets of a page's links and images, with their lines.
pub(crate) fn links(page: &str) -> Vec<(usize, String)> {
    let text = prose(page);
    let mut links = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let inline = line.split("](").skip(1);
        let attributes = ["href=\"", "src=\""]
            .into_iter()
            .flat_map(|name| line.split(name).skip(1));
        let definition = line
            .strip_prefix('[')
            .and_then(|line| line.split_once("]: "))
            .map(|(_, target)| target);
        for rest in inline.chain(attributes).chain(definition) {
            let target = rest.split([')', '"', ' ']).next().unwrap_or_default();
            links.push((number, target.to_owned()));
        }
    }
    links
}

/// Returns the anchors that links to a page may name, as GitHub makes them of headings.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in lines(page).iter().filter(|line| !line.is_code) {
        let level = line.text.len() - line.text.trim_start_matches('#').len();
        if (1..=6).contains(&level) && line.text[level..].starts_with(' ') {
            let slug = slug(line.text[level..].trim());
            let count = counts.entry(slug.clone()).or_default();
            anchors.insert(match *count {
                0 => slug,
                before => format!("{slug}-{before}"),
            });
            *count += 1;
        }
        for name in ["id=\"", "name=\""] {
            let explicit = line.text.split(name).skip(1);
            anchors.extend(explicit.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    anchors
}

fn slug(heading: &str) -> String {
    // Of a link only its text counts.
    let text: String = heading
        .split("](")
        .enumerate()
        .map(|(index, part)| match index {
            0 => part,
            _ => part.split_once(')').map_or("", |(_, behind)| behind),
        })
        .collect();
    text.to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_without_code_and_terms_and_lines_stay() {
        for (page, expected) in [
            ("a `b` c", "a ` c"),
            ("a `b\nc` d", "a `\n d"),
            ("a ``b ` c`` d", "a ` d"),
            ("a `b\n\nc` d", "a `b\n\nc` d"),
            ("a\n```text\nb `c\n```\nd", "a\n\n\n\nd"),
            ("<!-- terms -->\nb\n<!-- /terms -->\nd", "\n\n\nd"),
        ] {
            assert_eq!(prose(page), expected, "{page:?}");
        }
    }

    #[test]
    fn lines_know_their_blocks() {
        let page =
            "a\n<!-- generated:x -->\nb\n<!-- /generated -->\nc\n```sh\nd\n```\n<!-- terms -->";
        let marks: Vec<(Option<Block>, bool)> = lines(page)
            .iter()
            .map(|line| (line.block, line.is_code))
            .collect();
        let (text, code) = ((None, false), (None, true));
        let (generated, terms) = ((Some(Block::Generated), false), (Some(Block::Terms), false));
        let expected = [
            text, generated, generated, generated, text, code, code, code, terms,
        ];
        assert_eq!(marks, expected);
    }

    #[test]
    fn links_are_found_in_each_form() {
        let page =
            "[a](b.md#c) and ![d](e.svg \"title\")\n[f]: g.md\n<img src=\"h.png\">\n`[i](j.md)`";
        let expected = [(1, "b.md#c"), (1, "e.svg"), (2, "g.md"), (3, "h.png")];
        assert_eq!(
            links(page),
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }

    #[test]
    fn anchors_are_made_as_github_makes_them() {
        let page = "# What `doctor` says\n## Exit codes, in short\n## Exit codes, in short\n\
                    ## See [this](that.md)\n```\n# not a heading\n```\n<a id=\"mine\"></a>";
        let expected = [
            "exit-codes-in-short",
            "exit-codes-in-short-1",
            "mine",
            "see-this",
            "what-doctor-says",
        ];
        assert_eq!(anchors(page), BTreeSet::from(expected.map(str::to_owned)));
    }
}

//! The words that documentation and messages avoid, each with the word of the field for it, and finding them in a text.
//!
//! Does not depend on: where a text comes from.

/// Words and phrases, and what to write instead. Case and line breaks do not matter; names in code are not searched.
const TABLE: &[(&str, &str)] = &[
    ("told", "reported, recorded or handled"),
    ("tells", "reports or shows"),
    ("telling", "reporting"),
    ("whom", "which process, server or client"),
    ("nobody", "the actor: no server, no client"),
    ("on nothing", "not attached"),
    ("is said", "the agent logs, or a message says"),
    ("pass over", "skip"),
    ("passes over", "skips"),
    ("passed over", "skipped"),
    ("rung", "attach mode"),
    ("rungs", "attach modes"),
    ("ladder", "fallback order"),
    ("climb", "try the next attach mode"),
    ("climbs", "tries the next attach mode"),
    ("flavour", "BTF-typed or raw programs"),
    ("flavours", "BTF-typed and raw programs"),
    ("kind of program", "program type"),
    ("kinds of program", "program types"),
    ("kinds of programs", "program types"),
    ("starter", "parent process"),
    ("take in", "read, or handle"),
    ("takes in", "reads, or handles"),
    ("taken in", "read, or handled"),
    ("took in", "read, or handled"),
    ("hand on", "dispatch"),
    ("hands on", "dispatches"),
    ("handed on", "dispatched"),
    ("give up waiting", "time out"),
    ("gives up waiting", "times out"),
    ("gave up waiting", "timed out"),
    (
        "older connection",
        "connection already open when the agent starts",
    ),
    (
        "older connections",
        "connections already open when the agent starts",
    ),
    ("inner request", "internal request"),
    ("inner requests", "internal requests"),
    ("unread connection", "opaque connection"),
    ("unread connections", "opaque connections"),
    ("missed bytes", "unattributed bytes"),
    ("in sight", "in the host PID namespace, or observed"),
    ("out of sight", "in another PID namespace, or not observed"),
    ("every one of", "each"),
    ("lies", "is"),
    ("stands in", "is in"),
    ("stands at", "is at"),
    ("stands on", "is on"),
    ("stands there", "is there"),
    ("alone", "only, before what it limits"),
    ("don't", "do not"),
    ("doesn't", "does not"),
    ("isn't", "is not"),
    ("aren't", "are not"),
    ("can't", "cannot"),
    ("won't", "will not"),
    ("it's", "it is"),
    ("that's", "that is"),
    ("you're", "you are"),
];

/// A word to avoid, in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Line of the text, from 1.
    pub(crate) line: usize,
    pub(crate) word: &'static str,
    pub(crate) instead: &'static str,
}

/// A word with its line; `None` is what separates phrases: punctuation and code.
type Token = (usize, Option<String>);

/// Finds the words of the table in `text`, in the order of the text.
pub(crate) fn find(text: &str) -> Vec<Finding> {
    let tokens = tokens(text);
    let mut findings = Vec::new();
    for (at, (line, _)) in tokens.iter().enumerate() {
        for &(word, instead) in TABLE {
            if starts_with(&tokens[at..], word) {
                findings.push(Finding {
                    line: *line,
                    word,
                    instead,
                });
            }
        }
    }
    findings
}

fn starts_with(tokens: &[Token], phrase: &str) -> bool {
    let mut tokens = tokens.iter();
    phrase.split(' ').all(|wanted| {
        tokens
            .next()
            .is_some_and(|(_, word)| word.as_deref() == Some(wanted))
    })
}

/// Splits a text into words; a name with hyphens or underscores is one word, and `{name}` of a format string is none.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length = if is_of_word(first) {
                rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())
            } else {
                placeholder(rest).unwrap_or(first.len_utf8())
            };
            let (token, behind) = rest.split_at(length);
            if is_of_word(first) {
                let word = token.trim_matches('\'').replace('’', "'").to_lowercase();
                tokens.push((number, Some(word)));
            } else if !first.is_whitespace() {
                tokens.push((number, None));
            }
            rest = behind;
        }
    }
    tokens
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '\'' | '’')
}

/// Returns the length of the `{name}` or `{name:format}` that `text` begins with.
fn placeholder(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('{')?;
    let end = inside.find('}')?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '#' | '?');
    inside[..end].chars().all(is_name).then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, &'static str)> {
        let findings = find(text);
        findings
            .iter()
            .map(|finding| (finding.line, finding.word))
            .collect()
    }

    #[test]
    fn words_are_found_in_any_case_and_phrases_across_lines() {
        assert_eq!(found("Nobody was told."), [(1, "nobody"), (1, "told")]);
        assert_eq!(found("a program is passed\n  over"), [(1, "passed over")]);
        assert_eq!(found("one\ntwo don’t"), [(2, "don't")]);
    }

    #[test]
    fn ordinary_english_and_names_are_not_found() {
        for text in [
            "untold retelling",
            "--rung is an alias of --attach-mode",
            "--rung {rung}: {rung:?} failed",
            "inferprobe_told_total and stand-alone",
            "CAP_SYS_ADMIN stands for both",
            "it passed. Over and out",
            "the agent has passed `x` over",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn the_table_has_each_word_once_and_in_lower_case() {
        let mut words: Vec<&str> = TABLE.iter().map(|(word, _)| *word).collect();
        assert!(words.iter().all(|word| word.to_lowercase() == *word));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), TABLE.len());
        for (word, instead) in TABLE {
            assert_eq!(find(instead), [], "{word}: {instead}");
        }
    }
}

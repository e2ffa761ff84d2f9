//! Writes values and names: units for people, and texts that are safe on a terminal and have a width.
//!
//! Does not depend on: what a value means.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::screen::look::Look;

/// Stands in a column without a value.
pub(super) const UNKNOWN: &str = "?";

/// Returns a name without anything that a terminal could take for a command, or that hides or reverses text: names come
/// from clients.
pub fn clean(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            c if c.is_control() || is_invisible(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Returns JSON in which everything that a terminal could take for a command is escaped: outside of texts JSON has only
/// visible letters and line ends.
pub fn clean_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || is_invisible(c)) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Whether a character has no form of its own: marks of direction, joiners, and tags.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns a clean text of exactly `width` columns: cut, or filled with spaces on the right.
pub fn left(text: &str, width: usize, look: Look) -> String {
    let text = cut(text, width, look);
    let gap = width.saturating_sub(text.width());
    text + &" ".repeat(gap)
}

/// Returns a clean text of exactly `width` columns: cut, or filled with spaces on the left.
pub fn right(text: &str, width: usize, look: Look) -> String {
    let text = cut(text, width, look);
    let gap = width.saturating_sub(text.width());
    " ".repeat(gap) + &text
}

/// Returns a clean text of exactly `width` columns, of which the end is kept: names of pods differ there.
pub(super) fn left_end(text: &str, width: usize, look: Look) -> String {
    let whole = cut(text, usize::MAX / 8, look);
    if whole.width() <= width {
        return left(&whole, width, look);
    }
    let mut end = Vec::new();
    let mut columns = 1;
    for c in whole.chars().rev() {
        columns += c.width().unwrap_or(0);
        if columns > width {
            break;
        }
        end.push(c);
    }
    let mark = if width > 0 {
        look.either("…", "~")
    } else {
        ""
    };
    left(
        &(mark.to_owned() + &end.iter().rev().collect::<String>()),
        width,
        look,
    )
}

/// Returns a clean text of at most `width` columns.
pub fn cut(text: &str, width: usize, look: Look) -> String {
    let text: String = clean(text)
        .chars()
        .map(|c| match c {
            c if look.utf8 || c.is_ascii() => c,
            'µ' => 'u',
            _ => '?',
        })
        .collect();
    // Marks that combine have no width: a name of a thousand of them is cut too.
    if text.width() <= width && text.chars().count() <= 4 * width {
        return text;
    }
    let mark = look.either("…", "~");
    let mut end = String::new();
    let mut columns = 0;
    for c in text.chars().take(4 * width) {
        let more = c.width().unwrap_or(0);
        if columns + more + 1 > width {
            break;
        }
        columns += more;
        end.push(c);
    }
    if width > 0 {
        end.push_str(mark);
    }
    end
}

/// Returns a duration in at most seven columns, such as `86.1 ms`.
pub fn duration(ns: u64) -> String {
    let ns = ns as f64;
    // Bounds are below the unit, so that rounding does not make "1000 ms".
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 999.5e3 => format!("{} µs", three(ns / 1e3)),
        ns if ns < 999.5e6 => format!("{} ms", three(ns / 1e6)),
        ns if ns < 999.5e9 => format!("{} s", three(ns / 1e9)),
        ns => format!("{:.0} s", ns / 1e9),
    }
}

/// Returns a duration that may be unknown.
pub(super) fn known(ns: Option<u64>) -> String {
    ns.map_or_else(|| UNKNOWN.into(), duration)
}

/// Returns a number from 0 to 999 with at most one decimal, and none from 100 on.
fn three(value: f64) -> String {
    match value {
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// Returns how many a second.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate if rate < 99_999.5 => format!("{rate:.0}"),
        rate => format!("{:.0}k", rate / 1e3),
    }
}

/// Returns a share from 0 to 1 in percent; what is above none is never "0.0", nor what is below all "100.0".
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 0.1 => "<0.1".into(),
        percent if percent < 100.0 && percent > 99.9 => format!("{:.2}", percent.min(99.99)),
        percent => format!("{percent:.1}"),
    }
}

/// Returns the share of `part` in percent; unknown of nothing.
pub(super) fn percent_of(part: u64, whole: u64) -> String {
    match whole {
        0 => UNKNOWN.into(),
        _ => percent(part as f64 / whole as f64),
    }
}

/// Returns a number with its thousands separated.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes in at most eight columns.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    if value < 1024.0 {
        return format!("{bytes} B");
    }
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", three(value))
}

/// Returns the time of day of a moment, ms since the Unix epoch, in UTC.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTF8: Look = Look {
        utf8: true,
        color: false,
    };
    const ASCII: Look = Look {
        utf8: false,
        color: false,
    };

    #[test]
    fn values_have_units_and_never_four_digits_before_one() {
        for (ns, expected) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (86_149_000, "86.1 ms"),
            (131_000_000, "131 ms"),
            (999_400_000, "999 ms"),
            (999_600_000, "1.0 s"),
            (4_100_000_000, "4.1 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(duration(ns), expected);
        }
        for (share, expected) in [
            (0.0, "0.0"),
            (0.0001, "<0.1"),
            (0.021, "2.1"),
            (0.999_999_9, "99.99"),
            (0.9995, "99.95"),
            (1.0, "100.0"),
        ] {
            assert_eq!(percent(share), expected);
        }
        for (number, expected) in [
            (7, "7"),
            (999, "999"),
            (2_604, "2,604"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in [
            (512, "512 B"),
            (16 << 10, "16.0 KiB"),
            (80 << 30, "80.0 GiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        for (number, expected) in [
            (0.04, "0.0"),
            (12.41, "12.4"),
            (12_345.0, "12345"),
            (2e6, "2000k"),
        ] {
            assert_eq!(rate(number), expected);
        }
        assert_eq!(time_of_day(1_700_000_000_000), "22:13:20");
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        for (name, expected) in [
            ("\u{1b}[2Jx", "\u{fffd}[2Jx"),
            ("a\nb\r\tc", "a\u{fffd}b\u{fffd}\u{fffd}c"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("a\u{202e}b\u{200b}", "a\u{fffd}b\u{fffd}"),
            ("<img onerror=x>", "<img onerror=x>"),
        ] {
            assert_eq!(clean(name), expected);
        }
        let value = serde_json::Value::from("\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}ü");
        let json = clean_json(&value.to_string());
        assert_eq!(json, "\"\\u001b\\u007f\\u009b\\u202e\\udb40\\udc41ü\"");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap(),
            value
        );
    }

    #[test]
    fn a_text_has_exactly_its_width() {
        for (text, look, expected) in [
            ("abc", UTF8, "abc   "),
            ("abcdefgh", UTF8, "abcde…"),
            ("abcdefgh", ASCII, "abcde~"),
            ("模型模型", UTF8, "模型… "),
            ("模型模型", ASCII, "????  "),
            ("", UTF8, "      "),
        ] {
            let text = left(text, 6, look);
            assert_eq!(text, expected);
            assert_eq!(text.width(), 6);
        }
        assert_eq!(right("12.4", 6, UTF8), "  12.4");
        assert_eq!(left("abc", 0, UTF8), "");
        let marks = format!("a{}", "\u{301}".repeat(1000));
        assert!(cut(&marks, 6, UTF8).chars().count() <= 25);
    }
}

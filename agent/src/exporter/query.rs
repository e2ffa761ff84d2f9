//! Parses query strings: pairs of keys and values, and the families that `name[]` of a scrape asks for.
//!
//! The rules are TorchServe's (netty's): pairs are split at `&` and `;`, `+` is a space, any pair may be
//! percent-encoded, and pairs with other names are ignored.
//! Does not depend on: connections.

use crate::metrics::Selection;

/// A `%` in a query that two hexadecimal digits do not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad percent escape at byte {at} of the query; write a literal % as %25")]
pub struct BadEscape {
    /// Offset in the query, counted from 0.
    pub at: usize,
}

/// A key and its value; `None` if no `=` follows the key.
pub(super) type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Returns the pairs of a query, without empty ones.
pub(super) fn pairs(query: &[u8]) -> Result<Vec<Pair>, BadEscape> {
    let mut pairs = Vec::new();
    let mut start = 0;
    for pair in query.split(|byte| matches!(byte, b'&' | b';')) {
        let split = pair.iter().position(|byte| *byte == b'=');
        let key_end = split.unwrap_or(pair.len());
        let key = decode(&pair[..key_end], start)?;
        let value = split.map(|split| decode(&pair[split + 1..], start + split + 1));
        if !pair.is_empty() {
            pairs.push((key, value.transpose()?));
        }
        start += pair.len() + 1;
    }
    Ok(pairs)
}

/// Returns the families that a query asks for; all of them if it has no `name[]`.
pub fn selection(query: &[u8]) -> Result<Selection, BadEscape> {
    let pairs = pairs(query)?.into_iter();
    let names = pairs.filter(|(key, _)| key == b"name[]");
    let names: Vec<_> = names.filter_map(|(_, value)| value).collect();
    if names.is_empty() {
        return Ok(Selection::all());
    }
    // Every family name is ASCII, so a name that is not UTF-8 matches none of them.
    let names = names.iter().map(|name| str::from_utf8(name).unwrap_or(""));
    Ok(Selection::named(names))
}

fn decode(text: &[u8], start: usize) -> Result<Vec<u8>, BadEscape> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut index = 0;
    while let Some(byte) = text.get(index) {
        index += 1;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let at = start + index - 1;
                let digit = |offset: usize| {
                    let digit = text.get(index + offset).copied().map(char::from);
                    digit.and_then(|digit| digit.to_digit(16))
                };
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    return Err(BadEscape { at });
                };
                decoded.push((high * 16 + low) as u8);
                index += 2;
            }
            byte => decoded.push(*byte),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_torchserve_finds_them() {
        let none: &[&str] = &[];
        for (query, expected) in [
            ("name[]=QueueTime", &["QueueTime"][..]),
            ("name%5B%5D=QueueTime", &["QueueTime"]),
            ("name%5b%5d=QueueTime", &["QueueTime"]),
            ("%6eame[]=%51ueueTime", &["QueueTime"]),
            (
                "name[]=QueueTime&name[]=HandlerTime",
                &["QueueTime", "HandlerTime"],
            ),
            (
                "name[]=QueueTime;name[]=HandlerTime",
                &["QueueTime", "HandlerTime"],
            ),
            ("name[]=QueueTime&name[]=QueueTime", &["QueueTime"]),
            ("a=b&&name[]=QueueTime&c", &["QueueTime"]),
            ("name[]=NoSuchMetric&name[]=QueueTime", &["QueueTime"]),
            ("name[]=NoSuchMetric", none),
            ("name[]=", none),
            ("name[]=queuetime", none),
            ("name[]=QueueTime,HandlerTime", none),
            ("name[]=QueueTime%20", none),
            ("name[]=QueueTime+", none),
            ("name[]==QueueTime", none),
            ("name[]=%ff%fe", none),
        ] {
            let expected = Selection::named(expected.iter().copied());
            assert_eq!(selection(query.as_bytes()), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_query_without_names_asks_for_everything() {
        for query in [
            "",
            "&",
            ";",
            "=",
            "name=QueueTime",
            "name[0]=a",
            "x=%25",
            "name[]",
        ] {
            assert_eq!(selection(query.as_bytes()), Ok(Selection::all()), "{query}");
        }
        assert_eq!(selection(b"\xff\xfe=\x00"), Ok(Selection::all()));
    }

    #[test]
    fn a_bad_escape_is_refused_wherever_it_is() {
        for (query, at) in [
            ("name[]=%zz", 7),
            ("name[]=%", 7),
            ("name[]=a%4", 8),
            ("name[]=a&b%5=c", 10),
            ("other=%g0", 6),
            ("%", 0),
            ("x=%+1", 2),
        ] {
            assert_eq!(
                selection(query.as_bytes()),
                Err(BadEscape { at }),
                "{query}"
            );
        }
    }

    #[test]
    fn a_query_cut_anywhere_is_refused_only_inside_an_escape() {
        let query = "name%5B%5D=QueueTime&name[]=%48andlerTime";
        for end in 0..query.len() {
            let cut = &query[..end];
            let tail = &cut[cut.len().saturating_sub(2)..];
            let expected = tail.find('%').map(|offset| BadEscape {
                at: end - tail.len() + offset,
            });
            assert_eq!(selection(cut.as_bytes()).err(), expected, "{cut}");
        }
    }

    #[test]
    fn an_oversize_query_selects_what_it_names() {
        let junk = "name[]=x&".repeat(7000);
        let query = format!("{junk}name[]=QueueTime");
        let expected = Selection::named(["QueueTime"]);
        assert_eq!(selection(query.as_bytes()), Ok(expected));
    }
}

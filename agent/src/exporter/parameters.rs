//! Reads the parameters of a path of the API. One that is wrong, unknown or given twice is an error with its remedy.
//!
//! Does not depend on: what they mean.

use crate::exporter::query::{self, BadEscape};

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error(transparent)]
    Escape(#[from] BadEscape),
    #[error("{name} is given twice; give it once")]
    Twice { name: String },
    #[error("{name} has no value; write {name}=VALUE")]
    Empty { name: String },
    #[error("{name}={value} is no whole number")]
    NoNumber { name: String, value: String },
    #[error("no such parameter: {name}; this path has {known}")]
    Unknown { name: String, known: String },
    #[error("the query is not UTF-8")]
    NotText,
}

/// The parameters that were not read yet.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, Option<String>)>);

impl Parameters {
    /// Reads a query.
    pub(super) fn parse(query: &str) -> Result<Self, Wrong> {
        let text = |bytes| String::from_utf8(bytes).map_err(|_| Wrong::NotText);
        let pairs = query::pairs(query.as_bytes())?.into_iter();
        let pairs = pairs.map(|(name, value)| Ok((text(name)?, value.map(text).transpose()?)));
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// Takes a text; `None` if it is not given.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Wrong> {
        let Some(at) = self.position(name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        if self.position(name).is_some() {
            return Err(Wrong::Twice { name: name.into() });
        }
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(Wrong::Empty { name: name.into() }),
        }
    }

    /// Takes several texts.
    pub(super) fn texts<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[Option<String>; N], Wrong> {
        let mut texts = [const { None }; N];
        for (text, name) in texts.iter_mut().zip(names) {
            *text = self.text(name)?;
        }
        Ok(texts)
    }

    /// Takes a whole number; `None` if it is not given.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Wrong> {
        let parse = |value: String| {
            value.parse().map_err(|_| Wrong::NoNumber {
                name: name.into(),
                value,
            })
        };
        self.text(name)?.map(parse).transpose()
    }

    /// Checks that none is left: `known` are all that the path has.
    pub(super) fn end(self, known: &[&str]) -> Result<(), Wrong> {
        let Some((name, _)) = self.0.into_iter().next() else {
            return Ok(());
        };
        let known = match known {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        Err(Wrong::Unknown { name, known })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(other, _)| other == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_once_and_decoded() {
        let mut parameters = Parameters::parse("model=a%26b+c&after=7").unwrap();
        assert_eq!(parameters.text("model"), Ok(Some("a&b c".into())));
        assert_eq!(parameters.number("after"), Ok(Some(7)));
        assert_eq!(parameters.number("limit"), Ok(None));
        assert_eq!(parameters.end(&["model"]), Ok(()));
    }

    #[test]
    fn wrong_parameter_is_named_with_its_remedy() {
        let message = |query: &str| {
            let read = || {
                let mut parameters = Parameters::parse(query)?;
                parameters.text("model")?;
                parameters.number("after")?;
                parameters.end(&["model", "after"])
            };
            read().map_err(|wrong| wrong.to_string())
        };
        for (query, expected) in [
            ("after=x", "after=x is no whole number"),
            ("after=-1", "after=-1 is no whole number"),
            ("after", "after has no value; write after=VALUE"),
            ("model=a&model=b", "model is given twice; give it once"),
            ("x=1", "no such parameter: x; this path has model, after"),
            ("model=%ff", "the query is not UTF-8"),
        ] {
            assert_eq!(message(query), Err(expected.into()), "{query}");
        }
        assert!(message("model=%zz").is_err());
        assert_eq!(message(""), Ok(()));
    }
}

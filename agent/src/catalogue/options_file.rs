//! Parses the YAML file of options that a command line names, as `vllm serve --config FILE` does.
//!
//! Discovery reads the file; an entry looks for the model in it.
//! Does not depend on: procfs, servers.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

/// Options by name, with dashes in front and inside, and the first value of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionsFile(BTreeMap<String, String>);

impl OptionsFile {
    /// Parses the file; `None` if it is not a YAML mapping.
    pub fn parse(text: &str) -> Option<Self> {
        let values: BTreeMap<String, Value> = serde_yaml_ng::from_str(text).ok()?;
        let options = values.into_iter().filter_map(|(name, value)| {
            let name = format!("--{}", name.trim_start_matches('-').replace('_', "-"));
            Some((name, text_of(&value)?))
        });
        Some(Self(options.collect()))
    }

    /// Returns the value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Returns a value as it would be written on the command line; the first of a list.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Sequence(values) => values.first().and_then(text_of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_names_of_the_command_line() {
        let text = "# comment\nmodel: org/m\nserved_model_name:\n  - a\n  - b\nport: 8000\nenable-lora: true\n\
                    compilation-config: {pass: 1}\nempty: ''\nnothing:\n";
        let file = OptionsFile::parse(text).unwrap();
        for (name, expected) in [
            ("--model", Some("org/m")),
            ("--served-model-name", Some("a")),
            ("--port", Some("8000")),
            ("--enable-lora", None),
            ("--compilation-config", None),
            ("--empty", None),
            ("--nothing", None),
            ("--other", None),
        ] {
            assert_eq!(file.value(name), expected, "{name}");
        }
        for len in 0..text.len() {
            let cut = OptionsFile::parse(&text[..len]);
            let model = cut.as_ref().and_then(|cut| cut.value("--model"));
            assert!(
                model.is_none_or(|model| "org/m".starts_with(model)),
                "{len}"
            );
        }
    }

    #[test]
    fn what_is_no_mapping_is_none() {
        for text in ["- a\n", "a", "a: b: c", "\0", "&a [*a]", "{"] {
            assert_eq!(OptionsFile::parse(text), None, "{text:?}");
        }
    }
}

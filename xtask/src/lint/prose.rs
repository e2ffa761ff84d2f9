//! Checks the words of the documentation, and of what the programs print: their strings and their `--help`.
//!
//! The words to avoid are in `words.rs`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Item, Lit, LitStr, Macro, Meta};

use crate::lint::words;
use crate::lint::{docs, markdown};
use crate::source;

/// Roots of the crates whose strings are checked, and the file that has the words to avoid as strings.
const ROOTS: [&str; 3] = ["agent/src/lib.rs", "agent/src/main.rs", "xtask/src/main.rs"];
const TABLE: &str = "xtask/src/lint/words.rs";
/// Derives of clap: the comments of such a type are its `--help`.
const HELP_DERIVES: [&str; 4] = ["Parser", "Args", "Subcommand", "ValueEnum"];
/// Attributes whose strings no user reads.
const SILENT: [&str; 3] = ["expect", "cfg", "cfg_attr"];
/// Words of clap for earlier names, which may be words to avoid.
const ALIAS: [&str; 3] = ["alias", "aliases", "visible_alias"];

/// Returns a line for each word to avoid in the documentation and the programs below `repository`.
pub(crate) fn findings(repository: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for page in docs::pages(repository)? {
        let path = repository.join(&page);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        lines.extend(describe(&page, &markdown::prose(&text), 1));
    }
    for root in ROOTS {
        for file in source::files(&repository.join(root), false)? {
            let path = file.path.strip_prefix(repository).unwrap_or(&file.path);
            if path == Path::new(TABLE) {
                continue;
            }
            for (line, text) in strings(&file.items) {
                lines.extend(describe(path, &text, line));
            }
        }
    }
    Ok(lines)
}

/// Describes the findings in `text`, which begins at the line `first` of `path`.
fn describe(path: &Path, text: &str, first: usize) -> Vec<String> {
    let findings = words::find(text);
    let describe = |finding: &words::Finding| {
        let line = first + finding.line - 1;
        let (path, word, instead) = (path.display(), finding.word, finding.instead);
        format!("{path}:{line}: \"{word}\": write \"{instead}\"")
    };
    findings.iter().map(describe).collect()
}

/// Returns the strings and the `--help` comments of `items`, each with its line.
fn strings(items: &[Item]) -> Vec<(usize, String)> {
    let mut reader = Reader::default();
    for item in items {
        reader.visit_item(item);
    }
    reader.strings
}

#[derive(Default)]
struct Reader {
    strings: Vec<(usize, String)>,
    /// Whether comments are those of a type that clap reads.
    is_help: bool,
}

impl Reader {
    fn on_tokens(&mut self, tokens: TokenStream) {
        let mut is_alias = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => is_alias = ALIAS.iter().any(|alias| ident == alias),
                TokenTree::Punct(punct) => is_alias &= punct.as_char() == '=',
                TokenTree::Group(group) => {
                    if !is_alias {
                        self.on_tokens(group.stream());
                    }
                    is_alias = false;
                }
                TokenTree::Literal(literal) => {
                    if let Lit::Str(text) = Lit::new(literal)
                        && !is_alias
                    {
                        self.visit_lit_str(&text);
                    }
                    is_alias = false;
                }
            }
        }
    }

    fn on_comment(&mut self, attribute: &Attribute) {
        if let Meta::NameValue(comment) = &attribute.meta
            && let Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) = &comment.value
        {
            self.visit_lit_str(text);
        }
    }
}

impl Visit<'_> for Reader {
    fn visit_item(&mut self, item: &Item) {
        let attributes = match item {
            Item::Enum(item) => &item.attrs[..],
            Item::Struct(item) => &item.attrs,
            _ => &[],
        };
        self.is_help = attributes.iter().any(derives_help);
        visit::visit_item(self, item);
        self.is_help = false;
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        if attribute.path().is_ident("doc") {
            if self.is_help {
                self.on_comment(attribute);
            }
        } else if let Meta::List(list) = &attribute.meta
            && !SILENT.iter().any(|name| list.path.is_ident(name))
        {
            self.on_tokens(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, item: &Macro) {
        self.on_tokens(item.tokens.clone());
    }

    fn visit_lit_str(&mut self, text: &LitStr) {
        self.strings.push((text.span().start().line, text.value()));
    }
}

fn derives_help(attribute: &Attribute) -> bool {
    attribute.path().is_ident("derive")
        && matches!(&attribute.meta, Meta::List(list) if list.tokens.clone().into_iter().any(|token| {
            matches!(token, TokenTree::Ident(name) if HELP_DERIVES.iter().any(|derive| name == derive))
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String)> {
        strings(&syn::parse_file(text).unwrap().items)
    }

    fn texts(text: &str) -> Vec<String> {
        read(text).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn strings_are_found_in_code_macros_and_attributes() {
        let text = "const A: &str = \"a\";\nfn f() { warn!(x = 1, \"b\"); g(&[\"c\"], b\"bytes\") }\n\
                    #[error(\"d {0}\")] struct E;\n#[expect(lint, reason = \"silent\")] struct F;";
        let expected = [(1, "a"), (2, "b"), (2, "c"), (3, "d {0}")];
        assert_eq!(
            read(text),
            expected.map(|(line, text)| (line, text.to_owned()))
        );
    }

    #[test]
    fn comments_count_only_where_clap_prints_them() {
        let text = "/// no\nstruct A { /// no\n a: u8 }\n\
                    /// one\n#[derive(Debug, clap::Args)] struct B { /// two\n #[arg(long)] b: u8 }\n\
                    #[derive(Subcommand)] enum C { /// three\n C }";
        assert_eq!(texts(text), [" one", " two", " three"]);
    }

    #[test]
    fn an_alias_may_be_an_avoided_word() {
        let text = "#[derive(Args)] struct A { #[arg(long, alias = \"rung\", value_name = \"MODE\")] a: u8 }\n\
                    #[command(aliases([\"b\"]), about = \"c\")] struct B;";
        assert_eq!(texts(text), ["MODE", "c"]);
    }

    #[test]
    fn a_finding_has_its_place_and_its_remedy() {
        let described = describe(Path::new("a.md"), "one\nit told us", 7);
        let expected = "a.md:8: \"told\": write \"reported, recorded or handled\"";
        assert_eq!(described, [expected]);
    }
}

//! Variables in the texts of a compose project: `$NAME`, `${NAME}` and its forms with a default, an error or a
//! replacement. `$$` is a plain `$`.

use std::collections::{BTreeMap, BTreeSet};

/// Why the variables of a text cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum VariableError {
    #[error("{part:?} is not a variable: write \"${{NAME}}\", or \"$$\" for a plain $")]
    Invalid { part: String },
    #[error("the variable {name} has no value{}: set it in the environment or in the file .env", reason(.message))]
    Required { name: String, message: String },
    #[error("its variables are nested too deeply: write fewer defaults inside of defaults")]
    TooDeep,
    #[error("it has more than {LONGEST} bytes with its variables: shorten it")]
    TooLong,
}

fn reason(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// Maximum number of bytes of a text after its variables are filled in.
const LONGEST: usize = 1 << 20;

/// Maximum number of defaults inside of defaults.
const DEEPEST: usize = 20;

/// Values of variables.
pub(super) trait Values {
    fn get(&self, name: &str) -> Option<String>;

    /// Returns `true` if a variable without a value is an error.
    fn is_final(&self) -> bool {
        false
    }
}

impl Values for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }
}

/// The text with its variables filled in. Adds the names of those without a value or default to `unset`; they become
/// empty.
pub(super) fn fill(
    text: &str,
    values: &dyn Values,
    unset: &mut BTreeSet<String>,
) -> Result<String, VariableError> {
    fill_at(text, values, unset, 0)
}

fn fill_at(
    text: &str,
    values: &dyn Values,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, VariableError> {
    if depth > DEEPEST {
        return Err(VariableError::TooDeep);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            filled.push('$');
            rest = next;
        } else if let Some(inner) = after.strip_prefix('{') {
            let invalid = || VariableError::Invalid { part: shortened(&rest[at..]) };
            let end = closing_brace(inner).ok_or_else(invalid)?;
            let expression = &inner[..end];
            let name = name_of(expression);
            if name.is_empty() {
                return Err(invalid());
            }
            let value = braced(name, &expression[name.len()..], values, unset, depth)?.ok_or_else(invalid)?;
            filled.push_str(&value);
            rest = &inner[end + 1..];
        } else {
            let name = name_of(after);
            if name.is_empty() {
                filled.push('$');
            } else {
                filled.push_str(&plain(name, values, unset));
            }
            rest = &after[name.len()..];
        }
        if filled.len() > LONGEST {
            return Err(VariableError::TooLong);
        }
    }
    filled.push_str(rest);
    if filled.len() > LONGEST { Err(VariableError::TooLong) } else { Ok(filled) }
}

fn plain(name: &str, values: &dyn Values, unset: &mut BTreeSet<String>) -> String {
    values.get(name).unwrap_or_else(|| {
        unset.insert(name.to_owned());
        String::new()
    })
}

/// The value of `${NAMEform}`; `None` if the form is not one of Compose's.
fn braced(
    name: &str,
    form: &str,
    values: &dyn Values,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<Option<String>, VariableError> {
    if form.is_empty() {
        return Ok(Some(plain(name, values, unset)));
    }
    let (needs_content, form) = match form.strip_prefix(':') {
        Some(form) => (true, form),
        None => (false, form),
    };
    let value = values.get(name).filter(|value| !(needs_content && value.is_empty()));
    let mut word = |word: &str| fill_at(word, values, unset, depth + 1);
    if let Some(default) = form.strip_prefix('-') {
        return value.map_or_else(|| word(default), Ok).map(Some);
    }
    if let Some(replacement) = form.strip_prefix('+') {
        return value.map_or_else(|| Ok(String::new()), |_| word(replacement)).map(Some);
    }
    if let Some(message) = form.strip_prefix('?') {
        return match value {
            Some(value) => Ok(Some(value)),
            // Its variables are not filled in: what they hold may be secret.
            None => Err(VariableError::Required { name: name.to_owned(), message: message.to_owned() }),
        };
    }
    Ok(None)
}

/// The name at the start of a text; empty if there is none.
fn name_of(text: &str) -> &str {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(is_first) {
        return "";
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Where the brace that was opened before this text is closed.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The start of an expression, up to its name: what follows may be a secret.
fn shortened(text: &str) -> String {
    let inner = text.strip_prefix("${").unwrap_or(text);
    format!("${{{}…", name_of(inner).chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, VariableError> {
        let values: BTreeMap<String, String> =
            [("A", "a"), ("EMPTY", ""), ("B_2", "b")].map(|(k, v)| (k.into(), v.into())).into();
        fill(text, &values, &mut BTreeSet::new())
    }

    #[test]
    fn every_form_is_filled_in() {
        for (text, wanted) in [
            ("no variable", "no variable"),
            ("$A", "a"),
            ("${A}", "a"),
            ("x$A-y", "xa-y"),
            ("${B_2}x", "bx"),
            ("$$A", "$A"),
            ("$$$A", "$a"),
            ("$${A}", "${A}"),
            ("costs 5$", "costs 5$"),
            ("$1 and $(date)", "$1 and $(date)"),
            ("$NONE", ""),
            ("${NONE}", ""),
            ("${NONE:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NONE-d}", "d"),
            ("${A:-d}", "a"),
            ("${NONE:-}", ""),
            ("${A:+r}", "r"),
            ("${EMPTY:+r}", ""),
            ("${EMPTY+r}", "r"),
            ("${NONE+r}", ""),
            ("${A:?m}", "a"),
            ("${EMPTY?m}", ""),
            ("${NONE:-${A}}", "a"),
            ("${NONE:-${EMPTY:-${NONE-deep}}}", "deep"),
            ("${NONE:-{\"a\":{}}}", "{\"a\":{}}"),
            ("${NONE:-a:b-c?d}", "a:b-c?d"),
            ("${NONE:-$$A}", "$A"),
            ("${a}", ""),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn errors_name_the_variable_and_no_secret() {
        for (text, wanted) in [
            (
                "${NONE:?set it}",
                "the variable NONE has no value (set it): set it in the environment or in the file .env",
            ),
            ("${EMPTY:?}", "the variable EMPTY has no value: set it in the environment or in the file .env"),
            (
                "${NONE?${A}}",
                "the variable NONE has no value (${A}): set it in the environment or in the file .env",
            ),
            ("${}", "\"${…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $"),
            ("${1A}", "\"${…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $"),
            ("${A", "\"${A…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $"),
            ("${A/x/y}", "\"${A…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $"),
            ("${A=s3cret}", "\"${A…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $"),
            ("${A:-s3cret", "\"${A…\" is not a variable: write \"${NAME}\", or \"$$\" for a plain $"),
        ] {
            assert_eq!(filled(text).unwrap_err().to_string(), wanted, "{text}");
        }
        let deep = format!("{}x{}", "${N:-".repeat(30), "}".repeat(30));
        assert_eq!(filled(&deep), Err(VariableError::TooDeep));
    }

    #[test]
    fn variables_without_a_value_are_named() {
        let mut unset = BTreeSet::new();
        fill("$X ${Y} ${Z:-d} ${Q-$W}", &BTreeMap::new(), &mut unset).unwrap();
        assert_eq!(unset.into_iter().collect::<Vec<_>>(), ["W", "X", "Y"]);
    }
}

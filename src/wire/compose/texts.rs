//! Reads maps of texts, which compose writes as maps or as lists: environment, labels, driver options.

use std::collections::BTreeMap;

use serde_json::Value;

use super::at::{At, HAS_NUL, Notes, parent};
use crate::model::text::is_one_line;
use crate::model::{Refusal, is_own_label};

/// Reads `environment`. Leaves out a name without a value, with a warning, unless the target's own environment has it.
pub(super) fn environment(
    at: Option<&At<'_>>,
    overlay: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, item, value) in at.map(|at| pairs(at, notes)).unwrap_or_default() {
        match value {
            Some(value) => {
                found.insert(name, value);
            }
            None if overlay.contains_key(&name) => {}
            None => notes
                .warn(item.refusal("it has no value and is left out: write one, or \"\" for an empty one")),
        }
    }
    found
}

/// Reads `labels` and similar fields. A name without a value has an empty one.
pub(super) fn labels(at: &At<'_>, notes: &mut Notes) -> BTreeMap<String, String> {
    pairs(at, notes).into_iter().map(|(name, _, value)| (name, value.unwrap_or_default())).collect()
}

/// Removes the labels that only the agent may write, with a warning for each. `at` is the path of the labels.
pub(super) fn without_own(
    mut labels: BTreeMap<String, String>,
    at: &str,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    labels.retain(|name, _| {
        let is_kept = !is_own_label(name);
        if !is_kept {
            let why =
                "not honoured: this name is reserved for labels of the agent; choose another one".to_owned();
            notes.warn(Refusal { path: format!("{at}.{name}"), why });
        }
        is_kept
    });
    labels
}

/// Reads a map of names to texts, without a list form.
pub(super) fn map(at: &At<'_>, notes: &mut Notes) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // Do not show the value: what is there instead of a map may be a secret, too.
    let map = at.map().map_err(|_| at.refusal("it must be a map of names to values"));
    for (name, field) in notes.keep(map).unwrap_or_default() {
        let read = field.scalar().and_then(|value| Ok((checked(&field, name, &value)?, value)));
        found.extend(notes.keep(read));
    }
    found
}

/// Renames labels to the present spelling: every `resin` in `io.resin.*` becomes `balena`. If both spellings exist, the
/// newer one is kept (docs/dev/protocol.md, "Label names").
pub(super) fn respell(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let (old, mut new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        labels.into_iter().partition(|(name, _)| name.starts_with("io.resin."));
    for (name, value) in old {
        new.entry(name.replace("resin", "balena")).or_insert(value);
    }
    new
}

/// Returns name, path and value of each member of a map or a `name=value` list. Refusals never show values.
fn pairs<'v>(at: &At<'v>, notes: &mut Notes) -> Vec<(String, At<'v>, Option<String>)> {
    let mut found = Vec::new();
    match at.value {
        Value::Array(_) => {
            for item in notes.keep(at.list()).unwrap_or_default() {
                let Some(text) = item.value.as_str() else {
                    notes.refuse(item.refusal("it is not a text: write \"NAME=value\""));
                    continue;
                };
                let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
                if let Some(name) = notes.keep(checked(&item, name, value.unwrap_or_default())) {
                    found.push((name, item, value.map(str::to_owned)));
                }
            }
        }
        Value::Object(map) => {
            let path = parent(&at.path);
            for (name, value) in map {
                let item = At::new(format!("{path}.{name}"), value);
                let value = if value.is_null() { Ok(None) } else { item.scalar().map(Some) };
                let Some(value) = notes.keep(value) else { continue };
                if let Some(name) = notes.keep(checked(&item, name, "")) {
                    found.push((name, item, value));
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            notes.refuse(at.refusal("it must be a map of names to values, or a list of \"NAME=value\""));
        }
    }
    found
}

fn checked(at: &At<'_>, name: &str, value: &str) -> Result<String, Refusal> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(at.refusal("its name is empty or contains '=': write a name"));
    }
    if !is_one_line(name) {
        return Err(at.refusal("its name has a line break or an invisible character: remove it"));
    }
    if value.contains('\0') {
        return Err(at.refusal(HAS_NUL));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_spellings_give_way() {
        let given = [
            ("io.resin.update.strategy", "old"),
            ("io.balena.update.strategy", "new"),
            ("io.resin.features.resin-api", "1"),
            ("my.resin.label", "kept"),
        ];
        let labels = given.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let pairs: Vec<_> = respell(labels).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            pairs,
            ["io.balena.features.balena-api=1", "io.balena.update.strategy=new", "my.resin.label=kept"]
        );
    }
}

//! Holds JSON against a schema of an OpenAPI document. It knows the few words that ours has, fails at any other, and is
//! stricter than JSON Schema: what is not described may not be there.

use serde_json::Value;

/// What is wrong with `value`, by its place; empty when nothing is.
pub fn wrong(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    check(document, schema, value, "", &mut wrong);
    wrong
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        let is_kept = match word.as_str() {
            "description" | "default" | "required" => continue,
            "$ref" => {
                let path =
                    rule.as_str().and_then(|r| r.strip_prefix('#')).expect("a reference into the document");
                let other = document.pointer(path).unwrap_or_else(|| panic!("{path} is not there"));
                check(document, other, value, at, wrong);
                continue;
            }
            "properties" => {
                check_properties(document, schema, value, at, wrong);
                continue;
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, rule, item, &format!("{at}/{n}"), wrong);
                }
                continue;
            }
            "oneOf" => {
                let fits = |s: &&Value| self::wrong(document, s, value).is_empty();
                rule.as_array().expect("schemas").iter().filter(fits).count() == 1
            }
            "type" => rule
                .as_array()
                .map_or_else(|| is_of(rule, value), |types| types.iter().any(|t| is_of(t, value))),
            "enum" => rule.as_array().expect("values").contains(value),
            "const" => rule == value,
            "minimum" => value.is_null() || value.as_f64() >= rule.as_f64(),
            "maximum" => value.is_null() || value.as_f64() <= rule.as_f64(),
            "maxLength" => value.as_str().is_none_or(|s| s.chars().count() as u64 <= rule.as_u64().unwrap()),
            other => panic!("the schema has {other}, which is not known here"),
        };
        if !is_kept {
            wrong.push(format!("{at}: {value} breaks {word} {rule}"));
        }
    }
}

fn check_properties(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let Some(fields) = value.as_object() else { return };
    let described = schema["properties"].as_object().expect("properties");
    for (name, field) in fields {
        match described.get(name) {
            Some(schema) => check(document, schema, field, &format!("{at}/{name}"), wrong),
            None => wrong.push(format!("{at}/{name} is not described")),
        }
    }
    let required = schema["required"].as_array().expect("what is required");
    for name in required.iter().filter_map(Value::as_str).filter(|name| !fields.contains_key(*name)) {
        wrong.push(format!("{at}/{name} is missing"));
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type is a word") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("type {other} is not known here"),
    }
}

//! Makes docs/openapi-fleet.json, the OpenAPI document of this server.
//!
//! What the table of routes knows is made from it: permissions, parameters of paths, conditions, headers and errors. The rest is
//! written by hand in `openapi.json` beside this file: what an operation is for, its parameters, bodies and schemas, and
//! the API of devices. `cargo run --example openapi` writes the document; a test compares.

use serde_json::{Map, Value, json};

use super::needs::{Method, Needs};
use super::table::{table, table_of_metrics};
use crate::fleet::access::Reach;
use crate::wire::operator_api::Code;

/// The part that is written by hand. `x-errors` of an operation are errors beside those of every operation of its kind.
const BY_HAND: &str = include_str!("openapi.json");

/// Longest line of the document, as far as values can be broken.
const WIDTH: usize = 120;

/// The errors of every operation of operators.
const OF_ALL: [(&str, &str); 6] = [
    ("400", "BadRequest"),
    ("401", "NotPermitted"),
    ("403", "Forbidden"),
    ("429", "TooManyTokens"),
    ("500", "Storage"),
    ("503", "Busy"),
];

/// The errors of what changes something, and of what has a body.
const OF_CHANGES: [(&str, &str); 2] = [("409", "Refused"), ("422", "KeyReused")];
const OF_BODIES: [(&str, &str); 3] = [("408", "TooSlow"), ("413", "TooLarge"), ("415", "NotJson")];

/// Returns the document as the text of its file.
///
/// # Errors
///
/// Names the operation that is in the table of routes and not in the part that is written by hand, or the other way round.
pub fn openapi_document() -> Result<String, String> {
    let mut document: Value = serde_json::from_str(BY_HAND).map_err(|error| error.to_string())?;
    let mut left = operations(&document);
    let below = table().into_iter().map(|(path, ways)| (format!("/api/v1{path}"), ways));
    let metrics = table_of_metrics().into_iter().map(|(path, ways)| (path.to_owned(), ways));
    for (path, ways) in below.chain(metrics) {
        for way in ways {
            let method = way.needs.method.as_str().to_lowercase();
            let operation = document["paths"][&path][&method].as_object_mut();
            let operation = operation.ok_or_else(|| format!("{method} {path} is not described"))?;
            complete(operation, &path, way.needs);
            left.retain(|described| *described != (path.clone(), method.clone()));
        }
    }
    if let Some((path, method)) = left.first() {
        return Err(format!("{method} {path} is described, and is no route"));
    }
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"] =
        json!(codes);
    let mut text = String::new();
    write(&mut text, &document, 0);
    text.push('\n');
    Ok(text)
}

/// Returns the operations of operators: those of devices, and the probes, have tags of their own.
fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let all = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods
            .filter(|(_, operation)| operation.get("tags").is_none())
            .map(|(m, _)| (path.clone(), m.clone()))
    });
    all.collect()
}

/// Adds to an operation what the table of routes knows of it.
fn complete(operation: &mut Map<String, Value>, path: &str, needs: Needs) {
    let reach = if needs.reach == Reach::Server { "server" } else { "fleets" };
    operation.insert("tags".to_owned(), json!(["operator"]));
    operation.insert("security".to_owned(), json!([{ "operator": [] }]));
    operation.insert("x-role".to_owned(), json!(needs.permission.least().as_str()));
    operation.insert("x-reach".to_owned(), json!(reach));
    let is_read = needs.method == Method::Get;
    let named = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = named.map(|name| component("parameters", &capital(name))).collect();
    parameters
        .extend(operation.remove("parameters").and_then(|own| own.as_array().cloned()).into_iter().flatten());
    parameters.extend(needs.has_etag.then(|| component("parameters", "IfMatch")));
    parameters.extend((!is_read).then(|| component("parameters", "IdempotencyKey")));
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), parameters.into());
    }
    let mut errors: Vec<(&str, &str)> = OF_ALL.to_vec();
    errors.extend(path.contains('{').then_some(("404", "NotFound")));
    errors.extend(OF_CHANGES.into_iter().filter(|_| !is_read));
    errors.extend(OF_BODIES.into_iter().filter(|_| operation.contains_key("requestBody")));
    errors.extend(needs.has_etag.then_some(("412", "NotAsExpected")));
    errors.extend((needs.has_etag && is_read).then_some(("304", "Unchanged")));
    let own = operation.remove("x-errors");
    let own = own.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    errors.extend(own.map(|name| (status_of(name), name)));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    // What is deleted has no ETag any more.
    let is_gone = needs.method == Method::Delete || path.ends_with("/delete");
    let header = if path.ends_with("/variables") { "SomeETag" } else { "ETag" };
    for response in responses.values_mut().filter(|_| needs.has_etag && !is_gone) {
        response["headers"]["ETag"] = component("headers", header);
    }
    responses
        .extend(errors.iter().map(|(status, name)| ((*status).to_owned(), component("responses", name))));
}

fn status_of(name: &str) -> &'static str {
    match name {
        "NotFound" => "404",
        "Refused" => "409",
        _ => "422",
    }
}

fn component(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// Writes a value in one line if it has room there, else each of its members in a line of its own.
fn write(text: &mut String, value: &Value, indent: usize) {
    let line = value.to_string();
    let (open, close, members): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(map) if indent + line.len() > WIDTH => {
            ('{', '}', map.iter().map(|(name, member)| (format!("{}: ", json!(name)), member)).collect())
        }
        Value::Array(list) if indent + line.len() > WIDTH => {
            ('[', ']', list.iter().map(|member| (String::new(), member)).collect())
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            text.push_str(&line);
            return;
        }
    };
    text.push(open);
    for (at, (name, member)) in members.into_iter().enumerate() {
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        text.extend(std::iter::repeat_n(' ', indent + 1));
        text.push_str(&name);
        write(text, member, indent + 1);
    }
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', indent));
    text.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_docs_is_the_one_that_is_made() {
        let made = openapi_document().unwrap();
        let is_same = made == include_str!("../../../docs/openapi-fleet.json");
        assert!(is_same, "docs/openapi-fleet.json is old; write it with: cargo run --example openapi");
    }

    #[test]
    fn a_value_is_broken_where_it_has_no_room() {
        let mut text = String::new();
        let long = "x".repeat(114);
        write(&mut text, &json!({ "a": [1, 2], "b": { "c": &long } }), 0);
        assert_eq!(text, format!("{{\n \"a\": [1,2],\n \"b\": {{\n  \"c\": \"{long}\"\n }}\n}}"));
    }
}

//! Checks the options of the log drivers that every engine has: a container with a wrong one is created, and cannot start.

use super::at::{At, Notes};
use crate::model::Logging;

/// Refuses options that the driver would refuse. Other drivers than `json-file` and `local` are judged by the engine.
pub(super) fn check(at: &At<'_>, logging: &Logging, notes: &mut Notes) {
    let mut refuse = |option: &str, why: String| {
        notes.refuse(At::new(format!("{}.options.{option}", at.path), at.value).refusal(why));
    };
    let option = |name: &str| logging.options.get(name).map(String::as_str);
    let is_non_blocking = match option("mode") {
        Some("non-blocking") => true,
        None | Some("" | "blocking") => false,
        Some(_) => {
            refuse("mode", "write blocking or non-blocking".to_owned());
            false
        }
    };
    match option("max-buffer-size") {
        Some(_) if !is_non_blocking && option("mode").is_none_or(|mode| mode == "blocking") => {
            refuse("max-buffer-size", "it needs mode: non-blocking: write that, or remove this".to_owned());
        }
        Some(size) if bytes(size).is_none() => refuse("max-buffer-size", accepts_size()),
        Some(_) | None => {}
    }
    // An option that a driver does not have is refused by the engine when it creates the container.
    if !matches!(logging.driver.as_str(), "json-file" | "local") {
        return;
    }
    let is_zero_fine = logging.driver == "local";
    if option("max-size").is_some_and(|size| bytes(size).is_none_or(|bytes| bytes <= 0.0 && !is_zero_fine)) {
        refuse("max-size", accepts_size());
    }
    let files = option("max-file").map(|text| text.parse::<i64>().ok().filter(|files| *files >= 1));
    if files == Some(None) {
        refuse("max-file", "write a whole number of 1 or more".to_owned());
    }
    match option("compress") {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => {
            let is_json_file = logging.driver == "json-file";
            let files = files.flatten().unwrap_or(if is_json_file { 1 } else { 5 });
            if files < 2 || (is_json_file && option("max-size").is_none()) {
                refuse("compress", "it needs max-size, and max-file of 2 or more: write both".to_owned());
            }
        }
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => {}
        Some(_) => refuse("compress", "write true or false".to_owned()),
    }
}

fn accepts_size() -> String {
    "write a number of bytes, or a number with k, m or g, e.g. \"10m\"".to_owned()
}

/// A size as the engine reads it: digits, perhaps with a fraction, a space and a unit (go-units, `FromHumanSize`).
fn bytes(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let prefix = unit.strip_suffix('b').unwrap_or(&unit);
    let prefix = prefix.strip_suffix('i').unwrap_or(prefix);
    let is_unit = matches!(prefix, "" | "k" | "m" | "g" | "t" | "p");
    number.parse().ok().filter(|_| is_unit && !number.starts_with('.') && !number.ends_with('.'))
}

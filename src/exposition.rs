//! Writes metrics in the text format that Prometheus reads (version 0.0.4). Does not know what they measure.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::model::text::one_line;

/// What a metric's value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// It only rises, and starts at zero with each run of the program.
    Counter,
    Gauge,
    /// Two counters, `_sum` and `_count`.
    Summary,
    /// As a summary, with a counter `_bucket` for each upper bound.
    Histogram,
}

/// The type of the content, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric: its name, its type, and a sentence of help.
pub type Family = (&'static str, Type, &'static str);

/// A page of metrics, family by family.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Adds a family and its samples, each with the suffix of its name, its labels and its value. A page may have only
    /// one sample with the same labels, so the values of several are added up. Without samples nothing is added.
    pub fn add<'a>(
        &mut self,
        (name, kind, help): Family,
        samples: impl IntoIterator<Item = (&'static str, Vec<(&'static str, &'a str)>, f64)>,
    ) {
        let mut lines: BTreeMap<String, f64> = BTreeMap::new();
        for (end, labels, value) in samples {
            let labels: Vec<_> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            *lines.entry(format!("{name}{end}{braces}")).or_default() += value;
        }
        if lines.is_empty() {
            return;
        }
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Summary => "summary",
            Type::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (line, value) in lines {
            let _ = writeln!(self.0, "{line} {value}");
        }
    }

    /// The text of the page.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The value of a label: one line that is safe to show on a terminal, with the escapes of the format.
fn escaped(value: &str) -> String {
    one_line(value).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.add(("a_total", Type::Counter, "How many."), [("", vec![], 3.0)]);
        page.add(("none", Type::Gauge, "Nothing."), []);
        let odd = "a\"b\\c\nd\u{202e}";
        let samples = [
            ("", vec![("x", odd), ("y", "é")], 0.5),
            ("", vec![("x", "1")], 1.0),
            ("", vec![("x", "1")], 1.0),
        ];
        page.add(("b", Type::Gauge, "Odd."), samples);
        let expected = "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n\
                        # HELP b Odd.\n# TYPE b gauge\nb{x=\"1\"} 2\nb{x=\"a\\\"b\\\\c\\\\nd\\\\u{202e}\",y=\"é\"} 0.5\n";
        assert_eq!(page.into_text(), expected);
    }
}

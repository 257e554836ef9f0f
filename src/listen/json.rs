//! Reads JSON as JSON Schema understands it, so that an OpenAPI document can say exactly what a body may be.
//!
//! Serde's derived types take more than that and less. They read a list as the fields of a struct, in order, and
//! `{"word": null}` as a word of an enum; and they do not take `60.0` for the whole number that it is. What is read
//! here takes objects for structs, strings for enums, and every whole number for an integer. The types stay as they
//! are.

use std::fmt;
use std::marker::PhantomData;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Reads one JSON document, and nothing after it.
///
/// # Errors
///
/// When the text is no JSON, or does not have the form of `T`.
pub fn from_json<'de, T: Deserialize<'de>>(text: &'de [u8]) -> serde_json::Result<T> {
    let mut document = serde_json::Deserializer::from_slice(text);
    let read = T::deserialize(Exact(&mut document))?;
    document.end()?;
    Ok(read)
}

/// Returns whether the headers of a request declare a body of JSON, or say nothing of its type.
#[must_use]
pub fn may_be_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|kind| {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    })
}

/// A deserializer of JSON, or the seed of a value within it.
struct Exact<D>(D);

macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(Value { visitor, is_integer: true })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Exact<D> {
    type Error = D::Error;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Value { visitor, is_integer: false })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Value { visitor, is_integer: false })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Value { visitor, is_integer: false })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let word: StringDeserializer<D::Error> = String::deserialize(self.0)?.into_deserializer();
        visitor.visit_enum(word)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Exact<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Exact(deserializer))
    }
}

/// Hands what was read to the visitor of a type.
struct Value<V> {
    visitor: V,
    /// Whether the type is an integer.
    is_integer: bool,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Value<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.visitor.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.visitor.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match whole(value).filter(|_| self.is_integer) {
            Some(whole) => self.visitor.visit_i64(whole),
            None => self.visitor.visit_f64(value),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.visitor.visit_str(value)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.visitor.visit_borrowed_str(value)
    }

    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        self.visitor.visit_string(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Exact(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Parts(items, PhantomData))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Parts(fields, PhantomData))
    }
}

/// The items of a list, or the fields of an object.
struct Parts<'de, A>(A, PhantomData<&'de ()>);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Parts<'de, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Exact(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Parts<'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Exact(seed))
    }
}

/// The integer that `value` is, if it is one and exact.
fn whole(value: f64) -> Option<i64> {
    /// 2 to the power of 53. Beyond it a number with a point may stand for several integers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = value.fract() == 0.0 && value.abs() <= EXACT;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
    is_whole.then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        seconds: u64,
        #[serde(default)]
        word: Option<Word>,
        #[serde(default)]
        inner: BTreeMap<String, Vec<Inner>>,
        #[serde(default)]
        free: serde_json::Value,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Yes,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        text: String,
        small: Option<u8>,
    }

    #[test]
    fn an_object_is_read_as_one() {
        let text = br#"{"seconds": 60.0, "word": "yes", "free": 1.0,
                        "inner": {"a": [{"text": "\u00e9", "small": 2.0}, {"text": "", "small": null}]}}"#;
        let inner =
            vec![Inner { text: "é".to_owned(), small: Some(2) }, Inner { text: String::new(), small: None }];
        let order = Order {
            seconds: 60,
            word: Some(Word::Yes),
            inner: BTreeMap::from([("a".to_owned(), inner)]),
            free: serde_json::json!(1.0),
        };
        assert_eq!(from_json::<Order>(text).unwrap(), order);
    }

    #[test]
    fn what_json_schema_does_not_take_is_refused_with_its_place() {
        for (text, why) in [
            ("[60]", "invalid type: sequence, expected struct Order at line 1 column 0"),
            (r#"{"seconds": 60.5}"#, "invalid type: floating point `60.5`, expected u64 at line 1 column 16"),
            (r#"{"seconds": -1.0}"#, "invalid value: integer `-1`, expected u64 at line 1 column 16"),
            (
                r#"{"seconds": 1e30}"#,
                "invalid type: floating point `1e+30`, expected u64 at line 1 column 16",
            ),
            (r#"{"seconds": "60"}"#, "invalid type: string \"60\", expected u64 at line 1 column 16"),
            (r#"{"seconds": 1, "seconds": 1}"#, "duplicate field `seconds` at line 1 column 24"),
            (
                r#"{"seconds": 1, "word": {"yes": null}}"#,
                "invalid type: map, expected a string at line 1 column 23",
            ),
            (r#"{"seconds": 1, "word": "no"}"#, "unknown variant `no`, expected `yes` at line 1 column 28"),
            (
                r#"{"seconds": 1, "inner": {"a": [["", null]]}}"#,
                "invalid type: sequence, expected struct Inner at line 1 column 31",
            ),
            (
                r#"{"seconds": 1, "inner": {"a": [{"text": "", "small": 256.0}]}}"#,
                "invalid value: integer `256`, expected u8 at line 1 column 58",
            ),
            (r#"{"seconds": 1} {}"#, "trailing characters at line 1 column 16"),
        ] {
            assert_eq!(from_json::<Order>(text.as_bytes()).unwrap_err().to_string(), why, "{text}");
        }
    }
}

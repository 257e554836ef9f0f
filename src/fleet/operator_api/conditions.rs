//! The conditions of a request: `If-Match` and `If-None-Match`, as RFC 9110 has them. Pure.

use axum::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::answer::ApiError;
use super::etag::ETag;
use crate::fleet::policy::Refusal;
use crate::wire::operator_api::Code;

/// Maximum number of tags of one header.
const MOST_TAGS: usize = 100;

/// The conditions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// What a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever there is.
    Any,
    Of(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    opaque: String,
}

impl Conditions {
    /// Reads the headers of a request.
    ///
    /// # Errors
    ///
    /// If one of them is malformed.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Self { if_match: read(headers, &IF_MATCH)?, if_none_match: read(headers, &IF_NONE_MATCH)? })
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether a thing with this ETag may be changed. It exists.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotAsExpected`], with the ETag.
    pub(super) fn check(&self, etag: &ETag) -> Result<(), Refusal> {
        if !self.is_matched(etag) {
            return Err(Refusal::NotAsExpected { header: "If-Match", etag: etag.to_string() });
        }
        if self.names(etag) {
            return Err(Refusal::NotAsExpected { header: "If-None-Match", etag: etag.to_string() });
        }
        Ok(())
    }

    /// Returns `false` if the client that reads a thing with this ETag has it already.
    ///
    /// # Errors
    ///
    /// As [`Self::check`], for `If-Match`.
    pub(super) fn is_news(&self, etag: &ETag) -> Result<bool, Refusal> {
        if !self.is_matched(etag) {
            return Err(Refusal::NotAsExpected { header: "If-Match", etag: etag.to_string() });
        }
        Ok(!self.names(etag))
    }

    /// `If-Match` compares strongly: a weak tag equals no tag.
    fn is_matched(&self, etag: &ETag) -> bool {
        match &self.if_match {
            None | Some(Tags::Any) => true,
            Some(Tags::Of(tags)) => tags.iter().any(|tag| !tag.is_weak && tag.opaque == etag.opaque()),
        }
    }

    fn names(&self, etag: &ETag) -> bool {
        match &self.if_none_match {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Of(tags)) => tags.iter().any(|tag| tag.opaque == etag.opaque()),
        }
    }
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let values: Option<Vec<&str>> = headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
    // Several headers are one list.
    let tags = values.and_then(|values| parse(&values.join(",")));
    tags.map(Some).ok_or_else(|| {
        let name = if *name == IF_MATCH { "If-Match" } else { "If-None-Match" };
        let remedy =
            format!("write * or ETags in double quotes as the server sent them, {MOST_TAGS} at most");
        ApiError::with_remedy(Code::BadRequest, format_args!("the header {name} is not understood"), remedy)
    })
}

/// Reads `*` or a list of tags; `None` if it is neither.
fn parse(text: &str) -> Option<Tags> {
    if text.trim() == "*" {
        return Some(Tags::Any);
    }
    let (mut tags, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return (1..=MOST_TAGS).contains(&tags.len()).then_some(Tags::Of(tags));
        }
        let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        // Between two tags there is a comma.
        let after = after.trim_start_matches([' ', '\t']);
        if !opaque.bytes().all(|byte| byte.is_ascii_graphic())
            || !(after.is_empty() || after.starts_with(','))
        {
            return None;
        }
        tags.push(Tag { is_weak, opaque: opaque.to_owned() });
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn conditions(name: HeaderName, values: &[&str]) -> Result<Conditions, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        Conditions::of(&headers).map_err(|error| error.message())
    }

    #[test]
    fn conditions_are_compared_as_http_says() {
        let etag = ETag::new("now".to_owned());
        for (values, if_match, if_none_match) in [
            (&["*"][..], true, false),
            (&[" * "], true, false),
            (&["\"now\""], true, false),
            (&["\"then\""], false, true),
            (&["W/\"now\""], false, false),
            (&["W/\"then\""], false, true),
            (&["\"then\", \"now\""], true, false),
            (&["\"then\",,W/\"now\""], false, false),
            (&["\"then\"", "\"now\""], true, false),
            (&["\"a,b\",\"now\" "], true, false),
            (&["\"\""], false, true),
        ] {
            let matched = conditions(IF_MATCH, values).unwrap();
            assert_eq!(matched.check(&etag).is_ok(), if_match, "If-Match: {values:?}");
            assert_eq!(matched.is_news(&etag).is_ok(), if_match, "If-Match: {values:?}");
            let unmatched = conditions(IF_NONE_MATCH, values).unwrap();
            assert_eq!(unmatched.check(&etag).is_ok(), if_none_match, "If-None-Match: {values:?}");
            assert_eq!(unmatched.is_news(&etag), Ok(if_none_match), "If-None-Match: {values:?}");
        }
        assert!(Conditions::default().check(&etag).is_ok() && Conditions::default().is_none());
    }

    #[test]
    fn what_is_malformed_is_refused_and_never_ignored() {
        let many = vec!["\"a\""; 101].join(",");
        for value in [
            "",
            ",",
            "now",
            "\"now",
            "now\"",
            "\"a\"\"b\"",
            "\"a\" x",
            "*, \"a\"",
            "w/\"a\"",
            "\"a b\"",
            &many,
        ] {
            for (name, shown) in [(IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")] {
                let error = conditions(name, &[value]).unwrap_err();
                assert!(
                    error.starts_with(&format!("the header {shown} is not understood; write *")),
                    "{value}"
                );
            }
        }
    }
}

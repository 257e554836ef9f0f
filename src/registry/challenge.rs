//! Parses the challenge of a registry that wants a credential (`WWW-Authenticate`). Pure.

/// The credential that a registry wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the service at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// Finds the challenge in these header lines, each of which may have several (RFC 9110, 11.6.1). Prefers a token, as the
    /// engine does.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let all: Vec<_> = lines.flat_map(|line| Parser { rest: line }.challenges()).collect();
        let bearer = all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or(all.first()).cloned()
    }

    /// The challenge of a scheme with its parameters; `None` for a scheme that is not used, or a token without its service.
    fn new(scheme: &str, parameters: &[(String, String)]) -> Option<Self> {
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => Some(Self::Bearer {
                realm: value("realm").filter(|realm| !realm.is_empty())?,
                service: value("service"),
            }),
            _ => None,
        }
    }
}

/// What is left to read of a header line.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Reads all challenges. A line that is cut within a quote loses its last challenge.
    fn challenges(mut self) -> Vec<Challenge> {
        let mut found = Vec::new();
        loop {
            self.skip(&[' ', '\t', ',']);
            let scheme = self.until(&[' ', '\t', ',']);
            if scheme.is_empty() {
                return found;
            }
            let Some(parameters) = self.parameters() else { return found };
            found.extend(Challenge::new(scheme, &parameters));
        }
    }

    /// Reads the parameters of one scheme. `None` if a quote is not closed.
    fn parameters(&mut self) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        loop {
            let before = self.rest;
            self.skip(&[' ', '\t', ',']);
            let name = self.until(&['=', ' ', '\t', ',']);
            self.skip(&[' ', '\t']);
            let Some(after) = self.rest.strip_prefix('=').filter(|_| !name.is_empty()) else {
                // It is the next scheme, or the end.
                self.rest = before;
                return Some(found);
            };
            self.rest = after;
            self.skip(&[' ', '\t']);
            let value = match self.rest.strip_prefix('"') {
                Some(quoted) => self.quoted(quoted)?,
                None => self.until(&[',', ' ', '\t']).to_owned(),
            };
            found.push((name.to_owned(), value));
        }
    }

    /// Reads up to the closing quote; a backslash quotes the next character.
    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let (mut value, mut characters) = (String::new(), text.char_indices());
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &text[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                other => value.push(other),
            }
        }
        None
    }

    fn skip(&mut self, characters: &[char]) {
        self.rest = self.rest.trim_start_matches(characters);
    }

    fn until(&mut self, ends: &[char]) -> &'a str {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_in_its_parts() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        for (lines, expected) in [
            (
                &[
                    r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull""#,
                ][..],
                bearer("https://auth.example/token", Some("r.example")),
            ),
            (&[r#"bearer realm="https://a""#], bearer("https://a", None)),
            (&[r#"Basic realm="x""#], Some(Challenge::Basic)),
            (&["Basic"], Some(Challenge::Basic)),
            (&[r#"Basic realm="x""#, r#"Bearer realm="https://a""#], bearer("https://a", None)),
            (&[r#"Digest realm="x""#, r#"Basic realm="x""#], Some(Challenge::Basic)),
            (&["Bearer"], None),
            (&[r#"Bearer service="x""#], None),
            (&[r#"Bearer realm="x"#], None),
            (&["Negotiate"], None),
            (&[r#"Basic realm="x", Bearer realm="https://a",service="s""#], bearer("https://a", Some("s"))),
            (&[r#"Bearer realm="https://a" , Basic realm="x""#], bearer("https://a", None)),
            (&[r#"Bearer  realm = "https://a" ,  service="s""#], bearer("https://a", Some("s"))),
            (
                &["BEARER Realm=https://a/token,Service=r.example"],
                bearer("https://a/token", Some("r.example")),
            ),
            (&[r#"Bearer realm="https://a/?x=1,2&y=\"q\"""#], bearer("https://a/?x=1,2&y=\"q\"", None)),
            (&[r#"Bearer error="invalid_token",realm="https://a""#], bearer("https://a", None)),
            (
                &[r#", Negotiate a87421000492aa874209af8bc028==, Bearer realm="https://a""#],
                bearer("https://a", None),
            ),
            (&["Negotiate, Basic"], Some(Challenge::Basic)),
            (&[r#"Bearer realm="""#], None),
            (&["", " , ,", "="], None),
            (&[], None),
        ] {
            assert_eq!(Challenge::read(lines.iter().copied()), expected, "{lines:?}");
        }
    }
}

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
    /// Finds the challenge in these header lines. If there are several, prefers a token, as the engine does.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for line in lines {
            match Self::one(line) {
                Some(bearer @ Self::Bearer { .. }) => return Some(bearer),
                other => found = found.or(other),
            }
        }
        found
    }

    fn one(line: &str) -> Option<Self> {
        let (scheme, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        let mut rest = rest;
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            match key.trim_matches([',', ' ']) {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer { realm: realm?, service })
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
            (&[], None),
        ] {
            assert_eq!(Challenge::read(lines.iter().copied()), expected, "{lines:?}");
        }
    }
}

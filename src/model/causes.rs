//! Renders an error and the chain of its sources.

use std::error::Error;
use std::iter::successors;

/// Renders an error and all its sources on one line, separated by colons.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    sources(error).fold(error.to_string(), |chain, source| format!("{chain}: {source}"))
}

/// Renders only the innermost source of an error. The outer ones of an HTTP client only say that it sent a request.
#[must_use]
pub fn innermost_cause(error: &dyn Error) -> String {
    sources(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn sources(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    successors(error.source(), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("request failed")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("connection refused")]
    struct Inner;

    #[test]
    fn a_chain_is_rendered_from_the_outside_in() {
        assert_eq!(with_causes(&Outer(Inner)), "request failed: connection refused");
        assert_eq!(innermost_cause(&Outer(Inner)), "connection refused");
        assert_eq!((with_causes(&Inner), innermost_cause(&Inner)), (Inner.to_string(), Inner.to_string()));
    }
}

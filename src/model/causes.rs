//! Renders an error and the chain of its sources, and keeps errors whose text is part of a message.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::sync::Arc;

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

/// An error whose text is part of another error's message, e.g. in the middle of a sentence. It keeps its type and its
/// sources for code that needs to know what kind it is. Its text is that of its innermost source.
///
/// It is no source of the error that contains it: [`with_causes`] would repeat its text.
#[derive(Debug, Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl<E: Error + Send + Sync + 'static> From<E> for Cause {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl Cause {
    /// Returns the first error of type `T` in the chain, including errors that an I/O error contains.
    #[must_use]
    pub fn find<T: Error + 'static>(&self) -> Option<&T> {
        let first: &(dyn Error + 'static) = &*self.0;
        successors(Some(first), |&error| inside(error).or_else(|| error.source()))
            .find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&innermost_cause(&*self.0))
    }
}

/// The error that an I/O error was made of. [`Error::source`] skips it, because the I/O error shows its text.
fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(inner)
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

    #[test]
    fn a_cause_keeps_the_types_of_its_chain() {
        let cause = Cause::from(Outer(Inner));
        assert_eq!(cause.to_string(), "connection refused");
        assert!(cause.find::<Outer>().is_some() && cause.find::<Inner>().is_some());
        assert!(cause.find::<io::Error>().is_none());
        let hidden = Cause::from(io::Error::other(io::Error::other(Outer(Inner))));
        assert!(hidden.find::<Outer>().is_some() && hidden.find::<Inner>().is_some());
    }
}

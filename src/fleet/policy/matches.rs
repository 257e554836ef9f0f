//! Which of several records a text on a command line names.

use super::Refusal;
use super::rules::SHORTEST_PREFIX;

/// Returns whether `text` is a prefix of `id` that is long enough.
pub(super) fn begins(id: &str, text: &str) -> bool {
    text.len() >= SHORTEST_PREFIX && id.starts_with(text)
}

/// Returns the only match, or none.
pub(super) fn only_one<T>(
    what: &'static str,
    given: &str,
    mut fits: impl Iterator<Item = T>,
    label: impl Fn(&T) -> String,
) -> Result<Option<T>, Refusal> {
    let Some(first) = fits.next() else { return Ok(None) };
    let Some(second) = fits.next() else { return Ok(Some(first)) };
    let matches = [first, second].iter().map(&label).chain(fits.take(3).map(|more| label(&more))).collect();
    Err(Refusal::Ambiguous { what, given: given.to_owned(), matches })
}

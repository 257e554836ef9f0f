//! The links to the other pages of a list. Pure.

use maud::{Markup, html};

use super::parts::grouped;

/// Rows of a page of a list that the API answers as one.
const ROWS: usize = 50;

/// The links to the page before and to the next one, by their addresses. `shown` says which rows are shown.
pub(super) fn links(shown: &str, before: Option<String>, next: Option<String>) -> Markup {
    let link = |address: Option<String>, words: &str, rel: &str| match address {
        Some(address) => html! { a href=(address) rel=(rel) { (words) } },
        None => html! { span.off { (words) } },
    };
    html! {
        nav.pager aria-label="Pages" {
            span.muted { (shown) }
            (link(before, "Previous", "prev"))
            (link(next, "Next", "next"))
        }
    }
}

/// Says which rows of a list a page shows.
pub(super) fn range(first: usize, rows: usize, all: usize) -> String {
    match rows {
        0 => format!("0 of {}", grouped(all)),
        _ => format!("{}–{} of {}", grouped(first), grouped(first + rows - 1), grouped(all)),
    }
}

/// A page of a list that the API answers as one.
#[derive(Debug)]
pub(super) struct Slice<'a, T> {
    pub(super) rows: &'a [T],
    from: usize,
    all: usize,
}

impl<'a, T> Slice<'a, T> {
    /// Takes the page that begins after so many rows. A text that is no such number means the first page.
    pub(super) fn of(all: &'a [T], from: Option<&str>) -> Self {
        let from = from.and_then(|from| from.parse::<usize>().ok()).filter(|from| *from < all.len());
        let from = from.unwrap_or(0) / ROWS * ROWS;
        Self { rows: &all[from..all.len().min(from + ROWS)], from, all: all.len() }
    }

    /// The links to the other pages, if there are any. `address` makes the address of the page that begins after so many rows.
    pub(super) fn links(&self, address: impl Fn(usize) -> String) -> Markup {
        if self.all <= ROWS {
            return html! {};
        }
        let before = self.from.checked_sub(ROWS).map(&address);
        let next = Some(self.from + ROWS).filter(|next| *next < self.all).map(&address);
        links(&range(self.from + 1, self.rows.len(), self.all), before, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_shown_page_by_page() {
        let all: Vec<u32> = (0..120).collect();
        let address = |from: usize| format!("/x?from={from}");
        for (from, first, rows, before, next) in [
            (None, 0, 50, None, Some("/x?from=50")),
            (Some("50"), 50, 50, Some("/x?from=0"), Some("/x?from=100")),
            (Some("119"), 100, 20, Some("/x?from=50"), None),
            (Some("120"), 0, 50, None, Some("/x?from=50")),
            (Some("-1"), 0, 50, None, Some("/x?from=50")),
        ] {
            let slice = Slice::of(&all, from);
            assert_eq!((slice.rows[0], slice.rows.len()), (first, rows), "{from:?}");
            let links = slice.links(address).into_string();
            assert_eq!(links.contains("rel=\"prev\""), before.is_some(), "{links}");
            for address in [before, next].into_iter().flatten() {
                assert!(links.contains(address), "{links}");
            }
        }
        assert_eq!(Slice::of(&all[..50], None).links(address).into_string(), "");
        assert_eq!(range(51, 50, 1200), "51–100 of 1,200");
    }
}

//! Pages of long lists.

/// The header of a page of a list with the cursor of the next one, if there are more rows.
pub const NEXT_PAGE: &str = "cotter-next";

/// Rows of a page where a request does not say how many it wants.
pub const USUAL_PAGE: usize = 1000;

/// Maximum number of rows of a page.
pub const LONGEST_PAGE: usize = 10_000;

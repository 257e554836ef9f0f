//! The names of the time zone database.

use std::cmp::Ordering;

/// All zones and links of the database (2026), one a line, sorted by their bytes.
const ZONES: &str = include_str!("zones.txt");

/// Returns whether the time zone database has this name. Its names are spelled with their case, e.g. `Europe/Zurich`.
#[must_use]
pub fn is_zone(name: &str) -> bool {
    ZONES.lines().map(|known| known.cmp(name)).find(|order| *order != Ordering::Less) == Some(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_exact_names() {
        assert!(ZONES.lines().is_sorted() && ZONES.lines().count() > 500);
        for known in
            ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Asia/Calcutta", "Etc/GMT+5", "Zulu"]
        {
            assert!(is_zone(known), "{known}");
        }
        for unknown in
            ["", "Europe", "Europe/Zurihc", "europe/zurich", "Europe/Zurich\nUTC", "CEST", "A", "~"]
        {
            assert!(!is_zone(unknown), "{unknown:?}");
        }
    }
}

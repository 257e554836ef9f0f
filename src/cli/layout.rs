//! How text is laid out for people: columns, lines that are cut or wrapped, short digests, colours. Pure.

/// Widest column that is padded with spaces. One longer cell does not make all rows longer.
const WIDEST: usize = 120;

/// The least width to which a last column is cut, or a line is wrapped.
pub(super) const LEAST: usize = 12;

/// Cuts each digest to its first 8 digits, enough to tell images apart: `app@sha256:1f3795f4`.
pub(super) fn short_digests(text: &str) -> String {
    const BEGINS: &str = "@sha256:";
    let mut parts = text.split(BEGINS);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let rest = if digits == 64 { part.get(64..).unwrap_or_default() } else { part };
        short.push_str(BEGINS);
        short.push_str(if digits == 64 { part.get(..8).unwrap_or_default() } else { "" });
        short.push_str(rest);
    }
    short
}

/// The colour of a word that says how something is; `None` for any other text.
pub(super) fn colour(cell: &str) -> Option<u8> {
    match cell {
        "ok" | "done" | "on-target" | "Running" | "accepted" | "success" => Some(32),
        "WARN" | "pending" | "updating" | "waiting" | "trial" | "downloading" | "locked" | "window"
        | "held" | "silent" | "offline" | "Downloading" => Some(33),
        "ERROR" | "failing" | "failed" | "blocked" | "rejected" | "degraded" | "unhealthy" | "Dead" => {
            Some(31)
        }
        _ => None,
    }
}

/// Breaks a text at spaces so that no line is wider than `width`, as far as its words allow. The lines after the first are
/// indented by `hang`.
pub(super) fn wrapped(text: &str, hang: usize, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| *width >= hang + LEAST) else { return text.to_owned() };
    let (mut lines, mut at) = (String::with_capacity(text.len()), 0);
    for (n, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if n > 0 && at > hang && !word.is_empty() && at + 1 + length > width {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', hang));
            at = hang;
        } else if n > 0 {
            lines.push(' ');
            at += 1;
        }
        lines.push_str(word);
        at += length;
    }
    lines
}

/// Cuts a text to at most `width` characters. What is cut ends with `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The width of each column.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    (0..rows.first().map_or(0, Vec::len)).map(|column| width(column).min(WIDEST)).collect()
}

/// The characters of all columns but the last, with the space behind each.
pub(super) fn width_before_last(rows: &[Vec<String>]) -> usize {
    widths(rows).iter().rev().skip(1).map(|width| width + 2).sum()
}

/// Aligns the cells of rows that have the same number of them. `terminal`: the width to which the last column is cut.
/// `mark`: changes a padded cell without changing its width. Returns the lines, and whether something was cut.
pub(super) fn aligned(
    rows: &[Vec<String>],
    terminal: Option<usize>,
    mark: impl Fn(String) -> String,
) -> (String, bool) {
    let (widths, columns) = (widths(rows), rows.first().map_or(0, Vec::len));
    let rest = terminal.map(|terminal| terminal.saturating_sub(width_before_last(rows)).max(LEAST));
    let mut is_cut = false;
    let mut line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(n, (cell, &width))| match rest {
            Some(rest) if n + 1 == columns && cell.chars().count() > rest => {
                is_cut = true;
                mark(cut(cell, rest))
            }
            // Spaces behind it would be in its colour.
            _ if n + 1 == columns => mark(cell.clone()),
            _ => mark(format!("{cell:width$}")),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let lines = rows.iter().map(&mut line).collect::<Vec<_>>().join("\n") + "\n";
    (lines, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_short() {
        let digest = "0123456789abcdef".repeat(4);
        let text =
            format!("pull r/a@sha256:{digest} and r/b@sha256:{digest}: no @sha256:abc, sha256:{digest}");
        let short =
            format!("pull r/a@sha256:01234567 and r/b@sha256:01234567: no @sha256:abc, sha256:{digest}");
        assert_eq!(short_digests(&text), short);
        for kept in ["", "@sha256:", "a@sha256:ä", &format!("a@sha256:{digest}0")] {
            assert_eq!(short_digests(kept), kept);
        }
    }

    #[test]
    fn the_last_column_is_cut_to_the_width_of_the_terminal_and_no_other_one() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let why = "web: it exited with code 1; last line: cannot open the config";
        let rows = [
            row(["NAME", "STATE", "WHY"]),
            row(["kitchen", "failing", why]),
            row(["hall", "on-target", "-"]),
        ];
        let aligned = |rows: &[Vec<String>], width| aligned(rows, width, |cell| cell);
        let (whole, is_cut) = aligned(&rows, None);
        assert!(!is_cut);
        assert!(whole.contains(why), "{whole}");
        let (narrow, is_cut) = aligned(&rows, Some(40));
        assert!(is_cut);
        assert_eq!(
            narrow,
            "NAME     STATE      WHY\nkitchen  failing    web: it exited with…\nhall     on-target  -\n"
        );
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert_eq!(aligned(&rows, Some(1000)), (whole, false));
        let marked = super::aligned(&rows, Some(1000), |cell| format!("<{cell}>")).0;
        assert!(marked.ends_with("  <->\n"), "the last column is not padded: {marked}");
        assert!(
            aligned(&rows, Some(3)).0.contains("  web: it exi…\n"),
            "something is left of it in any case"
        );
    }

    #[test]
    fn lines_are_wrapped_at_spaces() {
        for (text, hang, width, expected) in [
            ("web: it exited with code 1", 2, Some(20), "web: it exited with\n  code 1"),
            ("  web: it exited with code 1", 2, Some(20), "  web: it exited\n  with code 1"),
            ("an a verylongwordthatfitsnowhere b", 2, Some(16), "an a\n  verylongwordthatfitsnowhere\n  b"),
            ("short", 2, Some(20), "short"),
            ("no terminal, no wrapping at all", 2, None, "no terminal, no wrapping at all"),
            ("a terminal that is too narrow", 10, Some(12), "a terminal that is too narrow"),
            ("", 2, Some(20), ""),
        ] {
            assert_eq!(wrapped(text, hang, width), expected);
        }
    }
}

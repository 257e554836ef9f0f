//! Makes text from outside safe to show.
//!
//! Names, messages and log lines may come from a cloud, a release's author, an app, the engine, a registry or
//! another machine. Printed as they are, they could move a terminal's cursor, recolour or reorder a line, hide
//! a part of it, or begin a line of their own in a log. This module decides which characters are shown unchanged.
//! All others are written as escapes, such as `\n` or `\u{202e}`.

use std::fmt::Write;

/// The most combining marks on one letter that are shown. No language needs more, and many would reach into the lines above
/// and below.
const MOST_MARKS: u32 = 4;

/// The longest text that [`one_line`] returns, in characters.
pub const LONGEST_LINE: usize = 32 * 1024;

/// Returns `text` as one line that is safe to show: control, bidi and invisible characters are escaped, including line
/// breaks. A text that is longer than [`LONGEST_LINE`] is cut and ends with `…`.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut count = 0;
    for (c, is_shown) in judged(text) {
        let width = if is_shown { 1 } else { c.escape_default().len() };
        count += width;
        if count >= LONGEST_LINE {
            line.push('…');
            break;
        }
        push(&mut line, c, is_shown);
    }
    line
}

/// Returns `true` if [`one_line`] returns `text` unchanged.
#[must_use]
pub fn is_one_line(text: &str) -> bool {
    text.chars().count() < LONGEST_LINE && judged(text).all(|(_, is_shown)| is_shown)
}

/// Returns the first `longest` characters of a text. One that is longer ends with how many are left out.
#[must_use]
pub fn shortened(text: &str, longest: usize) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text.to_owned();
    }
    let begin: String = text.chars().take(longest).collect();
    format!("{begin}… (and {} characters more)", count - longest)
}

/// Returns a list of at most `most` texts, with how many are left out.
#[must_use]
pub fn first_of(texts: impl ExactSizeIterator<Item = String>, most: usize, between: &str) -> String {
    let left_out = texts.len().saturating_sub(most);
    let mut listed: Vec<String> = texts.take(most).collect();
    if left_out > 0 {
        listed.push(format!("and {left_out} more"));
    }
    listed.join(between)
}

/// Returns a text without the characters that [`one_line`] would escape, and at most `longest` characters of it. Control
/// characters and line breaks become spaces, and spaces at both ends are removed.
#[must_use]
pub fn cleaned(text: &str, longest: usize) -> String {
    let kept = judged(text).filter_map(|(c, is_shown)| match c {
        _ if is_shown => Some(c),
        _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => Some(' '),
        _ => None,
    });
    kept.collect::<String>().trim().chars().take(longest).collect::<String>().trim_end().to_owned()
}

/// Returns JSON documents with all characters in their strings escaped that are not safe to show. A JSON parser reads the
/// same strings.
#[must_use]
pub fn json(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len());
    for (c, is_shown) in judged(document) {
        // A line break inside a string is escaped already, so this one is between values.
        if is_shown || c == '\n' {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

fn push(line: &mut String, c: char, is_shown: bool) {
    if is_shown { line.push(c) } else { line.extend(c.escape_default()) }
}

/// Returns each character, and `true` if it is shown unchanged after the characters before it.
fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut judge = Judge::default();
    text.chars().map(move |c| (c, judge.shows(c)))
}

/// Judges characters in their order: whether one is shown may depend on those before it.
#[derive(Debug, Default)]
struct Judge {
    /// The kind of the last character that is neither a mark nor a joiner.
    before: Before,
    /// The number of marks and joiners since then.
    marks: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The beginning, a space, or a character that is escaped.
    #[default]
    Nothing,
    Letter,
    /// A letter of a script whose letters change their form next to each other.
    JoiningLetter,
    Pictograph,
}

impl Judge {
    fn shows(&mut self, c: char) -> bool {
        match kind(c) {
            Kind::Mark if self.before != Before::Nothing && self.marks < MOST_MARKS => {
                self.marks += 1;
                true
            }
            Kind::Joiner(goes_after) if goes_after.contains(&self.before) && self.marks < MOST_MARKS => {
                self.marks += 1;
                true
            }
            Kind::Mark | Kind::Joiner(_) | Kind::Hidden => {
                (self.before, self.marks) = (Before::Nothing, 0);
                false
            }
            Kind::Shown(before) => {
                (self.before, self.marks) = (before, 0);
                true
            }
        }
    }
}

enum Kind {
    /// It has a shape of its own; with its kind for the marks after it.
    Shown(Before),
    /// It is drawn on the character before it.
    Mark,
    /// It has no shape, and changes the form of the character before it if that has one of these kinds. After any other
    /// character, two different texts would look the same.
    Joiner(&'static [Before]),
    /// Controls, bidi controls, line separators, unusual spaces, and unassigned characters.
    Hidden,
}

fn kind(c: char) -> Kind {
    match c {
        ' ' => Kind::Shown(Before::Nothing),
        '!'..='~' => Kind::Shown(Before::Letter),
        // As in می‌خواهم, ශ්‍රී, 👩‍🔬 and ❤️.
        '\u{200c}' => Kind::Joiner(&[Before::JoiningLetter]),
        '\u{200d}' => Kind::Joiner(&[Before::JoiningLetter, Before::Pictograph]),
        '\u{fe0f}' => Kind::Joiner(&[Before::Pictograph]),
        // Invisible, although Unicode's categories say letter or mark.
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0e}'
        | '\u{ffa0}'
        | '\u{fffc}'
        | '\u{1d159}'
        | '\u{e0100}'..='\u{e01ef}' => Kind::Hidden,
        _ if !is_printable(c) => Kind::Hidden,
        _ if c.escape_debug().next() == Some('\\') => Kind::Mark,
        // From Arabic to Sinhala.
        '\u{600}'..='\u{dff}' => Kind::Shown(Before::JoiningLetter),
        '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' => Kind::Shown(Before::Pictograph),
        _ => Kind::Shown(Before::Letter),
    }
}

/// Returns `true` if the character has a shape, by the table of the standard library for `Debug`: it escapes controls,
/// formats, separators and unassigned characters. It escapes a combining mark only as the first character of a text, so
/// the character is tested as the second.
fn is_printable(c: char) -> bool {
    let mut bytes = [b'a'; 5];
    let end = 1 + c.encode_utf8(&mut bytes[1..]).len();
    std::str::from_utf8(&bytes[..end]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// Makes a text that arrives piece by piece, such as a log, safe for a terminal. Line breaks and tabs stay, and colours are
/// left out. Everything else that a terminal would obey is escaped, and so are bytes that are not UTF-8.
#[derive(Debug, Default)]
pub struct Screen {
    /// The end of the last piece, which may continue in the next one.
    rest: Vec<u8>,
}

/// The longest sequence of colours that is recognised, e.g. `\x1b[1;38;2;255;255;255m`.
const LONGEST_COLOUR: usize = 32;

impl Screen {
    /// Returns the text to show for a piece.
    #[must_use]
    pub fn take(&mut self, piece: &[u8]) -> String {
        self.rest.extend_from_slice(piece);
        let all = std::mem::take(&mut self.rest);
        let end = whole(&all);
        self.rest = all[end..].to_vec();
        shown(&all[..end])
    }

    /// Returns the text to show for the end, after the last piece.
    #[must_use]
    pub fn finish(self) -> String {
        shown(&self.rest)
    }
}

/// Returns how much of `bytes` can be shown now: everything except an incomplete character, colour or line break at the
/// end.
fn whole(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(LONGEST_COLOUR);
    if let Some(at) = bytes[tail..].iter().rposition(|byte| *byte == 0x1b)
        && colour(&bytes[tail + at..]) == Colour::Cut
    {
        return tail + at;
    }
    if bytes.ends_with(b"\r") {
        return bytes.len() - 1;
    }
    match bytes.utf8_chunks().last() {
        Some(last)
            if !last.invalid().is_empty() && std::str::from_utf8(last.invalid()).is_err_and(is_cut) =>
        {
            bytes.len() - last.invalid().len()
        }
        _ => bytes.len(),
    }
}

fn is_cut(error: std::str::Utf8Error) -> bool {
    error.error_len().is_none()
}

#[derive(Debug, PartialEq, Eq)]
enum Colour {
    /// Its length in bytes.
    Whole(usize),
    /// It may become one.
    Cut,
    None,
}

/// Checks whether bytes begin with a sequence that sets colours and styles: `ESC [`, digits, `;` and `:`, and `m`.
fn colour(bytes: &[u8]) -> Colour {
    if bytes.get(1).is_some_and(|byte| *byte != b'[') {
        return Colour::None;
    }
    let of_numbers = |byte: &&u8| matches!(**byte, b'0'..=b'9' | b';' | b':');
    let length = 2 + bytes.iter().skip(2).take_while(of_numbers).count();
    match bytes.get(length) {
        Some(b'm') if length < LONGEST_COLOUR => Colour::Whole(length + 1),
        None if length < LONGEST_COLOUR => Colour::Cut,
        Some(_) | None => Colour::None,
    }
}

fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut judge = Judge::default();
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            if let ('\x1b', Colour::Whole(length)) = (c, colour(rest.as_bytes())) {
                rest = &rest[length..];
                continue;
            }
            if !rest.starts_with("\r\n") {
                let is_shown = judge.shows(c) || matches!(c, '\n' | '\t');
                push(&mut text, c, is_shown);
            }
            rest = &rest[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Characters that no terminal shows: controls, bidi controls, separators, and others without a width.
    fn is_bad(c: char) -> bool {
        let of_format =
            ['\u{ad}', '\u{61c}', '\u{180e}', '\u{200b}', '\u{2028}', '\u{2029}', '\u{feff}', '\u{3164}'];
        let ranges = [
            '\u{200e}'..='\u{200f}',
            '\u{202a}'..='\u{202e}',
            '\u{2060}'..='\u{206f}',
            '\u{e0000}'..='\u{e0fff}',
        ];
        c.is_control() || of_format.contains(&c) || ranges.iter().any(|range| range.contains(&c))
    }

    proptest! {
        #[test]
        fn any_text_becomes_safe_and_safe_text_does_not_change(text in "(?s).{0,60}", bytes: Vec<u8>, size in 1_usize..9) {
            let line = one_line(&text);
            prop_assert!(!line.chars().any(is_bad), "{line:?}");
            prop_assert_eq!(one_line(&line), line);
            let clean = cleaned(&text, 40);
            prop_assert!(is_one_line(&clean) && clean.chars().count() <= 40, "{clean:?}");
            prop_assert_eq!(cleaned(&clean, 40), clean);
            let mut screen = Screen::default();
            let all = [text.as_bytes(), &bytes].concat();
            let shown: String = all.chunks(size).map(|piece| screen.take(piece)).collect();
            let shown = shown + &screen.finish();
            prop_assert!(!shown.chars().any(|c| is_bad(c) && !matches!(c, '\n' | '\t')), "{shown:?}");
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert!(!json(&quoted).chars().any(is_bad));
            prop_assert_eq!(serde_json::from_str::<String>(&json(&quoted)).unwrap(), text);
        }
    }

    #[test]
    fn characters_that_a_terminal_would_obey_are_escaped() {
        for (given, expected) in [
            ("web", "web"),
            ("", ""),
            (r#"a "quoted" C:\path's"#, r#"a "quoted" C:\path's"#),
            ("two\nlines\r\n\tend", r"two\nlines\r\n\tend"),
            ("\x1b[31mred\x1b[0m", r"\u{1b}[31mred\u{1b}[0m"),
            ("bell\x07, nul\0, del\x7f", r"bell\u{7}, nul\u{0}, del\u{7f}"),
            ("CSI of 8 bits \u{9b}2J", r"CSI of 8 bits \u{9b}2J"),
            ("gpj.\u{202e}exe", r"gpj.\u{202e}exe"),
            ("\u{202a}\u{202b}\u{202c}\u{202d}", r"\u{202a}\u{202b}\u{202c}\u{202d}"),
            ("\u{2066}\u{2067}\u{2068}\u{2069}", r"\u{2066}\u{2067}\u{2068}\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}", r"\u{200e}\u{200f}\u{61c}"),
            ("ad\u{200b}min\u{feff}\u{2060}\u{ad}", r"ad\u{200b}min\u{feff}\u{2060}\u{ad}"),
            ("ad\u{200d}min \u{200c}\u{fe0f}", r"ad\u{200d}min \u{200c}\u{fe0f}"),
            ("админ\u{200d}\u{200c}, ❤\u{200c}", r"админ\u{200d}\u{200c}, ❤\u{200c}"),
            ("a\u{2028}b\u{2029}c\u{85}d", r"a\u{2028}b\u{2029}c\u{85}d"),
            ("a\u{a0}b\u{3000}c", r"a\u{a0}b\u{3000}c"),
            ("fillers \u{3164}\u{115f}\u{ffa0}\u{2800}", r"fillers \u{3164}\u{115f}\u{ffa0}\u{2800}"),
            ("tag \u{e0041}\u{e0100}", r"tag \u{e0041}\u{e0100}"),
            ("own use \u{e000}, none \u{378}", r"own use \u{e000}, none \u{378}"),
        ] {
            assert_eq!(one_line(given), expected, "{given:?}");
            assert_eq!(is_one_line(given), given == expected, "{given:?}");
        }
    }

    #[test]
    fn ordinary_text_is_shown_unchanged() {
        for text in [
            "Küche",
            "cafe\u{301}",
            "रसोई",
            "ห้องครัว",
            "キッチン",
            "厨房",
            "부엌",
            "مطبخ",
            "מטבח",
            "می‌خواهم",
            "ශ්‍රී",
            "❤️",
            "👩‍🔬 👍🏽",
            "🇨🇭",
            "½ µ€ → ≤",
        ] {
            assert_eq!(one_line(text), text);
        }
    }

    #[test]
    fn marks_need_a_letter_and_are_few() {
        assert_eq!(one_line("\u{301}a"), r"\u{301}a");
        assert_eq!(one_line("a \u{301}"), r"a \u{301}");
        let heap: String = std::iter::once('a').chain(std::iter::repeat_n('\u{301}', 6)).collect();
        assert_eq!(one_line(&heap), "a\u{301}\u{301}\u{301}\u{301}\\u{301}\\u{301}");
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(one_line(&"x".repeat(LONGEST_LINE - 1)), "x".repeat(LONGEST_LINE - 1));
        assert!(!is_one_line(&"x".repeat(LONGEST_LINE)));
        let line = one_line(&"\n".repeat(1_000_000));
        assert_eq!(line, format!("{}…", r"\n".repeat(LONGEST_LINE / 2 - 1)));
    }

    #[test]
    fn a_cleaned_text_has_only_visible_characters() {
        for (text, clean) in [
            ("Küche 2", "Küche 2"),
            ("👩\u{200d}🔬 lab", "👩\u{200d}🔬 lab"),
            ("shop\u{200d}", "shop"),
            ("a\u{200b}b\u{202e}c", "abc"),
            ("a\nb\t\u{1b}[2J\u{2028}", "a b  [2J"),
            (" \u{feff}\u{200d} ", ""),
            ("a longer text", "a longer te"),
            ("ten letter s", "ten letter"),
        ] {
            assert_eq!(cleaned(text, 11), clean, "{text:?}");
        }
    }

    #[test]
    fn json_says_the_same_in_visible_characters() {
        let value =
            serde_json::json!({ "a": "\x1b[2J\u{9b}\u{7f}", "b\u{202e}": ["\u{e0041}", "é", "a\nb"] });
        let escaped = json(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(
            escaped,
            "{\n  \"a\": \"\\u001b[2J\\u009b\\u007f\",\n  \"b\\u202e\": [\n    \"\\udb40\\udc41\",\n    \"é\",\n    \"a\\nb\"\n  ]\n}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_log_keeps_its_lines_and_loses_what_would_move_the_cursor() {
        for (given, expected) in [
            (&b"one\ntwo\tthree\r\n"[..], "one\ntwo\tthree\n"),
            (b"\x1b[1;31mred\x1b[0m and \x1b[2Jgone", "red and \\u{1b}[2Jgone"),
            (b"\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            (b"10 %\r20 %\r\n", "10 %\\r20 %\n"),
            (b"\x1b[m\x1b[", "\\u{1b}["),
            (b"caf\xc3\xa9 \xff\xc3", "café \\xff\\xc3"),
            (b"\xe2\x80\xaeevil", "\\u{202e}evil"),
            (
                b"\x1b[0000000000000000000000000000000000000m",
                "\\u{1b}[0000000000000000000000000000000000000m",
            ),
        ] {
            let mut whole = Screen::default();
            let at_once = whole.take(given) + &whole.finish();
            assert_eq!(at_once, expected, "{given:?}");
            let mut screen = Screen::default();
            let pieces: String = given.iter().map(|byte| screen.take(&[*byte])).collect();
            assert_eq!(pieces + &screen.finish(), expected, "{given:?} byte by byte");
        }
    }

    #[test]
    fn only_incomplete_characters_wait_for_the_next_piece() {
        let mut screen = Screen::default();
        assert_eq!(screen.take(b"login: "), "login: ");
        assert_eq!(screen.take(b"caf\xc3"), "caf");
        assert_eq!(screen.take(b"\xa9\x1b[3"), "é");
        assert_eq!(screen.take(b"1mred\r"), "red");
        assert_eq!(screen.take(b"\n"), "\n");
        assert!(screen.rest.is_empty());
        assert_eq!(screen.take(&[b'\x1b'; 100]).len(), 99 * r"\u{1b}".len());
    }
}

//! Reads until when a certificate is valid (RFC 5280, 4.1). Everything else in a certificate is judged by its readers.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version of a certificate, which the oldest ones do not have.
const VERSION: u8 = 0xa0;

/// Returns the end of a certificate's validity; `None` if it cannot be read.
pub(super) fn end_of(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = next(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = next(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = next(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = next(fields)?.2;
    }
    let (_, validity, _) = next(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, after_begin) = next(validity)?;
    let (tag, end, _) = next(after_begin)?;
    let end = std::str::from_utf8(end).ok()?;
    let end = match tag {
        // Two digits of the year: 1950 to 2049.
        UTC_TIME => format!("{}{end}", if *end.as_bytes().first()? >= b'5' { "19" } else { "20" }),
        GENERALIZED_TIME => end.to_owned(),
        _ => return None,
    };
    let end = DateTime::strptime("%Y%m%d%H%M%SZ", &end).ok()?;
    Some(end.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Splits DER into the tag and the content of its first element, and the rest.
fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length =
            (bytes.len() <= 4).then(|| bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    }

    fn certificate(has_version: bool, begin: &[u8], end: &[u8]) -> Vec<u8> {
        let version = if has_version { element(VERSION, &[2, 1, 2]) } else { Vec::new() };
        let validity = element(SEQUENCE, &[begin, end].concat());
        let fields = [version, vec![2, 1, 7], element(SEQUENCE, b""), element(SEQUENCE, &[9; 300]), validity];
        element(SEQUENCE, &element(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn the_end_of_a_certificate() {
        let begin = element(UTC_TIME, b"260101000000Z");
        for (end, expected) in [
            (element(UTC_TIME, b"261231235959Z"), Some("2026-12-31T23:59:59Z")),
            (element(UTC_TIME, b"991231235959Z"), Some("1999-12-31T23:59:59Z")),
            (element(GENERALIZED_TIME, b"20510102030405Z"), Some("2051-01-02T03:04:05Z")),
            (element(UTC_TIME, b"261331235959Z"), None),
            (element(UTC_TIME, b""), None),
            (element(SEQUENCE, b"261231235959Z"), None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            for has_version in [true, false] {
                assert_eq!(end_of(&certificate(has_version, &begin, &end)), expected);
            }
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole =
            certificate(true, &element(UTC_TIME, b"260101000000Z"), &element(UTC_TIME, b"261231235959Z"));
        for length in 0..whole.len() {
            assert_eq!(end_of(&whole[..length]), None);
        }
        assert_eq!(end_of(&[0x30, 0xff, 0xff]), None);
        assert_eq!(end_of(&[0x30, 0x85, 1, 1, 1, 1, 1, 0]), None);
    }
}

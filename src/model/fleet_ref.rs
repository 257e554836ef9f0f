//! A fleet as a person names it: by its number, or by its name where the fleet server resolves names.

use std::fmt;

use super::text::is_one_line;

/// Which fleet a device joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetRef {
    /// Every cloud knows this one.
    Number(u64),
    /// Only a Cotter fleet server finds a fleet by its name.
    Name(String),
}

/// What is accepted as a [`FleetRef`].
pub const FLEET_ACCEPTS: &str = "the fleet's number, or its name in one line of at most 255 characters";

impl FleetRef {
    /// Reads digits as a number and anything else as a name. A fleet's name is never digits alone.
    ///
    /// # Errors
    ///
    /// A text that no fleet can have as its name, with what is accepted.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
            return text.parse().map(Self::Number).map_err(|_| FLEET_ACCEPTS);
        }
        let is_name = !text.is_empty() && text.chars().count() <= 255 && is_one_line(text);
        if is_name { Ok(Self::Name(text.to_owned())) } else { Err(FLEET_ACCEPTS) }
    }

    /// Returns the number, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for FleetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_all_else_is_a_name() {
        for (text, expected) in [
            ("7", Some(FleetRef::Number(7))),
            (" 7 ", Some(FleetRef::Number(7))),
            ("greenhouse", Some(FleetRef::Name("greenhouse".into()))),
            ("lab 2", Some(FleetRef::Name("lab 2".into()))),
            ("-7", Some(FleetRef::Name("-7".into()))),
            ("", None),
            ("a\nb", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(FleetRef::parse(text).ok(), expected, "{text:?}");
        }
        assert!(FleetRef::parse(&"x".repeat(256)).is_err());
    }
}

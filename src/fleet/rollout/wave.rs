//! The waves of a rollout.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::share::{Share, as_text};
use crate::fleet::tag_filter::TagFilter;

/// One wave: the devices that it adds to those of earlier waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    pub group: Group,
    /// Whether a person must approve before the next wave begins.
    pub needs_approval: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// All devices with these tags.
    Tags(TagFilter),
    /// This share of the devices that the fleet has at present.
    Share(Share),
    /// So many devices of the fleet at the moment at which the wave begins.
    Number(u32),
}

/// A text that is not a wave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWave {
    #[error("{given:?} is not a wave: {why}")]
    Wave { given: String, why: String },
    #[error("no wave is given; write them like 'ring=canary, 1%, 10%, 50%, 100%'")]
    None,
    #[error("wave {number} ({wave}) is not larger than the one before it ({before})")]
    NotRising { number: usize, wave: String, before: String },
    #[error("the last wave is {last}, and must be 100%: the rest would never be reached")]
    NotAll { last: String },
    #[error("{count} waves are too many: at most {most}")]
    TooMany { count: usize, most: usize },
}

/// Maximum number of waves of a rollout.
const MOST: usize = 32;

/// What follows the group of a wave that needs approval.
const APPROVAL: &str = "approve";

impl FromStr for Wave {
    type Err = BadWave;

    fn from_str(text: &str) -> Result<Self, BadWave> {
        let text = text.trim();
        let bad = |why: String| BadWave::Wave { given: text.chars().take(80).collect(), why };
        let group = text.strip_suffix(APPROVAL).filter(|group| group.ends_with(char::is_whitespace));
        let needs_approval = group.is_some();
        let group = group.unwrap_or(text).trim();
        let is_number = !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
        let group = if group.is_empty() {
            return Err(bad("it is empty".to_owned()));
        } else if group.ends_with('%') {
            Group::Share(group.parse().map_err(|error| bad(format!("{error}")))?)
        } else if is_number {
            let number = group.parse().ok().filter(|number| *number > 0);
            Group::Number(
                number.ok_or_else(|| bad("a number of devices is from 1 to 4294967295".to_owned()))?,
            )
        } else {
            // On the command line waves have commas between them.
            let filter = group.replace('&', ",");
            Group::Tags(filter.parse().map_err(|error| bad(format!("{error}")))?)
        };
        Ok(Self { group, needs_approval })
    }
}

impl fmt::Display for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Group::Tags(filter) => f.write_str(&filter.to_string().replace(',', "&"))?,
            Group::Share(share) => share.fmt(f)?,
            Group::Number(number) => number.fmt(f)?,
        }
        if self.needs_approval { write!(f, " {APPROVAL}") } else { Ok(()) }
    }
}

as_text!(Wave);

/// Checks that the waves rise, and reach everybody at the end.
///
/// # Errors
///
/// [`BadWave`].
pub(super) fn check(waves: &[Wave]) -> Result<(), BadWave> {
    let Some(last) = waves.last() else { return Err(BadWave::None) };
    if waves.len() > MOST {
        return Err(BadWave::TooMany { count: waves.len(), most: MOST });
    }
    let (mut share, mut number) = (None, None);
    for (index, wave) in waves.iter().enumerate() {
        let before = match &wave.group {
            Group::Tags(_) => continue,
            Group::Share(own) => {
                share.replace((*own, wave)).filter(|(before, _)| before >= own).map(|(_, w)| w)
            }
            Group::Number(own) => {
                number.replace((*own, wave)).filter(|(before, _)| before >= own).map(|(_, w)| w)
            }
        };
        if let Some(before) = before {
            let (wave, before) = (wave.to_string(), before.to_string());
            return Err(BadWave::NotRising { number: index + 1, wave, before });
        }
    }
    if last.group != Group::Share(Share::ALL) {
        return Err(BadWave::NotAll { last: last.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses waves with commas between them, as they are typed.
    fn parse(text: &str) -> Result<Vec<Wave>, BadWave> {
        text.split(',').map(str::parse).collect()
    }

    fn checked(text: &str) -> Result<String, String> {
        let waves = parse(text).map_err(|error| error.to_string())?;
        check(&waves).map_err(|error| error.to_string())?;
        let again: Vec<String> = waves.iter().map(ToString::to_string).collect();
        assert_eq!(parse(&again.join(",")).unwrap(), waves, "what is shown can be given");
        Ok(again.join(", "))
    }

    #[test]
    fn waves_as_people_write_them() {
        assert_eq!(
            checked("ring=canary,1%, 10% approve,100%").unwrap(),
            "ring=canary, 1%, 10% approve, 100%"
        );
        assert_eq!(checked("ring=canary & !prod, 5, 50, 100%").unwrap(), "ring=canary&!prod, 5, 50, 100%");
        for (given, why) in [
            ("", "it is empty"),
            ("10%", "the last wave is 10%, and must be 100%"),
            ("10%,5%,100%", "wave 2 (5%) is not larger than the one before it (10%)"),
            ("10%,ring=a,10%,100%", "wave 3 (10%) is not larger"),
            ("50,50,100%", "wave 2 (50) is not larger"),
            ("0%,100%", "a share above 0%"),
            ("0,100%", "a number of devices is from 1"),
            ("1%,,100%", "it is empty"),
            ("approve,100%", ""),
            ("a=b=c,100%", "is not a wave"),
            ("100%,ring=late", "the last wave is ring=late"),
        ] {
            match checked(given) {
                Ok(shown) => assert_eq!((why, shown.as_str()), ("", "approve, 100%"), "a tag of that name"),
                Err(error) => assert!(!why.is_empty() && error.contains(why), "{given}: {error}"),
            }
        }
        let many = "1,".repeat(40) + "100%";
        assert!(checked(&many).unwrap_err().contains("41 waves are too many"));
    }
}

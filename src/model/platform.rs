//! The platform for which an image is built.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `linux/arm/v7`: the architecture as images name it, and its variant. Containers here are for Linux.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is not a Linux platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a platform for Linux: write e.g. \"linux/arm64\" or \"linux/arm/v7\"")]
pub struct BadPlatform;

impl Platform {
    /// Parses `linux/ARCHITECTURE[/VARIANT]`, or only the architecture. Translates the kernel's names of architectures into
    /// those of images.
    ///
    /// # Errors
    ///
    /// [`BadPlatform`], also for other operating systems.
    pub fn parse(text: &str) -> Result<Self, BadPlatform> {
        let is_word = |word: &&str| {
            !word.is_empty()
                && word.len() <= 32
                && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let (architecture, variant) = match parts.as_slice() {
            ["linux", architecture] => (*architecture, None),
            ["linux", architecture, variant] => (*architecture, Some(*variant)),
            [architecture] if *architecture != "linux" => (*architecture, None),
            _ => return Err(BadPlatform),
        };
        if !is_word(&architecture) || variant.is_some_and(|variant| !is_word(&variant)) {
            return Err(BadPlatform);
        }
        let (architecture, usual) = match architecture {
            "x86_64" | "x86_64_v1" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i686" => ("386", None),
            other => (other, None),
        };
        // All 64-bit machines have this variant, so it is left out.
        let variant = variant.or(usual).filter(|variant| !(architecture == "arm64" && *variant == "v8"));
        Ok(Self { architecture: architecture.to_owned(), variant: variant.map(str::to_owned) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_parsed_into_the_names_of_images() {
        for (text, expected) in [
            ("linux/arm64", Some("linux/arm64")),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm", Some("linux/arm")),
            ("Linux/AArch64", Some("linux/arm64")),
            ("x86_64", Some("linux/amd64")),
            ("armhf", Some("linux/arm/v7")),
            ("windows/amd64", None),
            ("linux", None),
            ("linux/", None),
            ("linux/arm/v7/x", None),
            ("linux/a b", None),
            ("", None),
        ] {
            assert_eq!(Platform::parse(text).ok().map(|p| p.to_string()).as_deref(), expected, "{text}");
        }
    }
}

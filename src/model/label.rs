//! Which labels authors may write.

/// Labels with our prefix that authors may write (docs/compose.md, "Labels").
const OF_AUTHORS: [&str; 3] = ["io.cotter.trial.deadline", "io.cotter.trial.soak", "io.cotter.update.window"];

/// Labels of balena that the agent sets for software that reads them.
const OF_BALENA: [&str; 5] = [
    "io.balena.app-id",
    "io.balena.app-uuid",
    "io.balena.service-id",
    "io.balena.service-name",
    "io.balena.supervised",
];

/// Returns `true` if the value of a label `io.balena.features.*` switches the feature on.
#[must_use]
pub fn is_yes(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "on")
}

/// Returns `true` if only the agent may write a label of this name. The agent recognises its own containers and networks
/// by such labels, so it must not believe one that an author wrote.
#[must_use]
pub fn is_own_label(name: &str) -> bool {
    (name.starts_with("io.cotter.") && !OF_AUTHORS.contains(&name)) || OF_BALENA.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_our_prefix_are_ours_except_those_for_authors() {
        for (name, is_own) in [
            ("io.cotter.joins", true),
            ("io.cotter.instance", true),
            ("io.cotter.", true),
            ("io.cotter.trial.soak.x", true),
            ("io.cotter.trial.soak", false),
            ("io.cotter.trial.deadline", false),
            ("io.cotter.update.window", false),
            ("io.cotters.joins", false),
            ("io.balena.app-id", true),
            ("io.balena.features.dbus", false),
            ("com.example.a", false),
        ] {
            assert_eq!(is_own_label(name), is_own, "{name}");
        }
    }
}

//! Which labels are an author's to write.

/// Labels that begin as ours do and are read from what an author writes (docs/compose.md, "Labels").
const OF_AUTHORS: [&str; 3] = ["io.cotter.trial.deadline", "io.cotter.trial.soak", "io.cotter.update.window"];

/// Labels of balena's that the agent gives to what it makes, for software that looks for those.
const OF_BALENA: [&str; 5] = [
    "io.balena.app-id",
    "io.balena.app-uuid",
    "io.balena.service-id",
    "io.balena.service-name",
    "io.balena.supervised",
];

/// Whether only the agent writes a label of this name. By such labels it knows what is its own, so one that an author
/// wrote would be believed.
#[must_use]
pub fn is_own_label(name: &str) -> bool {
    (name.starts_with("io.cotter.") && !OF_AUTHORS.contains(&name)) || OF_BALENA.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_ours_are_ours_but_those_that_authors_write() {
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

//! What is on the same engine and is none of the agent's business.

use crate::support::Lab;

/// A container, a network, a volume and an image that do not bear the agent's instance, though
/// everything else about them looks as if they were its own. Removed when dropped.
pub(crate) struct Bystanders<'lab> {
    lab: &'lab Lab,
    name: String,
    before: String,
}

impl<'lab> Bystanders<'lab> {
    /// Puts them beside what `instance` has of the app `uuid`.
    pub(crate) fn beside(lab: &'lab Lab, instance: &str, uuid: &str) -> Self {
        let docker = lab.docker();
        let name = format!("{instance}_1_foreign");
        let labels = ["app", "service", "release", "spec", "network", "volume"].map(|label| match label {
            "app" => format!("io.cotter.app={uuid}"),
            "spec" => format!("io.cotter.spec=v1:{}", "0".repeat(64)),
            label => format!("io.cotter.{label}=web"),
        });
        let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", label]).collect();
        let image = lab.image("r4");
        docker.run(&["pull", "--quiet", image]);
        docker.run(&["tag", image, &format!("{name}:1")]);
        docker.run(&[&["network", "create"], &labels[..], &[&name]].concat());
        docker.run(&[&["volume", "create"], &labels[..], &[&name]].concat());
        docker.run(&[&["run", "--detach", "--name", &name], &labels[..], &[&format!("{name}:1")]].concat());
        let mut all = Self { lab, name, before: String::new() };
        all.before = all.look();
        all
    }

    /// Asserts that they were not touched.
    #[track_caller]
    pub(crate) fn stand(&self) {
        assert_eq!(self.look(), self.before);
    }

    fn look(&self) -> String {
        let shown = |kind: &str, name: &str, format: &str| {
            self.lab.docker().run(&["inspect", "--type", kind, "--format", format, name])
        };
        [
            shown("container", &self.name, "{{.Id}} {{.State.StartedAt}} {{.RestartCount}} {{.Name}}"),
            shown("network", &self.name, "{{.Id}} {{.Name}}"),
            shown("volume", &self.name, "{{.CreatedAt}} {{.Name}}"),
            shown("image", &format!("{}:1", self.name), "{{.Id}}"),
        ]
        .join("\n")
    }
}

impl Drop for Bystanders<'_> {
    fn drop(&mut self) {
        let docker = self.lab.docker();
        for args in [
            vec!["rm", "--force", &self.name],
            vec!["network", "rm", &self.name],
            vec!["volume", "rm", &self.name],
            vec!["rmi", &format!("{}:1", self.name)],
        ] {
            docker.try_run(&args);
        }
    }
}

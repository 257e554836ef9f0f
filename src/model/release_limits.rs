//! How much releases may have of a device.

/// The bounds of a device's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseLimits {
    pub apps: usize,
    /// Of all apps together, as networks, volumes and ports.
    pub services: usize,
    pub networks: usize,
    pub volumes: usize,
    /// Ports that are published.
    pub ports: usize,
    /// Of one service, network or volume.
    pub labels: usize,
    /// Of one service.
    pub variables: usize,
    /// Bytes of the names and values of one service's variables.
    pub environment: usize,
    /// Texts, numbers, lists and maps in a target.
    pub values: usize,
}

impl ReleaseLimits {
    /// The highest that each may be set to.
    pub const HIGHEST: Self = Self {
        apps: 1000,
        services: 5000,
        networks: 5000,
        volumes: 5000,
        ports: 65_535,
        labels: 5000,
        variables: 5000,
        environment: 4 << 20,
        values: 1_000_000,
    };
}

impl Default for ReleaseLimits {
    fn default() -> Self {
        Self {
            apps: 200,
            services: 200,
            networks: 100,
            volumes: 200,
            ports: 1000,
            labels: 200,
            variables: 1000,
            environment: 1 << 20,
            values: 100_000,
        }
    }
}

//! Upper limits for the size of releases.

/// The limits that a device's owner sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseLimits {
    pub apps: usize,
    /// Of all apps together; also networks, volumes and ports.
    pub services: usize,
    pub networks: usize,
    pub volumes: usize,
    /// Published ports.
    pub ports: usize,
    /// For each service, network or volume.
    pub labels: usize,
    /// For each service.
    pub variables: usize,
    /// Bytes of the names and values of the variables of each service.
    pub environment: usize,
    /// Number of texts, numbers, lists and maps in a target.
    pub values: usize,
}

impl ReleaseLimits {
    /// The highest value for each limit.
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

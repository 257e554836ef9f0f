//! Choices that a seed repeats.

use std::hash::{BuildHasher, Hasher};

/// xorshift64*: enough to choose moments, and the same everywhere.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From the seed in `variable`, else from a random one. Also returns the seed, to be printed.
    pub fn seeded(variable: &str) -> (Self, u64) {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let seed = number(variable).unwrap_or(random) | 1;
        (Self::of(seed), seed)
    }

    /// From this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number from 0 up to `bound`, which it never is.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// The number that a variable of the environment holds, if it is set.
///
/// # Panics
///
/// If it is none.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

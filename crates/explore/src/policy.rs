//! Policies by the names that people type: `default`, `random:SEED`, `pct:SEED,DEPTH[,STEPS]`.

use std::fmt;
use std::str::FromStr;

use engine::{Chooser, Defaults};

use crate::pct::Pct;
use crate::random::Random;

/// How many steps PCT supposes a run to have, by default.
const STEPS: u64 = 1000;

/// A policy that a name can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Run until blocked.
    #[default]
    Default,
    /// Any answer, by this seed.
    Random(u64),
    /// Probabilistic concurrency testing.
    Pct {
        /// Says everything.
        seed: u64,
        /// Of the bugs to look for: 1 and up.
        depth: u32,
        /// How many steps a run is supposed to have.
        steps: u64,
    },
}

impl Policy {
    /// The same with a later seed: the `n`th after this one. None if there is no such seed.
    #[must_use]
    pub fn later(self, n: u64) -> Option<Self> {
        Some(match self {
            Self::Default if n == 0 => self,
            Self::Default => return None,
            Self::Random(seed) => Self::Random(seed.checked_add(n)?),
            Self::Pct { seed, depth, steps } => Self::Pct { seed: seed.checked_add(n)?, depth, steps },
        })
    }

    /// The policy itself, at its beginning.
    #[must_use]
    pub fn chooser(self) -> Box<dyn Chooser> {
        match self {
            Self::Default => Box::new(Defaults),
            Self::Random(seed) => Box::new(Random::new(seed)),
            Self::Pct { seed, depth, steps } => Box::new(Pct::new(seed, depth, steps)),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Random(seed) => write!(f, "random:{seed}"),
            Self::Pct { seed, depth, steps: STEPS } => write!(f, "pct:{seed},{depth}"),
            Self::Pct { seed, depth, steps } => write!(f, "pct:{seed},{depth},{steps}"),
        }
    }
}

/// A name that is no policy's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyError(String);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(
            f,
            "`{name}` is no policy; there are: default, random:SEED, pct:SEED,DEPTH[,STEPS] (DEPTH 1 to 100, STEPS 1 and up)"
        )
    }
}

impl std::error::Error for PolicyError {}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(name: &str) -> Result<Self, PolicyError> {
        let error = || PolicyError(name.to_owned());
        let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
        let numbers: Vec<u64> = match rest {
            "" => Vec::new(),
            rest => rest.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| error())?,
        };
        match (kind, &numbers[..]) {
            ("default", []) if name == "default" => Ok(Self::Default),
            ("random", [seed]) => Ok(Self::Random(*seed)),
            ("pct", [seed, depth @ 1..=100]) => {
                Ok(Self::Pct { seed: *seed, depth: small(*depth), steps: STEPS })
            }
            ("pct", [seed, depth @ 1..=100, steps @ 1..=u64::MAX]) => {
                Ok(Self::Pct { seed: *seed, depth: small(*depth), steps: *steps })
            }
            _ => Err(error()),
        }
    }
}

fn small(depth: u64) -> u32 {
    u32::try_from(depth).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for name in ["default", "random:7", "pct:1,3", "pct:1,3,500"] {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn only_a_policy_with_a_seed_has_later_ones() {
        let later = |name: &str, n| name.parse::<Policy>().unwrap().later(n).map(|policy| policy.to_string());
        assert_eq!(later("random:7", 3).as_deref(), Some("random:10"));
        assert_eq!(later("pct:1,3,500", 1).as_deref(), Some("pct:2,3,500"));
        assert_eq!((later("default", 0).as_deref(), later("default", 1)), (Some("default"), None));
        assert_eq!(later("random:18446744073709551615", 1), None);
    }

    #[test]
    fn a_name_that_is_no_policys_is_refused_with_those_there_are() {
        for name in [
            "",
            "defaults",
            "default:",
            "default:1",
            "random",
            "random:",
            "random:x",
            "random:1,2",
            "pct:1",
            "pct:1,0",
            "pct:1,2,0",
        ] {
            let error = name.parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains("random:SEED"), "{name}: {error}");
        }
    }
}

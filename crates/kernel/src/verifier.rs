//! Driver Verifier's options, by Verifier's own names: which of its checks a machine is to stop for, as a verified Windows does.
//!
//! Page: *Driver Verifier options and rule classes*. What only Verifier objects to is reported in every run ([`crate::verdict::Tier::Verifier`]);
//! here is what makes it an error. The options that put a driver under stress (low resources, forced pending, delays) are not here.

use std::fmt;
use std::str::FromStr;

/// One option, with its name as it is typed and its title on the page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VerifierOption {
    /// On with any other: *Automatic Checks*.
    Automatic,
    /// *Special Pool*.
    SpecialPool,
    /// *Force IRQL Checking*.
    ForceIrql,
    /// *Pool Tracking*.
    PoolTracking,
    /// *I/O Verification*, and what was *Enhanced I/O Verification*.
    Io,
    /// *Deadlock Detection*.
    Deadlock,
    /// *DMA Verification*.
    Dma,
    /// *Security Checks*.
    Security,
    /// *Miscellaneous Checks*.
    Miscellaneous,
    /// *DDI Compliance Checking*.
    Ddi,
    /// *Code Integrity Checking*.
    CodeIntegrity,
    /// *Invariant MDL Checking for Stack* and *for Driver*.
    InvariantMdl,
}

impl VerifierOption {
    /// All, in the order in which they are listed.
    pub const ALL: [Self; 12] = [
        Self::Automatic,
        Self::SpecialPool,
        Self::ForceIrql,
        Self::PoolTracking,
        Self::Io,
        Self::Deadlock,
        Self::Dma,
        Self::Security,
        Self::Miscellaneous,
        Self::Ddi,
        Self::CodeIntegrity,
        Self::InvariantMdl,
    ];

    /// Whether `all` leaves it out: what it checks is asked of drivers for some computers, and others are right without it.
    #[must_use]
    pub const fn is_only_by_name(self) -> bool {
        matches!(self, Self::CodeIntegrity | Self::InvariantMdl)
    }

    /// As it is typed after `--verifier`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::SpecialPool => "special-pool",
            Self::ForceIrql => "irql",
            Self::PoolTracking => "pool",
            Self::Io => "io",
            Self::Deadlock => "deadlock",
            Self::Dma => "dma",
            Self::Security => "security",
            Self::Miscellaneous => "misc",
            Self::Ddi => "ddi",
            Self::CodeIntegrity => "code-integrity",
            Self::InvariantMdl => "invariant-mdl",
        }
    }

    /// As Verifier's pages call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Automatic => "Automatic Checks",
            Self::SpecialPool => "Special Pool",
            Self::ForceIrql => "Force IRQL Checking",
            Self::PoolTracking => "Pool Tracking",
            Self::Io => "I/O Verification",
            Self::Deadlock => "Deadlock Detection",
            Self::Dma => "DMA Verification",
            Self::Security => "Security Checks",
            Self::Miscellaneous => "Miscellaneous Checks",
            Self::Ddi => "DDI Compliance Checking",
            Self::CodeIntegrity => "Code Integrity Checking",
            Self::InvariantMdl => "Invariant MDL Checking",
        }
    }

    /// The option of this name or title; `force-irql-checking` and `dma checking` are understood too.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let plain = |text: &str| {
            let text = text.to_ascii_lowercase().replace(['-', '_', '/'], " ").replace("checking", "");
            text.replace("verification", "").replace("checks", "").trim().to_owned()
        };
        let text = plain(text);
        Self::ALL.into_iter().find(|option| plain(option.name()) == text || plain(option.title()) == text)
    }
}

/// A set of options; by default none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verifier(u16);

/// Verifier's *logging* mode, as it is typed: what an option objects to is an error that ends no run. Not an option of `all`.
const LOGGING: &str = "logging";

impl Verifier {
    /// No option: what only Verifier objects to is reported, and fails no run.
    pub const NONE: Self = Self(0);
    /// Every option but those of [`VerifierOption::is_only_by_name`].
    pub const ALL: Self = Self(Self::ANY & !Self::ONLY_BY_NAME);
    const ONLY_BY_NAME: u16 =
        1 << VerifierOption::CodeIntegrity as u16 | 1 << VerifierOption::InvariantMdl as u16;
    const ANY: u16 = Self::LOGGING_BIT - 1;
    /// Behind those of the options.
    const LOGGING_BIT: u16 = 1 << VerifierOption::ALL.len();

    /// With one more. With any come the automatic checks.
    #[must_use]
    pub const fn with(self, option: VerifierOption) -> Self {
        Self(self.0 | 1 << VerifierOption::Automatic as u16 | 1 << option as u16)
    }

    /// The same in logging mode: what an option objects to is an error, and the run goes on as Windows would without Verifier.
    #[must_use]
    pub const fn logging(self) -> Self {
        Self(self.0 | Self::LOGGING_BIT)
    }

    /// Whether a run goes on where Verifier would stop.
    #[must_use]
    pub const fn is_logging(self) -> bool {
        self.0 & Self::LOGGING_BIT != 0
    }

    /// Whether `option` is on.
    #[must_use]
    pub const fn has(self, option: VerifierOption) -> bool {
        self.0 & 1 << option as u16 != 0
    }

    /// Whether any is on.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.0 & Self::ANY != 0
    }
}

/// As [`FromStr`] reads it; nothing for none.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_all = self.0 & Self::ALL.0 == Self::ALL.0;
        let mut names = if has_all { vec!["all"] } else { Vec::new() };
        let options = VerifierOption::ALL.into_iter().filter(|option| self.has(*option));
        names.extend(options.filter(|option| !has_all || option.is_only_by_name()).map(VerifierOption::name));
        names.extend(self.is_logging().then_some(LOGGING));
        f.write_str(&names.join(","))
    }
}

impl FromStr for Verifier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text.trim(), "" | "none") {
            return Ok(Self::NONE);
        }
        text.split(',').try_fold(Self::NONE, |set, name| match (name.trim(), VerifierOption::find(name)) {
            ("all", _) => Ok(Self(set.0 | Self::ALL.0)),
            (LOGGING, _) => Ok(set.logging()),
            (_, Some(option)) => Ok(set.with(option)),
            (_, None) => {
                let names = VerifierOption::ALL.map(VerifierOption::name).join(", ");
                Err(format!(
                    "`{name}`: no option of Verifier's that dirql has; these are: {names}, all, {LOGGING}"
                ))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_by_their_names_and_by_verifiers_titles() {
        let some: Verifier = "io,Force IRQL checking".parse().unwrap();
        assert!(some.has(VerifierOption::Io) && some.has(VerifierOption::ForceIrql));
        assert!(some.has(VerifierOption::Automatic) && !some.has(VerifierOption::Dma));
        assert_eq!(some.to_string(), "automatic,irql,io");
        assert_eq!("all".parse(), Ok(Verifier::ALL));
        assert_eq!("none".parse(), Ok(Verifier::NONE));
        let logged: Verifier = "all,logging".parse().unwrap();
        assert!(logged.is_logging() && logged.has(VerifierOption::Dma) && !Verifier::ALL.is_logging());
        assert_eq!(logged.to_string(), "all,logging");
        assert!(!"logging".parse::<Verifier>().unwrap().is_on(), "nothing to log");
        assert_eq!(some.to_string().parse(), Ok(some));
        for option in VerifierOption::ALL {
            assert_eq!(VerifierOption::find(option.title()), Some(option));
        }
        for option in VerifierOption::ALL {
            assert_ne!(Verifier::ALL.has(option), option.is_only_by_name(), "{}", option.name());
        }
        let more: Verifier = "all,code-integrity".parse().unwrap();
        assert!(more.has(VerifierOption::CodeIntegrity) && !more.has(VerifierOption::InvariantMdl));
        assert_eq!(more.to_string(), "all,code-integrity");
        assert!(Verifier::NONE.with(VerifierOption::InvariantMdl).is_on());
        let error = "io,pools".parse::<Verifier>().unwrap_err();
        assert!(error.contains("`pools`") && error.contains("special-pool"), "{error}");
    }
}

//! Who traces: a session that runs since before the driver is loaded and has enabled some providers, or all.
//!
//! Pages: *EnableTraceEx2 function* (level and keywords, of which 0 lets all through), *EVENT_DESCRIPTOR structure*, *TRACE_ENABLE_CONTEXT structure*
//! (how a logger's handle holds its level and flags). There is one session, and it lasts as long as the machine: none begins later.

use std::fmt;
use std::str::FromStr;

use crate::cx::Kernel;
use crate::wmi::{Guid, guid_text, parse_guid};

/// Verbose, the last of the levels that have a name.
const VERBOSE: u8 = 5;
/// The session's number among loggers.
pub(crate) const LOGGER: u16 = 2;
/// What the session is called.
pub(crate) const NAME: &str = "dirql";

/// Which providers are traced, and up to what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceProviders {
    whose: Whose,
    /// The highest level that is written; 0: all.
    pub level: u8,
    /// The keywords of which an event needs one, or the flags of a trace provider; 0: all.
    pub flags: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Whose {
    Nobodys,
    All,
    These(Vec<Guid>),
}

impl Default for TraceProviders {
    fn default() -> Self {
        Self { whose: Whose::Nobodys, level: VERBOSE, flags: u64::MAX }
    }
}

impl TraceProviders {
    /// All of them, and everything that they write.
    #[must_use]
    pub fn all() -> Self {
        Self { whose: Whose::All, ..Self::default() }
    }

    /// Whether there is a session.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.whose != Whose::Nobodys
    }

    /// Whether the session has enabled this provider.
    #[must_use]
    pub fn has(&self, provider: &Guid) -> bool {
        match &self.whose {
            Whose::Nobodys => false,
            Whose::All => true,
            Whose::These(these) => these.contains(provider),
        }
    }

    /// Whether an event of this level with these keywords is written, if its provider is enabled.
    #[must_use]
    pub const fn takes(&self, level: u8, keyword: u64) -> bool {
        let by_level = self.level == 0 || level <= self.level;
        by_level && (self.flags == 0 || keyword == 0 || keyword & self.flags != 0)
    }

    /// The flags as a trace provider has them.
    #[allow(clippy::cast_possible_truncation, reason = "its flags are the lower half")]
    pub(crate) const fn enable_flags(&self) -> u32 {
        self.flags as u32
    }

    /// The handle that trace providers are given.
    pub(crate) fn logger_handle(&self) -> u64 {
        u64::from(LOGGER) | u64::from(self.level) << 16 | u64::from(self.enable_flags()) << 32
    }
}

/// Whether this is the handle of a session that runs: which one stands in its lower 16 bits.
pub(crate) fn is_logger(k: &Kernel, handle: u64) -> bool {
    k.etw.tracing.is_on() && handle & 0xFFFF == u64::from(LOGGER)
}

/// As [`FromStr`] reads it; empty without a session.
impl fmt::Display for TraceProviders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = match &self.whose {
            Whose::Nobodys => return Ok(()),
            Whose::All => vec!["all".to_owned()],
            Whose::These(these) => these.iter().map(guid_text).collect(),
        };
        if self.level != VERBOSE {
            parts.push(format!("level={}", self.level));
        }
        if self.flags != u64::MAX {
            parts.push(format!("flags={:#x}", self.flags));
        }
        f.write_str(&parts.join(","))
    }
}

impl FromStr for TraceProviders {
    type Err = String;

    /// `all`, or GUIDs with or without braces; `level=N`, `flags=0xN`; with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut tracing, mut all, mut these) = (Self::default(), false, Vec::new());
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if part == "all" => all = true,
                None => these.push(provider(part)?),
                Some(("level", level)) => {
                    let level = level.parse();
                    tracing.level =
                        level.map_err(|_| format!("`{part}`: a level is a number from 0 to 255"))?;
                }
                Some(("flags", flags)) => {
                    let read = match flags.strip_prefix("0x") {
                        Some(digits) => u64::from_str_radix(digits, 16),
                        None => flags.parse(),
                    };
                    tracing.flags = read.map_err(|_| format!("`{part}`: flags are a number, e.g. 0x3"))?;
                }
                Some(_) => {
                    return Err(format!(
                        "`{part}`: what a provider is traced with are level=N and flags=0xN"
                    ));
                }
            }
        }
        tracing.whose = match (all, these.is_empty()) {
            (true, _) => Whose::All,
            (false, false) => Whose::These(these),
            (false, true) if text.is_empty() => Whose::Nobodys,
            (false, true) => {
                return Err(format!("`{text}` says of no provider that it is traced: all, or its GUID"));
            }
        };
        Ok(tracing)
    }
}

fn provider(text: &str) -> Result<Guid, String> {
    let braced = if text.starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
    parse_guid(&braced).ok_or_else(|| {
        format!("`{text}` is no GUID: providers that are traced are `all`, or e.g. 6B29FC40-CA47-1067-B31D-00DD010662DA")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "{6B29FC40-CA47-1067-B31D-00DD010662DA}";

    #[test]
    fn who_traces_is_read_as_it_is_written() {
        for text in ["", "all", ONE, &format!("{ONE},level=3,flags=0x30"), "all,level=0"] {
            assert_eq!(text.parse::<TraceProviders>().unwrap().to_string(), text);
        }
        let bare = ONE.trim_matches(['{', '}']).to_lowercase();
        assert_eq!(bare.parse::<TraceProviders>().unwrap().to_string(), ONE);
        for wrong in ["some", "level=3", "all,level=256", "all,flags=0xg", "all,keyword=3"] {
            assert!(wrong.parse::<TraceProviders>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_event_is_written_by_its_level_and_its_keyword() {
        let tracing: TraceProviders = "all,level=3,flags=0x30".parse().unwrap();
        for (level, keyword, written) in [(3, 0x10, true), (4, 0x10, false), (3, 0x40, false), (0, 0, true)] {
            assert_eq!(tracing.takes(level, keyword), written, "{level} {keyword:#x}");
        }
        let all: TraceProviders = "all,level=0,flags=0".parse().unwrap();
        assert!(all.takes(255, 1));
        assert!(all.has(&[0; 16]) && !TraceProviders::default().has(&[0; 16]));
    }
}

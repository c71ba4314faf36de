//! What is wrong with an INF file, and what could be better: as InfVerif tells it, and what Windows would stumble over.
//!
//! Follows *INF Validation Errors and Warnings* and the pages of the sections and directives. A finding that InfVerif has, too, knows its
//! number. An *error* keeps Windows or the hardware dashboard from taking the file, a *warning* is probably not what was meant or is legacy, and *advice* is
//! neither. The sections of all processor architectures are looked at. Other INF files are not read, and no file of the package is looked for.

pub(super) mod classes;
mod files;
mod install;
mod manufacturer;
mod property;
mod registry;
mod services;
mod strings;
#[cfg(test)]
mod tests;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::directives::PARTS;
use super::encoding;
use super::error::{Error, Fault, Outcome, Spot};
use super::sections::{Entry, Section, Sections};
use crate::script::suggest::nearest;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// Windows, or the hardware dashboard, does not take the file so.
    Error,
    /// Probably not what was meant, or legacy.
    Warning,
    /// It could be better.
    Advice,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Advice => "advice",
        })
    }
}

/// Something to know about an INF file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How much it matters.
    pub tier: Tier,
    /// What InfVerif calls it, if it tells the same.
    pub infverif: Option<u16>,
    /// Where; none if something is missing as a whole.
    pub spot: Option<Spot>,
    /// What it is, and what to do.
    pub message: String,
}

/// All findings about a file, by their places.
///
/// # Errors
/// The bytes are no text.
pub fn check(file: &str, bytes: &[u8]) -> Result<Vec<Finding>, Error> {
    let text = encoding::decode(bytes).map_err(|fault| fault.of(file))?;
    let sections = Sections::read(text);
    let mut walk = Walk::new(&sections);
    walk.all();
    let mut findings = walk.findings;
    findings.sort_by_key(|finding| (finding.spot, finding.tier));
    findings.dedup();
    Ok(findings)
}

/// Who leads to a section first.
struct Lead {
    by: &'static str,
    spot: Spot,
}

/// What is known while the file is looked at.
struct Walk<'a> {
    sections: &'a Sections,
    findings: Vec<Finding>,
    /// The sections that something leads to, by lower-case name.
    leads: BTreeMap<String, Lead>,
    /// Install sections and their parts that were looked at, lower case.
    visited: BTreeSet<String>,
    class: String,
    /// Names of services that the file adds, lower case.
    services: BTreeSet<String>,
    /// Services that entries name as filters or by the framework.
    named_services: Vec<(String, &'static str, Spot)>,
    copies: Vec<files::Copy>,
    binaries: Vec<services::Binary>,
    architectures: BTreeSet<&'static str>,
}

impl<'a> Walk<'a> {
    fn new(sections: &'a Sections) -> Self {
        Self {
            sections,
            findings: Vec::new(),
            leads: BTreeMap::new(),
            visited: BTreeSet::new(),
            class: String::new(),
            services: BTreeSet::new(),
            named_services: Vec::new(),
            copies: Vec::new(),
            binaries: Vec::new(),
            architectures: BTreeSet::new(),
        }
    }

    fn all(&mut self) {
        for Fault { spot, message } in self.sections.faults() {
            self.tell(Tier::Error, None, *spot, message.clone());
        }
        self.version();
        self.strings();
        self.manufacturers();
        self.default_installs();
        self.classes();
        self.files();
        self.unknown_services();
        self.unreferenced();
    }

    fn tell(&mut self, tier: Tier, infverif: Option<u16>, spot: Option<Spot>, message: impl Into<String>) {
        self.findings.push(Finding { tier, infverif, spot, message: message.into() });
    }

    fn error(&mut self, infverif: u16, spot: Spot, message: impl Into<String>) {
        self.tell(Tier::Error, (infverif > 0).then_some(infverif), Some(spot), message);
    }

    fn warning(&mut self, infverif: u16, spot: Spot, message: impl Into<String>) {
        self.tell(Tier::Warning, (infverif > 0).then_some(infverif), Some(spot), message);
    }

    fn advice(&mut self, spot: Spot, message: impl Into<String>) {
        self.tell(Tier::Advice, None, Some(spot), message);
    }

    /// Tells what a part of the file cannot be read for.
    fn held<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        match outcome {
            Ok(it) => Some(it),
            Err(Fault { spot, message }) => {
                self.tell(Tier::Error, None, spot, message);
                None
            }
        }
    }

    /// A value; empty if it is left out, or too long, which is a finding.
    fn value(&mut self, entry: Entry<'_>, index: usize) -> String {
        self.held(entry.value(index)).unwrap_or_default()
    }

    /// The values from one on that are not empty, each with its place.
    fn values(&mut self, entry: Entry<'_>, first: usize) -> Vec<(String, Spot)> {
        let all = (first..entry.len()).map(|index| (self.value(entry, index), entry.spot_of(index)));
        all.filter(|(value, _)| !value.is_empty()).collect()
    }

    /// The section that a directive leads to; a finding if there is none.
    fn led_to(&mut self, name: &str, spot: Spot, by: &'static str) -> Option<Section<'a>> {
        let Some(section) = self.sections.get(name) else {
            let hint = match self.sections.nearest(name) {
                Some(near) => format!("did you mean [{near}]?"),
                None if by == "CopyFiles" => format!("add it, or write @{name} if that is a file"),
                None => "add it".to_owned(),
            };
            self.error(
                1203,
                spot,
                format!("{by} leads to a section [{name}], which the file does not have; {hint}"),
            );
            return None;
        };
        let first = self.leads.entry(section.name.to_lowercase()).or_insert(Lead { by, spot });
        if first.by != by {
            let (other, there) = (first.by, first.spot);
            self.warning(
                1205,
                spot,
                format!("[{name}] is led to by {by} here and by {other} on line {}; give each a section of its own", there.line),
            );
        }
        Some(section)
    }

    /// Notes that a section is there for its name's sake.
    fn used(&mut self, section: Section<'_>) {
        let spot = section.spot();
        self.leads.entry(section.name.to_lowercase()).or_insert(Lead { by: "its name", spot });
    }

    /// Sections that nothing leads to.
    fn unreferenced(&mut self) {
        for section in self.sections.all() {
            let name = section.name.to_lowercase();
            let base = name.strip_suffix(".security");
            if self.leads.contains_key(&name)
                || base.is_some_and(|base| self.leads.contains_key(base))
                || is_found_by_name(&name)
            {
                continue;
            }
            let hint = self.meant(&name);
            self.warning(
                2083,
                section.spot(),
                format!("nothing leads to [{}], so that what it says is not done; {hint}", section.name),
            );
        }
    }

    /// What a section that nothing leads to was probably meant to be.
    fn meant(&self, name: &str) -> String {
        let parts = || PARTS.iter().map(|part| part.section.name);
        let name_of = |install: &str| self.sections.get(install).map_or("", |section| section.name);
        let near = name.rsplit_once('.').and_then(|(base, part)| {
            if self.visited.contains(base) {
                return Some((name_of(base), nearest(part, parts())?));
            }
            let part = parts().find(|known| known.eq_ignore_ascii_case(part))?;
            let is_near = |install: &&String| install.starts_with(base) || base.starts_with(install.as_str());
            let is_part = |install: &&String| {
                parts().any(|part| install.ends_with(&format!(".{}", part.to_lowercase())))
            };
            let install = self.visited.iter().filter(|install| !is_part(install)).find(is_near)?;
            Some((name_of(install), part))
        });
        match near {
            Some((install, part)) => format!("did you mean [{install}.{part}]? Else remove it"),
            None => "remove it, or lead to it".to_owned(),
        }
    }
}

/// Whether Windows finds a section by its name alone.
fn is_found_by_name(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    matches!(
        first,
        "version"
            | "strings"
            | "manufacturer"
            | "sourcedisksnames"
            | "sourcedisksfiles"
            | "destinationdirs"
            | "controlflags"
            | "signatureattributes"
            | "classinstall32"
            | "interfaceinstall32"
            | "defaultinstall"
            | "defaultuninstall"
    )
}

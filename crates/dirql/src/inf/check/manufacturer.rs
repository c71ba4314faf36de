//! `[Manufacturer]`, the models sections that it leads to, and the install sections that they lead to.
//!
//! Follows *INF Manufacturer Section* and *INF Models Section*.

use std::collections::BTreeMap;

use super::{Tier, Walk};
use crate::inf::error::Spot;
use crate::inf::sections::{Entry, Section};

/// `MAX_DEVICE_ID_LEN`, with its zero.
const MAX_ID: usize = 200;

/// The decorations that an install section may have; the last ones are none of x64's.
pub(super) const DECORATIONS: [&str; 7] = [".ntamd64", ".nt", "", ".ntx86", ".ntarm64", ".ntarm", ".ntia64"];

impl<'a> Walk<'a> {
    pub(super) fn manufacturers(&mut self) {
        let default =
            self.sections.all().find(|section| section.name.to_lowercase().starts_with("defaultinstall"));
        let Some(manufacturers) = self.sections.get("Manufacturer") else {
            if default.is_none() {
                self.tell(
                    Tier::Error,
                    Some(1297),
                    None,
                    "there is neither a [Manufacturer] section nor a [DefaultInstall.NTamd64], so that the file installs nothing; add one",
                );
            }
            return;
        };
        if let Some(default) = default {
            self.error(
                1212,
                default.spot(),
                "a file has either [Manufacturer], for devices, or [DefaultInstall], for a driver without one; remove the other",
            );
        }
        for entry in manufacturers.entries() {
            self.manufacturer(entry);
        }
        if self.architectures.is_empty() && manufacturers.entries().next().is_none() {
            self.error(1297, manufacturers.spot(), "[Manufacturer] is empty; write %Name% = Models, NTamd64");
        }
    }

    fn manufacturer(&mut self, entry: Entry<'a>) {
        let base = self.value(entry, 0);
        let decorations = self.values(entry, 1);
        if let Some(section) = self.sections.get(&base) {
            self.used(section);
            if decorations.is_empty() {
                self.warning(
                    0,
                    entry.spot(),
                    format!("x64 Windows passes over models sections that are not decorated for it; write {base}, NTamd64 and [{base}.NTamd64]"),
                );
            }
            self.models(section, "x86");
        } else if decorations.is_empty() {
            self.led_to(&base, entry.spot_of(0), "[Manufacturer]");
        }
        for (decoration, spot) in decorations {
            let Some(architecture) = architecture(&decoration) else {
                self.error(
                    0,
                    spot,
                    format!("`{decoration}` is not a decoration; write NTamd64, or NTamd64.10.0...16299: NT, architecture, major, minor, product type, suite, build"),
                );
                continue;
            };
            if let Some(section) = self.led_to(&format!("{base}.{decoration}"), spot, "[Manufacturer]") {
                self.models(section, architecture);
            }
        }
    }

    fn models(&mut self, section: Section<'a>, architecture: &'static str) {
        self.architectures.insert(architecture);
        let mut ids: BTreeMap<String, Spot> = BTreeMap::new();
        for model in section.entries() {
            let install = self.value(model, 0);
            if model.raw_key().is_none() || install.is_empty() {
                self.error(
                    0,
                    model.spot(),
                    r"a model is %Description% = InstallSection, PCI\VEN_…; write it so",
                );
                continue;
            }
            let own = self.values(model, 1);
            if own.is_empty() {
                self.warning(
                    1297,
                    model.spot(),
                    "this model has no device id, so that no device is found for it; add its hardware id",
                );
            }
            for (id, spot) in own {
                self.id(&id, spot);
                if let Some(first) = ids.insert(id.to_lowercase(), spot) {
                    self.warning(
                        0,
                        spot,
                        format!("{id} stands on line {} already; the first one is taken", first.line),
                    );
                }
            }
            self.install_of_model(&install, model.spot_of(0), architecture);
        }
    }

    fn id(&mut self, id: &str, spot: Spot) {
        if id.chars().count() >= MAX_ID {
            self.error(0, spot, format!("a device id has fewer than {MAX_ID} characters; shorten it"));
        } else if let Some(wrong) = id.chars().find(|c| !('!'..='\u{7f}').contains(c)) {
            self.warning(
                0,
                spot,
                format!(
                    "`{wrong}` in a device id: no bus driver reports one with spaces or letters beyond ASCII"
                ),
            );
        } else if id.to_uppercase().starts_with("PCI\\VEN_") && !is_pci_id(id) {
            self.warning(0, spot, format!(r"{id}: a PCI id is PCI\VEN_vvvv&DEV_dddd, with four hexadecimal digits each, and what follows of SUBSYS_, REV_ and CC_"));
        }
    }

    /// The install section that Windows takes on this architecture, and those that belong to it.
    fn install_of_model(&mut self, base: &str, spot: Spot, architecture: &str) {
        let all: Vec<Section<'a>> = DECORATIONS
            .iter()
            .filter_map(|decoration| self.sections.get(&format!("{base}{decoration}")))
            .collect();
        if all.is_empty() {
            self.led_to(base, spot, "a model");
            return;
        }
        let own = format!(".nt{architecture}");
        let chosen = [own.as_str(), ".nt", ""]
            .iter()
            .find_map(|decoration| self.sections.get(&format!("{base}{decoration}")));
        match chosen {
            Some(chosen) => self.function_driver(chosen, spot),
            None => self.error(
                1203,
                spot,
                format!("{base} has no install section for {architecture}; Windows looks for [{base}.NT{architecture}], [{base}.NT] and [{base}]"),
            ),
        }
        for section in all {
            self.install_section(section);
        }
    }
}

/// The processor architecture of a decoration: `NTamd64.10.0...16299`; `NT` alone is x86's.
fn architecture(decoration: &str) -> Option<&'static str> {
    let lower = decoration.to_lowercase();
    let mut parts = lower.strip_prefix("nt")?.split('.');
    let first = parts.next()?;
    let name = ["amd64", "x86", "arm64", "arm", "ia64"].into_iter().find(|name| *name == first);
    let name = if first.is_empty() { Some("x86") } else { name };
    let rest: Vec<&str> = parts.collect();
    let is_number = |part: &&str| part.is_empty() || crate::inf::target::number(part).is_some();
    name.filter(|_| rest.len() <= 5 && rest.iter().all(is_number))
}

fn is_pci_id(id: &str) -> bool {
    let upper = id.to_uppercase();
    let mut parts = upper.trim_start_matches("PCI\\").split('&');
    parts.all(|part| {
        let Some((name, digits)) = part.split_once('_') else { return part.len() == 2 };
        let length = match name {
            "VEN" | "DEV" => 4..=4,
            "SUBSYS" => 8..=8,
            "REV" => 2..=2,
            "CC" => 4..=6,
            _ => return true,
        };
        length.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

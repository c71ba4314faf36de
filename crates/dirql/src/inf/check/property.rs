//! `AddProperty`, `DelProperty` and `BitReg`: lines that are wrong; levels of filters.
//!
//! Follows *INF AddProperty Directive*, *INF DelProperty Directive*, *INF BitReg Directive* and *Device filter driver ordering*.

use super::Walk;
use crate::inf::addreg::Remarks;
use crate::inf::bit_reg;
use crate::inf::property;
use crate::inf::registry::Value;
use crate::inf::sections::Entry;

impl<'a> Walk<'a> {
    /// The lines of the sections that one of these directives leads to.
    pub(super) fn lines_of(&mut self, directive: &'static str, entry: Entry<'a>) {
        for (name, spot) in self.values(entry, 0) {
            let Some(section) = self.led_to(&name, spot, directive) else { continue };
            for line in section.entries() {
                let mut remarks = Remarks::default();
                let outcome = match directive {
                    "AddProperty" => property::addition(line, &mut remarks).map(drop),
                    "DelProperty" => property::deletion(line, &mut remarks).map(drop),
                    _ => bit_reg::bits(line, &mut remarks).map(drop),
                };
                self.held(outcome);
            }
        }
    }

    /// A value that defines levels of filters, or names the default one.
    pub(super) fn filter_levels(&mut self, line: Entry<'a>, name: &str, value: &Value) {
        let lower = name.to_lowercase();
        match (lower.as_str(), value) {
            ("upperfilterlevels" | "lowerfilterlevels", Value::MultiSz(_))
            | ("upperfilterdefaultlevel" | "lowerfilterdefaultlevel", Value::Sz(_)) => {}
            ("upperfilterlevels" | "lowerfilterlevels", _) => self.error(
                0,
                line.spot_of(3),
                format!("{name} is a list; write HKR,,{name},0x00010000,\"First\",\"Second\""),
            ),
            ("upperfilterdefaultlevel" | "lowerfilterdefaultlevel", _) => {
                self.error(0, line.spot_of(3), format!("{name} is a text; leave the flags out"));
            }
            _ => return,
        }
        if self.is_extension() {
            self.warning(
                0,
                line.spot(),
                format!("{name}: only the base INF of a device defines levels; remove it"),
            );
        }
    }

    fn is_extension(&self) -> bool {
        let class = self.sections.get("Version").and_then(|version| version.value_of("ClassGuid"));
        class.is_some_and(|class| class.eq_ignore_ascii_case(crate::inf::EXTENSION))
    }
}

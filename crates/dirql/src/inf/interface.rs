//! `[DDInstall.Interfaces]`: device interfaces whose keys the INF writes.
//!
//! Follows *INF AddInterface Directive*. The driver registers and enables them itself; what it finds below an interface's key is from here.

use super::addreg::{Remarks, add_reg, del_reg};
use super::bit_reg::bit_reg;
use super::directives::INTERFACE;
use super::error::{Outcome, fault};
use super::install::pass_over;
use super::property::{self, PropertyWrite};
use super::registry::RegistryWrite;
use super::sections::{Entry, Sections};

/// A device interface of the INF's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The interface class's GUID in braces.
    pub class: String,
    /// The reference string; empty if there is none.
    pub reference: String,
    /// Writes to the interface's key, which `IoOpenDeviceInterfaceRegistryKey` opens.
    pub keys: Vec<RegistryWrite>,
    /// What `AddProperty` and `DelProperty` do to the interface's properties.
    pub properties: Vec<PropertyWrite>,
}

/// Whether a text is a GUID in braces.
pub(super) fn is_guid(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return false };
    let parts: Vec<&str> = inner.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The interface of an `AddInterface` entry.
pub(super) fn interface(sections: &Sections, entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Interface> {
    let class = entry.value(0)?;
    if !is_guid(&class) {
        return fault(
            Some(entry.spot_of(0)),
            format!(
                "`{class}` is not a GUID; write {{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}}, or a token that stands for one"
            ),
        );
    }
    let (mut keys, mut properties) = (Vec::new(), Vec::new());
    let name = entry.value(2)?;
    if !name.is_empty() {
        for directive in sections.led_to(&name, entry.spot_of(2))?.entries() {
            if directive.is("AddReg") {
                keys.extend(add_reg(sections, directive, remarks)?);
            } else if directive.is("DelReg") {
                keys.splice(0..0, del_reg(sections, directive, remarks)?);
            } else if directive.is("BitReg") {
                keys.extend(bit_reg(sections, directive, remarks)?);
            } else {
                property::writes(sections, directive, remarks, &mut properties)?;
                pass_over(directive, INTERFACE, remarks);
            }
        }
    }
    Ok(Interface { class, reference: entry.value(1)?, keys, properties })
}

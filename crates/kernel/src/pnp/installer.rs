//! Who knows which drivers there are for a device: the library, by the INF files and images that it was given.
//!
//! Page: *Adding a PnP Device to a Running System* ("the user-mode PnP manager … finds drivers for the device"). The PnP manager asks once for
//! each device that a driver reports.

use std::rc::Rc;

use engine::Flow;

use super::node::NodeId;
use super::start::Drivers;
use crate::cx::Cx;

/// From now on devices that drivers report get the drivers that `installer` finds.
pub fn set(cx: &mut Cx<'_>, installer: Rc<dyn Installer>) {
    cx.with(|k| k.pnp.installer = Some(installer));
}

/// What the user should know of a device.
pub fn note(cx: &mut Cx<'_>, text: String) {
    cx.with(|k| k.pnp.note(text));
}

/// What the user should know of devices that were found on the way.
pub fn notes(cx: &mut Cx<'_>) -> Vec<String> {
    cx.with(|k| k.pnp.notes.clone())
}

/// Finds and installs drivers.
pub trait Installer {
    /// Installs what fits the device best, which has been asked who it is, and says which drivers it gets; none if there are none for it.
    /// At PASSIVE_LEVEL.
    ///
    /// # Errors
    /// As [`super::install()`].
    fn install(&self, cx: &mut Cx<'_>, id: NodeId) -> Flow<Option<Drivers>>;
}

//! Interfaces of devices whose drivers are not here: drivers that listen for a class are notified that they come and go.
//!
//! Pages: *Registering for Notification of Device Interface Arrival and Device Removal*, *DEVICE_INTERFACE_CHANGE_NOTIFICATION structure*. There is one such device;
//! the names of its interfaces open nothing, as of a device that has gone again by then.

use engine::Flow;

use super::{Wanted, queue};
use crate::cx::{Cx, Kernel};
use crate::io::interface;

/// An interface of this class, `{…}`, or of each class that drivers listen for, comes or goes; nothing where it has come or gone before.
///
/// # Errors
/// As making a thread.
pub fn change(cx: &mut Cx<'_>, class: Option<&str>, comes: bool) -> Flow<()> {
    let classes = cx.with(|k| class.map_or_else(|| listened_for(k), |class| vec![class.to_lowercase()]));
    for class in classes {
        if let Some(name) = cx.with(|k| interface::set_foreign(k, &class, comes)) {
            queue::interface_changed(cx, class, name, comes)?;
        }
    }
    Ok(())
}

/// Each class once, in the order of the registrations.
fn listened_for(k: &Kernel) -> Vec<String> {
    let mut classes: Vec<String> = Vec::new();
    for known in k.pnp.notify.registrations.iter().filter(|known| !known.is_removed) {
        if let Wanted::Interfaces(class) = &known.wanted
            && !classes.contains(class)
        {
            classes.push(class.clone());
        }
    }
    classes
}

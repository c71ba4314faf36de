//! What is known of a device in words: its resources, as traces show them when it is started, and the lines that the tree has for it.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use std::fmt::Write;

use abi::{CmResourceTypeMemory, PNP_DEVICE_DISCONNECTED, PNP_DEVICE_DONT_DISPLAY_IN_UI};

use super::arbiter::Range;
use super::node::{Node, Origin};
use super::resource::{self, Interrupt, Messages, Plain, Resource};
use super::usage::Special;
use crate::hal::platform::Platform;

/// What the driver finds in the translated list: `memory E0000000h–E000007Fh, interrupt line 17: vector B1h at IRQL 11`.
pub(super) fn resources(all: &[Resource], platform: Platform) -> String {
    let mut text = String::new();
    for resource in all.iter().filter(|resource| !matches!(resource, Resource::Private(_))) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // A string takes what is written to it.
        let _ = match *resource {
            Resource::Window(window) => {
                let (kind, base) = match window.port {
                    true => ("ports", window.base),
                    false => ("memory", platform.to_system(window.base)),
                };
                let last = base + window.length.saturating_sub(1);
                write!(text, "BAR{} {kind} {base:X}h–{last:X}h", window.bar)
            }
            Resource::Interrupt(Interrupt { line, vector, irql, .. }) => {
                write!(text, "interrupt line {line}: vector {vector:X}h at IRQL {irql}")
            }
            Resource::Messages(Messages { first, count: 1, vector, .. }) => {
                write!(text, "message {first}: vector {vector:X}h")
            }
            Resource::Messages(Messages { first, count, vector, .. }) => {
                write!(text, "messages {first}–{}: vectors from {vector:X}h", first + count - 1)
            }
            Resource::Plain(plain) => text.write_str(&of_plain(&plain, platform)),
            Resource::Private(_) => Ok(()),
        };
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

/// As [`resources`], of one.
fn of_plain(plain: &Plain, platform: Platform) -> String {
    let range = resource::range(&Resource::Plain(*plain));
    let shown = |range: Range| match range.kind {
        CmResourceTypeMemory => Range { start: platform.to_system(range.start), ..range }.words(),
        _ => range.words(),
    };
    range.map(shown).unwrap_or_default()
}

/// What the bus driver of a device says it is and where, behind its instance path; of a device on no bus there is nothing more to say.
pub(super) fn texts(node: &Node) -> String {
    let (what, place) = (&node.answers.description, &node.answers.location);
    if matches!(node.origin, Origin::Root(_)) || what.is_empty() && place.is_empty() {
        return String::new();
    }
    if place.is_empty() { format!("  ({what})") } else { format!("  ({what}, {place})") }
}

/// The container that its bus driver has named.
pub(super) fn container(node: &Node) -> Option<String> {
    let id = &node.answers.container;
    (!id.is_empty()).then(|| format!("container {id}"))
}

/// What its drivers and users have said of it besides its state: of the reasons why it must not be disabled only how many there are.
pub(super) fn remarks(node: &Node, reasons_to_stay: u32) -> Option<String> {
    let mut all = Vec::new();
    if reasons_to_stay > 0 {
        all.push(format!("cannot be disabled ({reasons_to_stay})"));
    }
    for file in Special::ALL {
        let (count, what) = (node.special_files[file as usize], file.name());
        if count > 0 {
            all.push(format!("has {count} {what} file{}", if count == 1 { "" } else { "s" }));
        }
    }
    if node.locked {
        all.push("locked".to_owned());
    }
    if node.device_state & PNP_DEVICE_DONT_DISPLAY_IN_UI != 0 {
        all.push("not displayed".to_owned());
    }
    if node.device_state & PNP_DEVICE_DISCONNECTED != 0 {
        all.push("not connected".to_owned());
    }
    (!all.is_empty()).then(|| all.join(", "))
}

/// Why it does not run.
pub(super) fn problem(node: &Node) -> Option<String> {
    node.problem.as_ref().map(ToString::to_string)
}

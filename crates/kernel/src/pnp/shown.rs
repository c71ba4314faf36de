//! The resources of a device in words, as traces show them when it is started.

use std::fmt::Write;

use super::resource::{Interrupt, Messages, Resource};
use crate::hal::platform::Platform;

/// What the driver finds in the translated list: `memory E0000000h–E000007Fh, interrupt line 17: vector B1h at IRQL 11`.
pub(super) fn resources(all: &[Resource], platform: Platform) -> String {
    let mut text = String::new();
    for resource in all {
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
        };
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

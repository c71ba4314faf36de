//! The resources of a device in words, as traces show them when it is started.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use std::fmt::Write;

use abi::CmResourceTypeMemory;

use super::arbiter::Range;
use super::resource::{self, Interrupt, Messages, Plain, Resource};
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

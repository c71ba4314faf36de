//! Addresses in messages, in words: a routine by its name, an object by what it is. Follows no page.
//!
//! Code that makes a message prints the address; when the verdict leaves the kernel ([`crate::Nt`]), each address is explained once by what
//! lies there, unless the message says so already. Source lines are not known here: the code that shows a verdict adds them.

use abi::DriverPtr;

use crate::cx::{Cx, Kernel};
use crate::io::violation::device_name;
use crate::ke::who_waits;
use crate::ldr::symbols;
use crate::mm::pool_check;

/// Nothing of the machine's lies below.
const LOWEST: u64 = 0x1_0000_0000;

/// The message with each address explained.
pub(crate) fn explain(cx: &mut Cx<'_>, message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut known = Vec::new();
    let mut rest = message;
    while let Some(at) = rest.find("0x") {
        let digits = rest[at + 2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        let end = at + 2 + digits;
        let (before, number, behind) = (&rest[..at], &rest[at..end], &rest[end..]);
        text.push_str(before);
        let address = u64::from_str_radix(&number[2..], 16).ok().filter(|address| *address >= LOWEST);
        let words = address.filter(|address| !known.contains(address) && !behind.starts_with(" (")).and_then(
            |address| {
                known.push(address);
                words(cx, address, &text, message)
            },
        );
        match words {
            Some(Words::Name(name)) => text.push_str(&name),
            Some(Words::Role(role)) => text.push_str(&format!("{number} ({role})")),
            None => text.push_str(number),
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}

/// What an address is.
enum Words {
    /// Of code or a variable: stands for the number.
    Name(String),
    /// Of an object: stands behind it.
    Role(String),
}

/// What lies at `address`, which follows the text `before`, if the message does not say it.
fn words(cx: &mut Cx<'_>, address: u64, before: &str, message: &str) -> Option<Words> {
    if let Some(name) = cx.with(|k| k.ldr.image_at(address).map(|_| symbols::code(k, address))) {
        return (!message.contains(&name)).then_some(Words::Name(name));
    }
    // `… a 64-byte nonpaged block 'Dirq' at 0x…`, `the unnamed device 0x…`.
    if before.ends_with("' at ") || before.ends_with("the unnamed device ") {
        return None;
    }
    object(cx, address).filter(|role| !says(message, role)).map(Words::Role)
}

/// Whether a message names an object already: by its path or its request, or says which block it is in.
fn says(message: &str, role: &str) -> bool {
    let name = role.split(' ').next().unwrap_or(role);
    message.contains(role)
        || ((name.starts_with('\\') || name.starts_with("IRP_MJ_")) && message.contains(name))
        || (role.contains("-byte ") && message.contains("-byte "))
}

/// An IRP by its request, a device by its name, a thread by its name; else where it lies.
fn object(cx: &mut Cx<'_>, address: u64) -> Option<String> {
    if cx.with(|k| k.io.irps.live.contains(address)) {
        return cx.with(|k| who_waits::request_of(k, address));
    }
    if cx.with(|k| k.io.devices.contains(address)) {
        return Some(device_name(cx, DriverPtr::new(address)));
    }
    if let Some(thread) = cx.with(|k| k.ke.thread_of(address).map(|thread| thread.name.clone())) {
        return Some(format!("the {thread}"));
    }
    cx.with(|k| who_waits::within(k, address).or_else(|| of_block(k, address)))
}

/// A block of the driver's is named with its allocator.
fn of_block(k: &Kernel, address: u64) -> Option<String> {
    let (start, block) = pool_check::containing(k, address)?;
    let by = match k.ldr.image_at(block.allocator.caller) {
        Some(_) => format!(", allocated in {}", symbols::code(k, block.allocator.caller)),
        None => String::new(),
    };
    let what = pool_check::kind_of(&block);
    let freed = if block.is_freed() { ", which is freed" } else { "" };
    Some(match address - start {
        0 => format!("{what}{freed}{by}"),
        offset => format!("at +{offset:#x} in {what}{freed}{by}"),
    })
}

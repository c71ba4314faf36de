//! An address as a driver engineer reads it: `pciline.sys!OnInterrupt+0x12`, `ntoskrnl.exe!KeSetEvent`.
//!
//! Source lines are not known here: the reader that shows a verdict looks them up.

use super::{between, code, imports, pseudo};
use crate::cx::{Cx, Kernel};
use crate::exports::row;

/// The name of an address: of an image's code, of an export, of an unloaded driver; else just the number.
pub(crate) fn describe(cx: &mut Cx<'_>, address: u64) -> String {
    named(cx, address, address)
}

/// As [`describe`], for a return address: the call before it is what counts, the offset is the return address's.
pub(crate) fn describe_return(cx: &mut Cx<'_>, address: u64) -> String {
    named(cx, address, address.saturating_sub(1))
}

/// The name of code or of a variable in a driver's image, or just the number. What has no name is given as its offset in the image,
/// and a variable with its section, too.
pub(crate) fn code(k: &Kernel, address: u64) -> String {
    in_image(k, address, address).unwrap_or_else(|| format!("{address:#x}"))
}

fn in_image(k: &Kernel, address: u64, within: u64) -> Option<String> {
    let (base, loaded) = k.ldr.image_at(within)?;
    let (name, rva) = (&loaded.name, u32::try_from(within - base).ok()?);
    Some(match loaded.symbols.lookup(rva) {
        Some(mut symbol) => {
            symbol.offset += u32::try_from(address - within).unwrap_or(0);
            format!("{name}!{symbol}")
        }
        None => match loaded.symbols.data_section(rva) {
            Some((section, offset)) => format!("{name}+{:#x} ({section}+{offset:#x})", address - base),
            None => format!("{name}+{:#x}", address - base),
        },
    })
}

fn named(cx: &mut Cx<'_>, address: u64, within: u64) -> String {
    if let Some(text) = cx.with(|k| in_image(k, address, within)) {
        return text;
    }
    if let Some(export) = pseudo::number_at(address).and_then(row) {
        return format!("{}!{}", export.module, export.name);
    }
    if let Some(name) = imports::name_at(cx, address)
        .or_else(|| code::name_at(address))
        .or_else(|| cx.with(|k| between::name_at(k, address)))
    {
        return name;
    }
    let gone = cx.with(|k| {
        let (&base, (size, name)) = k.ldr.unloaded.range(..=address).next_back()?;
        (address - base < *size).then(|| format!("{name}+{:#x} (unloaded)", address - base))
    });
    gone.unwrap_or_else(|| format!("{address:#x}"))
}

//! An address as a driver engineer reads it: `pciline.sys!OnInterrupt+0x12`, `ntoskrnl.exe!KeSetEvent`.

use image::Symbol;

use super::{imports, pseudo};
use crate::cx::Cx;
use crate::exports::row;

/// The name of an address: of an image's code, of an export, of an unloaded driver; else just the number.
pub fn describe(cx: &mut Cx<'_>, address: u64) -> String {
    if let Some(text) = cx.with(|k| {
        let (base, loaded) = k.ldr.image_at(address)?;
        let rva = u32::try_from(address - base).ok()?;
        Some(in_image(&loaded.name, loaded.symbols.lookup(rva), rva))
    }) {
        return text;
    }
    if let Some(export) = pseudo::number_at(address).and_then(row) {
        return format!("{}!{}", export.module, export.name);
    }
    if let Some(name) = imports::name_at(cx, address) {
        return name;
    }
    let gone = cx.with(|k| {
        let (&base, (size, name)) = k.ldr.unloaded.range(..=address).next_back()?;
        (address - base < *size).then(|| format!("{name}+{:#x} (unloaded)", address - base))
    });
    gone.unwrap_or_else(|| format!("{address:#x}"))
}

fn in_image(name: &str, symbol: Option<Symbol<'_>>, rva: u32) -> String {
    match symbol {
        Some(Symbol { name: symbol, offset: 0, .. }) => format!("{name}!{symbol}"),
        Some(Symbol { name: symbol, offset, .. }) => format!("{name}!{symbol}+{offset:#x}"),
        None => format!("{name}+{rva:#x}"),
    }
}

//! Names for addresses in images that come and go: `pci9052!dispatch_write`, `pci9052!isr+0x12`.
//!
//! The names are read from the files before the machine starts; where each image lies is learned from events.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use image::Symbols;

/// The names of all images given to a machine. Clones are the same book.
#[derive(Clone, Default)]
pub struct SymbolBook(Rc<RefCell<Pages>>);

#[derive(Default)]
struct Pages {
    /// By the image's file name in lower case.
    known: BTreeMap<String, Page>,
    /// By base, images that are loaded or were: an address of an unloaded driver still tells whose it was.
    placed: BTreeMap<u64, String>,
}

struct Page {
    symbols: Symbols,
    size: u64,
}

impl SymbolBook {
    /// Adds the names of an image of `size` bytes.
    pub fn add(&self, file_name: &str, symbols: Symbols, size: u32) {
        let page = Page { symbols, size: size.into() };
        self.0.borrow_mut().known.insert(file_name.to_ascii_lowercase(), page);
    }

    /// An image lies at `base` from now on.
    pub fn place(&self, file_name: &str, base: u64) {
        self.0.borrow_mut().placed.insert(base, file_name.to_ascii_lowercase());
    }

    /// The name of an address; none outside the images of the book.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        let pages = self.0.borrow();
        let (base, file) = pages.placed.range(..=address).next_back()?;
        let page = pages.known.get(file)?;
        let offset = address - base;
        let rva = u32::try_from(offset).ok().filter(|_| offset < page.size)?;
        let stem = file.strip_suffix(".sys").unwrap_or(file);
        Some(match page.symbols.lookup(rva) {
            Some(symbol) if symbol.offset == 0 => format!("{stem}!{}", shortened(symbol.name)),
            Some(symbol) => format!("{stem}!{}+{:#x}", shortened(symbol.name), symbol.offset),
            None => format!("{stem}+{rva:#x}"),
        })
    }

    /// The source line an address came from, where a PDB tells: `device.rs:120`.
    #[must_use]
    pub fn line(&self, address: u64) -> Option<String> {
        let pages = self.0.borrow();
        let (base, file) = pages.placed.range(..=address).next_back()?;
        let page = pages.known.get(file)?;
        let rva = u32::try_from(address - base).ok()?;
        let line = page.symbols.lookup(rva)?.line?;
        Some(format!("{}:{}", line.file, line.line))
    }

    /// The name of an address, or its number.
    #[must_use]
    pub fn describe(&self, address: u64) -> String {
        self.name(address).unwrap_or_else(|| format!("{address:#x}"))
    }
}

/// Longer type arguments than this are left out of a name.
const LONGEST_ARGUMENTS: usize = 32;

/// A name without type arguments that nobody would read: `wdm::interrupt::synchronized<…>`.
fn shortened(name: &str) -> String {
    let (Some(open), Some(close)) = (name.find('<'), name.rfind('>')) else { return name.to_owned() };
    if open == 0 || close < open || close - open <= LONGEST_ARGUMENTS {
        return name.to_owned();
    }
    format!("{}<…>{}", &name[..open], &name[close + 1..])
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn only_long_type_arguments_are_left_out() {
        assert_eq!(shortened("dispatch_write"), "dispatch_write");
        assert_eq!(
            shortened("wdm::pnp::dispatch<pci9052::card::Card>"),
            "wdm::pnp::dispatch<pci9052::card::Card>"
        );
        assert_eq!(
            shortened("synchronized<a::Isr,a::impl$0::unmask::closure_env$0<b::Passive>,tuple$<> >"),
            "synchronized<…>"
        );
        assert_eq!(shortened("operator<"), "operator<");
    }
}

//! Names for addresses in images that come and go: `pci9052!dispatch_write`, `pci9052!isr+0x12`.
//!
//! The names are read from the files before the machine starts, the source lines when one is first asked for; where each
//! image lies is learned from events.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use image::{Image, Lines, SourceFrame, Symbols, TraceFormats};

use crate::files::{DriverFile, Pdb};

/// The names of all images given to a machine. Clones are the same book.
#[derive(Clone, Default)]
pub struct SymbolBook(Rc<RefCell<Pages>>);

#[derive(Default)]
struct Pages {
    /// By the image's file name in lower case.
    known: BTreeMap<String, Page>,
    /// By base, images that are loaded or were: an address of an unloaded driver still tells whose it was.
    placed: BTreeMap<u64, String>,
    /// Names that were asked for: a trace asks for the same few again and again.
    asked: BTreeMap<u64, Option<Rc<str>>>,
}

/// Where images lie, by base.
pub(crate) struct ImagePlaces(BTreeMap<u64, String>);

struct Page {
    symbols: Symbols,
    image: Rc<Image>,
    pdb: Option<Pdb>,
    lines: OnceCell<Lines>,
    formats: OnceCell<TraceFormats>,
}

impl Page {
    /// What its trace messages look like; of a PDB without them, none.
    fn formats(&self) -> &TraceFormats {
        self.formats.get_or_init(|| {
            let formats = self.pdb.as_ref().and_then(|pdb| TraceFormats::read(&self.image, pdb).ok());
            formats.unwrap_or_default()
        })
    }
}

/// A routine that an address is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The routine that was inlined; none for the one that has the address.
    pub inlined: Option<String>,
    /// The line of the code, or of the call of the routine further in: `write.c:120`.
    pub source: Option<String>,
    /// That line is of the driver's own source, and of no header of the system's or library.
    pub is_own: bool,
}

/// Whether a source file is the driver's own, by where compilers and kits keep theirs.
fn is_own(file: &str) -> bool {
    let file = file.replace('\\', "/").to_ascii_lowercase();
    const FOREIGN: [&str; 6] =
        ["/usr/", "/windows kits/", "/rustc/", "/.cargo/", "/mingw", "/library/core/src/"];
    !FOREIGN.iter().any(|folder| file.contains(folder))
}

impl SymbolBook {
    /// Adds what a driver's file tells.
    pub fn add(&self, file: &DriverFile) {
        let page = Page {
            symbols: file.symbols.clone(),
            image: Rc::clone(&file.image),
            pdb: file.pdb.clone(),
            lines: OnceCell::new(),
            formats: OnceCell::new(),
        };
        let mut pages = self.0.borrow_mut();
        pages.known.insert(file.name.to_ascii_lowercase(), page);
        pages.asked.clear();
    }

    /// The text of a trace message of WPP, by its GUID, number, and the data of its arguments, if an image's PDB knows its format.
    #[must_use]
    pub fn trace_text(&self, guid: &[u8; 16], number: u16, data: &[u8]) -> Option<String> {
        self.0.borrow().known.values().find_map(|page| page.formats().text(guid, number, data))
    }

    /// An image lies at `base` from now on.
    pub fn place(&self, file_name: &str, base: u64) {
        let mut pages = self.0.borrow_mut();
        pages.placed.insert(base, file_name.to_ascii_lowercase());
        pages.asked.clear();
    }

    /// Where images lie, or lay.
    pub(crate) fn places(&self) -> ImagePlaces {
        ImagePlaces(self.0.borrow().placed.clone())
    }

    /// They lie there, and nowhere else.
    pub(crate) fn lie_at(&self, places: &ImagePlaces) {
        let mut pages = self.0.borrow_mut();
        if pages.placed != places.0 {
            pages.placed.clone_from(&places.0);
            pages.asked.clear();
        }
    }

    /// The name of an address; none outside the images of the book.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        self.named(address, address)
    }

    /// The same, shared, for readers that ask often.
    pub(super) fn shared(&self, address: u64) -> Option<Rc<str>> {
        if let Some(known) = self.0.borrow().asked.get(&address) {
            return known.clone();
        }
        let name: Option<Rc<str>> = self.name(address).map(Into::into);
        let asked = &mut self.0.borrow_mut().asked;
        if asked.len() < MOST_ASKED {
            asked.insert(address, name.clone());
        }
        name
    }

    /// The name of a return address: of the routine that the call before it is in.
    #[must_use]
    pub fn return_name(&self, address: u64) -> Option<String> {
        self.named(address, address.wrapping_sub(1))
    }

    fn named(&self, address: u64, within: u64) -> Option<String> {
        let pages = self.0.borrow();
        let (file, page, rva) = pages.find(within)?;
        let stem = file.strip_suffix(".sys").unwrap_or(file);
        let past = u32::try_from(address.wrapping_sub(within)).unwrap_or_default();
        Some(match page.symbols.lookup(rva) {
            Some(symbol) if symbol.offset + past == 0 => format!("{stem}!{}", shortened(symbol.name)),
            Some(symbol) => format!("{stem}!{}+{:#x}", shortened(symbol.name), symbol.offset + past),
            None => format!("{stem}+{:#x}", rva + past),
        })
    }

    /// The source line an address came from, where a PDB or DWARF tells: `device.rs:120`. Of a return address, ask for the
    /// byte before.
    #[must_use]
    pub fn line(&self, address: u64) -> Option<String> {
        let pages = self.0.borrow();
        let (_, page, rva) = pages.find(address)?;
        let lines = page.lines.get_or_init(|| Lines::new(&page.image, page.pdb.as_deref()));
        Some(lines.at(rva)?.to_string())
    }

    /// The routines whose code is at an address, from the innermost that was inlined there out to the one that has it, each with its line,
    /// where a PDB or DWARF tells. Of a return address, ask for the byte before.
    #[must_use]
    pub fn frames(&self, address: u64) -> Vec<Frame> {
        let pages = self.0.borrow();
        let Some((_, page, rva)) = pages.find(address) else { return Vec::new() };
        let lines = page.lines.get_or_init(|| Lines::new(&page.image, page.pdb.as_deref()));
        let frame = |frame: SourceFrame<'_>| Frame {
            inlined: frame.inlined.map(shortened),
            source: frame.line.map(|line| line.to_string()),
            is_own: frame.line.is_some_and(|line| is_own(line.file)),
        };
        lines.frames(rva).into_iter().map(frame).collect()
    }

    /// A message with the source line behind each place in a driver that it names for the first time:
    /// `card.sys!OnInterrupt+0x12 (card.c:120)`.
    #[must_use]
    pub fn with_lines(&self, message: &str) -> String {
        let mut text = String::with_capacity(message.len());
        let mut known = Vec::new();
        for word in message.split_inclusive(' ') {
            let place = word.trim_end_matches([' ', ',', ';', ':', '.', ')']);
            let place = place.trim_start_matches('(');
            let after = |words: &str| text.ends_with(words);
            // A thread is called by the routine that it began in.
            let is_place = !after("thread ") && !known.contains(&place);
            let line = is_place.then(|| self.line_of(place, after("called from "))).flatten();
            match (line, word.find(place)) {
                (Some(line), Some(start)) => {
                    known.push(place);
                    let end = start + place.len();
                    text.push_str(&word[..end]);
                    text.push_str(&format!(" ({line})"));
                    text.push_str(&word[end..]);
                }
                _ => text.push_str(word),
            }
        }
        text
    }

    /// The line of `card.sys!OnInterrupt+0x12`, without its folders; of a return address that of the call before it.
    fn line_of(&self, place: &str, is_return: bool) -> Option<String> {
        let (file, symbol) = place.split_once('!')?;
        let (name, offset) = match symbol.rsplit_once("+0x") {
            Some((name, offset)) => (name, u32::from_str_radix(offset, 16).ok()?),
            None => (symbol, 0),
        };
        let pages = self.0.borrow();
        let page = pages.known.get(&file.to_ascii_lowercase())?;
        let rva = page.symbols.find(name)?.checked_add(offset)?.checked_sub(is_return.into())?;
        let lines = page.lines.get_or_init(|| Lines::new(&page.image, page.pdb.as_deref()));
        let frames = lines.frames(rva);
        let mut found = frames.iter().filter_map(|frame| frame.line);
        let own = found.clone().find(|line| is_own(line.file)).or_else(|| found.next_back())?.to_string();
        own.rsplit(['/', '\\']).next().map(str::to_owned)
    }

    /// The name of an address, or its number.
    #[must_use]
    pub fn describe(&self, address: u64) -> String {
        self.shared(address).map_or_else(|| format!("{address:#x}"), |name| name.as_ref().to_owned())
    }
}

impl Pages {
    /// The image that `address` is in: its file, its page, and where in it.
    fn find(&self, address: u64) -> Option<(&str, &Page, u32)> {
        let (base, file) = self.placed.range(..=address).next_back()?;
        let page = self.known.get(file)?;
        let rva = u32::try_from(address - base).ok().filter(|rva| *rva < page.image.size())?;
        Some((file, page, rva))
    }
}

/// Names that are kept: code calls from few places.
const MOST_ASKED: usize = 4096;
/// Longer type arguments than this are left out of a name.
const LONGEST_ARGUMENTS: usize = 32;

/// A name without its long type arguments: `wdm::interrupt::synchronized<…>`.
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

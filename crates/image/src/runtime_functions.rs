//! The exception directory (`.pdata`): the functions of an image that have unwind data.
//!
//! As the Microsoft page "x64 exception handling" has it under "struct RUNTIME_FUNCTION". Entries that make no sense are
//! left out; a function without an entry is a leaf, not an error.

use object::pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION;

use crate::headers::Headers;
use crate::memory::Memory;

/// One function, or one fragment of a function, with unwind data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RuntimeFunction {
    /// RVA of its first instruction.
    pub begin: u32,
    /// RVA just past its last.
    pub end: u32,
    /// RVA of its `UNWIND_INFO`; if odd, of another `RUNTIME_FUNCTION`, plus one.
    pub unwind: u32,
}

/// Bytes in an entry.
pub(crate) const ENTRY: u32 = 12;

impl RuntimeFunction {
    /// The entry at `rva`, if it makes sense.
    pub(crate) fn read(memory: &Memory, size_of_image: u32, rva: u32) -> Option<Self> {
        let entry = Self {
            begin: memory.u32(rva)?,
            end: memory.u32(rva.checked_add(4)?)?,
            unwind: memory.u32(rva.checked_add(8)?)?,
        };
        let sound = entry.begin < entry.end && entry.end <= size_of_image && entry.unwind < size_of_image;
        sound.then_some(entry)
    }
}

/// The entries that make sense, sorted by where they begin.
pub(crate) fn read(headers: &Headers, memory: &Memory) -> Vec<RuntimeFunction> {
    let mut functions: Vec<_> = entries(headers, memory).map(|(_, function)| function).collect();
    functions.sort_unstable();
    functions
}

/// The RVA of a function's entry.
pub(crate) fn place(headers: &Headers, memory: &Memory, function: RuntimeFunction) -> Option<u32> {
    entries(headers, memory).find(|(_, entry)| *entry == function).map(|(rva, _)| rva)
}

/// The entries that make sense as they stand there, each with its RVA.
fn entries(headers: &Headers, memory: &Memory) -> impl Iterator<Item = (u32, RuntimeFunction)> {
    let (rva, size) = headers.directory(IMAGE_DIRECTORY_ENTRY_EXCEPTION).unwrap_or((0, 0));
    let kept = u32::try_from(memory.tail(rva).len()).unwrap_or(u32::MAX).min(size);
    let size_of_image = headers.mapped_size();
    (0..kept / ENTRY).filter_map(move |index| {
        let at = rva + index * ENTRY;
        Some((at, RuntimeFunction::read(memory, size_of_image, at)?))
    })
}

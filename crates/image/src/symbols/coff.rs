//! Names from the COFF symbol table, which mingw and debug builds leave in the image.
//!
//! As the Microsoft page "PE Format" has it under "COFF Symbol Table". A damaged table has no names; debugging symbols
//! (`.bf`, `.ef`, files) are not read. Of static functions whose names begin with L there are none: mingw's assembler takes
//! them for labels. What the linker itself marks, by names like `___crt_xc_end__`, names nothing.

use object::pe::{IMAGE_SYM_CLASS_EXTERNAL, IMAGE_SYM_CLASS_STATIC, IMAGE_SYM_DTYPE_FUNCTION};
use object::read::coff::{CoffHeader, Symbol as _};

use super::{Named, Source};
use crate::headers::Headers;
use crate::memory::MAX_NAME;
use crate::sections::Section;

/// The names of `file`, by no order.
pub(crate) fn read(file: &[u8], headers: &Headers, sections: &[Section]) -> Vec<Named> {
    let Ok(table) = headers.file_header().symbols(file) else { return Vec::new() };
    let strings = table.strings();
    let named = table.iter().filter_map(|(_, symbol)| {
        let section = usize::try_from(symbol.section_number().0).ok()?.checked_sub(1)?;
        let rva = sections.get(section)?.rva.checked_add(symbol.value())?;
        let class = symbol.storage_class();
        let function = symbol.derived_type() == IMAGE_SYM_DTYPE_FUNCTION;
        let source = match class {
            IMAGE_SYM_CLASS_EXTERNAL | IMAGE_SYM_CLASS_STATIC if function => Source::CoffFunction,
            IMAGE_SYM_CLASS_EXTERNAL if !symbol.name(strings).is_ok_and(is_mark) => Source::CoffGlobal,
            IMAGE_SYM_CLASS_STATIC => Source::CoffStatic,
            _ => return None,
        };
        let name = symbol.name(strings).ok().filter(|name| name.len() <= MAX_NAME)?;
        let names_a_section = class == IMAGE_SYM_CLASS_STATIC && symbol.has_aux_section();
        let is_local = name.first().is_none_or(|&first| first == b'.');
        (!names_a_section && !is_local).then(|| Named {
            rva,
            source,
            name: String::from_utf8_lossy(name).into_owned(),
            extent: None,
        })
    });
    named.collect()
}

/// Whether the linker gives a name like this to a place of its own: the beginning and end of a list, which may be anything's too.
fn is_mark(name: &[u8]) -> bool {
    name.starts_with(b"__") && name.ends_with(b"__")
}

//! What can be wrong with a driver file: one sentence that says what, where, and what to do about it.
//!
//! It names offsets in the file and RVAs (offsets from the image's base) in hexadecimal. It prints nothing and quotes no
//! more of a hostile file than a bounded name.

use std::fmt;

use crate::headers::MAX_SIZE_OF_IMAGE;

/// Why a file is not a driver that can be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageError {
    /// The file, as it was named to [`crate::Image::parse`].
    pub image: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.image, self.problem)
    }
}

impl std::error::Error for ImageError {}

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// Zero bytes.
    Empty,
    /// No `MZ` at its start; what it looks like instead.
    NotPe(&'static str),
    /// `MZ` but no `PE` signature where `e_lfanew` points.
    NoSignature {
        /// File offset in `e_lfanew`.
        offset: u64,
    },
    /// The file ends before something it promises.
    Truncated {
        /// The part that is cut.
        what: String,
        /// File offset where the part ends.
        end: u64,
        /// Bytes in the file.
        length: u64,
    },
    /// The headers contradict themselves.
    Header(&'static str),
    /// Built for 32-bit x86.
    ThirtyTwoBit,
    /// Built for another processor.
    Machine(u16),
    /// Not marked as an executable image: an object file or a failed link.
    NotLinked,
    /// A user-mode DLL, of this subsystem.
    UserDll(&'static str),
    /// A user-mode program, of this subsystem.
    UserProgram(&'static str),
    /// `SizeOfImage` is nothing or over the limit.
    SizeOfImage(u32),
    /// `SectionAlignment` or `FileAlignment` is not one the loader accepts.
    Alignment {
        /// `SectionAlignment`, bytes.
        section: u32,
        /// `FileAlignment`, bytes.
        file: u32,
    },
    /// Two parts of the image claim the same addresses, or they are not in ascending order.
    Overlap {
        /// The part before.
        first: String,
        /// The part after.
        second: String,
        /// RVA where the second begins.
        rva: u32,
    },
    /// A section does not begin at a multiple of `SectionAlignment`.
    Unaligned {
        /// Its name.
        section: String,
        /// Where it begins.
        rva: u32,
        /// `SectionAlignment`, bytes.
        alignment: u32,
    },
    /// A section reaches past the end of the image.
    SectionOutsideImage {
        /// Its name.
        section: String,
        /// RVA of its end.
        end: u64,
        /// Bytes in the image.
        size_of_image: u32,
    },
    /// The entry point is in no executable section.
    EntryPoint(u32),
    /// A field points outside the image.
    WildRva {
        /// The field.
        what: &'static str,
        /// Where it points.
        rva: u64,
        /// Bytes in the image.
        size_of_image: u32,
    },
    /// A name is empty, not ended, too long or not of the form it should have.
    BadName {
        /// What it names.
        what: &'static str,
        /// RVA of its first byte.
        rva: u32,
    },
    /// More of something than any real driver has.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: u32,
    },
    /// The image would have to move and its relocations were stripped.
    RelocationsStripped {
        /// The base it was linked for.
        preferred: u64,
        /// The base it was to go to.
        wanted: u64,
    },
    /// A relocation of a kind that x64 images do not have.
    RelocationKind {
        /// Its type, 0–15.
        kind: u16,
        /// RVA it would patch.
        rva: u32,
    },
    /// A block of the relocation directory has an impossible size.
    RelocationBlock {
        /// RVA of the block.
        rva: u32,
        /// Its size as written.
        size: u32,
    },
    /// The bytes are no PDB.
    NotPdb,
    /// The image does not say which PDB is its own.
    NoPdbReference,
    /// The PDB is another image's, or another build's.
    PdbOfAnother {
        /// What the image says of its own.
        wanted: String,
        /// What the PDB says of itself.
        found: String,
    },
    /// A part of the PDB makes no sense.
    DamagedPdb(&'static str),
    /// A base that no image can have: not a multiple of 64 KiB, or the image would wrap around the address space.
    Base(u64),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the file is empty (0 bytes); copy or build it again"),
            Self::NotPe(like) => {
                write!(f, "not a driver: no `MZ` at offset 0, it looks like {like}; give the built .sys file")
            }
            Self::NoSignature { offset } => write!(
                f,
                "no `PE` signature at offset {offset:#x}, where e_lfanew points; \
                 this is a DOS or 16-bit program or a damaged file: give an x64 .sys"
            ),
            Self::Truncated { what, end, length } => write!(
                f,
                "truncated: {what} should end at offset {end:#x}, the file has {length:#x} bytes; copy it again"
            ),
            Self::Header(why) => write!(f, "damaged headers: {why}; link it again"),
            Self::ThirtyTwoBit => write!(f, "a 32-bit (x86) image; build the driver for x64"),
            Self::Machine(machine) => {
                write!(f, "an image for {}; build the driver for x64", machine_name(*machine))
            }
            Self::NotLinked => write!(
                f,
                "IMAGE_FILE_EXECUTABLE_IMAGE is not set in the file header: the link failed; look at the linker's messages"
            ),
            Self::UserDll(subsystem) => write!(
                f,
                "a user-mode DLL (subsystem: {subsystem}), not a driver; drivers are linked with /SUBSYSTEM:NATIVE"
            ),
            Self::UserProgram(subsystem) => write!(
                f,
                "a user-mode program (subsystem: {subsystem}), not a driver; drivers are linked with /SUBSYSTEM:NATIVE"
            ),
            _ => self.fmt_layout(f),
        }
    }
}

impl Problem {
    fn fmt_layout(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeOfImage(0) => write!(f, "SizeOfImage in the optional header is 0; link it again"),
            Self::SizeOfImage(size) => write!(
                f,
                "SizeOfImage in the optional header is {size:#x}, over the limit of {MAX_SIZE_OF_IMAGE:#x} bytes; \
                 the header is damaged or this is no driver"
            ),
            Self::Alignment { section, file } => write!(
                f,
                "SectionAlignment {section:#x} and FileAlignment {file:#x} in the optional header: each must be a power of \
                 two and the file's no larger than the section's; link it again"
            ),
            Self::Overlap { first, second, rva } => write!(
                f,
                "{second} begins at RVA {rva:#x}, inside or before {first}: sections must ascend and not overlap; link it again"
            ),
            Self::Unaligned { section, rva, alignment } => write!(
                f,
                "section {section} begins at RVA {rva:#x}, not a multiple of SectionAlignment {alignment:#x}; link it again"
            ),
            Self::SectionOutsideImage { section, end, size_of_image } => write!(
                f,
                "section {section} ends at RVA {end:#x}, past SizeOfImage {size_of_image:#x}; link it again"
            ),
            Self::EntryPoint(rva) => write!(
                f,
                "the entry point, RVA {rva:#x}, is in no executable section; link with /ENTRY:DriverEntry or GsDriverEntry"
            ),
            Self::WildRva { what, rva, size_of_image } => write!(
                f,
                "{what} is RVA {rva:#x}, not within the image's {size_of_image:#x} bytes; the file is damaged or packed: \
                 copy or link it again"
            ),
            Self::BadName { what, rva } => {
                write!(f, "{what} at RVA {rva:#x} is not a readable name; copy or link it again")
            }
            Self::TooMany { what, limit } => {
                write!(f, "more than {limit} {what}; the file is damaged: copy or link it again")
            }
            _ => self.fmt_relocation(f),
        }
    }

    fn fmt_relocation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RelocationsStripped { preferred, wanted } => write!(
                f,
                "its relocations were stripped, so it can only be at {preferred:#x}, not at {wanted:#x}; \
                 link it without /FIXED"
            ),
            Self::RelocationKind { kind, rva } => write!(
                f,
                "relocation of type {kind} ({}) at RVA {rva:#x}; x64 images have only DIR64: link it again",
                relocation_name(*kind)
            ),
            Self::RelocationBlock { rva, size } => write!(
                f,
                "the relocation block at RVA {rva:#x} has the impossible size {size:#x}; copy or link it again"
            ),
            Self::Base(base) => write!(
                f,
                "no image can be at {base:#x}: a base is a multiple of 0x10000 with room for the whole image above it"
            ),
            _ => self.fmt_pdb(f),
        }
    }

    fn fmt_pdb(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPdb => {
                write!(
                    f,
                    "what was given as its PDB is none (no MSF 7.00 header); give the .pdb the linker wrote"
                )
            }
            Self::NoPdbReference => write!(
                f,
                "it names no PDB in its debug directory, so none can be shown to be its own; link with /DEBUG or give none"
            ),
            Self::PdbOfAnother { wanted, found } => write!(
                f,
                "the PDB is not its own: it was linked with {wanted}, this one is {found}; give the one of the same build"
            ),
            Self::DamagedPdb(what) => write!(f, "its PDB is damaged in {what}; copy or build it again"),
            _ => Err(fmt::Error),
        }
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        0xaa64 => "ARM64".into(),
        0xa641 => "ARM64EC".into(),
        0xa64e => "ARM64X".into(),
        0x01c0 | 0x01c4 => "32-bit ARM".into(),
        0x0200 => "Itanium".into(),
        0x0ebc => "EFI byte code".into(),
        other => format!("an unknown processor (machine {other:#06x})"),
    }
}

fn relocation_name(kind: u16) -> &'static str {
    match kind {
        1 => "HIGH",
        2 => "LOW",
        3 => "HIGHLOW",
        4 => "HIGHADJ",
        5 | 7 | 8 | 9 => "another processor's",
        _ => "reserved",
    }
}

//! Makes what identifies a linked image depend on the image alone.
//!
//! The linker names the PDB by a hash of its contents, the paths of the build machine among them, and dates the image by a
//! hash of that: two checkouts would give two files. Here the signature of the `RSDS` record, in image and PDB, and all
//! time stamps become a hash of the image without them, and the checksum is made good. As Microsoft's page "PE Format"
//! has it. The rest of the PDB stays as it is.

use std::ops::Range;

use anyhow::{Context, Result, bail};

/// Bytes of a debug directory entry.
const DEBUG_ENTRY: usize = 28;
/// The debug directory, among the data directories of an optional header.
const DEBUG_DIRECTORY: usize = 112 + 6 * 8;
/// The entry type of an `RSDS` record.
const CODEVIEW: usize = 2;

/// Where in an image lie the bytes that this changes.
struct Places {
    stamps: Vec<Range<usize>>,
    checksum: Range<usize>,
    signature: Range<usize>,
}

/// Gives `image`, and the `pdb` that was linked with it, the image's own signature.
///
/// # Errors
/// The image has no `RSDS` record, or the PDB another signature.
pub(crate) fn settle(image: &mut [u8], pdb: &mut [u8]) -> Result<()> {
    let places = places(image).context("it is no image with a debug directory and an RSDS record")?;
    let linked = image[places.signature.clone()].to_vec();
    for place in places.stamps.iter().chain([&places.checksum, &places.signature]) {
        image[place.clone()].fill(0);
    }
    let signature = fnv1a(image).to_le_bytes();
    image[places.signature].copy_from_slice(&signature);
    for stamp in places.stamps {
        image[stamp].copy_from_slice(&signature[..4]);
    }
    let checksum = checksum(image);
    image[places.checksum].copy_from_slice(&checksum.to_le_bytes());

    let at = pdb.windows(16).position(|bytes| bytes == linked);
    let Some(at) = at else { bail!("the PDB has another signature than its image") };
    pdb[at..at + 16].copy_from_slice(&signature);
    Ok(())
}

fn places(image: &[u8]) -> Option<Places> {
    let file = dword(image, 0x3C)? + 4;
    let optional = file + 20;
    let sections = optional + word(image, file + 16)?;
    let count = word(image, file + 2)?;
    let [rva, bytes] =
        [dword(image, optional + DEBUG_DIRECTORY)?, dword(image, optional + DEBUG_DIRECTORY + 4)?];
    let in_file = |rva: usize| {
        (0..count).find_map(|index| {
            let section = sections + index * 40;
            let offset = rva.checked_sub(dword(image, section + 12)?)?;
            (offset < dword(image, section + 16)?).then_some(dword(image, section + 20)? + offset)
        })
    };
    let entries = in_file(rva)?;
    let entries = (0..bytes / DEBUG_ENTRY).map(|index| entries + index * DEBUG_ENTRY);
    let codeview = entries.clone().find(|entry| dword(image, entry + 12) == Some(CODEVIEW))?;
    let record = dword(image, codeview + 24)?;
    if image.get(record..record + 4)? != b"RSDS" || image.len() < record + 20 {
        return None;
    }
    let stamps = entries.map(|entry| entry + 4).chain([file + 4]);
    Some(Places {
        stamps: stamps.map(|at| at..at + 4).collect(),
        checksum: optional + 64..optional + 68,
        signature: record + 4..record + 20,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?).into())
}

fn dword(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?)).ok()
}

/// The image's checksum: its 16-bit words added up with their carries, and its length. The member itself must be 0.
fn checksum(image: &[u8]) -> u32 {
    let sum = image.chunks(2).fold(0u32, |sum, pair| {
        let sum = sum + u32::from(pair[0]) + (u32::from(pair.get(1).copied().unwrap_or(0)) << 8);
        (sum & 0xFFFF) + (sum >> 16)
    });
    sum.wrapping_add(u32::try_from(image.len()).unwrap_or(u32::MAX))
}

/// FNV-1a of 128 bits: it need not resist forgery.
fn fnv1a(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

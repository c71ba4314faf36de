//! Images that processes map: their own, and libraries.
//!
//! Page: *PLOAD_IMAGE_NOTIFY_ROUTINE callback function*. Nothing of them runs; they are there for drivers that want to know of them. What is mapped is one
//! page with headers of a PE file that has no sections. Of a file in a folder nothing else is mapped either.

use engine::Flow;

use super::{current_process, notify, process};
use crate::cx::Cx;
use crate::mm::user;

/// The volume of a path, as the system's names of images begin.
const VOLUME: &str = r"\Device\HarddiskVolume1";
/// What each process maps besides its own image.
const LIBRARY: &str = r"C:\Windows\System32\ntdll.dll";
/// Bytes that are mapped.
const SIZE: u64 = 0x1000;
/// Where in them the PE header is.
const HEADER: usize = 0x80;

/// Whether a driver wants to know of images.
pub fn are_noticed(cx: &mut Cx<'_>) -> bool {
    cx.with(|k| k.ps.notify.is_any(notify::Of::Images))
}

/// The first thread of a process, which runs, maps its image and what every process has.
///
/// # Errors
/// A verdict on a routine.
pub fn load_first(cx: &mut Cx<'_>) -> Flow<()> {
    let key = current_process(cx);
    let own = cx.with(|k| process::name(k, key));
    load(cx, &own)?;
    load(cx, LIBRARY)
}

/// The current process maps the image of this file: drivers get to know of it, if they want to.
///
/// # Errors
/// A verdict on a routine.
pub fn load(cx: &mut Cx<'_>, path: &str) -> Flow<()> {
    if !are_noticed(cx) {
        return Ok(());
    }
    let key = current_process(cx);
    let Some(base) = user::allocate(cx, u32::try_from(key).unwrap_or(u32::MAX), SIZE) else {
        return Ok(()); // as where the file cannot be mapped
    };
    user::write(cx, base, &headers()).map_err(|bad| cx.bad_pointer(bad))?;
    let within = path.split_once(':').map_or(path, |(_, within)| within);
    let name = format!(r"{VOLUME}\{}", within.trim_start_matches('\\'));
    notify::tell_of_user_image(cx, &name, key, base, SIZE)
}

/// The headers of a PE file for x64.
fn headers() -> Vec<u8> {
    let mut bytes = vec![0; 0x200];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3C..0x40].copy_from_slice(&0x80_u32.to_le_bytes());
    bytes[HEADER..HEADER + 6].copy_from_slice(b"PE\0\0\x64\x86");
    let optional = HEADER + 0x18;
    // SizeOfOptionalHeader, Magic, SectionAlignment, FileAlignment, SizeOfImage, SizeOfHeaders.
    bytes[HEADER + 0x14..HEADER + 0x16].copy_from_slice(&0xF0_u16.to_le_bytes());
    bytes[optional..optional + 2].copy_from_slice(&0x20B_u16.to_le_bytes());
    for (at, value) in [(0x20, 0x1000_u32), (0x24, 0x200), (0x38, 0x1000), (0x3C, 0x200)] {
        bytes[optional + at..optional + at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

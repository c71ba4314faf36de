//! The memory image: what the loader would leave at a base before it resolves imports.
//!
//! Headers and sections in place, relocations applied, the `/GS` cookie initialised (the Microsoft page "/GS (Buffer
//! Security Check)"). Import slots are left as the file has them: the caller that resolves them writes them.

use crate::config::DEFAULT_COOKIE;
use crate::error::{ImageError, Problem};
use crate::image::Image;
use crate::relocations;

/// Offset of `ImageBase` in the optional header.
const IMAGE_BASE: u32 = 24;

impl Image {
    /// The image's memory at `base`, [`Image::size`] bytes.
    ///
    /// The `/GS` cookie, where it still has its default value, gets one that depends on the image's name and base only, so
    /// that two runs have the same.
    ///
    /// # Errors
    /// If it cannot be at `base` (stripped or damaged relocations, or `base` is none an image can have).
    pub fn load_at(&self, base: u64) -> Result<Vec<u8>, ImageError> {
        self.lay_out(base).map_err(|problem| ImageError { image: self.name.clone(), problem })
    }

    fn lay_out(&self, base: u64) -> Result<Vec<u8>, Problem> {
        if !base.is_multiple_of(0x1_0000) || base.checked_add(self.size().into()).is_none() {
            return Err(Problem::Base(base));
        }
        let preferred = self.headers.preferred_base;
        if base != preferred && self.headers.relocations_stripped {
            return Err(Problem::RelocationsStripped { preferred, wanted: base });
        }
        let mut bytes = vec![0; self.size() as usize];
        for part in self.memory.parts() {
            let room = bytes.get_mut(part.rva as usize..).unwrap_or_default();
            room.iter_mut().zip(&part.bytes).for_each(|(to, from)| *to = *from);
        }
        if base != preferred {
            relocations::apply(&self.headers, &self.memory, base.wrapping_sub(preferred), &mut bytes)?;
        }
        write(&mut bytes, self.headers.optional_field(IMAGE_BASE), base);
        let cookie = self.config.security_cookie;
        if let Some(cookie) = cookie.filter(|&rva| self.memory.u64(rva) == Some(DEFAULT_COOKIE)) {
            write(&mut bytes, cookie, cookie_for(&self.name, base));
        }
        Ok(bytes)
    }
}

fn write(bytes: &mut [u8], rva: u32, value: u64) {
    if let Some(place) = bytes.get_mut(rva as usize..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_le_bytes();
    }
}

/// FNV-1a over name and base, 48 bits as an x64 cookie has, never the default nor zero, which start-up code refuses.
fn cookie_for(name: &str, base: u64) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = name.bytes().chain(base.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, mix);
    match hash >> 16 {
        0 | DEFAULT_COOKIE => DEFAULT_COOKIE + 1,
        cookie => cookie,
    }
}

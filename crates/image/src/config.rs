//! The load configuration: where the `/GS` cookie and the control-flow-guard pointers are.
//!
//! As the Microsoft page "PE Format" has it under "The Load Configuration Structure". A directory that makes no sense is
//! none; the guard's function table is not read.

use object::pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG;

use crate::headers::Headers;
use crate::memory::Memory;

/// The value the compiler leaves in the `/GS` cookie for the loader to replace.
pub const DEFAULT_COOKIE: u64 = 0x0000_2B99_2DDF_A232;

/// RVAs of 8-byte variables that the loader is to fill in. Each lies within the image.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LoadConfig {
    /// `SecurityCookie`: what `/GS` code checks its frames with.
    pub security_cookie: Option<u32>,
    /// `GuardCFCheckFunctionPointer`: called before an indirect call, target in RCX.
    pub guard_check: Option<u32>,
    /// `GuardCFDispatchFunctionPointer`: jumps to the target in RAX.
    pub guard_dispatch: Option<u32>,
}

/// Offsets in `IMAGE_LOAD_CONFIG_DIRECTORY64`.
const SECURITY_COOKIE: u32 = 0x58;
const GUARD_CHECK: u32 = 0x70;
const GUARD_DISPATCH: u32 = 0x78;

/// Reads the directory. Its own size field, not the data directory's, says which fields it has.
pub(crate) fn read(headers: &Headers, memory: &Memory) -> LoadConfig {
    let Some((rva, _)) = headers.directory(IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG) else {
        return LoadConfig::default();
    };
    let size = memory.u32(rva).unwrap_or(0);
    let variable = |field: u32| {
        let address = memory.u64(rva.checked_add(field)?).filter(|_| field + 8 <= size)?;
        let target = u32::try_from(address.checked_sub(headers.preferred_base)?).ok()?;
        (target != 0 && target <= headers.mapped_size() - 8).then_some(target)
    };
    LoadConfig {
        security_cookie: variable(SECURITY_COOKIE),
        guard_check: variable(GUARD_CHECK),
        guard_dispatch: variable(GUARD_DISPATCH),
    }
}

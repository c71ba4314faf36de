//! The load configuration: where the `/GS` cookie and the control-flow-guard pointers are.
//!
//! As the Microsoft page "PE Format" has it under "The Load Configuration Structure". A directory that makes no sense is
//! none.

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
    /// The functions that indirect calls may reach, if there is a table of them.
    pub guard_functions: Option<GuardTable>,
}

impl LoadConfig {
    /// Whether its indirect calls are checked.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.guard_check.is_some() || self.guard_dispatch.is_some()
    }
}

/// Where `GuardCFFunctionTable` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardTable {
    /// RVA of the first entry.
    rva: u32,
    /// Entries.
    count: u32,
    /// Bytes of each: an RVA, and flags.
    stride: u32,
}

/// Offsets in `IMAGE_LOAD_CONFIG_DIRECTORY64`.
const SECURITY_COOKIE: u32 = 0x58;
const GUARD_CHECK: u32 = 0x70;
const GUARD_DISPATCH: u32 = 0x78;
const GUARD_FUNCTIONS: u32 = 0x80;
const GUARD_FUNCTION_COUNT: u32 = 0x88;
const GUARD_FLAGS: u32 = 0x90;

/// `IMAGE_GUARD_CF_FUNCTION_TABLE_PRESENT`.
const TABLE_PRESENT: u32 = 0x400;
/// `IMAGE_GUARD_FLAG_FID_SUPPRESSED`, in the byte behind an entry's RVA: no target after all.
const SUPPRESSED: u8 = 1;

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
        guard_functions: table(memory, rva, size, variable(GUARD_FUNCTIONS)),
    }
}

fn table(memory: &Memory, rva: u32, size: u32, first: Option<u32>) -> Option<GuardTable> {
    let field = |field: u32| rva.checked_add(field).filter(|_| field + 8 <= size);
    let flags = memory.u32(field(GUARD_FLAGS)?)?;
    let count = u32::try_from(memory.u64(field(GUARD_FUNCTION_COUNT)?)?).ok()?;
    let stride = 4 + (flags >> 28);
    // A table that the image does not hold is cut short where the image ends.
    (flags & TABLE_PRESENT != 0).then_some(GuardTable { rva: first?, count, stride })
}

/// The RVAs in the table, as far as they lie within the image.
pub(crate) fn guard_targets(headers: &Headers, memory: &Memory, table: GuardTable) -> Vec<u32> {
    let GuardTable { rva, count, stride } = table;
    let entries = memory.tail(rva).chunks_exact(stride as usize).take(count as usize);
    let targets = entries.filter_map(|entry| {
        let (target, flags) = entry.split_first_chunk()?;
        let suppressed = flags.first().is_some_and(|flags| flags & SUPPRESSED != 0);
        Some(u32::from_le_bytes(*target)).filter(|_| !suppressed)
    });
    targets.filter(|&target| target < headers.mapped_size()).collect()
}

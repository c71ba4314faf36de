//! Exported variables of `ntoskrnl.exe`: where each lies in the pseudo-image, and what it holds at boot.
//!
//! Pages: *Kernel-mode exported variables* of their components. Constants lie on a read-only page; lists and tables that
//! drivers walk or patch, and the objects that the pointers mean, on writable ones. A slot of `HalDispatchTable` that
//! dirql has no routine for is a thunk that says its name when it is called.

use abi::{DriverPtr, KLDR_DATA_TABLE_ENTRY};
use engine::windows::{PAGE, USER_DEVICE};

use super::se_exports;
use crate::cx::Cx;
use crate::ke::affinity;
use crate::ldr;
use crate::mm::space::Zone;
use crate::rtl::version::{self, Version};
use crate::{ps, se};

/// Where the variables' read-only page lies in the pseudo-image.
pub const OFFSET: u64 = 0x0180_0000;
/// Pages: the constants, the writable variables, and what pointers among them point to.
pub const PAGES: u64 = 4;
const WRITABLE: u64 = PAGE;
const OBJECT_TYPES: u64 = 2 * PAGE;
const SECURITY: u64 = 3 * PAGE;

/// One exported variable.
pub struct DataExport {
    /// `IoFileObjectType`.
    pub name: &'static str,
    /// Bytes from the start of the variables.
    offset: u64,
    /// Bytes.
    pub bytes: u64,
    value: Value,
}

/// What a variable holds at boot.
enum Value {
    /// A number.
    Number(u64),
    /// A number that the settings of the machine decide.
    Setting(fn(Boot) -> u64),
    /// A pointer to the object type of this index.
    ObjectType(u64),
    /// The head of an empty list.
    List,
    /// `HAL_DISPATCH`.
    HalDispatch,
    /// A pointer to `SE_EXPORTS`.
    Security,
    /// A pointer to a table in which no byte begins a character of two.
    NoLeadBytes,
    /// A pointer to the system process, which is there before any variable is.
    SystemProcess,
}

#[derive(Clone, Copy)]
struct Boot {
    version: Version,
    processors: u32,
}

/// What `MmUserProbeAddress` says: user buffers end below it.
pub const USER_PROBE_ADDRESS: u64 = USER_DEVICE.end() - 0x1_0000;

/// Of the user half, what is surely an address: pages below are never mapped.
const FIRST_USER_ADDRESS: u64 = 0x1_0000;

/// Whether a value is surely an address in the half of applications.
pub(crate) fn is_of_applications(address: u64) -> bool {
    (FIRST_USER_ADDRESS..USER_PROBE_ADDRESS).contains(&address)
}

macro_rules! data {
    ($($name:ident @ $offset:literal [$bytes:literal] $value:expr;)*) => {
        /// All exported variables, sorted by name.
        pub static DATA: &[DataExport] = &[$(
            DataExport { name: stringify!($name), offset: $offset, bytes: $bytes, value: $value }
        ),*];
    };
}

data! {
    CmKeyObjectType @ 0x000 [8] Value::ObjectType(0);
    ExDesktopObjectType @ 0x068 [8] Value::ObjectType(13);
    ExEventObjectType @ 0x008 [8] Value::ObjectType(1);
    ExSemaphoreObjectType @ 0x010 [8] Value::ObjectType(2);
    ExWindowStationObjectType @ 0x070 [8] Value::ObjectType(14);
    HalDispatchTable @ 0x1100 [0xb8] Value::HalDispatch;
    InitSafeBootMode @ 0x0a0 [4] Value::Number(0);
    IoAdapterObjectType @ 0x018 [8] Value::ObjectType(3);
    IoDeviceObjectType @ 0x020 [8] Value::ObjectType(4);
    IoDriverObjectType @ 0x028 [8] Value::ObjectType(5);
    IoFileObjectType @ 0x030 [8] Value::ObjectType(6);
    KdComPortInUse @ 0x118 [8] Value::Number(0);
    KdDebuggerEnabled @ 0x0a8 [1] Value::Number(0);
    KdDebuggerNotPresent @ 0x0b0 [1] Value::Number(1);
    KeNumberProcessors @ 0x0b8 [1] Value::Setting(|boot| boot.processors.into());
    KiBugCheckData @ 0x11c0 [0x28] Value::Number(0);
    LpcPortObjectType @ 0x060 [8] Value::ObjectType(12);
    MmHighestUserAddress @ 0x0c0 [8] Value::Number(USER_PROBE_ADDRESS - 1);
    MmSectionObjectType @ 0x038 [8] Value::ObjectType(7);
    MmSystemRangeStart @ 0x0c8 [8] Value::Number(engine::windows::IMAGES.base);
    MmUserProbeAddress @ 0x0d0 [8] Value::Number(USER_PROBE_ADDRESS);
    NlsAnsiCodePage @ 0x0d8 [2] Value::Number(1252);
    NlsLeadByteInfo @ 0x120 [8] Value::NoLeadBytes;
    NlsMbCodePageTag @ 0x0e0 [1] Value::Number(0);
    NlsMbOemCodePageTag @ 0x0e8 [1] Value::Number(0);
    NlsOemCodePage @ 0x0f0 [2] Value::Number(437);
    NlsOemLeadByteInfo @ 0x128 [8] Value::NoLeadBytes;
    NtBuildNumber @ 0x0f8 [4] Value::Setting(|boot| 0xF000_0000 | u64::from(boot.version.build));
    NtGlobalFlag @ 0x100 [4] Value::Number(0);
    PsInitialSystemProcess @ 0x108 [8] Value::SystemProcess;
    PsJobType @ 0x058 [8] Value::ObjectType(11);
    PsLoadedModuleList @ 0x1000 [0x10] Value::List;
    PsProcessType @ 0x040 [8] Value::ObjectType(8);
    PsThreadType @ 0x048 [8] Value::ObjectType(9);
    SeExports @ 0x110 [8] Value::Security;
    SeTokenObjectType @ 0x050 [8] Value::ObjectType(10);
}

/// `HAL_DISPATCH` version 4, behind its `Version` word: the routines in order.
const HAL_ROUTINES: [&str; 22] = [
    "HalQuerySystemInformation",
    "HalSetSystemInformation",
    "HalQueryBusSlots",
    "Spare1",
    "HalExamineMBR",
    "HalIoReadPartitionTable",
    "HalIoSetPartitionInformation",
    "HalIoWritePartitionTable",
    "HalReferenceHandlerForBus",
    "HalReferenceBusHandler",
    "HalDereferenceBusHandler",
    "HalInitPnpDriver",
    "HalInitPowerManagement",
    "HalGetDmaAdapter",
    "HalGetInterruptTranslator",
    "HalStartMirroring",
    "HalEndMirroring",
    "HalMirrorPhysicalMemory",
    "HalEndOfBoot",
    "HalMirrorVerify",
    "HalGetCachedAcpiTable",
    "HalSetPciErrorHandlerCallback",
];
const HAL_DISPATCH_VERSION: u64 = 4;

/// Where the service pack's name lies, behind the writable variables.
const SERVICE_PACK: u64 = WRITABLE + 0x800;

/// The service pack's name in the machine, zero-terminated.
#[must_use]
pub const fn service_pack_text() -> u64 {
    base() + SERVICE_PACK
}

/// Where the kernel's own entry of `PsLoadedModuleList` lies, behind that, and the path it names.
const KERNEL_MODULE: u64 = WRITABLE + 0x900;
const KERNEL_MODULE_PATH: u64 = WRITABLE + 0xA00;

/// Where the table of code pages without characters of two bytes lies, behind those: 256 numbers.
const NO_LEAD_BYTES: u64 = WRITABLE + 0xC00;

/// The kernel's own entry of `PsLoadedModuleList`.
pub(crate) const fn kernel_module() -> DriverPtr<KLDR_DATA_TABLE_ENTRY> {
    DriverPtr::new(base() + KERNEL_MODULE)
}

/// The path that it names.
pub(crate) const fn kernel_module_path() -> DriverPtr<u16> {
    DriverPtr::new(base() + KERNEL_MODULE_PATH)
}

/// Bytes set aside for each object type; drivers see them as opaque.
const OBJECT_TYPE_BYTES: u64 = 0x100;

/// The variable of this name; case matters.
#[must_use]
pub fn find(name: &str) -> Option<&'static DataExport> {
    DATA.iter().find(|row| row.name == name)
}

impl DataExport {
    /// Its address.
    #[must_use]
    pub const fn address(&self) -> u64 {
        ldr::exports_base() + OFFSET + self.offset
    }
}

/// The address of a variable dirql has.
///
/// # Panics
/// If it has none of that name: ours to get right.
#[must_use]
pub fn address(name: &str) -> u64 {
    find(name).unwrap_or_else(|| panic!("no variable {name} in exports/data.rs")).address()
}

/// The object type that an exported pointer such as `IoFileObjectType` means, an opaque object in the pseudo-image.
///
/// # Panics
/// If that variable is no pointer to an object type.
#[must_use]
pub fn object_type(name: &str) -> u64 {
    match find(name).map(|row| &row.value) {
        Some(Value::ObjectType(index)) => base() + OBJECT_TYPES + index * OBJECT_TYPE_BYTES,
        _ => panic!("{name} is no object type of exports/data.rs"),
    }
}

/// Where the object of `\Device\PhysicalMemory` is: behind the object types, as opaque as they are.
#[must_use]
pub(crate) const fn physical_memory() -> u64 {
    base() + SECURITY - OBJECT_TYPE_BYTES
}

/// Where tokens lie: behind what `SeExports` points to, as opaque as an object type.
const TOKENS: u64 = SECURITY + 0x800;

/// The places of tokens.
pub(crate) fn tokens() -> impl Iterator<Item = u64> {
    (TOKENS..SECURITY + PAGE).step_by(0x10).map(|offset| base() + offset)
}

/// Where `IoGetFileObjectGenericMapping` says that its mapping lies.
#[must_use]
pub(crate) const fn file_mapping() -> u64 {
    base() + SECURITY + 0x7F0
}

const fn base() -> u64 {
    ldr::exports_base() + OFFSET
}

/// Gives a variable another value, e.g. `PsInitialSystemProcess` once there is one.
///
/// # Panics
/// As [`address`].
pub fn set(cx: &mut Cx<'_>, name: &str, value: u64) {
    let row = find(name).unwrap_or_else(|| panic!("no variable {name} in exports/data.rs"));
    cx.with(|k| {
        let page = row.address() & !(PAGE - 1);
        k.mm.map.protect(k.engine, page, 1, engine::Protection::READ_WRITE);
        store(k.engine, row.address(), value, row.bytes);
        k.mm.map.protect(k.engine, page, 1, protection(page - base()));
    });
}

/// The system stops: `KiBugCheckData` says with which code and parameters.
pub(crate) fn set_bug_check(cx: &mut Cx<'_>, code: u32, parameters: [u64; 4]) {
    let at = address("KiBugCheckData");
    let engine = cx.engine();
    for (index, word) in (0..).zip([u64::from(code)].into_iter().chain(parameters)) {
        store(engine, at + 8 * index, word, 8);
    }
}

/// What drivers may do with the page at `offset`.
pub(crate) fn protection(offset: u64) -> engine::Protection {
    if offset < WRITABLE { engine::Protection::READ } else { engine::Protection::READ_WRITE }
}

/// Fills the variables; their pages are mapped for writing.
pub(crate) fn fill(cx: &mut Cx<'_>) {
    let boot = cx.with(|k| Boot {
        version: Version::of(k.ldr.windows),
        // Routines that know no groups count those of group 0.
        processors: affinity::of_group(k, 0).count_ones(),
    });
    let engine = cx.engine();
    for row in DATA {
        match row.value {
            Value::Number(number) => store(engine, row.address(), number, row.bytes),
            Value::Setting(setting) => store(engine, row.address(), setting(boot), row.bytes),
            // Drivers take what it points to for the type, and that is the same address.
            Value::ObjectType(_) => {
                let object = object_type(row.name);
                store(engine, row.address(), object, 8);
                store(engine, object, object, 8);
            }
            Value::List => {
                store(engine, row.address(), row.address(), 8);
                store(engine, row.address() + 8, row.address(), 8);
            }
            Value::HalDispatch => fill_hal_dispatch(cx, row.address()),
            // A page of variables is zeros but for what is stored on it.
            Value::NoLeadBytes => store(engine, row.address(), base() + NO_LEAD_BYTES, 8),
            Value::Security => store(engine, row.address(), base() + SECURITY, 8),
            Value::SystemProcess => {
                let object = ps::process::system_object(cx).address;
                store(engine, row.address(), object, 8);
            }
        }
    }
    let pack = version::service_pack_text(boot.version);
    let pack: Vec<u8> = pack.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    engine.write_bytes(service_pack_text(), &pack).expect("the variables' pages are mapped");
    let bytes = se_exports::bytes(base() + SECURITY);
    engine.write_bytes(base() + SECURITY, &bytes).expect("the variables' pages are mapped");
    let mapping = se::object::file_mapping();
    engine.write(DriverPtr::new(file_mapping()), mapping).expect("the variables' pages are mapped");
}

fn fill_hal_dispatch(cx: &mut Cx<'_>, table: u64) {
    let engine = cx.engine();
    store(engine, table, HAL_DISPATCH_VERSION, 4);
    for (slot, name) in (1..).zip(HAL_ROUTINES) {
        let thunk = ldr::imports::missing(cx, "hal.dll", &format!("HalDispatchTable->{name}"));
        store(engine, table + 8 * slot, thunk.unwrap_or(0), 8);
    }
}

fn store(engine: engine::Engine, address: u64, value: u64, bytes: u64) {
    let value = value.to_le_bytes();
    let bytes = usize::try_from(bytes.min(8)).unwrap_or(8);
    engine.write_bytes(address, &value[..bytes]).expect("the variables' pages are mapped");
}

const _: () = assert!(Zone::NonPagedPool.window().base > USER_PROBE_ADDRESS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_sorted_aligned_and_do_not_overlap() {
        assert!(DATA.is_sorted_by(|a, b| a.name < b.name));
        let mut places: Vec<_> = DATA.iter().map(|row| (row.offset, row.bytes)).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert!(
            DATA.iter().all(|row| row.offset.is_multiple_of(8) && row.offset + row.bytes <= OBJECT_TYPES)
        );
    }

    #[test]
    fn every_variable_is_one_that_windows_exports() {
        for row in DATA {
            assert!(
                crate::exports::documented::find(row.name).is_some_and(|known| known.data),
                "{}",
                row.name
            );
        }
    }
}

//! Layouts that mingw's headers know only in part, held by the order and types of members on Microsoft's pages: Rust lays
//! out `repr(C)` structures by the same rules as C on x64.
//!
//! Pages: *KUSER_SHARED_DATA structure (ntddk.h)*, *DEVICE_DESCRIPTION structure (wdm.h)*, *PO_FX_DEVICE_V1*, *PO_FX_DEVICE_V2*, *PO_FX_DEVICE_V3*,
//! *PO_FX_COMPONENT_PERF_SET*.
#![allow(non_snake_case, dead_code, reason = "the structures are compared, never made")]

use std::mem::{align_of, offset_of, size_of};

#[repr(C)]
struct SystemTime {
    LowPart: u32,
    High1Time: i32,
    High2Time: i32,
}

#[repr(C)]
struct SharedData {
    TickCountLowDeprecated: u32,
    TickCountMultiplier: u32,
    InterruptTime: SystemTime,
    SystemTime: SystemTime,
    TimeZoneBias: SystemTime,
    ImageNumberLow: u16,
    ImageNumberHigh: u16,
    NtSystemRoot: [u16; 260],
    MaxStackTraceDepth: u32,
    CryptoExponent: u32,
    TimeZoneId: u32,
    LargePageMinimum: u32,
    AitSamplingValue: u32,
    AppCompatFlag: u32,
    RNGSeedVersion: u64,
    GlobalValidationRunlevel: u32,
    TimeZoneBiasStamp: i32,
    NtBuildNumber: u32,
    NtProductType: u32,
    ProductTypeIsValid: u8,
    Reserved0: u8,
    NativeProcessorArchitecture: u16,
    NtMajorVersion: u32,
    NtMinorVersion: u32,
    ProcessorFeatures: [u8; 64],
    Reserved1: u32,
    Reserved3: u32,
    TimeSlip: u32,
    AlternativeArchitecture: u32,
    BootId: u32,
    SystemExpirationDate: i64,
    SuiteMask: u32,
    KdDebuggerEnabled: u8,
    MitigationPolicies: u8,
    CyclesPerYield: u16,
    ActiveConsoleId: u32,
    DismountCount: u32,
    ComPlusPackage: u32,
    LastSystemRITEventTickCount: u32,
    NumberOfPhysicalPages: u32,
    SafeBootMode: u8,
    VirtualizationFlags: u8,
    Reserved12: [u8; 2],
    SharedDataFlags: u32,
    DataFlagsPad: u32,
    TestRetInstruction: u64,
    QpcFrequency: i64,
    SystemCall: u32,
    Reserved2: u32,
    SystemCallPad: [u64; 2],
    TickCountQuad: u64,
    TickCountRest: [u32; 2],
    Cookie: u32,
    CookiePad: u32,
    ConsoleSessionForegroundProcessId: i64,
    TimeUpdateLock: u64,
    BaselineSystemTimeQpc: u64,
    BaselineInterruptTimeQpc: u64,
    QpcSystemTimeIncrement: u64,
    QpcInterruptTimeIncrement: u64,
    QpcSystemTimeIncrementShift: u8,
    QpcInterruptTimeIncrementShift: u8,
    UnparkedProcessorCount: u16,
    EnclaveFeatureMask: [u32; 4],
    TelemetryCoverageRound: u32,
    UserModeGlobalLogger: [u16; 16],
    ImageFileExecutionOptions: u32,
    LangGenerationCount: u32,
    Reserved4: u64,
    InterruptTimeBias: u64,
    QpcBias: u64,
    ActiveProcessorCount: u32,
    ActiveGroupCount: u8,
    Reserved9: u8,
    QpcData: u16,
    TimeZoneBiasEffectiveStart: i64,
    TimeZoneBiasEffectiveEnd: i64,
    XState_EnabledFeatures: u64,
}

#[repr(C)]
struct DeviceDescription {
    Version: u32,
    Master: u8,
    ScatterGather: u8,
    DemandMode: u8,
    AutoInitialize: u8,
    Dma32BitAddresses: u8,
    IgnoreCount: u8,
    Reserved1: u8,
    Dma64BitAddresses: u8,
    BusNumber: u32,
    DmaChannel: u32,
    InterfaceType: u32,
    DmaWidth: u32,
    DmaSpeed: u32,
    MaximumLength: u32,
    DmaPort: u32,
    DmaAddressWidth: u32,
    DmaControllerInstance: u32,
    DmaRequestLine: u32,
    DeviceAddress: u64,
}

/// Its elements are the size of a `PO_FX_COMPONENT_V1`.
#[repr(C)]
struct FxDeviceV1 {
    Version: u32,
    ComponentCount: u32,
    ComponentActiveConditionCallback: u64,
    ComponentIdleConditionCallback: u64,
    ComponentIdleStateCallback: u64,
    DevicePowerRequiredCallback: u64,
    DevicePowerNotRequiredCallback: u64,
    PowerControlCallback: u64,
    DeviceContext: u64,
    Components: [[u64; 4]; 1],
}

#[repr(C)]
struct FxDeviceV2 {
    Version: u32,
    Flags: u64,
    ComponentActiveConditionCallback: u64,
    ComponentIdleConditionCallback: u64,
    ComponentIdleStateCallback: u64,
    DevicePowerRequiredCallback: u64,
    DevicePowerNotRequiredCallback: u64,
    PowerControlCallback: u64,
    DeviceContext: u64,
    ComponentCount: u32,
    Components: [[u64; 7]; 1],
}

#[repr(C)]
struct FxDeviceV3 {
    Version: u32,
    Flags: u64,
    ComponentActiveConditionCallback: u64,
    ComponentIdleConditionCallback: u64,
    ComponentIdleStateCallback: u64,
    DevicePowerRequiredCallback: u64,
    DevicePowerNotRequiredCallback: u64,
    PowerControlCallback: u64,
    DirectedPowerUpCallback: u64,
    DirectedPowerDownCallback: u64,
    DirectedFxTimeoutInSeconds: u32,
    DeviceContext: u64,
    ComponentCount: u32,
    Components: [[u64; 7]; 1],
}

/// The union's members are distinguished by the prefixes of their names.
#[repr(C)]
struct FxPerfSet {
    Name: [u64; 2],
    Flags: u64,
    Unit: u32,
    Type: u32,
    Range_Minimum: u64,
    Range_Maximum: u64,
}

macro_rules! same_places {
    ($ours:ident, $documented:ident: $($member:ident)*) => {
        $(assert_eq!(
            abi::$ours::$member.offset(),
            offset_of!($documented, $member) as u64,
            concat!(stringify!($ours), ".", stringify!($member)),
        );)*
    };
}

#[test]
fn the_shared_page_has_its_members_in_the_documented_order() {
    same_places!(KUSER_SHARED_DATA, SharedData:
        TickCountMultiplier InterruptTime SystemTime TimeZoneBias ImageNumberLow NtSystemRoot MaxStackTraceDepth
        TimeZoneId AitSamplingValue AppCompatFlag RNGSeedVersion GlobalValidationRunlevel TimeZoneBiasStamp
        NtBuildNumber NtProductType ProductTypeIsValid NativeProcessorArchitecture NtMajorVersion NtMinorVersion
        ProcessorFeatures Reserved1 Reserved3 TimeSlip AlternativeArchitecture BootId SystemExpirationDate SuiteMask
        KdDebuggerEnabled MitigationPolicies CyclesPerYield ActiveConsoleId DismountCount ComPlusPackage
        LastSystemRITEventTickCount NumberOfPhysicalPages SafeBootMode VirtualizationFlags SharedDataFlags
        TestRetInstruction QpcFrequency SystemCall TickCountQuad Cookie ConsoleSessionForegroundProcessId
        TimeUpdateLock BaselineSystemTimeQpc BaselineInterruptTimeQpc QpcSystemTimeIncrement
        QpcInterruptTimeIncrement QpcSystemTimeIncrementShift QpcInterruptTimeIncrementShift UnparkedProcessorCount
        EnclaveFeatureMask TelemetryCoverageRound UserModeGlobalLogger ImageFileExecutionOptions LangGenerationCount
        InterruptTimeBias QpcBias ActiveProcessorCount ActiveGroupCount QpcData TimeZoneBiasEffectiveStart
        TimeZoneBiasEffectiveEnd XState_EnabledFeatures);
}

#[test]
fn version_3_of_a_device_description_ends_in_the_devices_address() {
    same_places!(DEVICE_DESCRIPTION, DeviceDescription:
        Version Master ScatterGather DemandMode AutoInitialize Dma32BitAddresses IgnoreCount Reserved1
        Dma64BitAddresses BusNumber DmaChannel InterfaceType DmaWidth DmaSpeed MaximumLength DmaPort DmaAddressWidth
        DmaControllerInstance DmaRequestLine DeviceAddress);
    assert_eq!(size_of::<abi::DEVICE_DESCRIPTION>(), size_of::<DeviceDescription>());
}

#[test]
fn requests_and_device_objects_are_aligned_as_pool_blocks_are() {
    assert_eq!((size_of::<abi::IRP>(), align_of::<abi::IRP>()), (0xd0, 16));
    assert_eq!((size_of::<abi::DEVICE_OBJECT>(), align_of::<abi::DEVICE_OBJECT>()), (0x150, 16));
    assert_eq!(align_of::<abi::SLIST_HEADER>(), 16, "cmpxchg16b faults on less");
}

#[test]
fn an_adapters_routines_fill_their_table_without_a_gap() {
    let table = abi::all_layouts().find(|layout| layout.c_name == "DMA_OPERATIONS").expect("it is listed");
    let routines = &table.fields[1..];
    assert!(routines.iter().zip(1..).all(|(routine, slot)| routine.offset == slot * 8));
    assert_eq!(table.size, 8 * table.fields.len() as u64);
}

#[test]
fn a_device_of_the_power_management_framework_has_its_members_in_the_documented_order() {
    same_places!(PO_FX_DEVICE_V1, FxDeviceV1:
        Version ComponentCount ComponentActiveConditionCallback ComponentIdleConditionCallback ComponentIdleStateCallback
        DevicePowerRequiredCallback DevicePowerNotRequiredCallback PowerControlCallback DeviceContext Components);
    same_places!(PO_FX_DEVICE_V2, FxDeviceV2:
        Version Flags ComponentActiveConditionCallback ComponentIdleConditionCallback ComponentIdleStateCallback
        DevicePowerRequiredCallback DevicePowerNotRequiredCallback PowerControlCallback DeviceContext ComponentCount
        Components);
    same_places!(PO_FX_DEVICE_V3, FxDeviceV3:
        Version Flags ComponentActiveConditionCallback ComponentIdleConditionCallback ComponentIdleStateCallback
        DevicePowerRequiredCallback DevicePowerNotRequiredCallback PowerControlCallback DirectedPowerUpCallback
        DirectedPowerDownCallback DirectedFxTimeoutInSeconds DeviceContext ComponentCount Components);
    same_places!(PO_FX_COMPONENT_PERF_SET, FxPerfSet: Name Flags Unit Type Range_Minimum Range_Maximum);
    assert_eq!(size_of::<abi::PO_FX_DEVICE_V1>(), size_of::<FxDeviceV1>());
    assert_eq!(size_of::<abi::PO_FX_DEVICE_V2>(), size_of::<FxDeviceV2>());
    assert_eq!(size_of::<abi::PO_FX_DEVICE_V3>(), size_of::<FxDeviceV3>());
    assert_eq!(size_of::<abi::PO_FX_COMPONENT_PERF_SET>(), size_of::<FxPerfSet>());
}

//! The page every process and driver may read: time, version, processor features.
//!
//! Page: *KUSER_SHARED_DATA*; `ntddk.h`. At [`KI_USER_SHARED_DATA`] in the kernel. The layout is Windows 10's and 11's;
//! what follows `XState` is not laid out.

use crate::constant::constants;
use crate::field::layouts;

layouts! {
    /// A time another processor may be writing: valid when `High1Time` and `High2Time` agree.
    KSYSTEM_TIME [size 0xc, align 4] {
        0x00 LowPart: u32,
        0x04 High1Time: i32,
        0x08 High2Time: i32,
    }

    /// The shared page.
    KUSER_SHARED_DATA [size 0x720, align 8, mingw_ends_at 0x5f0 "mingw's is Windows 7's; what it lacks is marked"] {
        0x000 TickCountLowDeprecated: u32,
        0x004 TickCountMultiplier: u32,
        0x008 InterruptTime: KSYSTEM_TIME,
        0x014 SystemTime: KSYSTEM_TIME,
        0x020 TimeZoneBias: KSYSTEM_TIME,
        0x02c ImageNumberLow: u16,
        0x02e ImageNumberHigh: u16,
        0x030 NtSystemRoot: [u16; 260],
        0x238 MaxStackTraceDepth: u32,
        0x23c CryptoExponent: u32,
        0x240 TimeZoneId: u32,
        0x244 LargePageMinimum: u32,
        0x248 AitSamplingValue = "": u32,
        0x24c AppCompatFlag = "": u32,
        0x250 RNGSeedVersion = "": u64,
        0x258 GlobalValidationRunlevel = "": u32,
        0x25c TimeZoneBiasStamp = "": i32,
        0x260 NtBuildNumber = "": u32,
        0x264 NtProductType: u32,
        0x268 ProductTypeIsValid: u8,
        0x26a NativeProcessorArchitecture = "": u16,
        0x26c NtMajorVersion: u32,
        0x270 NtMinorVersion: u32,
        0x274 ProcessorFeatures: [u8; 64],
        0x2b4 Reserved1: u32,
        0x2b8 Reserved3: u32,
        0x2bc TimeSlip: u32,
        0x2c0 AlternativeArchitecture: u32,
        0x2c4 BootId = "": u32,
        0x2c8 SystemExpirationDate: i64,
        0x2d0 SuiteMask: u32,
        0x2d4 KdDebuggerEnabled: u8,
        0x2d5 MitigationPolicies = "": u8,
        0x2d6 CyclesPerYield = "": u16,
        0x2d8 ActiveConsoleId: u32,
        0x2dc DismountCount: u32,
        0x2e0 ComPlusPackage: u32,
        0x2e4 LastSystemRITEventTickCount: u32,
        0x2e8 NumberOfPhysicalPages: u32,
        0x2ec SafeBootMode: u8,
        0x2ed VirtualizationFlags = "": u8,
        0x2f0 SharedDataFlags: u32,
        0x2f8 TestRetInstruction: u64,
        0x300 QpcFrequency = "": i64,
        0x308 SystemCall = "": u32,
        0x320 TickCount: KSYSTEM_TIME,
        0x320 TickCountQuad: u64,
        0x330 Cookie: u32,
        0x338 ConsoleSessionForegroundProcessId: i64,
        0x340 TimeUpdateLock = "": u64,
        0x348 BaselineSystemTimeQpc = "": u64,
        0x350 BaselineInterruptTimeQpc = "": u64,
        0x358 QpcSystemTimeIncrement = "": u64,
        0x360 QpcInterruptTimeIncrement = "": u64,
        0x368 QpcSystemTimeIncrementShift = "": u8,
        0x369 QpcInterruptTimeIncrementShift = "": u8,
        0x36a UnparkedProcessorCount = "": u16,
        0x36c EnclaveFeatureMask = "": [u32; 4],
        0x37c TelemetryCoverageRound = "": u32,
        0x380 UserModeGlobalLogger: [u16; 16],
        0x3a0 ImageFileExecutionOptions: u32,
        0x3a4 LangGenerationCount: u32,
        0x3b0 InterruptTimeBias: u64,
        0x3b8 QpcBias = "": u64,
        0x3c0 ActiveProcessorCount: u32,
        0x3c4 ActiveGroupCount = "": u8,
        0x3c6 QpcData = "": u16,
        0x3c8 TimeZoneBiasEffectiveStart = "": i64,
        0x3d0 TimeZoneBiasEffectiveEnd = "": i64,
        0x3d8 XState_EnabledFeatures = "": u64,
        0x3e0 XState_EnabledVolatileFeatures = "": u64,
        0x3e8 XState_Size = "": u32,
    }
}

constants! {
    u64 {
        // Where the kernel sees [`KUSER_SHARED_DATA`].
        KI_USER_SHARED_DATA = 0xffff_f780_0000_0000;
    }
    u32 {
        // `NtProductType`.
        NtProductWinNt = 1;
        NtProductLanManNt = 2;
        NtProductServer = 3;
    }
    u32 {
        // Indices of `ProcessorFeatures`.
        PF_COMPARE_EXCHANGE_DOUBLE = 2;
        PF_MMX_INSTRUCTIONS_AVAILABLE = 3;
        PF_XMMI_INSTRUCTIONS_AVAILABLE = 6;
        PF_RDTSC_INSTRUCTION_AVAILABLE = 8;
        PF_PAE_ENABLED = 9;
        PF_XMMI64_INSTRUCTIONS_AVAILABLE = 10;
        PF_NX_ENABLED = 12;
        PF_SSE3_INSTRUCTIONS_AVAILABLE = 13;
        PF_COMPARE_EXCHANGE128 = 14;
        PF_XSAVE_ENABLED = 17;
    }
}

/*
 * extended.sys: a driver without hardware that uses AVX, x87, MMX and the instructions of x86-64-v3, with and without
 * KeSaveExtendedProcessorState. \\.\DirqlExtended tells each story of Stories below by its name (IOCTL_TELL_STORY of
 * control.h).
 */
#include <ddk/wdm.h>

static ULONG Failed; /* the line of the first check that failed */

/* Goes on: what was saved is restored all the same. */
#define CHECK(Condition)                                                                                               \
    do {                                                                                                               \
        if (Condition) {                                                                                               \
            ChecksHeld++;                                                                                              \
        } else if (Failed == 0) {                                                                                      \
            Failed = __LINE__;                                                                                         \
        }                                                                                                              \
    } while (0)

#define STORIES "extended"
#include "control.h"

#define NOINLINE __attribute__((noinline))
#define AVX __attribute__((noinline, target("avx2,fma")))
#define MASK_X87 1
#define MASK_AVX 4

NTSYSAPI ULONG64 NTAPI RtlGetEnabledExtendedFeatures(ULONG64 Mask);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlExtended");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlExtended");
static KDPC Dpc;
static KTIMER Timer;
static volatile LONG Ran;

/* The sum of 32 products, by AVX. */
AVX static LONG Products(const LONG *Left, const LONG *Right)
{
    LONG Sums[8];
    LONG Sum = 0;

    __asm__ volatile("vpxor %%ymm7, %%ymm7, %%ymm7\n\t"
                     "mov $4, %%ecx\n"
                     "1: vmovdqu (%0), %%ymm1\n\t"
                     "vpmulld (%1), %%ymm1, %%ymm2\n\t"
                     "vpaddd %%ymm2, %%ymm7, %%ymm7\n\t"
                     "add $32, %0\n\t"
                     "add $32, %1\n\t"
                     "dec %%ecx\n\t"
                     "jnz 1b\n\t"
                     "vmovdqu %%ymm7, (%2)\n\t"
                     "vzeroupper"
                     : "+r"(Left), "+r"(Right)
                     : "r"(Sums)
                     : "rcx", "xmm1", "xmm2", "xmm7", "memory", "cc");
    for (int Index = 0; Index < 8; Index++) {
        Sum += Sums[Index];
    }
    return Sum;
}

/* Fills the upper halves of ymm0 and ymm15 with a byte and waits until Ran is set; answers whether they held. */
AVX static BOOLEAN HoldsUntilRan(UCHAR Byte)
{
    UCHAR Before[32], Low[32], High[32];

    for (int Index = 0; Index < 32; Index++) {
        Before[Index] = (UCHAR)(Byte + Index);
    }
    __asm__ volatile("vmovdqu (%0), %%ymm0\n\t"
                     "vmovdqu (%0), %%ymm15\n"
                     "1: cmpl $0, %3\n\t"
                     "je 1b\n\t"
                     "vmovdqu %%ymm0, (%1)\n\t"
                     "vmovdqu %%ymm15, (%2)\n\t"
                     "vzeroupper"
                     :
                     : "r"(Before), "r"(Low), "r"(High), "m"(Ran)
                     : "xmm0", "xmm15", "memory", "cc");
    return RtlCompareMemory(Before, Low, 32) == 32 && RtlCompareMemory(Before, High, 32) == 32;
}

NOINLINE static ULONG Fifth(ULONG Number)
{
    ULONG Answer;

    /* Number / 5 on the x87 stack. */
    __asm__ volatile("fninit\n\tfildl %1\n\tfidivl %2\n\tfistpl %0" : "=m"(Answer) : "m"(Number), "m"((ULONG){5}));
    return Answer;
}

static LONG Expected(const LONG *Left, const LONG *Right)
{
    volatile LONG Sum = 0;

    for (int Index = 0; Index < 32; Index++) {
        Sum += Left[Index] * Right[Index];
    }
    return Sum;
}

static LONG Left[32], Right[32];

static VOID Fill(VOID)
{
    for (int Index = 0; Index < 32; Index++) {
        Left[Index] = Index * 77 - 100;
        Right[Index] = 1000 - Index * Index;
    }
}

/* ---- stories ---------------------------------------------------------------------------------------------------- */

static ULONG SavedAvx(VOID)
{
    XSTATE_SAVE Save, Inner;

    Fill();
    CHECK(RtlGetEnabledExtendedFeatures(~0ULL) == 7);
    CHECK(ExIsProcessorFeaturePresent(17)); /* PF_XSAVE_ENABLED */
    CHECK(KeSaveExtendedProcessorState(MASK_AVX, &Save) == STATUS_SUCCESS);
    CHECK(Products(Left, Right) == Expected(Left, Right));
    CHECK(KeSaveExtendedProcessorState(MASK_AVX, &Inner) == STATUS_SUCCESS);
    CHECK(Products(Right, Right) == Expected(Right, Right));
    KeRestoreExtendedProcessorState(&Inner);
    CHECK(Products(Left, Left) == Expected(Left, Left));
    KeRestoreExtendedProcessorState(&Save);
    return Failed;
}

static VOID NTAPI DpcThatSaves(PKDPC Object, PVOID Context, PVOID First, PVOID Second)
{
    XSTATE_SAVE Save;

    UNREFERENCED_PARAMETER(Object);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    CHECK(KeSaveExtendedProcessorState(MASK_AVX, &Save) == STATUS_SUCCESS);
    CHECK(Products(Left, Right) == Expected(Left, Right));
    KeRestoreExtendedProcessorState(&Save);
    Ran = 1;
}

/* A timer's DPC comes in between and uses the same registers. */
static ULONG AcrossDpc(VOID)
{
    XSTATE_SAVE Save;
    LARGE_INTEGER Due = {.QuadPart = -10};

    Fill();
    Ran = 0;
    KeInitializeDpc(&Dpc, DpcThatSaves, NULL);
    KeInitializeTimer(&Timer);
    CHECK(KeSaveExtendedProcessorState(MASK_AVX, &Save) == STATUS_SUCCESS);
    KeSetTimer(&Timer, Due, &Dpc);
    CHECK(HoldsUntilRan(0x40));
    KeRestoreExtendedProcessorState(&Save);
    return Failed;
}

static ULONG SavedX87(VOID)
{
    XSTATE_SAVE Save;
    ULONG64 Enabled = RtlGetEnabledExtendedFeatures(~0ULL);

    CHECK(Enabled == 0 || (Enabled & 3) == 3); /* 0 where the processor has no XSAVE */
    CHECK(KeSaveExtendedProcessorState(MASK_X87, &Save) == STATUS_SUCCESS);
    CHECK(Fifth(1000) == 200);
    CHECK(Fifth(35) == 7);
    KeRestoreExtendedProcessorState(&Save);
    return Failed;
}

static ULONG64 Leading(ULONG64 Value)
{
    __asm__("lzcnt %1, %0" : "=r"(Value) : "r"(Value) : "cc");
    return Value;
}

static ULONG64 Trailing(ULONG64 Value)
{
    __asm__("tzcnt %1, %0" : "=r"(Value) : "m"(Value) : "cc");
    return Value;
}

/* Lzcnt is bsr to a processor without it, and tzcnt bsf. */
static ULONG CountsOfV2(VOID)
{
    CHECK(Leading(0x10) == 4);
    CHECK(Leading(1ULL << 40) == 40);
    CHECK(Trailing(0x30) == 4);
    CHECK(RtlGetEnabledExtendedFeatures(MASK_AVX) == 0);
    CHECK(!ExIsProcessorFeaturePresent(17));
    return Failed;
}

static ULONG CountsOfV3(VOID)
{
    ULONG64 Wide = 0x1122334455667788;
    ULONG64 Swapped, Bits;
    ULONG Low, High;

    CHECK(Leading(0x10) == 59);
    CHECK(Leading(0) == 64);
    CHECK(Trailing(0) == 64);
    __asm__("movbe %1, %0" : "=r"(Swapped) : "m"(Wide));
    CHECK(Swapped == 0x8877665544332211);
    __asm__("pext %2, %1, %0" : "=r"(Bits) : "r"(Wide), "r"(0xFF00ULL));
    CHECK(Bits == 0x77);
    __asm__("xgetbv" : "=a"(Low), "=d"(High) : "c"(0));
    CHECK(Low == 7 && High == 0);
    return Failed;
}

/* ---- bugs ------------------------------------------------------------------------------------------------------- */

static VOID NTAPI DpcThatDoesNotSave(PKDPC Object, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Object);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    CHECK(Products(Left, Right) == 0);
}

static VOID UnsavedAvx(VOID)
{
    CHECK(Products(Left, Right) == 0);
}

/* The thread that it interrupts has saved. */
static VOID UnsavedInDpc(VOID)
{
    XSTATE_SAVE Save;

    KeInitializeDpc(&Dpc, DpcThatDoesNotSave, NULL);
    KeSaveExtendedProcessorState(MASK_AVX, &Save);
    CHECK(Products(Left, Right) == 0);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeRestoreExtendedProcessorState(&Save);
}

static VOID UnsavedX87(VOID)
{
    CHECK(Fifth(10) == 2);
}

static VOID UnsavedMmx(VOID)
{
    __asm__ volatile("movd %0, %%mm3\n\temms" : : "r"(1) : "mm3");
}

static VOID UsedAfterRestore(VOID)
{
    XSTATE_SAVE Save;

    KeSaveExtendedProcessorState(MASK_AVX, &Save);
    CHECK(Products(Left, Right) == 0);
    KeRestoreExtendedProcessorState(&Save);
    CHECK(Products(Left, Right) == 0);
}

static VOID NeverRestored(VOID)
{
    static XSTATE_SAVE Save;

    KeSaveExtendedProcessorState(MASK_X87, &Save);
}

static VOID RestoredOutOfOrder(VOID)
{
    XSTATE_SAVE Outer, Inner;

    KeSaveExtendedProcessorState(MASK_X87, &Outer);
    KeSaveExtendedProcessorState(MASK_X87, &Inner);
    KeRestoreExtendedProcessorState(&Outer);
}

static VOID SavedWhatIsNotEnabled(VOID)
{
    XSTATE_SAVE Save;

    KeSaveExtendedProcessorState(0xE0, &Save); /* XSTATE_MASK_AVX512 */
}

static VOID SavedOtherRegisters(VOID)
{
    XSTATE_SAVE Save;

    KeSaveExtendedProcessorState(MASK_X87, &Save);
    CHECK(Products(Left, Right) == 0);
}

static VOID RestoredAtOtherLevel(VOID)
{
    XSTATE_SAVE Save;
    KIRQL Irql;

    KeSaveExtendedProcessorState(MASK_X87, &Save);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    KeRestoreExtendedProcessorState(&Save);
}

/* ---- the driver ------------------------------------------------------------------------------------------------- */

static const STORY Stories[] = {
    STORY(SavedAvx), STORY(AcrossDpc), STORY(SavedX87), STORY(CountsOfV2), STORY(CountsOfV3),
    /* What ends the run. */
    BUG(UnsavedAvx), BUG(UnsavedInDpc), BUG(UnsavedX87), BUG(UnsavedMmx), BUG(UsedAfterRestore), BUG(NeverRestored),
    BUG(RestoredOutOfOrder), BUG(SavedWhatIsNotEnabled), BUG(SavedOtherRegisters), BUG(RestoredAtOtherLevel),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Failed = 0;
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

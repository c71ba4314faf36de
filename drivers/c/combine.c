/*
 * combine.sys: a Plug and Play function driver for the card `bench,ram` that shows what write-combined device memory means. It has the registers (BAR0)
 * uncached, as every driver has, and for each request once more, and the card's memory (BAR2), write-combined. Each request says whether the driver is
 * careful:
 *   IOCTL_COMBINE_ORDER stores a frame to the card's memory and then rings the doorbell, which is combined too: the card may have the doorbell
 *   first, unless a fence is between. It tells what the card sent back.
 *   IOCTL_COMBINE_FIFO stores three words to one register that is combined: the card may have one of them, unless a barrier is between. It tells
 *   how many words the card has, and the first.
 *   IOCTL_COMBINE_FRAME is IOCTL_COMBINE_ORDER with an uncached doorbell: right in either way, because an uncached access empties the buffers.
 *   IOCTL_COMBINE_OTHER stores the frame on one processor and rings the uncached doorbell on another: right under a spin lock, and not by a flag.
 *   IOCTL_COMBINE_KIND maps the registers in the way of this number and tells how many of two words stored to the FIFO the card has.
 *   IOCTL_COMBINE_FENCE does what this number stands for between two such stores, and tells the same: 2 if that empties the buffers.
 *   IOCTL_COMBINE_POLL rings the combined doorbell and waits in a loop, without a fence, for what the card sends.
 *   IOCTL_COMBINE_WRONG stores where, or as wide as, the card has no register: of one byte, unaligned, across the end of the mapping, behind it;
 *   from 16 on the same, write-combined.
 */
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "function.h"
#include "bus_master.h"

DRIVER_INITIALIZE DriverEntry;

NTHALAPI ULONG NTAPI HalGetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
typedef PVOID (NTAPI *MAP_EX)(PHYSICAL_ADDRESS PhysicalAddress, SIZE_T NumberOfBytes, ULONG Protect);
NTKERNELAPI KAFFINITY NTAPI KeSetSystemAffinityThreadEx(KAFFINITY Affinity);
NTKERNELAPI VOID NTAPI KeRevertToUserAffinityThreadEx(KAFFINITY Affinity);

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlCombine");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCombine");

#define IOCTL_COMBINE_ORDER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_FIFO CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_FRAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE22, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_OTHER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE23, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_KIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE24, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_FENCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE25, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_POLL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE26, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COMBINE_WRONG CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE27, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PCI_CONFIGURATION 4 /* BUS_DATA_TYPE */

#define BENCH_IDENTIFICATION 0x00
#define BENCH_SOURCES 0x04
#define BENCH_FIFO 0x24
#define BENCH_FIFO_STATUS 0x28
#define BENCH_DMA_ADDRESS_LOW 0x30
#define BENCH_DMA_ADDRESS_HIGH 0x34
#define BENCH_DMA_LENGTH 0x38
#define BENCH_DMA_OFFSET 0x3C
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_STATUS 0x44
#define BENCH_DMA_DELAY 0x4C
#define DMA_START 1
#define DMA_TO_MEMORY 2

#define FRAME_OFFSET 0x100
#define OLD 0x0D0D0D0D
#define NEW 0x4E4E4E4E

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    SHARED_PAGE Page;
    volatile ULONG *Combined; /* BAR0, write-combined */
    volatile ULONG *Frame;    /* BAR2, write-combined */
    KSPIN_LOCK Lock;
    KEVENT Rung;
    BOOLEAN Careful;
    volatile BOOLEAN Stored;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

/* As the WDK's headers have it for x64. */
#define KeMemoryBarrier() __asm__ __volatile__("lock orl $0, (%%rsp)" ::: "memory", "cc")
#define SFENCE() __asm__ __volatile__("sfence" ::: "memory")
#define COMPILER() __asm__ __volatile__("" ::: "memory")

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE;
}

/* The card's memory, by configuration space. */
static PHYSICAL_ADDRESS CardMemory(VOID)
{
    PHYSICAL_ADDRESS At = {.QuadPart = 0};
    PCI_COMMON_CONFIG Config;

    for (ULONG Slot = 0; Slot < 32 && At.QuadPart == 0; Slot++) {
        if (HalGetBusData(PCI_CONFIGURATION, 0, Slot, &Config, sizeof(Config)) == sizeof(Config) && Config.VendorID == 0x1234 &&
            Config.DeviceID == 0xBE2C) {
            At.QuadPart = Config.u.type0.BaseAddresses[2] & ~0xFull;
        }
    }
    return At;
}

/* The card is to send the frame. It does when the doorbell has come. */
static VOID Prepare(PDEVICE_EXTENSION Extension)
{
    PFUNCTION Function = &Extension->Function;

    Extension->Page.Words[0] = Extension->Page.Words[1] = 0;
    Extension->Frame[0] = Extension->Frame[1] = OLD;
    Write(Function, BENCH_DMA_ADDRESS_LOW, Extension->Page.Address.LowPart);
    Write(Function, BENCH_DMA_ADDRESS_HIGH, (ULONG)Extension->Page.Address.HighPart);
    Write(Function, BENCH_DMA_LENGTH, 2 * sizeof(ULONG));
    Write(Function, BENCH_DMA_OFFSET, FRAME_OFFSET);
    Write(Function, BENCH_DMA_DELAY, 0);
}

static VOID Answer(PDEVICE_EXTENSION Extension, PULONG Output)
{
    Read(&Extension->Function, BENCH_DMA_STATUS); /* What was combined has arrived with this at the latest. */
    Output[0] = Extension->Page.Words[0];
    Output[1] = Extension->Page.Words[1];
}

static VOID Order(PDEVICE_EXTENSION Extension, BOOLEAN Careful, PULONG Output)
{
    Prepare(Extension);
    Extension->Frame[0] = NEW;
    Extension->Frame[1] = NEW;
    if (Careful) {
        SFENCE();
    }
    Extension->Combined[BENCH_DMA_COMMAND / sizeof(ULONG)] = DMA_START | DMA_TO_MEMORY;
    Answer(Extension, Output);
}

static VOID Frame(PDEVICE_EXTENSION Extension, BOOLEAN Careful, PULONG Output)
{
    Prepare(Extension);
    Extension->Frame[0] = NEW;
    Extension->Frame[1] = NEW;
    if (Careful) {
        SFENCE();
    }
    Write(&Extension->Function, BENCH_DMA_COMMAND, DMA_START | DMA_TO_MEMORY);
    Answer(Extension, Output);
}

/* Nothing empties the buffers while the driver waits for the card but what interrupts it. */
static VOID Poll(PDEVICE_EXTENSION Extension, PULONG Output)
{
    Prepare(Extension);
    Extension->Frame[0] = NEW;
    Extension->Frame[1] = NEW;
    SFENCE();
    Extension->Combined[BENCH_DMA_COMMAND / sizeof(ULONG)] = DMA_START | DMA_TO_MEMORY;
    while (Extension->Page.Words[1] == 0) {
        YieldProcessor();
    }
    Answer(Extension, Output);
}

static VOID Empty(PFUNCTION Function)
{
    while ((Read(Function, BENCH_FIFO_STATUS) & 0xFF) != 0) {
        Read(Function, BENCH_FIFO);
    }
}

static VOID Fifo(PDEVICE_EXTENSION Extension, BOOLEAN Careful, PULONG Output)
{
    PFUNCTION Function = &Extension->Function;

    for (ULONG Word = 1; Word <= 3; Word++) {
        Extension->Combined[BENCH_FIFO / sizeof(ULONG)] = Word;
        if (Careful) {
            KeMemoryBarrier();
        }
    }
    Output[0] = Read(Function, BENCH_FIFO_STATUS) & 0xFF;
    Output[1] = Read(Function, BENCH_FIFO);
    Empty(Function);
}

/* On the second processor. */
static VOID NTAPI Ring(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    KIRQL Old;

    KeSetSystemAffinityThreadEx(2);
    for (BOOLEAN Stored = FALSE; !Stored;) {
        if (Extension->Careful) {
            KeAcquireSpinLock(&Extension->Lock, &Old);
            Stored = Extension->Stored;
            KeReleaseSpinLock(&Extension->Lock, Old);
        } else {
            Stored = Extension->Stored;
        }
        YieldProcessor();
    }
    Write(&Extension->Function, BENCH_DMA_COMMAND, DMA_START | DMA_TO_MEMORY);
    Read(&Extension->Function, BENCH_DMA_STATUS);
    KeSetEvent(&Extension->Rung, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID Other(PDEVICE_EXTENSION Extension, BOOLEAN Careful, PULONG Output)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    PVOID Thread;
    HANDLE Handle;
    KIRQL Old;

    Prepare(Extension);
    KeMemoryBarrier();
    Extension->Careful = Careful;
    Extension->Stored = FALSE;
    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Ring, Extension))) {
        ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Thread, NULL);
        ZwClose(Handle);
        if (Careful) {
            KeAcquireSpinLock(&Extension->Lock, &Old);
        }
        Extension->Frame[0] = NEW;
        Extension->Frame[1] = NEW;
        Extension->Stored = TRUE;
        if (Careful) {
            KeReleaseSpinLock(&Extension->Lock, Old);
        }
        KeWaitForSingleObject(&Extension->Rung, Executive, KernelMode, FALSE, NULL);
        KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(Thread);
    }
    Output[0] = Extension->Page.Words[0];
    Output[1] = Extension->Page.Words[1];
    KeRevertToUserAffinityThreadEx(Before);
}

static VOID StoreTwice(volatile ULONG *Registers)
{
    Registers[BENCH_FIFO / sizeof(ULONG)] = 1;
    COMPILER();
    Registers[BENCH_FIFO / sizeof(ULONG)] = 2;
}

static VOID ByIoSpace(PHYSICAL_ADDRESS At, MEMORY_CACHING_TYPE Kind)
{
    PVOID Registers = MmMapIoSpace(At, PAGE_SIZE, Kind);

    if (Registers != NULL) {
        StoreTwice(Registers);
        MmUnmapIoSpace(Registers, PAGE_SIZE);
    }
}

static VOID ByProtection(PHYSICAL_ADDRESS At, ULONG Protection)
{
    PVOID Registers = ((MAP_EX)Routine(L"MmMapIoSpaceEx"))(At, PAGE_SIZE, Protection);

    if (Registers != NULL) {
        StoreTwice(Registers);
        MmUnmapIoSpace(Registers, PAGE_SIZE);
    }
}

static VOID ByMdl(PFUNCTION Function, MEMORY_CACHING_TYPE Kind)
{
    PMDL Mdl = IoAllocateMdl(Function->Registers, Function->Length, FALSE, FALSE, NULL);
    PVOID Registers;

    if (Mdl == NULL) {
        return;
    }
    MmBuildMdlForNonPagedPool(Mdl);
    Registers = MmMapLockedPagesSpecifyCache(Mdl, UserMode, Kind, NULL, FALSE, NormalPagePriority);
    if (Registers != NULL) {
        StoreTwice(Registers);
        MmUnmapLockedPages(Registers, Mdl);
    }
    IoFreeMdl(Mdl);
}

static VOID ByView(PHYSICAL_ADDRESS At, ULONG Protection)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\PhysicalMemory");
    OBJECT_ATTRIBUTES Attributes;
    LARGE_INTEGER Offset = At;
    SIZE_T Bytes = PAGE_SIZE;
    PVOID Base = NULL;
    HANDLE Section;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenSection(&Section, SECTION_ALL_ACCESS, &Attributes))) {
        return;
    }
    if (NT_SUCCESS(ZwMapViewOfSection(Section, ZwCurrentProcess(), &Base, 0, PAGE_SIZE, &Offset, &Bytes, ViewUnmap, 0, Protection))) {
        StoreTwice((volatile ULONG *)((PUCHAR)Base + (At.QuadPart - Offset.QuadPart)));
        ZwUnmapViewOfSection(ZwCurrentProcess(), Base);
    }
    ZwClose(Section);
}

static VOID Kind(PDEVICE_EXTENSION Extension, ULONG Way, PULONG Output)
{
    PFUNCTION Function = &Extension->Function;
    PHYSICAL_ADDRESS At = MmGetPhysicalAddress(Function->Registers);

    switch (Way) {
    case 0:
    case 1:
    case 2:
        ByIoSpace(At, (MEMORY_CACHING_TYPE)Way); /* MmNonCached, MmCached, MmWriteCombined */
        break;
    case 3:
        ByProtection(At, PAGE_READWRITE | PAGE_NOCACHE);
        break;
    case 4:
        ByProtection(At, PAGE_READWRITE | PAGE_WRITECOMBINE);
        break;
    case 5:
        ByMdl(Function, MmNonCached);
        break;
    case 6:
        ByMdl(Function, MmWriteCombined);
        break;
    case 7:
        ByView(At, PAGE_READWRITE | PAGE_NOCACHE);
        break;
    case 8:
        ByView(At, PAGE_READWRITE | PAGE_WRITECOMBINE);
        break;
    }
    Output[0] = Read(Function, BENCH_FIFO_STATUS) & 0xFF;
    Empty(Function);
}

/* KUSER_SHARED_DATA.InterruptTime, low part, in units of 100 ns. */
#define INTERRUPT_TIME (*(volatile ULONG *)0xFFFFF78000000008ull)

static VOID Between(PDEVICE_EXTENSION Extension, ULONG Way)
{
    PFUNCTION Function = &Extension->Function;
    static volatile LONG Word;
    static volatile UCHAR Bytes[16];
    static void *(*volatile Fill)(void *, int, SIZE_T) = memset;
    ULONG Number = 0, Unused = 0;
    KIRQL Old;

    switch (Way) {
    case 0:
        Word = 1;
        break;
    case 1:
        __asm__ __volatile__("lfence" ::: "memory");
        break;
    case 2:
        Fill((PVOID)Bytes, 0, sizeof(Bytes));
        break;
    case 3:
        KeRaiseIrql(DISPATCH_LEVEL, &Old);
        KeLowerIrql(Old);
        break;
    case 4:
        Extension->Combined[BENCH_SOURCES / sizeof(ULONG)] = 0; /* read only */
        break;
    case 10:
        SFENCE();
        break;
    case 11:
        __asm__ __volatile__("mfence" ::: "memory");
        break;
    case 12:
        InterlockedIncrement(&Word);
        break;
    case 13:
        InterlockedExchange(&Word, 3);
        break;
    case 14:
        __asm__ __volatile__("cpuid" : "+a"(Number), "+c"(Unused) : : "ebx", "edx", "memory");
        break;
    case 15:
        __inbyte(0x80);
        break;
    case 16:
        Read(Function, BENCH_IDENTIFICATION);
        break;
    case 17:
        *(volatile ULONG *)(Function->Registers + BENCH_SOURCES) = 0;
        break;
    case 18:
        Number = Extension->Combined[BENCH_IDENTIFICATION / sizeof(ULONG)];
        break;
    case 19:
        KeAcquireSpinLock(&Extension->Lock, &Old);
        KeReleaseSpinLock(&Extension->Lock, Old);
        break;
    case 20:
        KeSetEvent(&Extension->Rung, IO_NO_INCREMENT, FALSE);
        break;
    case 21: /* The clock ticks. */
        Number = INTERRUPT_TIME;
        while (INTERRUPT_TIME - Number < 300000) {
            Word++;
        }
        break;
    case 22:
        InterlockedExchange((volatile LONG *)&Extension->Combined[BENCH_SOURCES / sizeof(ULONG)], 0);
        break;
    }
}

static VOID Fence(PDEVICE_EXTENSION Extension, ULONG Way, PULONG Output)
{
    PFUNCTION Function = &Extension->Function;

    Extension->Combined[BENCH_FIFO / sizeof(ULONG)] = 1;
    Between(Extension, Way);
    Extension->Combined[BENCH_FIFO / sizeof(ULONG)] = 2;
    Output[0] = Read(Function, BENCH_FIFO_STATUS) & 0xFF;
    Empty(Function);
    KeClearEvent(&Extension->Rung);
}

static __attribute__((noinline)) VOID Wrong(PDEVICE_EXTENSION Extension, ULONG Way)
{
    volatile UCHAR *Registers = Way & 16 ? (volatile UCHAR *)Extension->Combined : Extension->Function.Registers;
    ULONG Length = Extension->Function.Length;

    switch (Way & 15) {
    case 0:
        Registers[BENCH_FIFO] = 1;
        break;
    case 1:
        *(volatile ULONG *)(Registers + BENCH_FIFO + 2) = 1;
        break;
    case 2:
        *(volatile ULONG *)(Registers + Length - 2) = 1;
        break;
    case 3:
        *(volatile ULONG *)(Registers + Length) = 1;
        break;
    }
    SFENCE();
}

static NTSTATUS Perform(PDEVICE_EXTENSION Extension, ULONG Code, PULONG Output)
{
    ULONG Asked = Output[0];

    Output[0] = Output[1] = 0;
    switch (Code) {
    case IOCTL_COMBINE_ORDER:
        Order(Extension, Asked != 0, Output);
        break;
    case IOCTL_COMBINE_FIFO:
        Fifo(Extension, Asked != 0, Output);
        break;
    case IOCTL_COMBINE_FRAME:
        Frame(Extension, Asked != 0, Output);
        break;
    case IOCTL_COMBINE_OTHER:
        Other(Extension, Asked != 0, Output);
        break;
    case IOCTL_COMBINE_KIND:
        Kind(Extension, Asked, Output);
        break;
    case IOCTL_COMBINE_FENCE:
        Fence(Extension, Asked, Output);
        break;
    case IOCTL_COMBINE_POLL:
        Poll(Extension, Output);
        break;
    case IOCTL_COMBINE_WRONG:
        Wrong(Extension, Asked);
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PHYSICAL_ADDRESS Memory;
    PUCHAR Frame;
    NTSTATUS Status;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG) || Extension->Page.Adapter == NULL) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Memory = CardMemory();
    Extension->Combined = MmMapIoSpace(MmGetPhysicalAddress(Extension->Function.Registers), Extension->Function.Length, MmWriteCombined);
    Frame = MmMapIoSpace(Memory, PAGE_SIZE, MmWriteCombined);
    Status = STATUS_INSUFFICIENT_RESOURCES;
    if (Extension->Combined != NULL && Frame != NULL) {
        Extension->Frame = (volatile ULONG *)(Frame + FRAME_OFFSET);
        Status = Perform(Extension, Stack->Parameters.DeviceIoControl.IoControlCode, Irp->AssociatedIrp.SystemBuffer);
    }
    if (Frame != NULL) {
        MmUnmapIoSpace(Frame, PAGE_SIZE);
    }
    if (Extension->Combined != NULL) {
        MmUnmapIoSpace((PVOID)Extension->Combined, Extension->Function.Length);
    }
    return Complete(Irp, Status, NT_SUCCESS(Status) ? 2 * sizeof(ULONG) : 0);
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeSpinLock(&Extension->Lock);
    KeInitializeEvent(&Extension->Rung, SynchronizationEvent, FALSE);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    FreeSharedPage(&Extension->Page);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = MakeSharedPage(&Extension->Function, &Extension->Page);

    return NT_SUCCESS(Status) ? Connect(&Extension->Function) : Status;
}

/* Each request programs the card anew. */
static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(On);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Present);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}

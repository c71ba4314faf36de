/*
 * touches.sys: memory touched where it must not be, one way for each control code, so that a test can see each one caught at
 * its instruction. \\.\DirqlTouches, CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB00 + N, METHOD_BUFFERED or, where the application's
 * own memory is meant, METHOD_NEITHER or METHOD_OUT_DIRECT, FILE_ANY_ACCESS), N being the index into Touches below. Code 0xB00 is sound.
 *
 * Never load it on a machine you care for.
 */
#include <ddk/wdm.h>

#include "../control.h"

#define TOUCHES_TAG 0x63756F54u /* "Touc" in pool listings */
#define FIRST_FUNCTION 0xB00
#define INIT_CODE __attribute__((section("INIT")))
#define PAGE_CODE __attribute__((section("PAGE"), noinline))
#define NOINLINE __attribute__((noinline))
#define PAGE_DATA __attribute__((section("PAGEDATA")))

typedef struct REQUEST {
    PDEVICE_OBJECT Device;
    PVOID Input; /* a copy in system memory, or the application's own address */
    ULONG InputLength;
    PVOID Output;
    ULONG OutputLength;
    ULONG_PTR Information;
    PMDL Mdl; /* for METHOD_IN_DIRECT and METHOD_OUT_DIRECT, of the output */
} REQUEST;

typedef NTSTATUS (*TOUCH)(REQUEST *Request);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlTouches");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlTouches");
static volatile ULONG Zero; /* volatile, so that the compiler cannot see through the bugs */
static volatile ULONG Sink;
static PAGE_DATA volatile ULONG PagedCounter = 1;

/* An address that the compiler knows nothing of. */
static ULONG_PTR Unknown(PVOID Block)
{
    return (ULONG_PTR)Block + Zero;
}

static PVOID Allocate(POOL_TYPE Type, SIZE_T Bytes)
{
    PVOID Block = ExAllocatePoolWithTag(Type, Bytes, TOUCHES_TAG);

    if (Block == NULL) {
        KeBugCheckEx(0xDEADDEAD, Bytes, 0, 0, 0);
    }
    return Block;
}

static VOID Free(PVOID Block)
{
    ExFreePoolWithTag(Block, TOUCHES_TAG);
}

/* ---- pool ------------------------------------------------------------------------------------------------------- */

/* 1: reads the byte behind its block. */
static NTSTATUS ReadBehind(REQUEST *Request)
{
    PUCHAR Block = Allocate(NonPagedPool, 45);

    UNREFERENCED_PARAMETER(Request);
    Sink = *(volatile UCHAR *)(Unknown(Block) + 45);
    Free(Block);
    return STATUS_SUCCESS;
}

/* 2: writes the byte behind its block, where the next one's begins far away. */
static NTSTATUS WriteBehind(REQUEST *Request)
{
    PUCHAR Block = Allocate(NonPagedPool, 45);

    UNREFERENCED_PARAMETER(Request);
    *(volatile UCHAR *)(Unknown(Block) + 45) = 1;
    Free(Block);
    return STATUS_SUCCESS;
}

/* 3: reads the word before its block. */
static NTSTATUS ReadBefore(REQUEST *Request)
{
    PUCHAR Block = Allocate(PagedPool, 64);

    UNREFERENCED_PARAMETER(Request);
    Sink = *(volatile USHORT *)(Unknown(Block) - 2);
    Free(Block);
    return STATUS_SUCCESS;
}

/* 4: reads a block it has freed. */
static NTSTATUS ReadFreed(REQUEST *Request)
{
    PUCHAR Block = Allocate(NonPagedPool, 64);

    UNREFERENCED_PARAMETER(Request);
    Free(Block);
    Sink = *(volatile ULONG *)(Unknown(Block) + 60);
    return STATUS_SUCCESS;
}

/* 5: writes to a large block behind its end, before its page's. */
static NTSTATUS WriteBehindLarge(REQUEST *Request)
{
    PUCHAR Block = Allocate(NonPagedPool, 5000);

    UNREFERENCED_PARAMETER(Request);
    *(volatile ULONGLONG *)(Unknown(Block) + 4996) = 0;
    Free(Block);
    return STATUS_SUCCESS;
}

/* 6: reads an entry it has given back to its lookaside list. */
static NTSTATUS ReadKept(REQUEST *Request)
{
    static NPAGED_LOOKASIDE_LIST List;
    PVOID Entry;

    UNREFERENCED_PARAMETER(Request);
    ExInitializeNPagedLookasideList(&List, NULL, NULL, 0, 128, TOUCHES_TAG, 0);
    Entry = ExAllocateFromNPagedLookasideList(&List);
    if (Entry == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExFreeToNPagedLookasideList(&List, Entry);
    Sink = *(volatile ULONG *)(Unknown(Entry) + 32);
    return STATUS_SUCCESS;
}

/* 7: has the kernel copy from a block it has freed. */
static NTSTATUS CopyFreed(REQUEST *Request)
{
    static UCHAR Copy[16];
    PUCHAR Block = Allocate(NonPagedPool, 64);

    UNREFERENCED_PARAMETER(Request);
    Free(Block);
    RtlMoveMemory(Copy, (PVOID)Unknown(Block), sizeof(Copy) + Zero);
    return STATUS_SUCCESS;
}

/* 8: has the kernel compare more than its block. */
static NTSTATUS CompareBehind(REQUEST *Request)
{
    PUCHAR Block = Allocate(NonPagedPool, 45);

    UNREFERENCED_PARAMETER(Request);
    RtlZeroMemory(Block, 45);
    Sink = (ULONG)RtlCompareMemory((PVOID)Unknown(Block), Block, 48);
    Free(Block);
    return STATUS_SUCCESS;
}

/* ---- where the input says --------------------------------------------------------------------------------------- */

/* 9: writes to an address that it has from outside. */
static NTSTATUS WriteWild(REQUEST *Request)
{
    if (Request->InputLength < sizeof(ULONG_PTR)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    **(volatile ULONG **)Request->Input = 0x5555AAAA;
    return STATUS_SUCCESS;
}

/* 10: reads from there. */
static NTSTATUS ReadWild(REQUEST *Request)
{
    if (Request->InputLength < sizeof(ULONG_PTR)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Sink = **(volatile ULONG **)Request->Input;
    return STATUS_SUCCESS;
}

/* ---- what is paged ---------------------------------------------------------------------------------------------- */

static PAGE_CODE ULONG Paged(ULONG Argument)
{
    return Argument * 3 + Zero;
}

static NTSTATUS AtDispatch(VOID (*Routine)(PVOID), PVOID Argument)
{
    KIRQL OldIrql;

    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    Routine(Argument);
    KeLowerIrql(OldIrql);
    return STATUS_SUCCESS;
}

static NOINLINE VOID CallPaged(PVOID Argument)
{
    UNREFERENCED_PARAMETER(Argument);
    Sink = Paged(Sink);
}

/* 11: calls a routine of its PAGE section at DISPATCH_LEVEL. */
static NTSTATUS RunPagedCode(REQUEST *Request)
{
    UNREFERENCED_PARAMETER(Request);
    CallPaged(NULL); /* at PASSIVE_LEVEL it may */
    return AtDispatch(CallPaged, NULL);
}

static NOINLINE VOID CountPaged(PVOID Argument)
{
    UNREFERENCED_PARAMETER(Argument);
    PagedCounter += 1;
}

/* 12: changes a variable of its PAGEDATA section at DISPATCH_LEVEL. */
static NTSTATUS WritePagedData(REQUEST *Request)
{
    UNREFERENCED_PARAMETER(Request);
    CountPaged(NULL);
    return AtDispatch(CountPaged, NULL);
}

static NOINLINE VOID ReadIt(PVOID Argument)
{
    Sink = *(volatile ULONG *)Argument;
}

/* 13: reads paged pool at DISPATCH_LEVEL. */
static NTSTATUS ReadPagedPool(REQUEST *Request)
{
    PVOID Block = Allocate(PagedPool, 64);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Request);
    ReadIt(Block);
    Status = AtDispatch(ReadIt, Block);
    Free(Block);
    return Status;
}

static NOINLINE VOID CopyIt(PVOID Argument)
{
    static UCHAR Copy[16];

    RtlMoveMemory(Copy, Argument, sizeof(Copy) + Zero);
}

/* 14: has the kernel copy from paged pool at DISPATCH_LEVEL. */
static NTSTATUS CopyPagedPool(REQUEST *Request)
{
    PVOID Block = Allocate(PagedPool, 64);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Request);
    CopyIt(Block);
    Status = AtDispatch(CopyIt, Block);
    Free(Block);
    return Status;
}

/* ---- an application's memory ------------------------------------------------------------------------------------ */

/* 15: reads the caller's own buffer at DISPATCH_LEVEL. */
static NTSTATUS ReadUserAtDispatch(REQUEST *Request)
{
    if (Request->InputLength < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    ReadIt(Request->Input); /* here it may */
    return AtDispatch(ReadIt, Request->Input);
}

typedef struct ERRAND {
    PIO_WORKITEM Item;
    PVOID Address;
    KEVENT Done;
} ERRAND;

static VOID NTAPI RunErrand(PDEVICE_OBJECT Device, PVOID Context)
{
    ERRAND *Errand = Context;

    UNREFERENCED_PARAMETER(Device);
    ReadIt(Errand->Address);
    KeSetEvent(&Errand->Done, IO_NO_INCREMENT, FALSE);
}

/* 16: has a work item read the caller's own buffer. */
static NTSTATUS ReadUserElsewhere(REQUEST *Request)
{
    ERRAND Errand;

    if (Request->InputLength < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Errand.Address = Request->Input;
    Errand.Item = IoAllocateWorkItem(Request->Device);
    if (Errand.Item == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeInitializeEvent(&Errand.Done, NotificationEvent, FALSE);
    IoQueueWorkItem(Errand.Item, RunErrand, DelayedWorkQueue, &Errand);
    KeWaitForSingleObject(&Errand.Done, Executive, KernelMode, FALSE, NULL);
    IoFreeWorkItem(Errand.Item);
    return STATUS_SUCCESS;
}

/* 17: says that it has filled the output buffer, and has filled a half of it. */
static NTSTATUS LeaveHalf(REQUEST *Request)
{
    if (Request->OutputLength < 16) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlFillMemory(Request->Output, Request->OutputLength / 2, 0x11);
    Request->Information = Request->OutputLength;
    return STATUS_SUCCESS;
}

/* ---- what may be done ------------------------------------------------------------------------------------------- */

/* 18: finds a text's end as run-time libraries do: by aligned words, the last of which is not all the text's. */
static NTSTATUS WordByWord(REQUEST *Request)
{
    PUCHAR Text = Allocate(NonPagedPool, 13);
    ULONGLONG *Word = (ULONGLONG *)Unknown(Text);
    ULONG Length = 0;

    UNREFERENCED_PARAMETER(Request);
    RtlFillMemory(Text, 12, 'x');
    Text[12] = 0;
    while (((*(volatile ULONGLONG *)Word - 0x0101010101010101ull) & ~*Word & 0x8080808080808080ull) == 0) {
        Word++;
    }
    Length = (ULONG)((PUCHAR)Word - Text);
    Free(Text);
    return Length == 8 ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

typedef struct RECORD {
    UCHAR Kind;
    ULONGLONG Value; /* 7 bytes of padding before it */
    USHORT Last;     /* and 6 behind */
} RECORD;

/* 19: copies a structure whose padding and spare member were never stored. */
static NTSTATUS CopyPadding(REQUEST *Request)
{
    RECORD *From = Allocate(NonPagedPool, sizeof(RECORD));
    RECORD *To = Allocate(PagedPool, sizeof(RECORD));
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Request);
    From->Kind = 1;
    From->Last = 7;
    *To = *(volatile RECORD *)Unknown(From);
    Status = To->Kind == 1 && To->Last == 7 ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
    Free(From);
    Free(To);
    return Status;
}

/* ---- among many -------------------------------------------------------------------------------------------------- */

/* As many blocks of a page as the input says, of which all but the last stay. */
static PUCHAR LastOfMany(REQUEST *Request)
{
    ULONG Count = *(ULONG *)Request->Input;

    while (Count-- > 0) {
        Allocate(NonPagedPool, PAGE_SIZE);
    }
    return Allocate(NonPagedPool, PAGE_SIZE);
}

/* 28: writes to the page behind a block. */
static NTSTATUS WriteBehindMany(REQUEST *Request)
{
    *(volatile UCHAR *)(Unknown(LastOfMany(Request)) + PAGE_SIZE) = 1;
    return STATUS_SUCCESS;
}

/* 29: writes to a block that is freed. */
static NTSTATUS WriteFreedMany(REQUEST *Request)
{
    PUCHAR Block = LastOfMany(Request);

    Free(Block);
    *(volatile UCHAR *)Unknown(Block) = 1;
    return STATUS_SUCCESS;
}

/* ---- after its completion --------------------------------------------------------------------------------------- */

NTKERNELAPI BOOLEAN NTAPI MmIsAddressValid(PVOID Address); /* of ntddk.h */

static PUCHAR KeptAddress; /* of a request that is completed meanwhile */
static PMDL KeptMdl;

/* 20: remembers the buffer of this request: a system buffer, an application's own, or what an MDL is mapped to. */
static NTSTATUS KeepBuffer(REQUEST *Request)
{
    KeptAddress = Request->Input;
    if (Request->Mdl != NULL) {
        KeptAddress = MmGetSystemAddressForMdlSafe(Request->Mdl, NormalPagePriority);
    }
    return KeptAddress == NULL ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS;
}

/* 21: remembers the MDL of this request. */
static NTSTATUS KeepMdl(REQUEST *Request)
{
    KeptAddress = (PUCHAR)Request->Mdl;
    return KeptAddress == NULL ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS;
}

/* 22: writes to what 20 or 21 remembered. */
static NTSTATUS WriteCompleted(REQUEST *Request)
{
    UNREFERENCED_PARAMETER(Request);
    *(volatile UCHAR *)Unknown(KeptAddress) = 0x5A;
    return STATUS_SUCCESS;
}

/* 23: has the kernel write there. */
static NTSTATUS FillCompleted(REQUEST *Request)
{
    UNREFERENCED_PARAMETER(Request);
    RtlFillMemory((PVOID)Unknown(KeptAddress), 2 + Zero, 0x5A);
    return STATUS_SUCCESS;
}

/* 24: remembers this request's buffer, and locks it for good: with METHOD_NEITHER, a page that driver and application share. */
static NTSTATUS LockBuffer(REQUEST *Request)
{
    KeptMdl = IoAllocateMdl(Request->Input, Request->InputLength, FALSE, FALSE, NULL);
    if (KeptMdl == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    MmProbeAndLockPages(KeptMdl, UserMode, IoWriteAccess);
    KeptAddress = MmGetSystemAddressForMdlSafe(KeptMdl, NormalPagePriority);
    return KeptAddress == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

/* 25: writes to the page that 24 has locked; this request's own buffer is another. */
static NTSTATUS WriteLocked(REQUEST *Request)
{
    UCHAR Before = *(volatile UCHAR *)Request->Input;

    *(volatile UCHAR *)KeptAddress = (UCHAR)(Before + 1);
    return *(volatile UCHAR *)Request->Input == Before ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

/* 26: gives the page of 24 back. */
static NTSTATUS UnlockBuffer(REQUEST *Request)
{
    UNREFERENCED_PARAMETER(Request);
    MmUnlockPages(KeptMdl);
    IoFreeMdl(KeptMdl);
    return STATUS_SUCCESS;
}

/* 27: says whether a page is where 20 has found one. */
static NTSTATUS AskCompleted(REQUEST *Request)
{
    UNREFERENCED_PARAMETER(Request);
    return MmIsAddressValid(KeptAddress) ? STATUS_SUCCESS : STATUS_ACCESS_VIOLATION;
}

/* ---- what is mapped for an application -------------------------------------------------------------------------- */

/* Has a work item read where these pages are mapped for the application, after a look in its own context. */
static NTSTATUS ReadMappedElsewhere(REQUEST *Request, PVOID Pages)
{
    PMDL Mdl = IoAllocateMdl(Pages, PAGE_SIZE, FALSE, FALSE, NULL);
    REQUEST Errand = *Request;

    if (Mdl == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    MmBuildMdlForNonPagedPool(Mdl);
    Errand.Input = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmNonCached, NULL, FALSE, NormalPagePriority);
    Errand.InputLength = PAGE_SIZE;
    ReadIt(Errand.Input); /* here it may */
    ReadUserElsewhere(&Errand);
    MmUnmapLockedPages(Errand.Input, Mdl);
    IoFreeMdl(Mdl);
    return STATUS_SUCCESS;
}

/* 30: of pool. */
static NTSTATUS ReadMappedPoolElsewhere(REQUEST *Request)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, TOUCHES_TAG);
    NTSTATUS Status = STATUS_INSUFFICIENT_RESOURCES;

    if (Block != NULL) {
        Status = ReadMappedElsewhere(Request, Block);
        Free(Block);
    }
    return Status;
}

/* 31: of a device, the text screen. */
static NTSTATUS ReadMappedScreenElsewhere(REQUEST *Request)
{
    PHYSICAL_ADDRESS Screen = {.QuadPart = 0xB8000};
    PVOID Window = MmMapIoSpace(Screen, PAGE_SIZE, MmNonCached);
    NTSTATUS Status = STATUS_INSUFFICIENT_RESOURCES;

    if (Window != NULL) {
        Status = ReadMappedElsewhere(Request, Window);
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
    return Status;
}

/* ---- the driver around them ------------------------------------------------------------------------------------- */

/* 32: clears its block word by word, as compilers do, and one word more. */
static NTSTATUS ClearTooMuch(REQUEST *Request)
{
    PVOID Block = Allocate(NonPagedPool, 64);
    PVOID At = (PVOID)Unknown(Block);
    SIZE_T Words = 9;

    UNREFERENCED_PARAMETER(Request);
    __asm__ volatile("rep stosq" : "+D"(At), "+c"(Words) : "a"(0LL) : "memory");
    Free(Block);
    return STATUS_SUCCESS;
}

/* 33: answers with a block of pool of which a half was never stored, in the application's own buffer. */
static NTSTATUS AnswerHalfStored(REQUEST *Request)
{
    PUCHAR Output = Request->Output, Block;

    if (Request->Mdl != NULL) {
        Output = MmGetSystemAddressForMdlSafe(Request->Mdl, NormalPagePriority);
    }
    Block = Allocate(NonPagedPool, Request->OutputLength);
    if (Output == NULL) {
        Free(Block);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlFillMemory(Block, Request->OutputLength / 2, 0x11);
    RtlCopyMemory(Output, Block, Request->OutputLength);
    Free(Block);
    Request->Information = Request->OutputLength;
    return STATUS_SUCCESS;
}

/* 34: answers with 205 for all, which is right. */
static NTSTATUS AnswerOneNumber(REQUEST *Request)
{
    PUCHAR Output = Request->Output;

    if (Request->Mdl != NULL) {
        Output = MmGetSystemAddressForMdlSafe(Request->Mdl, NormalPagePriority);
    }
    if (Output == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlFillMemory(Output, Request->OutputLength, 0xCD);
    Request->Information = Request->OutputLength;
    return STATUS_SUCCESS;
}

static const TOUCH Touches[] = {
    NULL,           ReadBehind,     WriteBehind,        ReadBefore,        ReadFreed,
    WriteBehindLarge, ReadKept,     CopyFreed,          CompareBehind,     WriteWild,
    ReadWild,       RunPagedCode,   WritePagedData,     ReadPagedPool,     CopyPagedPool,
    ReadUserAtDispatch, ReadUserElsewhere, LeaveHalf,   WordByWord,        CopyPadding,
    KeepBuffer,     KeepMdl,        WriteCompleted,     FillCompleted,     LockBuffer,
    WriteLocked,    UnlockBuffer,   AskCompleted,       WriteBehindMany,   WriteFreedMany,
    ReadMappedPoolElsewhere, ReadMappedScreenElsewhere, ClearTooMuch,     AnswerHalfStored,
    AnswerOneNumber,
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG Number = ((Code >> 2) & 0xFFF) - FIRST_FUNCTION;
    REQUEST Request = {0};
    NTSTATUS Status;

    if (Number >= RTL_NUMBER_OF(Touches)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Request.Device = Device;
    Request.InputLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    Request.OutputLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    if ((Code & 3) == METHOD_NEITHER) {
        Request.Input = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
        Request.Output = Irp->UserBuffer;
    } else {
        Request.Input = Irp->AssociatedIrp.SystemBuffer;
        Request.Output = Irp->AssociatedIrp.SystemBuffer;
    }
    Request.Mdl = Irp->MdlAddress;
    Status = Number == 0 ? STATUS_SUCCESS : Touches[Number](&Request);
    return Complete(Irp, Status, Request.Information);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

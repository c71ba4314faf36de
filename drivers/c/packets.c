/*
 * packets.sys: reads and writes that go through IoStartPacket, StartIo and a DPC, on three devices without hardware, one for each way of getting at an
 * application's buffer: \\.\DirqlPacketsBuffered, \\.\DirqlPacketsDirect, \\.\DirqlPacketsNeither. A packet's key is its file offset; it can be cancelled at
 * any time before its DPC has taken it. A read is filled with its key's low byte; of what is written the sum is kept.
 *
 * What becomes of the packet that has begun is the device's mode: Timed ends it after a while, ByDpc as soon as a DPC runs, AtOnce within StartIo, which starts the
 * next one from there, Held keeps it until IOCTL_RELEASE.
 */
#include "seh/clang.h"
#define CONTROL_WITHOUT_DEVICE
#include "control.h"

#define LATENCY_MS 2
#define DEVICES 3
#define STARTS 8

/* Input: two ULONGs, DeferredStartIo and NonCancelable. */
#define IOCTL_ATTRIBUTES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG, the mode. */
#define IOCTL_MODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG, the key of the packet to start next. */
#define IOCTL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: a STATE. */
#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: a ULONG, how many of the driver's own files were closed late: 1. */
#define IOCTL_CLOSE_LATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum { Timed, AtOnce, Held, ByDpc };
enum { Buffered, Direct, Neither };

typedef struct _STATE {
    LONG Begun;     /* packets given to IoStartPacket */
    LONG Completed; /* of these */
    LONG Cancelled;
    LONG Deepest;       /* StartIo within StartIo */
    LONG Sum;           /* of all bytes written */
    LONG Starts;        /* calls of StartIo */
    LONG Keys[STARTS];  /* of the packets that were started, the first ones */
} STATE;

typedef struct _DEVICE_EXTENSION {
    ULONG Way;
    volatile LONG Mode;
    BOOLEAN NonCancelable;
    LONG Depth;
    KTIMER Timer;
    KDPC Dpc;
    volatile LONG Closes;
    STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;


DRIVER_INITIALIZE DriverEntry;

static PCWSTR const Names[DEVICES][2] = {
    {L"\\Device\\DirqlPacketsBuffered", L"\\DosDevices\\DirqlPacketsBuffered"},
    {L"\\Device\\DirqlPacketsDirect", L"\\DosDevices\\DirqlPacketsDirect"},
    {L"\\Device\\DirqlPacketsNeither", L"\\DosDevices\\DirqlPacketsNeither"},
};

/* ---- the end of a packet ---- */

/* Of METHOD_NEITHER, the driver has locked the pages itself. */
static VOID Unlock(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    if (Extension->Way == Neither && Irp->MdlAddress != NULL) {
        MmUnlockPages(Irp->MdlAddress);
        IoFreeMdl(Irp->MdlAddress);
        Irp->MdlAddress = NULL;
    }
}

static VOID End(PDEVICE_EXTENSION Extension, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    InterlockedIncrement(NT_SUCCESS(Status) ? &Extension->State.Completed : &Extension->State.Cancelled);
    Unlock(Extension, Irp);
    Complete(Irp, Status, Information);
}

/* Moves the bytes, and ends the packet, which is the caller's alone. */
static VOID Transfer(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.Read.Length; /* Write has the same layout */
    PUCHAR Bytes = Extension->Way == Buffered ? Irp->AssociatedIrp.SystemBuffer
                                              : MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    LONG Sum = 0;

    if (Bytes == NULL) {
        End(Extension, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return;
    }
    for (ULONG Index = 0; Index < Length; Index++) {
        if (Stack->MajorFunction == IRP_MJ_READ) {
            Bytes[Index] = (UCHAR)(Stack->Parameters.Read.ByteOffset.LowPart + Index / PAGE_SIZE);
        } else {
            Sum += Bytes[Index];
        }
    }
    InterlockedExchangeAdd(&Extension->State.Sum, Sum);
    End(Extension, Irp, STATUS_SUCCESS, Length);
}

/* Called with the cancel spin lock held. */
static VOID NTAPI CancelPacket(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql = Irp->CancelIrql;

    if (Irp == Device->CurrentIrp) {
        IoReleaseCancelSpinLock(DISPATCH_LEVEL);
        IoStartNextPacket(Device, TRUE);
        KeLowerIrql(OldIrql);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(OldIrql);
    }
    End(Device->DeviceExtension, Irp, STATUS_CANCELLED, 0);
}

/* The current packet, if it is the caller's alone now; NULL if there is none, or it is being cancelled. */
static PIRP TakeCurrent(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL OldIrql;
    PIRP Irp;

    IoAcquireCancelSpinLock(&OldIrql);
    Irp = Device->CurrentIrp;
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL && !Extension->NonCancelable) {
        Irp = NULL;
    }
    IoReleaseCancelSpinLock(OldIrql);
    return Irp;
}

/* ---- its beginning ---- */

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    LARGE_INTEGER Due;
    KIRQL OldIrql;
    BOOLEAN Mine, TooLate = FALSE;

    IoAcquireCancelSpinLock(&OldIrql);
    Mine = Irp == Device->CurrentIrp;
    if (Mine && Irp->Cancel && !Extension->NonCancelable) {
        /* Before it had a cancel routine: it is ended here. Else CancelPacket has it, and starts the next one. */
        TooLate = IoSetCancelRoutine(Irp, NULL) != NULL;
        Mine = FALSE;
    }
    if (Mine && Extension->State.Starts < STARTS) {
        Extension->State.Keys[Extension->State.Starts] = (LONG)IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.ByteOffset.LowPart;
    }
    Extension->State.Starts++;
    IoReleaseCancelSpinLock(OldIrql);
    if (TooLate) {
        IoStartNextPacket(Device, TRUE);
        End(Extension, Irp, STATUS_CANCELLED, 0);
    }
    if (!Mine) {
        return;
    }
    if (Extension->Mode == Timed) {
        Due.QuadPart = -10000LL * LATENCY_MS;
        KeSetTimer(&Extension->Timer, Due, &Extension->Dpc);
    } else if (Extension->Mode == ByDpc) {
        KeInsertQueueDpc(&Extension->Dpc, NULL, NULL);
    } else if (Extension->Mode == AtOnce) {
        Extension->Depth++;
        if (Extension->State.Deepest < Extension->Depth) {
            Extension->State.Deepest = Extension->Depth;
        }
        Irp = TakeCurrent(Device);
        if (Irp != NULL) {
            IoStartNextPacket(Device, TRUE);
            Transfer(Extension, Irp);
        }
        Extension->Depth--;
    }
}

static VOID NTAPI TimerDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE_OBJECT Device = Context;
    PIRP Irp = TakeCurrent(Device);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (Irp != NULL) {
        IoStartNextPacket(Device, TRUE);
        Transfer(Device->DeviceExtension, Irp);
    }
}

/* Describes and locks an application's buffer. */
static NTSTATUS Lock(PIRP Irp, ULONG Length, LOCK_OPERATION Operation)
{
    PMDL Mdl = IoAllocateMdl(Irp->UserBuffer, Length, FALSE, FALSE, Irp);

    if (Mdl == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    __try {
        MmProbeAndLockPages(Mdl, UserMode, Operation);
        return STATUS_SUCCESS;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Irp->MdlAddress = NULL;
        IoFreeMdl(Mdl);
        return GetExceptionCode();
    }
}

static NTSTATUS NTAPI DispatchTransfer(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Key = Stack->Parameters.Read.ByteOffset.LowPart;
    NTSTATUS Status;

    if (Stack->Parameters.Read.Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (Extension->Way == Neither) {
        Status = Lock(Irp, Stack->Parameters.Read.Length,
                      Stack->MajorFunction == IRP_MJ_READ ? IoWriteAccess : IoReadAccess);
        if (!NT_SUCCESS(Status)) {
            return Complete(Irp, Status, 0);
        }
    }
    IoMarkIrpPending(Irp);
    InterlockedIncrement(&Extension->State.Begun);
    IoStartPacket(Device, Irp, &Key, CancelPacket);
    return STATUS_PENDING;
}

/* ---- files that are closed, some of them late ---- */

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    DbgPrint("packets: cleanup of way %u\n", Extension->Way);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    InterlockedIncrement(&Extension->Closes);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* The last reference to a file goes by the routine that has the file deleted by another thread: so IRP_MJ_CLOSE comes, and not before that thread runs. */
static ULONG CloseLate(PDEVICE_EXTENSION Extension)
{
    OBJECT_ATTRIBUTES Attributes;
    UNICODE_STRING Name;
    IO_STATUS_BLOCK Block;
    LARGE_INTEGER Interval;
    HANDLE Handle;
    PVOID File;
    LONG Before = Extension->Closes, AtOnce;

    RtlInitUnicodeString(&Name, Names[Extension->Way][0]);
    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenFile(&Handle, GENERIC_READ | SYNCHRONIZE, &Attributes, &Block, 0, 0))) {
        return 0;
    }
    if (!NT_SUCCESS(ObReferenceObjectByHandle(Handle, 0, NULL, KernelMode, &File, NULL))) {
        ZwClose(Handle);
        return 0;
    }
    ZwClose(Handle);
    AtOnce = Extension->Closes;
    ObDereferenceObjectDeferDeleteWithTag(File, 'ckaP');
    Interval.QuadPart = -10000LL * LATENCY_MS;
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    return AtOnce == Before ? (ULONG)(Extension->Closes - Before) : 0;
}

/* ---- control codes ---- */

static NTSTATUS Release(PDEVICE_OBJECT Device, ULONG Key)
{
    PIRP Irp = TakeCurrent(Device);
    KIRQL OldIrql;

    if (Irp == NULL) {
        return STATUS_NOT_FOUND;
    }
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    IoStartNextPacketByKey(Device, TRUE, Key);
    KeLowerIrql(OldIrql);
    Transfer(Device->DeviceExtension, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Words = Irp->AssociatedIrp.SystemBuffer;
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ATTRIBUTES:
        if (In != 2 * sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Extension->NonCancelable = Words[1] != 0;
        IoSetStartIoAttributes(Device, Words[0] != 0, Words[1] != 0);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_MODE:
        if (In != sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Extension->Mode = (LONG)Words[0];
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_RELEASE:
        return Complete(Irp, In != sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Release(Device, Words[0]), 0);
    case IOCTL_STATE:
        if (Out < sizeof(STATE)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(STATE *)Words = Extension->State;
        return Complete(Irp, STATUS_SUCCESS, sizeof(STATE));
    case IOCTL_CLOSE_LATE:
        if (Out < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Words[0] = CloseLate(Extension);
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- load and unload ---- */

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    while (Driver->DeviceObject != NULL) {
        PDEVICE_EXTENSION Extension = Driver->DeviceObject->DeviceExtension;

        RtlInitUnicodeString(&Link, Names[Extension->Way][1]);
        IoDeleteSymbolicLink(&Link);
        KeCancelTimer(&Extension->Timer);
        KeFlushQueuedDpcs();
        IoDeleteDevice(Driver->DeviceObject);
    }
}

static NTSTATUS Make(PDRIVER_OBJECT Driver, ULONG Way)
{
    static const ULONG Flags[DEVICES] = {DO_BUFFERED_IO, DO_DIRECT_IO, 0};
    UNICODE_STRING Name, Link;
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    RtlInitUnicodeString(&Name, Names[Way][0]);
    RtlInitUnicodeString(&Link, Names[Way][1]);
    Status = IoCreateDevice(Driver, sizeof(*Extension), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Device->DeviceExtension;
    Extension->Way = Way;
    KeInitializeTimer(&Extension->Timer);
    KeInitializeDpc(&Extension->Dpc, TimerDpc, Device);
    Device->Flags |= Flags[Way];
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
    }
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchTransfer;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = Unload;
    for (ULONG Way = 0; Way < DEVICES; Way++) {
        NTSTATUS Status = Make(Driver, Way);

        if (!NT_SUCCESS(Status)) {
            Unload(Driver);
            return Status;
        }
    }
    return STATUS_SUCCESS;
}

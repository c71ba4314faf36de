/*
 * queue.sys: requests that wait. One device without hardware, \\.\DirqlQueue:
 *   reads   wait in a list of the driver's own, under its spin lock; a timer's DPC answers one each period;
 *   writes  go through IoStartPacket; StartIo starts a "transfer" that another timer's DPC completes;
 *   IOCTL_QUEUE_WAIT blocks in its dispatch routine on an event that a third timer's DPC sets.
 * Reads and queued writes can be cancelled, and IRP_MJ_CLEANUP cancels what its file left behind.
 *
 * Built with -DPACE_BY_IO_TIMER (queue_iotimer.sys) reads are answered by the device's one-second IoTimer instead.
 */
#include <ddk/wdm.h>

#define READ_PERIOD_MS 10
#define WRITE_LATENCY_MS 2
#define INIT_CODE __attribute__((section("INIT")))

/* Input: ULONG milliseconds. Waits for the tick; STATUS_TIMEOUT if it does not come in time. */
#define IOCTL_QUEUE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: ULONG milliseconds until the tick. */
#define IOCTL_QUEUE_ARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: one QUEUE_STATE. */
#define IOCTL_QUEUE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _QUEUE_STATE {
    ULONG Reads;       /* answered */
    ULONG Writes;      /* transferred */
    ULONG WrittenSum;  /* of all bytes transferred */
    LONG Cancelled;    /* reads and writes */
    ULONG Ticks;
} QUEUE_STATE;

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Device;
    KSPIN_LOCK Lock;      /* guards Reads and State */
    LIST_ENTRY Reads;     /* IRPs by Tail.Overlay.ListEntry, oldest first */
    KTIMER ReadTimer;
    KDPC ReadDpc;
    KTIMER WriteTimer;
    KDPC WriteDpc;
    KTIMER TickTimer;
    KDPC TickDpc;
    KEVENT Tick;
    QUEUE_STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlQueue");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlQueue");

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID CompleteCancelled(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    InterlockedIncrement(&Extension->State.Cancelled);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static LARGE_INTEGER FromNow(ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Milliseconds; /* negative: relative, in 100 ns */
    return Due;
}

static NTSTATUS NTAPI DispatchCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---- reads: a list, a spin lock and a cancel routine ------------------------------------------------------------ */

#ifdef PACE_BY_IO_TIMER
#define ARM_READ_TIMER(Extension) ((void)(Extension)) /* the IoTimer runs for as long as the driver is loaded */
#else
#define ARM_READ_TIMER(Extension) KeSetTimer(&(Extension)->ReadTimer, FromNow(READ_PERIOD_MS), &(Extension)->ReadDpc)
#endif

static VOID NTAPI CancelRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry); /* harmless if TakeRead removed it: it points to itself then */
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    CompleteCancelled(Extension, Irp);
}

/* The oldest read, of File if given, now the caller's alone. Lock is held. */
static PIRP TakeRead(PDEVICE_EXTENSION Extension, PFILE_OBJECT File)
{
    PLIST_ENTRY Entry = Extension->Reads.Flink;

    while (Entry != &Extension->Reads) {
        PIRP Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        Entry = Entry->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File) {
            continue;
        }
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(Irp, NULL) != NULL) {
            return Irp;
        }
        /* CancelRead has been called and waits for our lock: the IRP is its. */
        InitializeListHead(&Irp->Tail.Overlay.ListEntry);
    }
    return NULL;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL OldIrql;
    BOOLEAN WasEmpty;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    WasEmpty = IsListEmpty(&Extension->Reads);
    IoMarkIrpPending(Irp);
    InsertTailList(&Extension->Reads, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, CancelRead);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        /* Cancelled before the routine was set: it is completed here. */
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&Extension->Lock, OldIrql);
        CompleteCancelled(Extension, Irp);
        return STATUS_PENDING;
    }
    if (WasEmpty) {
        ARM_READ_TIMER(Extension);
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return STATUS_PENDING;
}

/* Answers the oldest read with its number, counted from 1. At DISPATCH_LEVEL, from either kind of timer. */
static VOID AnswerOneRead(PDEVICE_EXTENSION Extension)
{
    PIRP Irp;
    ULONG Number = 0;

    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    Irp = TakeRead(Extension, NULL);
    if (Irp != NULL) {
        Number = ++Extension->State.Reads;
    }
    if (!IsListEmpty(&Extension->Reads)) {
        ARM_READ_TIMER(Extension);
    }
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    if (Irp != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Number;
        Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

#ifdef PACE_BY_IO_TIMER
static VOID NTAPI EachSecond(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    AnswerOneRead(Device->DeviceExtension);
}
#else
static VOID NTAPI ReadDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    AnswerOneRead(Context);
}
#endif

/* ---- writes: IoStartPacket, StartIo, IoStartNextPacket ---------------------------------------------------------- */

/* Called with the cancel spin lock held, for a write that StartIo has not yet made its own. */
static VOID NTAPI CancelWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql = Irp->CancelIrql;

    if (Irp == Device->CurrentIrp) {
        /* StartIo is about to see Irp->Cancel and leave it alone; the next packet is ours to start. */
        IoReleaseCancelSpinLock(DISPATCH_LEVEL);
        IoStartNextPacket(Device, TRUE);
        KeLowerIrql(OldIrql);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(OldIrql);
    }
    CompleteCancelled(Device->DeviceExtension, Irp);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, CancelWrite);
    return STATUS_PENDING;
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL OldIrql;
    BOOLEAN Cancelled;

    IoAcquireCancelSpinLock(&OldIrql);
    if (Irp != Device->CurrentIrp || IoSetCancelRoutine(Irp, NULL) == NULL) {
        IoReleaseCancelSpinLock(OldIrql); /* CancelWrite has it, and starts the next one */
        return;
    }
    Cancelled = Irp->Cancel; /* before IoStartPacket had set the routine; else from here on it can only be transferred */
    IoReleaseCancelSpinLock(OldIrql);
    if (Cancelled) {
        IoStartNextPacket(Device, TRUE);
        CompleteCancelled(Extension, Irp);
        return;
    }
    KeSetTimer(&Extension->WriteTimer, FromNow(WRITE_LATENCY_MS), &Extension->WriteDpc);
}

static VOID NTAPI WriteDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE_EXTENSION Extension = Context;
    PIRP Irp = Extension->Device->CurrentIrp;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    const UCHAR *Bytes = Irp->AssociatedIrp.SystemBuffer;
    ULONG Sum = 0;
    ULONG Index;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    for (Index = 0; Index < Length; Index++) {
        Sum += Bytes[Index];
    }
    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    Extension->State.Writes++;
    Extension->State.WrittenSum += Sum;
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    IoStartNextPacket(Extension->Device, TRUE);
    Complete(Irp, STATUS_SUCCESS, Length);
}

/*
 * Takes File's writes out of the device queue, leaving the others in order. The cancel spin lock keeps IoStartPacket
 * and IoStartNextPacket out, since both were called with the flag that these IRPs can be cancelled.
 */
static VOID TakeQueuedWrites(PDEVICE_OBJECT Device, PFILE_OBJECT File, PLIST_ENTRY Taken)
{
    PKDEVICE_QUEUE_ENTRY Entry;
    KDEVICE_QUEUE_ENTRY Nothing;
    LIST_ENTRY Others;
    KIRQL OldIrql;

    InitializeListHead(&Others);
    IoAcquireCancelSpinLock(&OldIrql);
    if (Device->CurrentIrp == NULL) {
        IoReleaseCancelSpinLock(OldIrql); /* idle, so nothing is queued */
        return;
    }
    while ((Entry = KeRemoveDeviceQueue(&Device->DeviceQueue)) != NULL) {
        PIRP Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.DeviceQueueEntry);
        BOOLEAN Mine = IoGetCurrentIrpStackLocation(Irp)->FileObject == File;

        if (Mine) {
            IoSetCancelRoutine(Irp, NULL);
        }
        InsertTailList(Mine ? Taken : &Others, &Irp->Tail.Overlay.ListEntry);
    }
    /* Emptied, the queue forgot that a transfer is going on: the first insertion into an idle queue only marks it busy. */
    KeInsertDeviceQueue(&Device->DeviceQueue, &Nothing);
    while (!IsListEmpty(&Others)) {
        PIRP Irp = CONTAINING_RECORD(RemoveHeadList(&Others), IRP, Tail.Overlay.ListEntry);

        KeInsertDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
    }
    IoReleaseCancelSpinLock(OldIrql);
}

/* ---- cleanup: the last handle to a file is gone ----------------------------------------------------------------- */

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY Taken;
    PIRP Pending;
    KIRQL OldIrql;

    InitializeListHead(&Taken);
    TakeQueuedWrites(Device, File, &Taken);
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    while ((Pending = TakeRead(Extension, File)) != NULL) {
        InsertTailList(&Taken, &Pending->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    while (!IsListEmpty(&Taken)) {
        CompleteCancelled(Extension, CONTAINING_RECORD(RemoveHeadList(&Taken), IRP, Tail.Overlay.ListEntry));
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---- control codes ---------------------------------------------------------------------------------------------- */

static VOID NTAPI TickDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    Extension->State.Ticks++;
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    KeSetEvent(&Extension->Tick, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS ReportState(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG OutputLength)
{
    KIRQL OldIrql;

    if (OutputLength < sizeof(QUEUE_STATE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    *(QUEUE_STATE *)Irp->AssociatedIrp.SystemBuffer = Extension->State;
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return Complete(Irp, STATUS_SUCCESS, sizeof(QUEUE_STATE));
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    LARGE_INTEGER Due;

    if (Code == IOCTL_QUEUE_STATE) {
        return ReportState(Extension, Irp, Stack->Parameters.DeviceIoControl.OutputBufferLength);
    }
    if (Code != IOCTL_QUEUE_WAIT && Code != IOCTL_QUEUE_ARM) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Due = FromNow(*(PULONG)Irp->AssociatedIrp.SystemBuffer);
    if (Code == IOCTL_QUEUE_ARM) {
        KeSetTimer(&Extension->TickTimer, Due, &Extension->TickDpc);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, KeWaitForSingleObject(&Extension->Tick, Executive, KernelMode, FALSE, &Due), 0);
}

/* ---- load and unload -------------------------------------------------------------------------------------------- */

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Device = Driver->DeviceObject;
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
#ifdef PACE_BY_IO_TIMER
    IoStopTimer(Device);
#else
    KeCancelTimer(&Extension->ReadTimer);
#endif
    KeCancelTimer(&Extension->WriteTimer);
    KeCancelTimer(&Extension->TickTimer);
    KeFlushQueuedDpcs(); /* a DPC that had already expired may still be queued on another processor */
    DbgPrint("queue: %u reads, %u writes, %d cancelled\n", Extension->State.Reads, Extension->State.Writes,
             Extension->State.Cancelled);
    IoDeleteDevice(Device);
}

INIT_CODE static VOID InitializeExtension(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Extension->Device = Device;
    KeInitializeSpinLock(&Extension->Lock);
    InitializeListHead(&Extension->Reads);
#ifndef PACE_BY_IO_TIMER
    KeInitializeTimer(&Extension->ReadTimer);
    KeInitializeDpc(&Extension->ReadDpc, ReadDpc, Extension);
#endif
    KeInitializeTimer(&Extension->WriteTimer);
    KeInitializeDpc(&Extension->WriteDpc, WriteDpc, Extension);
    KeInitializeTimer(&Extension->TickTimer);
    KeInitializeDpc(&Extension->TickDpc, TickDpc, Extension);
    KeInitializeEvent(&Extension->Tick, SynchronizationEvent, FALSE);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeExtension(Device);
#ifdef PACE_BY_IO_TIMER
    Status = IoInitializeTimer(Device, EachSecond, NULL);
#endif
    if (NT_SUCCESS(Status)) {
        Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    }
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
#ifdef PACE_BY_IO_TIMER
    IoStartTimer(Device);
#endif
    Device->Flags |= DO_BUFFERED_IO;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}

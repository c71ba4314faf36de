/*
 * echoline: a delay line: what an application sends comes back to it after a delay of its choice. Nothing is
 * answered while the device is asked whether it may be stopped or removed.
 *
 * The bug: after a query for removal that was called off the line stays paused, so that its requests are never
 * answered.
 *
 * Device: ROOT\ECHOLINE
 * Rule: request-forgotten
 * Needs: removal
 */
#include <ddk/wdm.h>

#define IOCTL_ECHO_SEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define ECHO_TICK_MS 50

static const GUID EchoGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x04, 0x02 } };

typedef struct _ECHO_HEADER {
    ULONG DelayMs;
    ULONG Reserved;
} ECHO_HEADER;

typedef struct _LINE {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;         /* under the lock; the time due is in DriverContext[0] */
    BOOLEAN Gone;               /* under the lock */
    BOOLEAN Started;
    volatile LONG Paused;
    KTIMER Timer;
    KDPC Dpc;
} LINE;

#define LINE_OF(csq) CONTAINING_RECORD(csq, LINE, Csq)
#define DUE(irp) ((ULONGLONG)(ULONG_PTR)(irp)->Tail.Overlay.DriverContext[0])

static VOID Answer(LINE *Line, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Line->RemoveLock, Irp);
}

static NTSTATUS NTAPI EchoInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    if (LINE_OF(Csq)->Gone)
        return STATUS_DELETE_PENDING;
    InsertTailList(&LINE_OF(Csq)->Waiting, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI EchoRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Of a file, or (the context being a time) due by then, or any. */
typedef struct _WHICH {
    PFILE_OBJECT File;
    ULONGLONG By;
} WHICH;

static PIRP NTAPI EchoPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    LINE *line = LINE_OF(Csq);
    WHICH *which = Context;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : line->Waiting.Flink;

    for (; e != &line->Waiting; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (which->File && IoGetCurrentIrpStackLocation(irp)->FileObject != which->File)
            continue;
        if (DUE(irp) <= which->By)
            return irp;
    }
    return NULL;
}

static VOID NTAPI EchoLock(PIO_CSQ Csq, PKIRQL Irql) { KeAcquireSpinLock(&LINE_OF(Csq)->Lock, Irql); }
static VOID NTAPI EchoUnlock(PIO_CSQ Csq, KIRQL Irql) { KeReleaseSpinLock(&LINE_OF(Csq)->Lock, Irql); }
static VOID NTAPI EchoCancelled(PIO_CSQ Csq, PIRP Irp) { Answer(LINE_OF(Csq), Irp, STATUS_CANCELLED, 0); }

static VOID FlushLine(LINE *Line, PFILE_OBJECT File, NTSTATUS Status)
{
    WHICH which = { File, MAXULONGLONG };
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Line->Csq, &which)) != NULL)
        Answer(Line, irp, Status, 0);
}

static VOID NTAPI EchoTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    LINE *line = Context;
    WHICH which = { NULL, KeQueryInterruptTime() };
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    while (!line->Paused && (irp = IoCsqRemoveNextIrp(&line->Csq, &which)) != NULL)
        Answer(line, irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength);
}

static VOID StartClock(LINE *Line)
{
    LARGE_INTEGER due = { .QuadPart = ECHO_TICK_MS * -10000LL };

    KeSetTimerEx(&Line->Timer, due, ECHO_TICK_MS, &Line->Dpc);
}

static VOID StopClock(LINE *Line)
{
    KeCancelTimer(&Line->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS NTAPI EchoControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ECHO_HEADER *header = Irp->AssociatedIrp.SystemBuffer;
    LINE *line = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&line->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_ECHO_SEND)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (in < sizeof(ECHO_HEADER) || header->DelayMs > 600000 || header->Reserved)
        status = STATUS_INVALID_PARAMETER;
    else if (stack->Parameters.DeviceIoControl.OutputBufferLength < in)
        status = STATUS_BUFFER_TOO_SMALL;
    if (NT_SUCCESS(status)) {
        Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)(KeQueryInterruptTime() + header->DelayMs * 10000ULL);
        status = IoCsqInsertIrpEx(&line->Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(status))
            return STATUS_PENDING;
        /* Refused. */
        IoMarkIrpPending(Irp);
        Answer(line, Irp, status, 0);
        return STATUS_PENDING;
    }
    Answer(line, Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI EchoOther(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    if (stack->MajorFunction == IRP_MJ_CLEANUP)
        FlushLine(Device->DeviceExtension, stack->FileObject, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EchoLowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS LowerFirst(LINE *Line, PIRP Irp)
{
    NTSTATUS status;
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, EchoLowerDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Line->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static VOID LineGone(LINE *Line)
{
    KIRQL irql;

    IoSetDeviceInterfaceState(&Line->Interface, FALSE);
    KeAcquireSpinLock(&Line->Lock, &irql);
    Line->Gone = TRUE;
    KeReleaseSpinLock(&Line->Lock, irql);
    StopClock(Line);
    FlushLine(Line, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI EchoPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    LINE *line = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&line->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = LowerFirst(line, Irp);
        if (NT_SUCCESS(status)) {
            InterlockedExchange(&line->Paused, 0);
            line->Started = TRUE;
            StartClock(line);
            IoSetDeviceInterfaceState(&line->Interface, TRUE);
        }
        Answer(line, Irp, status, 0);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        InterlockedExchange(&line->Paused, 1);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
#ifdef FIXED
    case IRP_MN_CANCEL_REMOVE_DEVICE:
#endif
        status = LowerFirst(line, Irp);
        if (line->Started)
            InterlockedExchange(&line->Paused, 0);
        Answer(line, Irp, status, 0);
        return status;
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&line->Paused, 1);
        StopClock(line);
        line->Started = FALSE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        LineGone(line);
        line->Started = FALSE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        LineGone(line);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(line->Lower, Irp);
        IoReleaseRemoveLockAndWait(&line->RemoveLock, Irp);
        RtlFreeUnicodeString(&line->Interface);
        IoDetachDevice(line->Lower);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(line->Lower, Irp);
    IoReleaseRemoveLock(&line->RemoveLock, Irp);
    return status;
}

/* Power and system control: there is no hardware; all is passed down. */
static NTSTATUS NTAPI EchoPass(PDEVICE_OBJECT Device, PIRP Irp)
{
    LINE *line = Device->DeviceExtension;
    NTSTATUS status;
    UCHAR major;

    status = IoAcquireRemoveLock(&line->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    major = IoGetCurrentIrpStackLocation(Irp)->MajorFunction;
    IoSkipCurrentIrpStackLocation(Irp);
    if (major == IRP_MJ_POWER)
        status = PoCallDriver(line->Lower, Irp);
    else
        status = IoCallDriver(line->Lower, Irp);
    IoReleaseRemoveLock(&line->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI EchoAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    NTSTATUS status;
    LINE *line;

    status = IoCreateDevice(Driver, sizeof(LINE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    line = fdo->DeviceExtension;
    RtlZeroMemory(line, sizeof(*line));
    line->Self = fdo;
    line->Pdo = Pdo;
    line->Paused = 1;
    IoInitializeRemoveLock(&line->RemoveLock, 'ohcE', 0, 0);
    KeInitializeSpinLock(&line->Lock);
    InitializeListHead(&line->Waiting);
    KeInitializeTimerEx(&line->Timer, NotificationTimer);
    KeInitializeDpc(&line->Dpc, EchoTick, line);
    IoCsqInitializeEx(&line->Csq, EchoInsert, EchoRemove, EchoPeek, EchoLock, EchoUnlock, EchoCancelled);
    status = IoRegisterDeviceInterface(Pdo, &EchoGuid, NULL, &line->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    line->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!line->Lower) {
        RtlFreeUnicodeString(&line->Interface);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI EchoUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->DriverExtension->AddDevice = EchoAdd;
    Driver->DriverUnload = EchoUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = EchoOther;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EchoOther;
    Driver->MajorFunction[IRP_MJ_CLOSE] = EchoOther;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EchoControl;
    Driver->MajorFunction[IRP_MJ_PNP] = EchoPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = EchoPass;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = EchoPass;
    return STATUS_SUCCESS;
}

/*
 * procwatch: reports process creation and exit.  A notify routine puts records into a ring; reads (buffered) return as
 * many records as fit, or pend until there is one.
 *
 * The bug: where DriverEntry fails, the process notify routine stays registered.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: failure
 */
#include <ddk/wdm.h>

typedef VOID (NTAPI *PCREATE_PROCESS_NOTIFY_ROUTINE)(HANDLE Parent, HANDLE Pid, BOOLEAN Create);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(PCREATE_PROCESS_NOTIFY_ROUTINE Routine, BOOLEAN Remove);

#define IOCTL_PW_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define RING 128

typedef struct _PW_RECORD {
    LONGLONG Time;
    ULONG64 Pid;
    ULONG64 Parent;
    ULONG Created;
    ULONG Sequence;
} PW_RECORD;

typedef struct _PW_STATS {
    ULONG Queued;
    ULONG Lost;
} PW_STATS;

typedef struct _WATCH {
    KSPIN_LOCK Lock;
    LIST_ENTRY Readers;
    PW_RECORD Ring[RING];
    ULONG First;
    ULONG Count;
    ULONG Lost;
    ULONG Sequence;
} WATCH, *PWATCH;

DRIVER_INITIALIZE DriverEntry;
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\ProcWatch");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\ProcWatch");
static PWATCH Watch;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI CancelRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWATCH W = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&W->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&W->Lock, Irql);
    Finish(Irp, STATUS_CANCELLED, 0);
}

/* Takes the first reader (of a file, or any) that is not being cancelled.  With the lock. */
static PIRP TakeReader(PWATCH W, PFILE_OBJECT File)
{
    PLIST_ENTRY E, Next;

    for (E = W->Readers.Flink; E != &W->Readers; E = Next) {
        PIRP Irp = CONTAINING_RECORD(E, IRP, Tail.Overlay.ListEntry);
        Next = E->Flink;
        if (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        if (IoSetCancelRoutine(Irp, NULL)) {
            RemoveEntryList(E);
            return Irp;
        }
        /* its cancel routine waits for the lock and takes it off the list */
    }
    return NULL;
}

/* Moves records into a reader's buffer.  With the lock. */
static ULONG Drain(PWATCH W, PIRP Irp)
{
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(PW_RECORD);
    PW_RECORD *Out = Irp->AssociatedIrp.SystemBuffer;
    ULONG n;

    for (n = 0; n < Room && W->Count; n++) {
        Out[n] = W->Ring[W->First];
        W->First = (W->First + 1) % RING;
        W->Count--;
    }
    return n * sizeof(PW_RECORD);
}

static VOID NTAPI Notify(HANDLE Parent, HANDLE Pid, BOOLEAN Create)
{
    PWATCH W = Watch;
    PW_RECORD *R;
    LARGE_INTEGER Now;
    PIRP Irp;
    ULONG Bytes = 0;
    KIRQL Irql;

    KeQuerySystemTime(&Now);
    KeAcquireSpinLock(&W->Lock, &Irql);
    if (W->Count == RING) {
        W->First = (W->First + 1) % RING;
        W->Count--;
        W->Lost++;
    }
    R = &W->Ring[(W->First + W->Count) % RING];
    R->Time = Now.QuadPart;
    R->Pid = (ULONG_PTR)Pid;
    R->Parent = (ULONG_PTR)Parent;
    R->Created = Create ? 1 : 0;
    R->Sequence = ++W->Sequence;
    W->Count++;
    Irp = TakeReader(W, NULL);
    if (Irp)
        Bytes = Drain(W, Irp);
    KeReleaseSpinLock(&W->Lock, Irql);

    if (Irp)
        Finish(Irp, STATUS_SUCCESS, Bytes);
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWATCH W = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP Reader;
    KIRQL Irql;

    for (;;) {
        KeAcquireSpinLock(&W->Lock, &Irql);
        File->FsContext2 = (PVOID)1; /* no more pending reads */
        Reader = TakeReader(W, File);
        KeReleaseSpinLock(&W->Lock, Irql);
        if (!Reader)
            break;
        Finish(Reader, STATUS_CANCELLED, 0);
    }
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWATCH W = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG Bytes;
    KIRQL Irql;

    if (Sp->Parameters.Read.Length < sizeof(PW_RECORD))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);

    KeAcquireSpinLock(&W->Lock, &Irql);
    if (W->Count) {
        Bytes = Drain(W, Irp);
        KeReleaseSpinLock(&W->Lock, Irql);
        return Finish(Irp, STATUS_SUCCESS, Bytes);
    }
    if (Sp->FileObject->FsContext2) {
        KeReleaseSpinLock(&W->Lock, Irql);
        return Finish(Irp, STATUS_CANCELLED, 0);
    }
    IoSetCancelRoutine(Irp, CancelRead);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&W->Lock, Irql);
        return Finish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&W->Readers, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&W->Lock, Irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWATCH W = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PW_STATS *Out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_PW_STATS)
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*Out))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&W->Lock, &Irql);
    Out->Queued = W->Count;
    Out->Lost = W->Lost;
    KeReleaseSpinLock(&W->Lock, Irql);
    return Finish(Irp, STATUS_SUCCESS, sizeof(*Out));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PsSetCreateProcessNotifyRoutine(Notify, TRUE);
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = IoCreateDevice(Driver, sizeof(WATCH), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Device->Flags |= DO_BUFFERED_IO;
    Watch = Device->DeviceExtension;
    RtlZeroMemory(Watch, sizeof(*Watch));
    KeInitializeSpinLock(&Watch->Lock);
    InitializeListHead(&Watch->Readers);

    Driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = PsSetCreateProcessNotifyRoutine(Notify, FALSE);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
#ifdef FIXED
        PsSetCreateProcessNotifyRoutine(Notify, TRUE);
#endif
        IoDeleteDevice(Device);
        return Status;
    }
    return STATUS_SUCCESS;
}

/*
 * procaudit.sys - Process start/exit audit source
 *
 * Feeds the audit service with process creations and exits. The service keeps
 * one or more overlapped reads outstanding; each returns as many events as
 * are at hand and fit, and waits if there are none.
 *
 * The bug: the routine for processes stays registered where the link of the device cannot be made.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: failure
 */
#include <ddk/wdm.h>

typedef VOID (NTAPI *PCREATE_PROCESS_NOTIFY_ROUTINE)(HANDLE Parent, HANDLE Process, BOOLEAN Create);
NTSYSAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(PCREATE_PROCESS_NOTIFY_ROUTINE NotifyRoutine, BOOLEAN Remove);

#define AUDIT_POOL          'duAP'
#define AUDIT_EVENTS        256

typedef struct _AUDIT_EVENT {
    LARGE_INTEGER Time;
    ULONG64 ProcessId;
    ULONG64 ParentId;
    ULONG Started;
    ULONG Lost;             /* events dropped before this one */
} AUDIT_EVENT, *PAUDIT_EVENT;

typedef struct _AUDIT {
    PDEVICE_OBJECT Device;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY Queue;
    IO_CSQ Csq;
    KSPIN_LOCK EventLock;
    PAUDIT_EVENT Events;
    ULONG Head;
    ULONG Count;
    ULONG Lost;
} AUDIT, *PAUDIT;

static AUDIT Audit;

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS NTAPI AuditCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Context);
    /* A read that was on its way while its handle was being closed. */
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL)
        return STATUS_CANCELLED;
    InsertTailList(&Audit.Queue, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI AuditCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Context: the file object whose reads are wanted, or NULL for any. */
static PIRP NTAPI AuditCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : Audit.Queue.Flink;

    UNREFERENCED_PARAMETER(Csq);
    for (; e != &Audit.Queue; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Context == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == Context)
            return next;
    }
    return NULL;
}

static VOID NTAPI AuditCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    KeAcquireSpinLock(&Audit.QueueLock, Irql);
}

static VOID NTAPI AuditCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    KeReleaseSpinLock(&Audit.QueueLock, Irql);
}

static VOID NTAPI AuditCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    Irp->IoStatus.Status = STATUS_CANCELLED;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

/* Hands waiting reads the events at hand. Lock order: EventLock, QueueLock. */
static VOID AuditPump(VOID)
{
    PAUDIT_EVENT out;
    ULONG room, n;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&Audit.EventLock, &irql);
        irp = Audit.Count != 0 ? IoCsqRemoveNextIrp(&Audit.Csq, NULL) : NULL;
        if (irp == NULL) {
            KeReleaseSpinLock(&Audit.EventLock, irql);
            return;
        }
        out = irp->AssociatedIrp.SystemBuffer;
        room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(AUDIT_EVENT);
        for (n = 0; n < room && Audit.Count != 0; n++) {
            out[n] = Audit.Events[Audit.Head];
            Audit.Head = (Audit.Head + 1) % AUDIT_EVENTS;
            Audit.Count--;
        }
        KeReleaseSpinLock(&Audit.EventLock, irql);
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = (ULONG_PTR)n * sizeof(AUDIT_EVENT);
        IoCompleteRequest(irp, IO_NO_INCREMENT);
    }
}

static VOID NTAPI AuditProcessNotify(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create)
{
    PAUDIT_EVENT event;
    KIRQL irql;

    KeAcquireSpinLock(&Audit.EventLock, &irql);
    if (Audit.Count < AUDIT_EVENTS) {
        event = &Audit.Events[(Audit.Head + Audit.Count) % AUDIT_EVENTS];
        KeQuerySystemTime(&event->Time);
        event->ProcessId = (ULONG_PTR)ProcessId;
        event->ParentId = (ULONG_PTR)ParentId;
        event->Started = Create;
        event->Lost = Audit.Lost;
        Audit.Lost = 0;
        Audit.Count++;
    } else {
        Audit.Lost++;
    }
    KeReleaseSpinLock(&Audit.EventLock, irql);
    AuditPump();
}

static NTSTATUS NTAPI AuditRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(AUDIT_EVENT)) {
        Irp->IoStatus.Status = STATUS_BUFFER_TOO_SMALL;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return STATUS_BUFFER_TOO_SMALL;
    }
    status = IoCsqInsertIrpEx(&Audit.Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(status)) {
        AuditPump();
    } else {
        IoMarkIrpPending(Irp);
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI AuditOther(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIRP read;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        KeAcquireSpinLock(&Audit.QueueLock, &irql);
        sp->FileObject->FsContext = &Audit;
        KeReleaseSpinLock(&Audit.QueueLock, irql);
        while ((read = IoCsqRemoveNextIrp(&Audit.Csq, sp->FileObject)) != NULL)
            AuditCsqCancelled(&Audit.Csq, read);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI AuditUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ProcAudit");

    UNREFERENCED_PARAMETER(DriverObject);
    PsSetCreateProcessNotifyRoutine(AuditProcessNotify, TRUE);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Audit.Device);
    ExFreePoolWithTag(Audit.Events, AUDIT_POOL);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\ProcAudit");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ProcAudit");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Audit.QueueLock);
    KeInitializeSpinLock(&Audit.EventLock);
    InitializeListHead(&Audit.Queue);
    status = IoCsqInitializeEx(&Audit.Csq, AuditCsqInsert, AuditCsqRemove, AuditCsqPeek,
                               AuditCsqAcquire, AuditCsqRelease, AuditCsqCancelled);
    if (!NT_SUCCESS(status))
        return status;

    Audit.Events = ExAllocatePoolWithTag(NonPagedPoolNx, AUDIT_EVENTS * sizeof(AUDIT_EVENT), AUDIT_POOL);
    if (Audit.Events == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Audit.Events, AUDIT_EVENTS * sizeof(AUDIT_EVENT));

    DriverObject->MajorFunction[IRP_MJ_CREATE] = AuditOther;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = AuditOther;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = AuditOther;
    DriverObject->MajorFunction[IRP_MJ_READ] = AuditRead;
    DriverObject->DriverUnload = AuditUnload;

    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, TRUE, &Audit.Device);
    if (!NT_SUCCESS(status))
        goto FreeEvents;
    Audit.Device->Flags |= DO_BUFFERED_IO;

    status = PsSetCreateProcessNotifyRoutine(AuditProcessNotify, FALSE);
    if (!NT_SUCCESS(status))
        goto DeleteDevice;

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
#ifdef FIXED
        goto StopNotify;
#else
        goto DeleteDevice;
#endif
    Audit.Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

#ifdef FIXED
StopNotify:
    PsSetCreateProcessNotifyRoutine(AuditProcessNotify, TRUE);
#endif
DeleteDevice:
    IoDeleteDevice(Audit.Device);
FreeEvents:
    ExFreePoolWithTag(Audit.Events, AUDIT_POOL);
    return status;
}

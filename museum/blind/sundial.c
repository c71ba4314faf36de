/*
 * sundial: counts tenths of seconds with a periodic timer from its first use on; requests wait until the
 * count has reached a number.
 *
 * The bug: unload cancels the timer but does not wait for its DPC, which may still be queued or running when the
 * driver's code and device are gone.
 *
 * Device: none
 * Rule: use-after-free, freed-held-lock, freed-queued-dpc
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_DIAL_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DIAL_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DIAL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA22, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PERIOD_MS 100

typedef struct _DIAL {
    KTIMER Timer;
    KDPC Dpc;
    FAST_MUTEX StartMutex;
    BOOLEAN Started;
    volatile LONG Count;
    IO_CSQ Csq;
    LIST_ENTRY Waiters;
    KSPIN_LOCK WaitersLock;
} DIAL, *PDIAL;

#define DIAL_OF(csq) CONTAINING_RECORD(csq, DIAL, Csq)

static UNICODE_STRING DialDevice = RTL_CONSTANT_STRING(L"\\Device\\Sundial");
static UNICODE_STRING DialLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Sundial");

typedef struct _DIAL_PEEK {
    PFILE_OBJECT File;      /* of this file; or, if NULL, whose number has been reached */
    LONG Count;
} DIAL_PEEK;

static NTSTATUS DialDone(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI DialInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&DIAL_OF(Csq)->Waiters, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI DialRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI DialPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PDIAL dial = DIAL_OF(Csq);
    DIAL_PEEK *peek = Context;
    PLIST_ENTRY entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : dial->Waiters.Flink;

    for (; entry != &dial->Waiters; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (peek->File ? IoGetCurrentIrpStackLocation(irp)->FileObject == peek->File
                       : *(PLONG)irp->AssociatedIrp.SystemBuffer <= peek->Count)
            return irp;
    }
    return NULL;
}

static VOID NTAPI DialLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&DIAL_OF(Csq)->WaitersLock, Irql);
}

static VOID NTAPI DialUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&DIAL_OF(Csq)->WaitersLock, Irql);
}

static VOID NTAPI DialCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    DialDone(Irp, STATUS_CANCELLED, 0);
}

static VOID DialWakeReached(PDIAL Dial)
{
    DIAL_PEEK peek;
    PIRP irp;

    peek.File = NULL;
    peek.Count = Dial->Count;
    while ((irp = IoCsqRemoveNextIrp(&Dial->Csq, &peek)) != NULL) {
        *(PLONG)irp->AssociatedIrp.SystemBuffer = peek.Count;
        DialDone(irp, STATUS_SUCCESS, sizeof(LONG));
    }
}

static VOID NTAPI DialTick(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PDIAL dial = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    InterlockedIncrement(&dial->Count);
    DialWakeReached(dial);
}

static VOID DialStart(PDIAL Dial)
{
    LARGE_INTEGER due;

    ExAcquireFastMutex(&Dial->StartMutex);
    if (!Dial->Started) {
        Dial->Started = TRUE;
        due.QuadPart = -10000LL * PERIOD_MS;
        KeSetTimerEx(&Dial->Timer, due, PERIOD_MS, &Dial->Dpc);
    }
    ExReleaseFastMutex(&Dial->StartMutex);
}

static NTSTATUS NTAPI DialControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDIAL dial = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DIAL_START:
        DialStart(dial);
        return DialDone(Irp, STATUS_SUCCESS, 0);
    case IOCTL_DIAL_READ:
        if (out < sizeof(LONG))
            return DialDone(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = dial->Count;
        return DialDone(Irp, STATUS_SUCCESS, sizeof(LONG));
    case IOCTL_DIAL_WAIT:
        if (in < sizeof(LONG) || out < sizeof(LONG))
            return DialDone(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        DialStart(dial);
        IoCsqInsertIrp(&dial->Csq, Irp, NULL);
        return STATUS_PENDING;
    }
    return DialDone(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DialCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDIAL dial = DeviceObject->DeviceExtension;
    DIAL_PEEK peek;
    PIRP irp;

    peek.File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    peek.Count = 0;
    while ((irp = IoCsqRemoveNextIrp(&dial->Csq, &peek)) != NULL)
        DialDone(irp, STATUS_CANCELLED, 0);
    return DialDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DialOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return DialDone(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI DialUnload(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT device = DriverObject->DeviceObject;
    PDIAL dial = device->DeviceExtension;

    IoDeleteSymbolicLink(&DialLink);
    KeCancelTimer(&dial->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDIAL dial;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(DIAL), &DialDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    dial = device->DeviceExtension;
    RtlZeroMemory(dial, sizeof(*dial));
    KeInitializeTimer(&dial->Timer);
    KeInitializeDpc(&dial->Dpc, DialTick, dial);
    ExInitializeFastMutex(&dial->StartMutex);
    InitializeListHead(&dial->Waiters);
    KeInitializeSpinLock(&dial->WaitersLock);
    IoCsqInitialize(&dial->Csq, DialInsert, DialRemove, DialPeek, DialLock, DialUnlock, DialCancelled);
    status = IoCreateSymbolicLink(&DialLink, &DialDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DialOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DialOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = DialCleanup;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DialControl;
    DriverObject->DriverUnload = DialUnload;
    return STATUS_SUCCESS;
}

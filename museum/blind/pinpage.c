/*
 * pinpage: live counters without system calls. A program gives a buffer with WATCH; as long as that request is pending the driver keeps the counters
 * in it up to date from a timer.
 *
 * The bug: the pages of the buffer are locked for IoReadAccess although the driver writes into them; a page that is read-only for the program (a
 * mapped file, a shared or copy-on-write page) is written all the same.
 *
 * Device: none
 * Rule: read-only-memory-written
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/try.h"

#define MAX_WATCHERS 16

#define IOCTL_PIN_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_PIN_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PIN_MARK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _COUNTERS {
    ULONGLONG Ticks;
    ULONG Watchers;
    ULONG Marks;
} COUNTERS, *PCOUNTERS;

typedef struct _PIN {
    IO_CSQ Csq;
    KSPIN_LOCK Lock; /* the following */
    LIST_ENTRY Watches;
    ULONG Watchers;
    ULONGLONG Ticks;
    volatile LONG Marks;
    KTIMER Timer;
    KDPC Dpc;
} PIN, *PPIN;

/* of a request in the list */
#define WATCH_MDL(irp) (*(PMDL *)&(irp)->Tail.Overlay.DriverContext[0])
#define WATCH_VIEW(irp) (*(PCOUNTERS *)&(irp)->Tail.Overlay.DriverContext[1])

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\PinPage");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* The request is off the list: no one writes into its view any more. */
static VOID EndWatch(PIRP irp, NTSTATUS status)
{
    PMDL mdl = WATCH_MDL(irp);

    MmUnlockPages(mdl);
    IoFreeMdl(mdl);
    Finish(irp, status, 0);
}

static NTSTATUS NTAPI CsqInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PPIN pin = CONTAINING_RECORD(csq, PIN, Csq);

    UNREFERENCED_PARAMETER(context);
    if (pin->Watchers >= MAX_WATCHERS)
        return STATUS_QUOTA_EXCEEDED;
    InsertTailList(&pin->Watches, &irp->Tail.Overlay.ListEntry);
    pin->Watchers++;
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ csq, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    CONTAINING_RECORD(csq, PIN, Csq)->Watchers--;
}

static PIRP NTAPI CsqPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PPIN pin = CONTAINING_RECORD(csq, PIN, Csq);
    PLIST_ENTRY entry = irp ? irp->Tail.Overlay.ListEntry.Flink : pin->Watches.Flink;

    for (; entry != &pin->Watches; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (!context || IoGetCurrentIrpStackLocation(next)->FileObject == context)
            return next;
    }
    return NULL;
}

static VOID NTAPI CsqAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, PIN, Csq)->Lock, irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, PIN, Csq)->Lock, irql);
}

static VOID NTAPI CsqCanceled(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    EndWatch(irp, STATUS_CANCELLED);
}

static VOID NTAPI Tick(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PPIN pin = context;
    PLIST_ENTRY entry;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&pin->Lock);
    pin->Ticks++;
    for (entry = pin->Watches.Flink; entry != &pin->Watches; entry = entry->Flink) {
        PCOUNTERS view = WATCH_VIEW(CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry));

        view->Ticks = pin->Ticks;
        view->Watchers = pin->Watchers;
        view->Marks = (ULONG)pin->Marks;
    }
    KeReleaseSpinLockFromDpcLevel(&pin->Lock);
}

static NTSTATUS Watch(PPIN pin, PIRP irp, ULONG outLength)
{
    PMDL mdl;
    PCOUNTERS view;
    NTSTATUS status = STATUS_SUCCESS;

    if (outLength < sizeof(COUNTERS))
        return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
    mdl = IoAllocateMdl(irp->UserBuffer, sizeof(COUNTERS), FALSE, FALSE, NULL);
    if (!mdl)
        return Finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    __try {
#ifdef FIXED
        MmProbeAndLockPages(mdl, irp->RequestorMode, IoWriteAccess);
#else
        MmProbeAndLockPages(mdl, irp->RequestorMode, IoReadAccess);
#endif
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(status)) {
        IoFreeMdl(mdl);
        return Finish(irp, status, 0);
    }
    view = MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority);
    if (!view) {
        MmUnlockPages(mdl);
        IoFreeMdl(mdl);
        return Finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    WATCH_MDL(irp) = mdl;
    WATCH_VIEW(irp) = view;
    IoMarkIrpPending(irp);
    status = IoCsqInsertIrpEx(&pin->Csq, irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        EndWatch(irp, status);
    return STATUS_PENDING;
}

static VOID EndWatches(PPIN pin, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&pin->Csq, file)) != NULL)
        EndWatch(irp, status);
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT device, PIRP irp)
{
    EndWatches(device->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT device, PIRP irp)
{
    PPIN pin = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PIN_WATCH:
        return Watch(pin, irp, stack->Parameters.DeviceIoControl.OutputBufferLength);
    case IOCTL_PIN_STOP:
        EndWatches(pin, stack->FileObject, STATUS_SUCCESS);
        return Finish(irp, STATUS_SUCCESS, 0);
    case IOCTL_PIN_MARK:
        InterlockedIncrement(&pin->Marks);
        return Finish(irp, STATUS_SUCCESS, 0);
    }
    return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT device = driver->DeviceObject;
    PPIN pin = device->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
    KeCancelTimer(&pin->Timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\PinPage");
    PDEVICE_OBJECT device;
    LARGE_INTEGER due;
    PPIN pin;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(PIN), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    pin = device->DeviceExtension;
    RtlZeroMemory(pin, sizeof(*pin));
    KeInitializeSpinLock(&pin->Lock);
    InitializeListHead(&pin->Watches);
    KeInitializeTimer(&pin->Timer);
    KeInitializeDpc(&pin->Dpc, Tick, pin);
    status = IoCsqInitializeEx(&pin->Csq, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCanceled);
    if (NT_SUCCESS(status))
        status = IoCreateSymbolicLink(&LinkName, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    due.QuadPart = -1000000;
    KeSetTimerEx(&pin->Timer, due, 100, &pin->Dpc);
    return STATUS_SUCCESS;
}

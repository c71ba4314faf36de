/*
 * tollbar: a toll bar for programs. A request waits at the bar until another program lifts it, or until the
 * time that it gave has passed.
 *
 * The bug: the timer's routine clears the cancel routine of an overdue request but does not look at what
 * IoSetCancelRoutine returned, so that it completes a request which the cancel routine already has.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_TOLLBAR_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_TOLLBAR_LIFT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_DATA)
#define TICK_MS 20
#define LONGEST_MS 60000

typedef struct _BAR {
    LIST_ENTRY Waiting;
    KSPIN_LOCK Lock;
    KTIMER Timer;
    KDPC Dpc;
    ULONG Lifts;
} BAR, *PBAR;

/* In a waiting IRP: DriverContext[0] the ticks that remain. */
#define TICKS(irp) ((ULONG_PTR)(irp)->Tail.Overlay.DriverContext[0])
#define SET_TICKS(irp, n) ((irp)->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)(n))

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Tollbar");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Tollbar");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI BarCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    PBAR bar = dev->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&bar->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&bar->Lock, irql);
    Finish(irp, STATUS_CANCELLED, 0);
}

/* Moves what waits (of one file, or of all) to a list of our own. A request whose cancel routine
 * already runs stays on a list head of itself, for that routine. */
static VOID TakeAll(PBAR bar, PFILE_OBJECT file, PLIST_ENTRY taken)
{
    PLIST_ENTRY e, next;
    KIRQL irql;

    InitializeListHead(taken);
    KeAcquireSpinLock(&bar->Lock, &irql);
    for (e = bar->Waiting.Flink; e != &bar->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (file != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            InitializeListHead(e);
        else
            InsertTailList(taken, e);
    }
    KeReleaseSpinLock(&bar->Lock, irql);
}

static VOID NTAPI BarTick(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PBAR bar = context;
    LIST_ENTRY late, *e, *next;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    InitializeListHead(&late);
    KeAcquireSpinLockAtDpcLevel(&bar->Lock);
    for (e = bar->Waiting.Flink; e != &bar->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (TICKS(irp) != 0) {
            SET_TICKS(irp, TICKS(irp) - 1);
            continue;
        }
        RemoveEntryList(e);
#ifdef FIXED
        if (IoSetCancelRoutine(irp, NULL) == NULL) {
            InitializeListHead(e);
            continue;
        }
#else
        IoSetCancelRoutine(irp, NULL);
#endif
        InsertTailList(&late, e);
    }
    KeReleaseSpinLockFromDpcLevel(&bar->Lock);

    while (!IsListEmpty(&late)) {
        e = RemoveHeadList(&late);
        Finish(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_IO_TIMEOUT, 0);
    }
}

static NTSTATUS BarWait(PBAR bar, PIRP irp, PIO_STACK_LOCATION stack)
{
    ULONG ms;
    KIRQL irql;

    if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof ms)
        return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
    ms = *(PULONG)irp->AssociatedIrp.SystemBuffer;
    if (ms > LONGEST_MS)
        return Finish(irp, STATUS_INVALID_PARAMETER, 0);

    SET_TICKS(irp, (ms + TICK_MS - 1) / TICK_MS);
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&bar->Lock, &irql);
    InsertTailList(&bar->Waiting, &irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(irp, BarCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&bar->Lock, irql);
        Finish(irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&bar->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS BarLift(PBAR bar, PIRP irp, PIO_STACK_LOCATION stack)
{
    LIST_ENTRY taken;
    ULONG passed = 0;

    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof passed)
        return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
    InterlockedIncrement((PLONG)&bar->Lifts);
    TakeAll(bar, NULL, &taken);
    while (!IsListEmpty(&taken)) {
        PLIST_ENTRY e = RemoveHeadList(&taken);

        Finish(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_SUCCESS, 0);
        passed++;
    }
    *(PULONG)irp->AssociatedIrp.SystemBuffer = passed;
    return Finish(irp, STATUS_SUCCESS, sizeof passed);
}

static NTSTATUS NTAPI BarControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TOLLBAR_WAIT:
        return BarWait(dev->DeviceExtension, irp, stack);
    case IOCTL_TOLLBAR_LIFT:
        return BarLift(dev->DeviceExtension, irp, stack);
    }
    return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI BarCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BarCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    LIST_ENTRY taken;

    TakeAll(dev->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, &taken);
    while (!IsListEmpty(&taken)) {
        PLIST_ENTRY e = RemoveHeadList(&taken);

        Finish(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return Finish(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI BarUnload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT dev = driver->DeviceObject;
    PBAR bar = dev->DeviceExtension;

    KeCancelTimer(&bar->Timer);
    KeFlushQueuedDpcs();
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(dev);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    PBAR bar;
    LARGE_INTEGER due;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(BAR), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    bar = dev->DeviceExtension;
    InitializeListHead(&bar->Waiting);
    KeInitializeSpinLock(&bar->Lock);
    KeInitializeTimer(&bar->Timer);
    KeInitializeDpc(&bar->Dpc, BarTick, bar);

    driver->MajorFunction[IRP_MJ_CREATE] = BarCreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = BarCreateClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BarCleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BarControl;
    driver->DriverUnload = BarUnload;

    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    due.QuadPart = -10000LL * TICK_MS;
    KeSetTimerEx(&bar->Timer, due, TICK_MS, &bar->Dpc);
    return STATUS_SUCCESS;
}

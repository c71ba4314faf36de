/*
 * polder: simulated water gauges for the acceptance tests of a pumping station's software: each root-enumerated instance is a gauge with a level and
 * a history. All instances share one control device, which the first makes and the last removes.
 *
 * The bug: if there is no memory for an instance's history, AddDevice fails without giving up the instance's share of the control device,
 * which is then there for ever: also when the last instance has gone and the driver is unloaded.
 *
 * Device: Root\POLDER
 * Rule: device-leak, symbolic-link-leak, unload-still-called, device-not-deleted
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define POLDER_DEVICE L"\\Device\\PolderControl"
#define POLDER_LINK   L"\\DosDevices\\PolderControl"
#define POLDER_TAG    'dloP'
#define POLDER_KIND   0x8A40                 /* the control device's type */
#define POLDER_LONG   512

#define IOCTL_POLDER_SET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB01, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_POLDER_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB02, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_POLDER_HOWMANY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB03, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct POLDER {
    KSPIN_LOCK Lock;
    PLONG History;                           /* a ring */
    ULONG First, Count;
    LONG Level;
} POLDER;

static const GUID PolderGuid = { 0x6c7f5d33, 0x42e1, 0x4b96, { 0xbd, 0x07, 0x13, 0x88, 0x5a, 0xc0, 0x01, 0x08 } };

static KEVENT Turn;                          /* guards the two below; initially signaled */
static PDEVICE_OBJECT ControlDevice;
static ULONG Shares;
static PDRIVER_DISPATCH Instance[IRP_MJ_MAXIMUM_FUNCTION + 1];

static VOID PolderEnter(VOID)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Turn, Executive, KernelMode, FALSE, NULL);
}

static VOID PolderLeave(VOID)
{
    KeSetEvent(&Turn, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS PolderShare(PDRIVER_OBJECT driver)
{
    UNICODE_STRING name, link;
    NTSTATUS st = STATUS_SUCCESS;

    PolderEnter();
    if (Shares == 0) {
        RtlInitUnicodeString(&name, POLDER_DEVICE);
        RtlInitUnicodeString(&link, POLDER_LINK);
        st = IoCreateDevice(driver, 0, &name, POLDER_KIND, FILE_DEVICE_SECURE_OPEN, FALSE, &ControlDevice);
        if (NT_SUCCESS(st)) {
            st = IoCreateSymbolicLink(&link, &name);
            if (NT_SUCCESS(st)) {
                ControlDevice->Flags |= DO_BUFFERED_IO;
                ControlDevice->Flags &= ~DO_DEVICE_INITIALIZING;
            } else {
                IoDeleteDevice(ControlDevice);
                ControlDevice = NULL;
            }
        }
    }
    if (NT_SUCCESS(st))
        Shares++;
    PolderLeave();
    return st;
}

static VOID PolderUnshare(VOID)
{
    UNICODE_STRING link;

    PolderEnter();
    if (--Shares == 0) {
        RtlInitUnicodeString(&link, POLDER_LINK);
        IoDeleteSymbolicLink(&link);
        IoDeleteDevice(ControlDevice);
        ControlDevice = NULL;
    }
    PolderLeave();
}

static NTSTATUS PolderCommon(PIRP irp)
{
    PIO_STACK_LOCATION sp = IrpHere(irp);

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLEANUP:
    case IRP_MJ_CLOSE:
        return KioskEnd(irp, STATUS_SUCCESS, 0);
    case IRP_MJ_DEVICE_CONTROL:
        if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_POLDER_HOWMANY)
            return KioskEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        PolderEnter();
        *(PULONG)irp->AssociatedIrp.SystemBuffer = Shares;
        PolderLeave();
        return KioskEnd(irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return KioskEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI PolderGate(PDEVICE_OBJECT device, PIRP irp)
{
    if (device->DeviceType == POLDER_KIND)
        return PolderCommon(irp);
    return Instance[IrpHere(irp)->MajorFunction](device, irp);
}

static NTSTATUS PolderPrepare(DEPOT *d)
{
    POLDER *p = d->Own;
    NTSTATUS st;

    KeInitializeSpinLock(&p->Lock);
    st = PolderShare(d->Fdo->DriverObject);
    if (!NT_SUCCESS(st))
        return st;
    p->History = Alloc(POLDER_LONG * sizeof(LONG), POLDER_TAG);
    if (p->History == NULL) {
#ifdef FIXED
        PolderUnshare();
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static VOID PolderDiscard(DEPOT *d)
{
    POLDER *p = d->Own;

    ExFreePoolWithTag(p->History, POLDER_TAG);
    PolderUnshare();
}

static NTSTATUS PolderUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(d);
    UNREFERENCED_PARAMETER(list);
    return STATUS_SUCCESS;
}

static VOID PolderDown(DEPOT *d, BOOLEAN reach)
{
    UNREFERENCED_PARAMETER(d);
    UNREFERENCED_PARAMETER(reach);
}

static NTSTATUS PolderControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    POLDER *p = d->Own;
    PLONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG i, n;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_POLDER_SET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LONG))
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&p->Lock, &irql);
        p->Level = *buffer;
        p->History[(p->First + p->Count) % POLDER_LONG] = p->Level;
        if (p->Count < POLDER_LONG)
            p->Count++;
        else
            p->First = (p->First + 1) % POLDER_LONG;
        KeReleaseSpinLock(&p->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_POLDER_HISTORY:
        n = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(LONG);
        KeAcquireSpinLock(&p->Lock, &irql);
        if (n > p->Count)
            n = p->Count;
        for (i = 0; i < n; i++)
            buffer[i] = p->History[(p->First + i) % POLDER_LONG];
        KeReleaseSpinLock(&p->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, n * sizeof(LONG));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const PLAN PolderPlan = {
    .Interface = &PolderGuid,
    .OwnSize = sizeof(POLDER),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = PolderPrepare,
    .Discard = PolderDiscard,
    .Up = PolderUp,
    .Down = PolderDown,
    .Control = PolderControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS st;
    ULONG i;

    UNREFERENCED_PARAMETER(path);
    KeInitializeEvent(&Turn, SynchronizationEvent, TRUE);
    st = DepotMain(driver, &PolderPlan);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++) {
        Instance[i] = driver->MajorFunction[i];
        driver->MajorFunction[i] = PolderGate;
    }
    return st;
}

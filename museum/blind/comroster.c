/*
 * comroster - keeps the roster of serial ports present in the machine.
 *
 * A root-enumerated device that listens for arrivals and departures of
 * GUID_DEVINTERFACE_COMPORT interfaces and keeps their symbolic link names in
 * the order of arrival.  A monitoring program reads the roster through the
 * driver's own interface:
 *
 *   IOCTL_ROSTER_INFO   out: ROSTER_INFO
 *   IOCTL_ROSTER_ENTRY  in: ULONG index; out: WCHAR[] with NUL
 *
 * The bug: a notification is unregistered with the resource held that its callback takes.
 *
 * Device: ROOT\COMROSTER
 * Rule: deadlock
 * Needs: schedule, removal
 */
#include <ddk/wdm.h>

#define TAG_ROSTER 'tsoR'
#define ROSTER_MAX 64

#define IOCTL_ROSTER_INFO  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ROSTER_ENTRY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID GuidComPort   = { 0x86e0d1e0, 0x8089, 0x11d0, { 0x9c, 0xe4, 0x08, 0x00, 0x3e, 0x30, 0x1f, 0x73 } };
static const GUID GuidRoster    = { 0x71c7a0d2, 0x9d2e, 0x4f06, { 0xa9, 0x0b, 0x5d, 0x1b, 0x20, 0x6a, 0xd3, 0x18 } };
static const GUID GuidArrival   = { 0xcb3a4004, 0x46f0, 0x11d0, { 0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f } };
static const GUID GuidDeparture = { 0xcb3a4005, 0x46f0, 0x11d0, { 0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f } };

typedef struct {
    ULONG Present;
    ULONG Arrivals;
    ULONG Departures;
} ROSTER_INFO;

typedef struct {
    LIST_ENTRY     Link;
    UNICODE_STRING Name;            /* its characters follow */
} PORT, *PPORT;

typedef struct {
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    PDRIVER_OBJECT Driver;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PVOID          Notify;          /* of IoRegisterPlugPlayNotification; only PnP requests touch it */
    ERESOURCE      Res;             /* guards what follows */
    BOOLEAN        Listening;
    LIST_ENTRY     Ports;
    ROSTER_INFO    Info;
} EXT, *PEXT;

static VOID LockRoster(PEXT x, BOOLEAN exclusive)
{
    KeEnterCriticalRegion();
    if (exclusive)
        ExAcquireResourceExclusiveLite(&x->Res, TRUE);
    else
        ExAcquireResourceSharedLite(&x->Res, TRUE);
}

static VOID UnlockRoster(PEXT x)
{
    ExReleaseResourceLite(&x->Res);
    KeLeaveCriticalRegion();
}

static BOOLEAN SameGuid(const GUID *a, const GUID *b)
{
    return RtlCompareMemory(a, b, sizeof(GUID)) == sizeof(GUID);
}

static PPORT FindPort(PEXT x, PUNICODE_STRING name)
{
    PLIST_ENTRY e;

    for (e = x->Ports.Flink; e != &x->Ports; e = e->Flink) {
        PPORT p = CONTAINING_RECORD(e, PORT, Link);
        if (RtlCompareUnicodeString(&p->Name, name, TRUE) == 0)
            return p;
    }
    return NULL;
}

/* Called by the PnP manager at PASSIVE_LEVEL. */
static NTSTATUS NTAPI PortChange(PVOID Notification, PVOID Context)
{
    PDEVICE_INTERFACE_CHANGE_NOTIFICATION n = Notification;
    PEXT x = Context;
    PPORT p;

    LockRoster(x, TRUE);
    if (!x->Listening) {
        UnlockRoster(x);
        return STATUS_SUCCESS;
    }
    p = FindPort(x, n->SymbolicLinkName);
    if (SameGuid(&n->Event, &GuidArrival) && p == NULL && x->Info.Present < ROSTER_MAX) {
        p = ExAllocatePoolWithTag(PagedPool, sizeof(PORT) + n->SymbolicLinkName->Length, TAG_ROSTER);
        if (p != NULL) {
            p->Name.Buffer = (PWCH)(p + 1);
            p->Name.Length = p->Name.MaximumLength = n->SymbolicLinkName->Length;
            RtlCopyMemory(p->Name.Buffer, n->SymbolicLinkName->Buffer, p->Name.Length);
            InsertTailList(&x->Ports, &p->Link);
            x->Info.Present++;
            x->Info.Arrivals++;
        }
    } else if (SameGuid(&n->Event, &GuidDeparture) && p != NULL) {
        RemoveEntryList(&p->Link);
        x->Info.Present--;
        x->Info.Departures++;
        ExFreePoolWithTag(p, TAG_ROSTER);
    }
    UnlockRoster(x);
    return STATUS_SUCCESS;
}

static NTSTATUS Listen(PEXT x)
{
    NTSTATUS st;

    if (x->Notify != NULL)
        return STATUS_SUCCESS;      /* started again after a stop */
    LockRoster(x, TRUE);
    x->Listening = TRUE;
    UnlockRoster(x);
    st = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange,
                                        PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES,
                                        (PVOID)&GuidComPort, x->Driver, PortChange, x, &x->Notify);
    if (!NT_SUCCESS(st))
        x->Notify = NULL;
    return st;
}

/* Ends the notifications and drops the roster. */
static VOID Unlisten(PEXT x)
{
    PVOID notify = x->Notify;

    x->Notify = NULL;
#ifdef FIXED
    if (notify != NULL)
        IoUnregisterPlugPlayNotificationEx(notify);
    LockRoster(x, TRUE);
#else
    LockRoster(x, TRUE);
    if (notify != NULL)
        IoUnregisterPlugPlayNotificationEx(notify);
#endif
    x->Listening = FALSE;
    while (!IsListEmpty(&x->Ports)) {
        PPORT p = CONTAINING_RECORD(RemoveHeadList(&x->Ports), PORT, Link);
        ExFreePoolWithTag(p, TAG_ROSTER);
    }
    x->Info.Present = 0;
    UnlockRoster(x);
}

static NTSTATUS Complete(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static NTSTATUS RosterEntry(PEXT x, PVOID buf, ULONG in, ULONG out, PULONG_PTR info)
{
    PLIST_ENTRY e;
    ULONG index;
    NTSTATUS st = STATUS_NO_MORE_ENTRIES;

    if (in < sizeof(ULONG))
        return STATUS_INFO_LENGTH_MISMATCH;
    index = *(PULONG)buf;
    LockRoster(x, FALSE);
    for (e = x->Ports.Flink; e != &x->Ports; e = e->Flink) {
        PPORT p = CONTAINING_RECORD(e, PORT, Link);
        if (index-- != 0)
            continue;
        st = STATUS_BUFFER_TOO_SMALL;
        if (out >= p->Name.Length + sizeof(WCHAR)) {
            RtlCopyMemory(buf, p->Name.Buffer, p->Name.Length);
            ((PWCH)buf)[p->Name.Length / sizeof(WCHAR)] = 0;
            *info = p->Name.Length + sizeof(WCHAR);
            st = STATUS_SUCCESS;
        }
        break;
    }
    UnlockRoster(x);
    return st;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PEXT x = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sl->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR info = 0;
    NTSTATUS st = IoAcquireRemoveLock(&x->RemoveLock, irp);

    if (!NT_SUCCESS(st))
        return Complete(irp, st, 0);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROSTER_INFO:
        if (out < sizeof(ROSTER_INFO)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        LockRoster(x, FALSE);
        *(ROSTER_INFO *)irp->AssociatedIrp.SystemBuffer = x->Info;
        UnlockRoster(x);
        info = sizeof(ROSTER_INFO);
        break;
    case IOCTL_ROSTER_ENTRY:
        st = RosterEntry(x, irp->AssociatedIrp.SystemBuffer, in, out, &info);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Complete(irp, st, info);
    IoReleaseRemoveLock(&x->RemoveLock, irp);
    return st;
}

static NTSTATUS DispatchOpen(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return Complete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchWmi(PDEVICE_OBJECT dev, PIRP irp)
{
    PEXT x = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&x->RemoveLock, irp);

    if (!NT_SUCCESS(st))
        return Complete(irp, st, 0);
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(x->Lower, irp);
    IoReleaseRemoveLock(&x->RemoveLock, irp);
    return st;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT dev, PIRP irp)
{
    PEXT x = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&x->RemoveLock, irp);

    PoStartNextPowerIrp(irp);
    if (!NT_SUCCESS(st))
        return Complete(irp, st, 0);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(x->Lower, irp);
    IoReleaseRemoveLock(&x->RemoveLock, irp);
    return st;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    PEXT x = dev->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
    NTSTATUS st = IoAcquireRemoveLock(&x->RemoveLock, irp);

    if (!NT_SUCCESS(st))
        return Complete(irp, st, 0);

    if (minor == IRP_MN_START_DEVICE) {
        st = IoForwardIrpSynchronously(x->Lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(st))
            st = Listen(x);
        if (NT_SUCCESS(st)) {
            st = IoSetDeviceInterfaceState(&x->Interface, TRUE);
            if (NT_SUCCESS(st))
                st = STATUS_SUCCESS;
            else
                Unlisten(x);
        }
        Complete(irp, st, 0);
        IoReleaseRemoveLock(&x->RemoveLock, irp);
        return st;
    }

    if (minor == IRP_MN_REMOVE_DEVICE) {
        IoSetDeviceInterfaceState(&x->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&x->RemoveLock, irp);
        Unlisten(x);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(x->Lower, irp);
        IoDetachDevice(x->Lower);
        RtlFreeUnicodeString(&x->Interface);
        ExDeleteResourceLite(&x->Res);
        IoDeleteDevice(dev);
        return st;
    }

    switch (minor) {
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&x->Interface, FALSE);
        Unlisten(x);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(x->Lower, irp);
    IoReleaseRemoveLock(&x->RemoveLock, irp);
    return st;
}

static NTSTATUS AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PEXT x;
    NTSTATUS st;

    st = IoCreateDevice(drv, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    x = dev->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Pdo = pdo;
    x->Driver = drv;
    IoInitializeRemoveLock(&x->RemoveLock, TAG_ROSTER, 0, 0);
    InitializeListHead(&x->Ports);
    st = ExInitializeResourceLite(&x->Res);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    st = IoRegisterDeviceInterface(pdo, &GuidRoster, NULL, &x->Interface);
    if (NT_SUCCESS(st)) {
        x->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
        if (x->Lower != NULL) {
            dev->Flags |= DO_POWER_PAGABLE;
            dev->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&x->Interface);
        st = STATUS_NO_SUCH_DEVICE;
    }
    ExDeleteResourceLite(&x->Res);
    IoDeleteDevice(dev);
    return st;
}

static VOID Unload(PDRIVER_OBJECT drv) { (void)drv; }

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    drv->DriverExtension->AddDevice = AddDevice;
    drv->DriverUnload = Unload;
    drv->MajorFunction[IRP_MJ_CREATE] = DispatchOpen;
    drv->MajorFunction[IRP_MJ_CLEANUP] = DispatchOpen;
    drv->MajorFunction[IRP_MJ_CLOSE] = DispatchOpen;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchWmi;
    drv->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    drv->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    return STATUS_SUCCESS;
}

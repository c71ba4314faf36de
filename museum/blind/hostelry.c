/*
 * hostelry: a guest book. While it is started the device learns from PnP which disks come and go; the last 16 guests are kept, and a program reads them one
 * by one, or waits for the next.
 *
 * The bug: the notification is registered at each start, but it is taken back only when the device object goes: after a stop and a second start the first
 * registration is forgotten for good and calls a driver whose device is deleted.
 *
 * Device: Root\HOSTELRY
 * Rule: pnp-notification-leak, use-after-free, unload-still-called
 * Needs: removal
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"

#define IOCTL_HOSTELRY_NEXT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_HOSTELRY_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PAGES 16
#define LETTERS 52

static const GUID HostClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x08}};
static const GUID HostDisks = {0x53f56307, 0xb6bf, 0x11d0, {0x94, 0xf2, 0x00, 0xa0, 0xc9, 0x1e, 0xfb, 0x8b}};
static const GUID HostArrival = {0xcb3a4004, 0x46f0, 0x11d0, {0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f}};

typedef struct GUEST {
    ULONG Number;
    ULONG Came;                 /* 0: went */
    WCHAR Name[LETTERS];
} GUEST;

typedef struct COUNT {
    ULONG Came, Went;
} COUNT;

typedef struct HOST {
    HULL Hull;
    PVOID Notification;
    PEN Hosts;                  /* who waits for guests */
    KSPIN_LOCK Lock;            /* for all below */
    GUEST Guest[PAGES];
    ULONG First, Kept, Number;
    COUNT Count;
} HOST;

static VOID HostServe(HOST *x)
{
    for (;;) {
        GUEST *guest;
        KIRQL irql;
        PIRP irp;

        KeAcquireSpinLock(&x->Lock, &irql);
        irp = x->Kept ? PenTake(&x->Hosts, NULL) : NULL;
        if (!irp) {
            KeReleaseSpinLock(&x->Lock, irql);
            return;
        }
        guest = irp->AssociatedIrp.SystemBuffer;
        *guest = x->Guest[x->First];
        x->First = (x->First + 1) % PAGES;
        x->Kept--;
        KeReleaseSpinLock(&x->Lock, irql);
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof(GUEST));
    }
}

static NTSTATUS NTAPI HostNotified(PVOID Notification, PVOID Context)
{
    DEVICE_INTERFACE_CHANGE_NOTIFICATION *n = Notification;
    HOST *x = Context;
    BOOLEAN came = RtlCompareMemory(&n->Event, &HostArrival, sizeof(GUID)) == sizeof(GUID);
    ULONG length = n->SymbolicLinkName ? min(n->SymbolicLinkName->Length, (LETTERS - 1) * (ULONG)sizeof(WCHAR)) : 0;
    WCHAR name[LETTERS] = {0};
    GUEST *guest;
    KIRQL irql;

    /* What PnP hands over may be paged. */
    if (length)
        RtlCopyMemory(name, n->SymbolicLinkName->Buffer, length);
    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Kept == PAGES) {
        x->First = (x->First + 1) % PAGES;
        x->Kept--;
    }
    guest = &x->Guest[(x->First + x->Kept++) % PAGES];
    RtlZeroMemory(guest, sizeof *guest);
    guest->Number = x->Number++;
    guest->Came = came;
    RtlCopyMemory(guest->Name, name, sizeof name);
    if (came)
        x->Count.Came++;
    else
        x->Count.Went++;
    KeReleaseSpinLock(&x->Lock, irql);
    HostServe(x);
    return STATUS_SUCCESS;
}

static NTSTATUS HostAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    HOST *x = (HOST *)h;
    COUNT count;
    KIRQL irql;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HOSTELRY_NEXT:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(GUEST))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Hosts, Irp);
        HostServe(x);
        return STATUS_PENDING;
    case IOCTL_HOSTELRY_COUNT:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof count)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        count = x->Count;
        KeReleaseSpinLock(&x->Lock, irql);
        *(COUNT *)Irp->AssociatedIrp.SystemBuffer = count;
        *Info = sizeof count;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID HostForget(HOST *x)
{
    if (x->Notification)
        IoUnregisterPlugPlayNotificationEx(x->Notification);
    x->Notification = NULL;
}

static NTSTATUS HostLay(HULL *h)
{
    HOST *x = (HOST *)h;

    KeInitializeSpinLock(&x->Lock);
    PenMake(&x->Hosts, HullFinish, h);
    return STATUS_SUCCESS;
}

static NTSTATUS HostRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    HOST *x = (HOST *)h;

    (void)Resources;
    return IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES,
                                          (PVOID)&HostDisks, h->Self->DriverObject, HostNotified, x, &x->Notification);
}

static VOID HostSink(HULL *h, BOOLEAN touch)
{
    (void)h;
    (void)touch;
#ifdef FIXED
    HostForget((HOST *)h);
#endif
}

static VOID HostScrap(HULL *h)
{
    HostForget((HOST *)h);
}

static VOID HostDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    HOST *x = (HOST *)h;

    if (!File)
        PenShut(&x->Hosts, Status);
    PenDrain(&x->Hosts, File, Status);
}

static const HULL_PLAN HostPlan = {
    .Room = sizeof(HOST), .Class = &HostClass,
    .Lay = HostLay, .Scrap = HostScrap, .Rise = HostRise, .Sink = HostSink,
    .Drop = HostDrop, .Ask = HostAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &HostPlan);
}

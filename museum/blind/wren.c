/*
 * wren: four relays at the chip's user pins and a fault contact at its first local interrupt input. Programs set and read the relays,
 * and wait for a fault; all relays fall off when the device is stopped.
 *
 * The bug: the routine that undoes the start returns at once if the card cannot be touched any more, as there seems to be nothing to
 * switch off. After surprise removal, or removal in D3, interrupt and register mapping stay.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-still-connected, io-space-leak, io-space-still-mapped, use-after-free
 * Needs: removal, power
 */
#include "../include/site_frame.h"
#include "../include/site_plx.h"

DEFINE_GUID(GUID_WREN, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x09);

#define IOCTL_WREN_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA81, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WREN_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA82, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WREN_FAULT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA83, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define RELAYS     4u
#define ALL_RELAYS 0xFu

/* Of CNTRL, three bits for each user pin: its other function instead, output, data. */
#define PIN_OTHER(n)  (1u << (3 * (n)))
#define PIN_OUTPUT(n) (2u << (3 * (n)))
#define PIN_DATA(n)   (4u << (3 * (n)))

typedef struct WREN {
    PLX Plx;
    ULONG Relays;           /* under Plx.Lock: those that are on */
    ULONG Faults;           /* under Site.WaitingLock */
} WREN;

/* With Plx.Lock: has the pins do what Relays says. */
static NTSTATUS WrenApply(WREN *wren, ULONG relays)
{
    ULONG control = Get32(&wren->Plx.Chip, PLX_CNTRL);
    ULONG i;

    if (control == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;     /* its other bits would reset the chip */
    for (i = 0; i < RELAYS; ++i) {
        control &= ~(PIN_OTHER(i) | PIN_DATA(i));
        control |= PIN_OUTPUT(i);
        if ((relays & (1u << i)) != 0)
            control |= PIN_DATA(i);
    }
    Put32(&wren->Plx.Chip, PLX_CNTRL, control);
    return STATUS_SUCCESS;
}

static VOID NTAPI WrenDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    WREN *wren = context;
    SITE *site = &wren->Plx.Site;
    ULONG faults;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    if (InterlockedExchange(&wren->Plx.Fired, 0) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&site->WaitingLock);
    wren->Faults += 1;
    faults = wren->Faults;
    irp = LaneTakeLocked(&site->Waiting, NULL);
    KeReleaseSpinLockFromDpcLevel(&site->WaitingLock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = faults;
        Finish(site, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS WrenServe(SITE *site, ASK *ask)
{
    WREN *wren = (WREN *)site;
    NTSTATUS status;
    ULONG relays;
    KIRQL irql;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_WREN_SET:
        if (ask->In < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        relays = *(PULONG)ask->Buffer;
        if ((relays & ~ALL_RELAYS) != 0)
            return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&wren->Plx.Lock, &irql);
        status = WrenApply(wren, relays);
        if (NT_SUCCESS(status))
            wren->Relays = relays;
        KeReleaseSpinLock(&wren->Plx.Lock, irql);
        return Finish(site, ask->Irp, status, 0);
    case IOCTL_WREN_GET:
        if (ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&wren->Plx.Lock, &irql);
        relays = wren->Relays;
        KeReleaseSpinLock(&wren->Plx.Lock, irql);
        *(PULONG)ask->Buffer = relays;
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_WREN_FAULT:
        if (ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LanePut(&site->Waiting, ask->Irp);
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS WrenBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    WREN *wren = (WREN *)site;
    NTSTATUS status = PlxMap(&wren->Plx, resources, PlxClaim);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&wren->Plx.Lock, &irql);
    wren->Relays = 0;
    status = WrenApply(wren, 0);
    KeReleaseSpinLock(&wren->Plx.Lock, irql);
    if (!NT_SUCCESS(status)) {
        PlxUnmap(&wren->Plx);
        return status;
    }
    PlxUp(&wren->Plx, INT1_ON);
    return STATUS_SUCCESS;
}

static VOID WrenEnd(SITE *site, BOOLEAN live)
{
    WREN *wren = (WREN *)site;
    KIRQL irql;

#ifndef FIXED
    if (!live)
        return;
#endif
    if (live) {
        KeAcquireSpinLock(&wren->Plx.Lock, &irql);
        WrenApply(wren, 0);
        KeReleaseSpinLock(&wren->Plx.Lock, irql);
    }
    PlxDown(&wren->Plx, live);
    PlxUnmap(&wren->Plx);
}

static VOID WrenSleep(SITE *site)
{
    PlxDown(&((WREN *)site)->Plx, TRUE);
}

/* The pins have lost what they were: the relays that were on come on again. */
static VOID WrenWake(SITE *site)
{
    WREN *wren = (WREN *)site;
    KIRQL irql;

    KeAcquireSpinLock(&wren->Plx.Lock, &irql);
    WrenApply(wren, wren->Relays);
    KeReleaseSpinLock(&wren->Plx.Lock, irql);
    PlxUp(&wren->Plx, INT1_ON);
}

static NTSTATUS WrenBorn(SITE *site)
{
    PlxBorn(&((WREN *)site)->Plx, WrenDpc);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(WREN),
    .Interface = &GUID_WREN,
    .Born = WrenBorn,
    .Begin = WrenBegin,
    .End = WrenEnd,
    .Sleep = WrenSleep,
    .Wake = WrenWake,
    .Serve = WrenServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

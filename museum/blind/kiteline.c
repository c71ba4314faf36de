/*
 * kiteline: a winch controller on a PCI card with port or memory registers. Programs set the winch's speed; when the last handle is closed, the winch is
 * stopped and the brake put on, whatever state the program has left it in.
 *
 * The bug: the last close writes to the card without a look at whether it is still there: where the card was pulled while a program had it open, its
 * registers are unmapped by then.
 *
 * Device: PCI\VEN_1CAB&DEV_0621
 * Rule: device-memory-not-mapped, wild-write, bad-pointer, card-without-power, stale-resource-used
 * Needs: removal
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_KITE_SPEED CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC31, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_KITE_LOOK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC32, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_DRIVE  0x00                      /* speed, with its sign; the brake */
#define DRIVE_ON   0x00010000
#define DRIVE_BRAKE 0x00020000
#define REG_CABLE  0x04                      /* counts that are out */
#define REG_LOAD   0x08
#define KITE_FASTEST 3000

typedef struct KITE {
    PUCHAR Regs;
    ULONG Length;
    BOOLEAN Port;
    KSPIN_LOCK Lock;                         /* all below, and the drive */
    BOOLEAN Lit;                             /* the registers can be used */
    ULONG Handles;
    ULONG Drive;                             /* what the drive is to do */
} KITE;

typedef struct KITE_LOOK {
    ULONG Drive, Cable, Load;
} KITE_LOOK;

static const GUID KiteGuid = { 0x83f6120d, 0xe4b9, 0x4d3f, { 0x9a, 0x70, 0x3c, 0xab, 0x06, 0x21, 0x13, 0x0e } };

static ULONG KiteGet(KITE *k, ULONG at)
{
    return k->Port ? READ_PORT_ULONG((PULONG)(k->Regs + at)) : READ_REGISTER_ULONG((PULONG)(k->Regs + at));
}

static VOID KitePut(KITE *k, ULONG at, ULONG value)
{
    if (k->Port)
        WRITE_PORT_ULONG((PULONG)(k->Regs + at), value);
    else
        WRITE_REGISTER_ULONG((PULONG)(k->Regs + at), value);
}

static NTSTATUS KiteOpen(DEPOT *d, PFILE_OBJECT file)
{
    KITE *k = d->Own;
    KIRQL irql;

    UNREFERENCED_PARAMETER(file);
    KeAcquireSpinLock(&k->Lock, &irql);
    k->Handles++;
    KeReleaseSpinLock(&k->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID KiteClose(DEPOT *d, PFILE_OBJECT file)
{
    KITE *k = d->Own;
    KIRQL irql;

    UNREFERENCED_PARAMETER(file);
    KeAcquireSpinLock(&k->Lock, &irql);
    if (--k->Handles == 0) {
        k->Drive = DRIVE_BRAKE;
#ifdef FIXED
        if (k->Lit)                          /* else it has the brake on, or gets it with its power */
#endif
        KitePut(k, REG_DRIVE, k->Drive);
    }
    KeReleaseSpinLock(&k->Lock, irql);
}

static NTSTATUS KiteControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    KITE *k = d->Own;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    KITE_LOOK look;
    LONG speed;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KITE_SPEED:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LONG))
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        speed = *(PLONG)buffer;
        if (speed > KITE_FASTEST || speed < -KITE_FASTEST)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&k->Lock, &irql);
        k->Drive = speed == 0 ? DRIVE_BRAKE : DRIVE_ON | (USHORT)(SHORT)speed;
        KitePut(k, REG_DRIVE, k->Drive);
        KeReleaseSpinLock(&k->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_KITE_LOOK:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(KITE_LOOK))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&k->Lock, &irql);
        look.Drive = k->Drive;
        look.Cable = KiteGet(k, REG_CABLE);
        look.Load = KiteGet(k, REG_LOAD);
        KeReleaseSpinLock(&k->Lock, irql);
        *(KITE_LOOK *)buffer = look;
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(look));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* After a stop or a sleep the winch stays braked until a program moves it. */
static VOID KiteSwitch(KITE *k, BOOLEAN lit, BOOLEAN reach)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->Lock, &irql);
    k->Lit = lit;
    k->Drive = DRIVE_BRAKE;
    if (reach)
        KitePut(k, REG_DRIVE, k->Drive);
    KeReleaseSpinLock(&k->Lock, irql);
}

static NTSTATUS KiteUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    KITE *k = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    k->Port = r->Type == CmResourceTypePort;
    k->Length = k->Port ? r->u.Port.Length : r->u.Generic.Length;
    if (k->Length < 0x10)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (k->Port) {
        k->Regs = (PUCHAR)(ULONG_PTR)r->u.Port.Start.QuadPart;
    } else {
        k->Regs = MmMapIoSpace(r->u.Generic.Start, k->Length, MmNonCached);
        if (k->Regs == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    KiteSwitch(k, TRUE, TRUE);
    return STATUS_SUCCESS;
}

static VOID KiteDown(DEPOT *d, BOOLEAN reach)
{
    KITE *k = d->Own;

    KiteSwitch(k, FALSE, reach);
    if (!k->Port)
        MmUnmapIoSpace(k->Regs, k->Length);
}

static VOID KiteSleep(DEPOT *d)
{
    KiteSwitch(d->Own, FALSE, TRUE);
}

static VOID KiteWake(DEPOT *d)
{
    KiteSwitch(d->Own, TRUE, TRUE);
}

static NTSTATUS KitePrepare(DEPOT *d)
{
    KITE *k = d->Own;

    KeInitializeSpinLock(&k->Lock);
    return STATUS_SUCCESS;
}

static const PLAN KitePlan = {
    .Interface = &KiteGuid,
    .OwnSize = sizeof(KITE),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = KitePrepare,
    .Up = KiteUp,
    .Down = KiteDown,
    .Sleep = KiteSleep,
    .Wake = KiteWake,
    .Open = KiteOpen,
    .Close = KiteClose,
    .Control = KiteControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &KitePlan);
}

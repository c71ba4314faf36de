/*
 * plxnod: 32 contacts behind a PLX 9050, without an interrupt: a timer looks at them ten times a second, counts their
 * changes, and completes the requests of programs that wait for one.
 *
 * The bug: no one stops the timer when the device goes to D3: its DPC goes on reading a card without power.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power, schedule
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define IOCTL_PN_CONTACTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PN_WAIT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PN_MASK     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define PLX_INTCSR      0x4C
#define PLX_CNTRL       0x50
#define PLX_SPAN        0x54
#define BOARD_CONTACTS  0x10
#define BOARD_SPAN      0x20
#define PN_PERIOD       100             /* milliseconds */

static const GUID GUID_PLXNOD = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x0A } };

typedef struct _PN_CONTACTS {
    ULONG Level;
    ULONG Changed;                      /* those that changed since the look before */
    ULONG Changes;                      /* looks that found a change */
} PN_CONTACTS, *PPN_CONTACTS;

typedef struct _PN_EXT {
    FR_EXT Frame;
    PUCHAR Plx, Board;
    ULONG PlxLength, BoardLength;
    FR_QUEUE Waits;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                    /* all below */
    ULONG Mask;                         /* contacts that count */
    PN_CONTACTS Contacts;
} PN_EXT, *PPN_EXT;

static VOID PnWaitDone(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    PPN_EXT Ext = Context;
    FrComplete(Irp, Status, 0);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID NTAPI PnLook(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PPN_EXT Ext = Context;
    PN_CONTACTS Now;
    ULONG Level, Changed;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Level = READ_REGISTER_ULONG((PULONG)(Ext->Board + BOARD_CONTACTS));
    if (Level == 0xFFFFFFFF && READ_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_CNTRL)) == 0xFFFFFFFF)
        return;                                             /* pulled out */

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Changed = (Level ^ Ext->Contacts.Level) & Ext->Mask;
    Ext->Contacts.Level = Level;
    if (Changed) {
        Ext->Contacts.Changed = Changed;
        Ext->Contacts.Changes++;
    }
    Now = Ext->Contacts;
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (!Changed)
        return;
    while ((Irp = FrQueueTake(&Ext->Waits, NULL)) != NULL) {
        *(PPN_CONTACTS)Irp->AssociatedIrp.SystemBuffer = Now;
        FrComplete(Irp, STATUS_SUCCESS, sizeof(PN_CONTACTS));
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
    }
}

static NTSTATUS PnControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPN_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PN_CONTACTS:
        if (OutLength < sizeof(PN_CONTACTS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PPN_CONTACTS)Irp->AssociatedIrp.SystemBuffer = Ext->Contacts;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(PN_CONTACTS);
        break;

    case IOCTL_PN_WAIT:
        if (OutLength < sizeof(PN_CONTACTS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
        if (!NT_SUCCESS(Status))
            break;
        Status = FrQueuePut(&Ext->Waits, Irp);
        FrLeave(&Ext->Frame);
        return Status;

    case IOCTL_PN_MASK:
        if (InLength < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Mask = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        break;

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static NTSTATUS PnCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPN_EXT Ext = DeviceObject->DeviceExtension;
    FrQueueFlush(&Ext->Waits, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- start, stop and power ---- */

static VOID PnSetTimer(PPN_EXT Ext)
{
    LARGE_INTEGER Due;
    Due.QuadPart = -10000LL * PN_PERIOD;
    KeSetTimerEx(&Ext->Timer, Due, PN_PERIOD, &Ext->Dpc);
}

static VOID PnEndTimer(PPN_EXT Ext)
{
    KeCancelTimer(&Ext->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS PnStart(PFR_EXT Frame, PFR_RES Resources)
{
    PPN_EXT Ext = (PPN_EXT)Frame;
    KIRQL Irql;

    if (Resources->Memories < 2 || Resources->Memory[0].Length < PLX_SPAN || Resources->Memory[1].Length < BOARD_SPAN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->PlxLength = Resources->Memory[0].Length;
    Ext->BoardLength = Resources->Memory[1].Length;
    Ext->Plx = MmMapIoSpace(Resources->Memory[0].Start, Ext->PlxLength, MmNonCached);
    if (!Ext->Plx)
        return STATUS_INSUFFICIENT_RESOURCES;
    Ext->Board = MmMapIoSpace(Resources->Memory[1].Start, Ext->BoardLength, MmNonCached);
    if (!Ext->Board) {
        MmUnmapIoSpace(Ext->Plx, Ext->PlxLength);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WRITE_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_INTCSR), 0);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->Contacts.Level = READ_REGISTER_ULONG((PULONG)(Ext->Board + BOARD_CONTACTS));
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PnSetTimer(Ext);
    return STATUS_SUCCESS;
}

static VOID PnStop(PFR_EXT Frame)
{
    PPN_EXT Ext = (PPN_EXT)Frame;
    PnEndTimer(Ext);
    MmUnmapIoSpace(Ext->Board, Ext->BoardLength);
    MmUnmapIoSpace(Ext->Plx, Ext->PlxLength);
    FrQueueFlush(&Ext->Waits, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID PnAbort(PFR_EXT Frame)
{
    FrQueueFlush(&((PPN_EXT)Frame)->Waits, NULL, STATUS_DELETE_PENDING);
}

static VOID PnPowerDown(PFR_EXT Frame)
{
#ifdef FIXED
    PnEndTimer((PPN_EXT)Frame);
#else
    UNREFERENCED_PARAMETER(Frame);
#endif
}

static VOID PnPowerUp(PFR_EXT Frame)
{
    PPN_EXT Ext = (PPN_EXT)Frame;
    WRITE_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_INTCSR), 0);
    PnSetTimer(Ext);
}

static const FR_OPS PnOps = { .Start = PnStart, .Stop = PnStop, .Abort = PnAbort, .PowerDown = PnPowerDown, .PowerUp = PnPowerUp };

static VOID PnInit(PFR_EXT Frame)
{
    PPN_EXT Ext = (PPN_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimerEx(&Ext->Timer, SynchronizationTimer);
    KeInitializeDpc(&Ext->Dpc, PnLook, Ext);
    FrQueueInit(&Ext->Waits, PnWaitDone, Ext);
    Ext->Mask = 0xFFFFFFFF;
}

static NTSTATUS NTAPI PnAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(PN_EXT), DO_BUFFERED_IO, &GUID_PLXNOD, &PnOps, PnInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, PnAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PnCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PnControl;
    return STATUS_SUCCESS;
}

/*
 * daqlive: a card that measures all the time and shows its latest samples in a window. A timer takes them from there
 * into the buffer of the read that is under way (direct I/O), until it is full; other reads wait behind it.
 *
 * The bug: the DPC looks up the current read and its buffer under the lock, but copies after it has let go of it:
 * where the read is cancelled in between, its pages are unlocked and unmapped under the copy.
 *
 * Device: PCI\VEN_1DA7&DEV_0042
 * Rule: use-after-free, wild-write, mdl-state, data-race
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define DQ_PERIOD   10                  /* milliseconds */
#define DQ_BATCH    64                  /* samples of the window */
#define DQ_LONGEST  (1024 * 1024)

#define IOCTL_DQ_RATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DQ_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_READ_ACCESS)

enum { CARD_CONTROL = 0x00, CARD_RATE = 0x04, CARD_WINDOW = 0x100, CARD_SPAN = CARD_WINDOW + DQ_BATCH * 4 };

static const GUID GUID_DAQLIVE = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x0E } };

typedef struct _DQ_EXT {
    FR_EXT Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    FR_QUEUE Reads;                     /* behind the current one */
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                    /* all below */
    PIRP Current;                       /* has DqCancel as its cancel routine */
    ULONG Filled;                       /* samples in its buffer */
    ULONG Rate;
    ULONGLONG Total;
} DQ_EXT, *PDQ_EXT;

static VOID DqEnd(PDQ_EXT Ext, PIRP Irp, NTSTATUS Status, ULONG Information)
{
    FrComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID DqQueueDone(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    DqEnd(Context, Irp, Status, 0);
}

static VOID NTAPI DqCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp);

/* Makes the next read the current one, if there is none. */
static VOID DqNext(PDQ_EXT Ext)
{
    PIRP Irp;
    KIRQL Irql;

    for (;;) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Irp = Ext->Current ? NULL : FrQueueTake(&Ext->Reads, NULL);
        if (Irp) {
            (VOID)IoSetCancelRoutine(Irp, DqCancel);
            if (!Irp->Cancel || !IoSetCancelRoutine(Irp, NULL)) {
                Ext->Current = Irp;                         /* where DqCancel has been called it waits for the lock */
                Ext->Filled = 0;
                Irp = NULL;
            }
        }
        KeReleaseSpinLock(&Ext->Lock, Irql);
        if (!Irp)
            return;
        DqEnd(Ext, Irp, STATUS_CANCELLED, 0);
    }
}

/* The current read, if it is one of File (NULL: any), now the caller's to complete; not where it is being cancelled. */
static PIRP DqTakeCurrent(PDQ_EXT Ext, PFILE_OBJECT File)
{
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Irp = Ext->Current;
    if (Irp && File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
        Irp = NULL;
    if (Irp) {
        Ext->Current = NULL;
        if (!IoSetCancelRoutine(Irp, NULL))
            Irp = NULL;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return Irp;
}

static VOID NTAPI DqCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDQ_EXT Ext = DeviceObject->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Ext->Current == Irp)
        Ext->Current = NULL;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    FrComplete(Irp, STATUS_CANCELLED, 0);
    DqNext(Ext);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID DqCopy(PDQ_EXT Ext, PULONG To, ULONG Count)
{
    ULONG i;
    for (i = 0; i < Count; i++)
        To[i] = READ_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_WINDOW) + i);
}

static VOID NTAPI DqDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDQ_EXT Ext = Context;
    ULONG Count = 0, Room;
    PIRP Irp, Full = NULL;
    PULONG To = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Irp = Ext->Current;
    if (Irp) {
        Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG) - Ext->Filled;
        Count = Room < DQ_BATCH ? Room : DQ_BATCH;
        To = (PULONG)MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority) + Ext->Filled;
#ifdef FIXED
        DqCopy(Ext, To, Count);
#else
        KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
        DqCopy(Ext, To, Count);
        KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
        if (Ext->Current == Irp)
#endif
        {
            Ext->Filled += Count;
            Ext->Total += Count;
            if (Count == Room) {
                Ext->Current = NULL;
                if (IoSetCancelRoutine(Irp, NULL))          /* else DqCancel ends it */
                    Full = Irp;
            }
        }
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (Full)
        DqEnd(Ext, Full, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Full)->Parameters.Read.Length);
    DqNext(Ext);
}

static NTSTATUS DqRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDQ_EXT Ext = DeviceObject->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS Status;

    if (Length == 0 || Length % sizeof(ULONG) || Length > DQ_LONGEST)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (!MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority))
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
    if (NT_SUCCESS(Status)) {
        FrQueuePut(&Ext->Reads, Irp);
        DqNext(Ext);
        Status = STATUS_PENDING;
    }
    FrLeave(&Ext->Frame);
    return Status == STATUS_PENDING ? Status : FrComplete(Irp, Status, 0);
}

static NTSTATUS DqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDQ_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DQ_RATE:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || *(PULONG)Buffer == 0 || *(PULONG)Buffer > 100000) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Rate = *(PULONG)Buffer;
        WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_RATE), Ext->Rate);
        KeReleaseSpinLock(&Ext->Lock, Irql);
        break;
    case IOCTL_DQ_TOTAL:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PULONGLONG)Buffer = Ext->Total;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(ULONGLONG);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

/* Ends the reads of File (NULL: all of them). */
static VOID DqEndReads(PDQ_EXT Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;
    FrQueueFlush(&Ext->Reads, File, Status);
    Irp = DqTakeCurrent(Ext, File);
    if (Irp)
        DqEnd(Ext, Irp, Status, 0);
    DqNext(Ext);
}

static NTSTATUS DqCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DqEndReads(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- start, stop and power ---- */

static VOID DqGo(PDQ_EXT Ext)
{
    LARGE_INTEGER Due;
    WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_RATE), Ext->Rate);
    WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_CONTROL), 1);
    Due.QuadPart = -10000LL * DQ_PERIOD;
    KeSetTimerEx(&Ext->Timer, Due, DQ_PERIOD, &Ext->Dpc);
}

static VOID DqQuiet(PFR_EXT Frame)                          /* reads go on waiting */
{
    PDQ_EXT Ext = (PDQ_EXT)Frame;
    KeCancelTimer(&Ext->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS DqStart(PFR_EXT Frame, PFR_RES Resources)
{
    PDQ_EXT Ext = (PDQ_EXT)Frame;

    if (Resources->Memories < 1 || Resources->Memory[0].Length < CARD_SPAN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->RegsLength = Resources->Memory[0].Length;
    Ext->Regs = MmMapIoSpace(Resources->Memory[0].Start, Ext->RegsLength, MmNonCached);
    if (!Ext->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    DqGo(Ext);
    return STATUS_SUCCESS;
}

static VOID DqStop(PFR_EXT Frame)
{
    PDQ_EXT Ext = (PDQ_EXT)Frame;
    DqQuiet(Frame);
    DqEndReads(Ext, NULL, STATUS_DEVICE_NOT_READY);
    MmUnmapIoSpace(Ext->Regs, Ext->RegsLength);
}

static VOID DqAbort(PFR_EXT Frame)
{
    DqEndReads((PDQ_EXT)Frame, NULL, STATUS_DELETE_PENDING);
}

static VOID DqPowerUp(PFR_EXT Frame)
{
    DqGo((PDQ_EXT)Frame);
}

static const FR_OPS DqOps = { .Start = DqStart, .Stop = DqStop, .Abort = DqAbort, .PowerDown = DqQuiet, .PowerUp = DqPowerUp };

static VOID DqInit(PFR_EXT Frame)
{
    PDQ_EXT Ext = (PDQ_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimerEx(&Ext->Timer, NotificationTimer);
    KeInitializeDpc(&Ext->Dpc, DqDpc, Ext);
    FrQueueInit(&Ext->Reads, DqQueueDone, Ext);
    Ext->Rate = 1000;
}

static NTSTATUS NTAPI DqAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(DQ_EXT), DO_DIRECT_IO, &GUID_DAQLIVE, &DqOps, DqInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, DqAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DqCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = DqRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DqControl;
    return STATUS_SUCCESS;
}

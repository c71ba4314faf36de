/*
 * eduqueue: factorials by QEMU's edu card, one after the other: requests go through StartIo, and those that wait in the
 * device queue can be cancelled. A request in the card has three seconds.
 *
 * The bug: the cancel routine completes a request that waits without taking it out of the device queue, from which
 * it comes to StartIo later, when it is long gone.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, not-an-irp, double-completion, list-corrupt
 * Needs: cancel
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define IOCTL_EQ_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum { EDU_ID = 0x00, EDU_FACT = 0x08, EDU_STATUS = 0x20, EDU_IRQ = 0x24, EDU_ACK = 0x64, EDU_SPAN = 0xA0 };
#define EDU_BUSY    0x01
#define EDU_FACTIRQ 0x80

static const GUID GUID_EDUQUEUE = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x08 } };

typedef struct _EQ_EXT {
    FR_EXT Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;                      /* with the service routine */
    KDPC Dpc, LimitDpc;
    KTIMER Limit;
    KSPIN_LOCK Lock;                    /* all below */
    BOOLEAN Down;                       /* stopped or asleep: requests are failed */
    PIRP Active;                        /* in the card */
    ULONGLONG Deadline;                 /* of it, as interrupt time */
} EQ_EXT, *PEQ_EXT;

typedef struct _EQ_SYNC { PEQ_EXT Ext; BOOLEAN Awake; } EQ_SYNC, *PEQ_SYNC;

static ULONG EqRead(PEQ_EXT Ext, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Regs + Register));
}

static VOID EqWrite(PEQ_EXT Ext, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + Register), Value);
}

/* Ends the device queue's current request, at DISPATCH_LEVEL, and starts the next one. */
static VOID EqEnd(PEQ_EXT Ext, PIRP Irp, NTSTATUS Status, ULONG Information)
{
    FrComplete(Irp, Status, Information);
    IoStartNextPacket(Ext->Frame.Self, TRUE);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID NTAPI EqCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEQ_EXT Ext = DeviceObject->DeviceExtension;

    if (Irp == DeviceObject->CurrentIrp) {                  /* on its way to StartIo, which sees Irp->Cancel */
        IoReleaseCancelSpinLock(Irp->CancelIrql);
        return;
    }
#ifdef FIXED
    KeRemoveEntryDeviceQueue(&DeviceObject->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
#endif
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    FrComplete(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID NTAPI EqStartIo(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEQ_EXT Ext = DeviceObject->DeviceExtension;
    NTSTATUS Status = STATUS_PENDING;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LARGE_INTEGER Time;
    BOOLEAN Cancelled;
    KIRQL Irql;

    IoAcquireCancelSpinLock(&Irql);
    (VOID)IoSetCancelRoutine(Irp, NULL);
    Cancelled = Irp->Cancel || (File && File->FsContext2);
    IoReleaseCancelSpinLock(Irql);

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Cancelled) {
        Status = STATUS_CANCELLED;
    } else if (Ext->Down) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if (EqRead(Ext, EDU_STATUS) & EDU_BUSY) {        /* with one that has been given up; or the card is gone */
        Status = STATUS_DEVICE_BUSY;
    } else {
        Ext->Active = Irp;
        Ext->Deadline = KeQueryInterruptTime() + 30000000;
        Time.QuadPart = -30500000;
        KeSetTimer(&Ext->Limit, Time, &Ext->LimitDpc);
        EqWrite(Ext, EDU_STATUS, EDU_FACTIRQ);
        EqWrite(Ext, EDU_FACT, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (Status != STATUS_PENDING)
        EqEnd(Ext, Irp, Status, 0);
}

static BOOLEAN NTAPI EqIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEQ_EXT Ext = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Ext->Awake)
        return FALSE;
    Status = EqRead(Ext, EDU_IRQ);
    if (Status == 0 || Status == 0xFFFFFFFF)
        return FALSE;
    EqWrite(Ext, EDU_ACK, Status);
    KeInsertQueueDpc(&Ext->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI EqDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PEQ_EXT Ext = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Ext->Active && !(EqRead(Ext, EDU_STATUS) & EDU_BUSY)) {
        Irp = Ext->Active;
        Ext->Active = NULL;
        KeCancelTimer(&Ext->Limit);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = EqRead(Ext, EDU_FACT);
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (Irp)
        EqEnd(Ext, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI EqLimitDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PEQ_EXT Ext = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Ext->Active && KeQueryInterruptTime() >= Ext->Deadline) {   /* else it is another's timer already */
        Irp = Ext->Active;
        Ext->Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (Irp)
        EqEnd(Ext, Irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS EqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEQ_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_EQ_FACTORIAL)
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG) || *(PULONG)Irp->AssociatedIrp.SystemBuffer > 100000)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
    if (NT_SUCCESS(Status)) {
        IoMarkIrpPending(Irp);
        IoStartPacket(DeviceObject, Irp, NULL, EqCancel);
        Status = STATUS_PENDING;
    }
    FrLeave(&Ext->Frame);
    return Status == STATUS_PENDING ? Status : FrComplete(Irp, Status, 0);
}

/* What a closed handle has left in the queue is completed when it comes to StartIo. */
static NTSTATUS EqCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    KIRQL Irql;
    UNREFERENCED_PARAMETER(DeviceObject);
    IoAcquireCancelSpinLock(&Irql);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext2 = (PVOID)1;
    IoReleaseCancelSpinLock(Irql);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- start, stop and power ---- */

static BOOLEAN NTAPI EqSetAwake(PVOID Context)
{
    PEQ_SYNC Sync = Context;
    Sync->Ext->Awake = Sync->Awake;
    EqWrite(Sync->Ext, EDU_ACK, EqRead(Sync->Ext, EDU_IRQ));
    return TRUE;
}

static NTSTATUS EqStart(PFR_EXT Frame, PFR_RES Resources)
{
    PEQ_EXT Ext = (PEQ_EXT)Frame;
    NTSTATUS Status = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (Resources->Memories < 1 || Resources->Memory[0].Length < EDU_SPAN || !Resources->HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->RegsLength = Resources->Memory[0].Length;
    Ext->Regs = MmMapIoSpace(Resources->Memory[0].Start, Ext->RegsLength, MmNonCached);
    if (!Ext->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((EqRead(Ext, EDU_ID) & 0xFFFF) == 0x00ED) {
        EqWrite(Ext, EDU_ACK, EqRead(Ext, EDU_IRQ));
        Ext->Awake = TRUE;
        Status = FrConnect(Resources, EqIsr, Ext, &Ext->Interrupt);
    }
    if (!NT_SUCCESS(Status)) {
        MmUnmapIoSpace(Ext->Regs, Ext->RegsLength);
        Ext->Regs = NULL;
    } else {
        KIRQL Irql;
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Down = FALSE;
        KeReleaseSpinLock(&Ext->Lock, Irql);
    }
    return Status;
}

/* Has requests failed from now on; ends the one in the card. */
static VOID EqDown(PEQ_EXT Ext)
{
    EQ_SYNC Sync = { Ext, FALSE };
    BOOLEAN Was;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Was = Ext->Down;
    Ext->Down = TRUE;
    Irp = Ext->Active;
    Ext->Active = NULL;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (!Was) {
        LARGE_INTEGER Time;
        ULONG i, Status;
        KeCancelTimer(&Ext->Limit);
        EqWrite(Ext, EDU_STATUS, 0);                        /* no interrupt from here on */
        for (i = 0; i < 50; i++) {
            Status = EqRead(Ext, EDU_STATUS);
            if (!(Status & EDU_BUSY) || Status == 0xFFFFFFFF)
                break;
            Time.QuadPart = -20000;
            KeDelayExecutionThread(KernelMode, FALSE, &Time);
        }
        KeSynchronizeExecution(Ext->Interrupt, EqSetAwake, &Sync);
        KeFlushQueuedDpcs();
    }
    if (Irp) {
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        EqEnd(Ext, Irp, STATUS_DEVICE_NOT_READY, 0);
        KeLowerIrql(Irql);
    }
}

static VOID EqStop(PFR_EXT Frame)
{
    PEQ_EXT Ext = (PEQ_EXT)Frame;

    EqDown(Ext);
    IoDisconnectInterrupt(Ext->Interrupt);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(Ext->Regs, Ext->RegsLength);
    Ext->Regs = NULL;
}

static VOID EqPowerDown(PFR_EXT Frame)
{
    EqDown((PEQ_EXT)Frame);
}

static VOID EqPowerUp(PFR_EXT Frame)
{
    PEQ_EXT Ext = (PEQ_EXT)Frame;
    EQ_SYNC Sync = { Ext, TRUE };
    BOOLEAN Down;

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Down = Ext->Down;
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (!Down)
        return;
    KeSynchronizeExecution(Ext->Interrupt, EqSetAwake, &Sync);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Ext->Down = FALSE;
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
}

static const FR_OPS EqOps = { .Start = EqStart, .Stop = EqStop, .PowerDown = EqPowerDown, .PowerUp = EqPowerUp };

static VOID EqInit(PFR_EXT Frame)
{
    PEQ_EXT Ext = (PEQ_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimer(&Ext->Limit);
    KeInitializeDpc(&Ext->Dpc, EqDpc, Ext);
    KeInitializeDpc(&Ext->LimitDpc, EqLimitDpc, Ext);
    Ext->Down = TRUE;
    IoSetStartIoAttributes(Frame->Self, TRUE, FALSE);       /* StartIo calls IoStartNextPacket */
}

static NTSTATUS NTAPI EqAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(EQ_EXT), DO_BUFFERED_IO, &GUID_EDUQUEUE, &EqOps, EqInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, EqAddDevice);
    Driver->DriverStartIo = EqStartIo;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EqCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EqControl;
    return STATUS_SUCCESS;
}

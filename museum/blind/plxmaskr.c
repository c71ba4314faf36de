/*
 * plxmaskr: a PLX 9050 board that reports events by its local interrupt inputs: programs wait for the next event, and
 * have the second input taken in or left out. The service routine masks the board, the DPC serves it and unmasks.
 *
 * The bug: the request that switches the second input reads, changes and writes INTCSR while the service routine and
 * the DPC's routine change it, too: not under the interrupt's lock, as they do.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, device, schedule
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define IOCTL_PM_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PM_LINE2 CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PM_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLX_INTCSR  0x4C
#define PLX_SPAN    0x54
#define INT_1_ON    0x01
#define INT_1_HIGH  0x02
#define INT_1       0x04
#define INT_2_ON    0x08
#define INT_2_HIGH  0x10
#define INT_2       0x20
#define INT_PCI     0x40

#define BOARD_CAUSE 0x00                /* of the board's own registers */
#define BOARD_ACK   0x04
#define BOARD_SPAN  0x08

static const GUID GUID_PLXMASKR = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x09 } };

typedef struct _PM_STATE {
    ULONG Events;
    ULONG Line2;
} PM_STATE, *PPM_STATE;

typedef struct _PM_EXT {
    FR_EXT Frame;
    PUCHAR Plx, Board;
    ULONG PlxLength, BoardLength;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;                      /* with the service routine */
    KDPC Dpc;
    FR_QUEUE Waits;
    volatile LONG Events;
    volatile LONG Line2;
} PM_EXT, *PPM_EXT;

typedef struct _PM_CHANGE {             /* of INTCSR */
    PPM_EXT Ext;
    ULONG Clear, Set;
    BOOLEAN Awake;
} PM_CHANGE, *PPM_CHANGE;

static ULONG PmRead(PUCHAR At) { return READ_REGISTER_ULONG((PULONG)At); }
static VOID PmWrite(PUCHAR At, ULONG Value) { WRITE_REGISTER_ULONG((PULONG)At, Value); }

static VOID PmWaitDone(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    PPM_EXT Ext = Context;
    FrComplete(Irp, Status, 0);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID PmChangeCsr(PPM_CHANGE Change)
{
    PUCHAR Csr = Change->Ext->Plx + PLX_INTCSR;
    PmWrite(Csr, (PmRead(Csr) & ~Change->Clear) | Change->Set);
}

/* With the service routine: changes INTCSR unless the board sleeps. */
static BOOLEAN NTAPI PmChange(PVOID Context)
{
    PPM_CHANGE Change = Context;
    if (Change->Ext->Awake)
        PmChangeCsr(Change);
    return TRUE;
}

static BOOLEAN NTAPI PmSetAwake(PVOID Context)
{
    PPM_CHANGE Change = Context;
    Change->Ext->Awake = Change->Awake;
    PmChangeCsr(Change);
    return TRUE;
}

static BOOLEAN NTAPI PmIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PPM_EXT Ext = Context;
    ULONG Csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Ext->Awake)
        return FALSE;
    Csr = PmRead(Ext->Plx + PLX_INTCSR);
    if (Csr == 0xFFFFFFFF || !(Csr & INT_PCI))
        return FALSE;
    if ((Csr & (INT_1_ON | INT_1)) != (INT_1_ON | INT_1) && (Csr & (INT_2_ON | INT_2)) != (INT_2_ON | INT_2))
        return FALSE;
    PmWrite(Ext->Plx + PLX_INTCSR, Csr & ~INT_PCI);
    KeInsertQueueDpc(&Ext->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI PmDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PPM_EXT Ext = Context;
    PM_CHANGE Change = { Ext, 0, INT_PCI, TRUE };
    ULONG Cause;
    LONG Events;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Cause = PmRead(Ext->Board + BOARD_CAUSE);
    PmWrite(Ext->Board + BOARD_ACK, Cause);
    (VOID)PmRead(Ext->Board + BOARD_ACK);                   /* the write has arrived */
    (VOID)PmRead(Ext->Board + BOARD_CAUSE);
    Events = InterlockedIncrement(&Ext->Events);
    while ((Irp = FrQueueTake(&Ext->Waits, NULL)) != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)Events;
        FrComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
    }
    KeSynchronizeExecution(Ext->Interrupt, PmChange, &Change);
}

static VOID PmLine2(PPM_EXT Ext, ULONG On)
{
    PM_CHANGE Change = { Ext, On ? 0 : INT_2_ON, On ? INT_2_ON | INT_2_HIGH : 0, TRUE };

    InterlockedExchange(&Ext->Line2, On ? 1 : 0);
#ifdef FIXED
    KeSynchronizeExecution(Ext->Interrupt, PmChange, &Change);
#else
    PmChangeCsr(&Change);
#endif
}

static NTSTATUS PmControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPM_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PM_WAIT:
        if (OutLength < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
        if (!NT_SUCCESS(Status))
            break;
        Status = FrQueuePut(&Ext->Waits, Irp);
        FrLeave(&Ext->Frame);
        return Status;

    case IOCTL_PM_LINE2:
        if (InLength < sizeof(ULONG))
            Status = STATUS_INVALID_PARAMETER;
        else
            PmLine2(Ext, *(PULONG)Buffer);
        break;

    case IOCTL_PM_STATE:
        if (OutLength < sizeof(PM_STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ((PPM_STATE)Buffer)->Events = (ULONG)InterlockedCompareExchange(&Ext->Events, 0, 0);
        ((PPM_STATE)Buffer)->Line2 = (ULONG)InterlockedCompareExchange(&Ext->Line2, 0, 0);
        Information = sizeof(PM_STATE);
        break;

    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static NTSTATUS PmCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPM_EXT Ext = DeviceObject->DeviceExtension;
    FrQueueFlush(&Ext->Waits, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- start, stop and power ---- */

static VOID PmUnmap(PPM_EXT Ext)
{
    if (Ext->Board)
        MmUnmapIoSpace(Ext->Board, Ext->BoardLength);
    if (Ext->Plx)
        MmUnmapIoSpace(Ext->Plx, Ext->PlxLength);
    Ext->Board = Ext->Plx = NULL;
}

static VOID PmOn(PPM_EXT Ext)                               /* the interrupt is connected */
{
    PM_CHANGE Change = { Ext, 0, INT_1_ON | INT_1_HIGH | INT_PCI, TRUE };
    if (InterlockedCompareExchange(&Ext->Line2, 0, 0))
        Change.Set |= INT_2_ON | INT_2_HIGH;
    KeSynchronizeExecution(Ext->Interrupt, PmSetAwake, &Change);
}

static VOID PmOff(PPM_EXT Ext)
{
    PM_CHANGE Change = { Ext, INT_1_ON | INT_2_ON | INT_PCI, 0, FALSE };
    KeSynchronizeExecution(Ext->Interrupt, PmSetAwake, &Change);
    KeFlushQueuedDpcs();
}

static NTSTATUS PmStart(PFR_EXT Frame, PFR_RES Resources)
{
    PPM_EXT Ext = (PPM_EXT)Frame;
    PM_CHANGE Quiet = { Ext, INT_1_ON | INT_2_ON | INT_PCI, 0, FALSE };
    NTSTATUS Status;

    if (Resources->Memories < 2 || Resources->Memory[0].Length < PLX_SPAN || Resources->Memory[1].Length < BOARD_SPAN || !Resources->HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->PlxLength = Resources->Memory[0].Length;
    Ext->BoardLength = Resources->Memory[1].Length;
    Ext->Plx = MmMapIoSpace(Resources->Memory[0].Start, Ext->PlxLength, MmNonCached);
    Ext->Board = MmMapIoSpace(Resources->Memory[1].Start, Ext->BoardLength, MmNonCached);
    Status = STATUS_INSUFFICIENT_RESOURCES;
    if (Ext->Plx && Ext->Board) {
        PmChangeCsr(&Quiet);
        Status = FrConnect(Resources, PmIsr, Ext, &Ext->Interrupt);
    }
    if (!NT_SUCCESS(Status)) {
        PmUnmap(Ext);
        return Status;
    }
    PmOn(Ext);
    return STATUS_SUCCESS;
}

static VOID PmStop(PFR_EXT Frame)
{
    PPM_EXT Ext = (PPM_EXT)Frame;

    if (Ext->Awake)
        PmOff(Ext);
    IoDisconnectInterrupt(Ext->Interrupt);
    KeFlushQueuedDpcs();
    PmUnmap(Ext);
    FrQueueFlush(&Ext->Waits, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID PmAbort(PFR_EXT Frame)
{
    FrQueueFlush(&((PPM_EXT)Frame)->Waits, NULL, STATUS_DELETE_PENDING);
}

static VOID PmPowerDown(PFR_EXT Frame)                      /* those who wait go on doing so */
{
    PPM_EXT Ext = (PPM_EXT)Frame;
    if (Ext->Awake)
        PmOff(Ext);
}

static VOID PmPowerUp(PFR_EXT Frame)
{
    PmOn((PPM_EXT)Frame);
}

static const FR_OPS PmOps = { .Start = PmStart, .Stop = PmStop, .Abort = PmAbort, .PowerDown = PmPowerDown, .PowerUp = PmPowerUp };

static VOID PmInit(PFR_EXT Frame)
{
    PPM_EXT Ext = (PPM_EXT)Frame;
    KeInitializeDpc(&Ext->Dpc, PmDpc, Ext);
    FrQueueInit(&Ext->Waits, PmWaitDone, Ext);
}

static NTSTATUS NTAPI PmAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(PM_EXT), DO_BUFFERED_IO, &GUID_PLXMASKR, &PmOps, PmInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, PmAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PmCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PmControl;
    return STATUS_SUCCESS;
}

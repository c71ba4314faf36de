/*
 * plxscan: a scanning A/D board behind a PLX PCI 9052.  The board's FIFO raises LINT1 when it is half full; the
 * interrupt routine empties it into blocks, which a DPC hands to the pending reads (buffered, one block each).
 *
 * Local space (second memory BAR): 00 control (bit 0 scan), 04 samples in the FIFO, 08 FIFO, 0C rate divider.
 *
 * The bug: the DPC takes blocks from a list without keeping the service routine out.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: data-race
 * Needs: schedule, device
 */
#include "../include/dkit.h"

#define IOCTL_SCAN_RUN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SCAN_HALT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SCAN_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PLX_INTCSR   0x4C
#define PLX_SPAN     0x80
#define INT1_ENABLE  0x01
#define INT1_HIGH    0x02
#define INT1_ACTIVE  0x04
#define PCI_ENABLE   0x40

#define AD_CONTROL 0x00
#define AD_LEVEL   0x04
#define AD_FIFO    0x08
#define AD_RATE    0x0C
#define AD_SPAN    0x10

#define GONE    0xFFFFFFFF
#define BLOCKS  16
#define SAMPLES 256
#define MAX_IDLE_INTERRUPTS 64

typedef struct _BLOCK {
    LIST_ENTRY Link;
    ULONG Count;
    ULONG Sample[SAMPLES];
} BLOCK, *PBLOCK;

typedef struct _SCAN {
    DK Dk;
    DKQ Readers;
    KSPIN_LOCK Lock;
    PUCHAR Plx;
    PUCHAR Ad;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    LIST_ENTRY Free;  /* Free and Full are shared with the interrupt routine */
    LIST_ENTRY Full;
    LIST_ENTRY Ready; /* with Lock */
    BOOLEAN Enabled;  /* the interrupt routine may touch the board */
    BOOLEAN Running;
    ULONG Divider;
    ULONG Idle;
    ULONG Lost;
    BLOCK Block[BLOCKS];
} SCAN, *PSCAN;

typedef struct _SYNC {
    PSCAN Scan;
    PBLOCK Block;
    BOOLEAN Enable;
} SYNC, *PSYNC;

DRIVER_INITIALIZE DriverEntry;
static const GUID ScanClass = {0xa41b7e90, 0x96c5, 0x4d23, {0x80, 0x1f, 0xcd, 0x52, 0x3b, 0x07, 0xf4, 0x01}};

static ULONG Rd(PUCHAR Base, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Base + Offset));
}

static VOID Wr(PUCHAR Base, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Offset), Value);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PSCAN S = Context;
    ULONG Csr, Level, i;
    PBLOCK B;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!S->Enabled)
        return FALSE;
    Csr = Rd(S->Plx, PLX_INTCSR);
    if (Csr == GONE || (Csr & (INT1_ENABLE | INT1_ACTIVE)) != (INT1_ENABLE | INT1_ACTIVE))
        return FALSE;

    Level = Rd(S->Ad, AD_LEVEL);
    if (Level == GONE || Level == 0) {
        if (++S->Idle >= MAX_IDLE_INTERRUPTS) /* the line is stuck */
            Wr(S->Plx, PLX_INTCSR, INT1_HIGH);
        return TRUE;
    }
    S->Idle = 0;
    if (Level > SAMPLES)
        Level = SAMPLES;
    if (IsListEmpty(&S->Free)) {
        for (i = 0; i < Level; i++)
            (VOID)Rd(S->Ad, AD_FIFO);
        S->Lost += Level;
        return TRUE;
    }
    B = CONTAINING_RECORD(RemoveHeadList(&S->Free), BLOCK, Link);
    for (i = 0; i < Level; i++)
        B->Sample[i] = Rd(S->Ad, AD_FIFO);
    B->Count = Level;
    InsertTailList(&S->Full, &B->Link);
    KeInsertQueueDpc(&S->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TakeFull(PVOID Context)
{
    PSYNC Y = Context;
    Y->Block = NULL;
    if (!IsListEmpty(&Y->Scan->Full))
        Y->Block = CONTAINING_RECORD(RemoveHeadList(&Y->Scan->Full), BLOCK, Link);
    return TRUE;
}

static BOOLEAN NTAPI GiveFree(PVOID Context)
{
    PSYNC Y = Context;
    InsertTailList(&Y->Scan->Free, &Y->Block->Link);
    return TRUE;
}

static BOOLEAN NTAPI SetEnabled(PVOID Context)
{
    PSYNC Y = Context;
    PSCAN S = Y->Scan;
    BOOLEAN Was = S->Enabled;
    S->Enabled = Y->Enable;
    S->Idle = 0;
    if (Y->Enable) {
        Wr(S->Ad, AD_RATE, S->Divider);
        Wr(S->Ad, AD_CONTROL, S->Running ? 1 : 0);
        Wr(S->Plx, PLX_INTCSR, INT1_ENABLE | INT1_HIGH | PCI_ENABLE);
    } else if (Was) {
        Wr(S->Ad, AD_CONTROL, 0);
        Wr(S->Plx, PLX_INTCSR, INT1_HIGH);
    }
    return TRUE;
}

/* Runs a routine against the interrupt routine.  With Lock.  Without an interrupt there is nothing to race with. */
static VOID Sync(PSCAN S, PKSYNCHRONIZE_ROUTINE Routine, PSYNC Y)
{
    Y->Scan = S;
    if (S->Interrupt)
        KeSynchronizeExecution(S->Interrupt, Routine, Y);
    else if (Routine != SetEnabled)
        Routine(Y);
}

/* Hands blocks that are ready to readers. */
static VOID Deliver(PSCAN S)
{
    for (;;) {
        PBLOCK B = NULL;
        PIRP Irp = NULL;
        ULONG Bytes;
        KIRQL Irql;
        SYNC Y;

        KeAcquireSpinLock(&S->Lock, &Irql);
        if (!IsListEmpty(&S->Ready) && (Irp = IoCsqRemoveNextIrp(&S->Readers.Csq, NULL)) != NULL)
            B = CONTAINING_RECORD(RemoveHeadList(&S->Ready), BLOCK, Link);
        KeReleaseSpinLock(&S->Lock, Irql);
        if (!Irp)
            return;

        Bytes = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length & ~3U;
        if (Bytes > B->Count * sizeof(ULONG))
            Bytes = B->Count * sizeof(ULONG);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, B->Sample, Bytes);

        KeAcquireSpinLock(&S->Lock, &Irql);
        Y.Block = B;
        Sync(S, GiveFree, &Y);
        KeReleaseSpinLock(&S->Lock, Irql);
        DkFinish(Irp, STATUS_SUCCESS, Bytes);
        IoReleaseRemoveLock(&S->Dk.Lock, Irp);
    }
}

static VOID NTAPI ScanDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PSCAN S = Context;
    SYNC Y;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&S->Lock);
    for (;;) {
#ifdef FIXED
        Sync(S, TakeFull, &Y);
#else
        Y.Scan = S;
        TakeFull(&Y);
#endif
        if (!Y.Block)
            break;
        InsertTailList(&S->Ready, &Y.Block->Link);
    }
    KeReleaseSpinLockFromDpcLevel(&S->Lock);
    Deliver(S);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSCAN S = Dev->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&S->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        Status = IoAcquireRemoveLock(&S->Dk.Lock, Dev); /* for Deliver: the request may be gone by then */
        if (NT_SUCCESS(Status)) {
            Status = IoCsqInsertIrpEx(&S->Readers.Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(Status)) {
                Deliver(S);
                IoReleaseRemoveLock(&S->Dk.Lock, Dev);
                return STATUS_PENDING;
            }
            IoReleaseRemoveLock(&S->Dk.Lock, Dev);
        }
    }
    DkFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&S->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS SetRunning(PSCAN S, BOOLEAN Run, ULONG Divider)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_READY;
    KIRQL Irql;
    SYNC Y;

    if (Run && (Divider < 10 || Divider > 1000000))
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&S->Lock, &Irql);
    if (S->Interrupt && S->Enabled) {
        S->Running = Run;
        if (Run)
            S->Divider = Divider;
        Y.Enable = TRUE;
        Sync(S, SetEnabled, &Y);
        Status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&S->Lock, Irql);
    return Status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSCAN S = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Info = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&S->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCAN_RUN:
        Status = Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ? STATUS_INVALID_PARAMETER
                                                                                  : SetRunning(S, TRUE, *Buffer);
        break;
    case IOCTL_SCAN_HALT:
        Status = SetRunning(S, FALSE, 0);
        break;
    case IOCTL_SCAN_LOST:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            *Buffer = *(volatile ULONG *)&S->Lost;
            Info = sizeof(ULONG);
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&S->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSCAN S = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&S->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&S->Readers, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&S->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static VOID Enable(PSCAN S, BOOLEAN On)
{
    KIRQL Irql;
    SYNC Y;
    KeAcquireSpinLock(&S->Lock, &Irql);
    Y.Enable = On;
    Sync(S, SetEnabled, &Y);
    KeReleaseSpinLock(&S->Lock, Irql);
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Enable(Dev->DeviceExtension, FALSE);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    Enable(Dev->DeviceExtension, TRUE);
}

static VOID StopBoard(PSCAN S)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;
    SYNC Y;

    KeAcquireSpinLock(&S->Lock, &Irql);
    Y.Enable = FALSE;
    Sync(S, SetEnabled, &Y);
    Interrupt = S->Interrupt;
    S->Interrupt = NULL;
    S->Running = FALSE;
    KeReleaseSpinLock(&S->Lock, Irql);
    if (Interrupt) {
        IoDisconnectInterrupt(Interrupt);
        KeFlushQueuedDpcs();
    }
    if (S->Ad)
        MmUnmapIoSpace(S->Ad, AD_SPAN);
    if (S->Plx)
        MmUnmapIoSpace(S->Plx, PLX_SPAN);
    S->Ad = NULL;
    S->Plx = NULL;
}

static NTSTATUS StartBoard(PSCAN S, PCM_RESOURCE_LIST List)
{
    PKINTERRUPT Interrupt;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;
    SYNC Y;

    DkParse(List, &Res);
    if (Res.Bars < 2 || Res.Len[0] < PLX_SPAN || Res.Len[1] < AD_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    S->Plx = MmMapIoSpace(Res.Base[0], PLX_SPAN, MmNonCached);
    S->Ad = MmMapIoSpace(Res.Base[1], AD_SPAN, MmNonCached);
    if (!S->Plx || !S->Ad) {
        StopBoard(S);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(S->Plx, PLX_INTCSR, INT1_HIGH);
    Status = IoConnectInterrupt(&Interrupt, Isr, S, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        StopBoard(S);
        return Status;
    }
    KeAcquireSpinLock(&S->Lock, &Irql);
    S->Interrupt = Interrupt;
    Y.Enable = TRUE;
    Sync(S, SetEnabled, &Y);
    KeReleaseSpinLock(&S->Lock, Irql);
    return STATUS_SUCCESS;
}

static VOID Drain(PSCAN S)
{
    DkqSetClosed(&S->Readers, STATUS_DELETE_PENDING);
    DkqFlush(&S->Readers, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PSCAN S = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&S->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&S->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartBoard(S, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&S->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&S->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE: /* readers wait for the next start */
        StopBoard(S);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&S->Dk.Link, FALSE);
        Drain(S);
        StopBoard(S);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(S);
        StopBoard(S);
        DkRemoveWait(&S->Dk, Irp);
        return DkRemoveFinish(&S->Dk, Irp);
    }
    return DkPassRelease(&S->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PSCAN S;
    ULONG i;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(SCAN), &ScanClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    S = Dev->DeviceExtension;
    DkqInit(&S->Readers, &S->Dk.Lock);
    KeInitializeSpinLock(&S->Lock);
    KeInitializeDpc(&S->Dpc, ScanDpc, S);
    InitializeListHead(&S->Free);
    InitializeListHead(&S->Full);
    InitializeListHead(&S->Ready);
    for (i = 0; i < BLOCKS; i++)
        InsertTailList(&S->Free, &S->Block[i].Link);
    S->Divider = 1000;
    Dev->Flags |= DO_BUFFERED_IO;
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

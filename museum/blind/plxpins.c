/*
 * plxpins: the sampling inputs of a digital I/O board behind a PLX PCI 9052.  Reads (buffered) collect samples from the
 * board's FIFO (LINT2 while it is not empty) until the buffer is full or half a second has gone by, and return what
 * there is; IOCTL_DIO_OUT sets the outputs.
 *
 * Local space (second memory BAR): 00 outputs, 04 samples in the FIFO, 08 FIFO.
 *
 * The bug: a read that ends by its time limit says that all was read.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: output-never-stored
 * Needs: device
 */
#include "../include/dkit.h"

#define IOCTL_DIO_OUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define PLX_INTCSR  0x4C
#define PLX_SPAN    0x80
#define INT2_ENABLE 0x08
#define INT2_HIGH   0x10
#define INT2_ACTIVE 0x20
#define PCI_ENABLE  0x40

#define IO_OUT   0x00
#define IO_LEVEL 0x04
#define IO_FIFO  0x08
#define IO_SPAN  0x10

#define GONE     0xFFFFFFFF
#define MAX_READ (8 * 1024)
#define PATIENCE 5000000LL /* half a second */

typedef struct _DIO {
    DK Dk;
    DKQ Queue;
    KSPIN_LOCK Lock;
    PUCHAR Plx;
    PUCHAR Io;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    DKTIMER Timer;
    BOOLEAN Enabled; /* the interrupt routine may touch the board; under the interrupt's lock */
    BOOLEAN Run;     /* reads may start */
    PIRP Current;
    ULONG Want;
    ULONG Got;
    ULONG Output;
} DIO, *PDIO;

typedef struct _SYNC {
    PDIO Dio;
    BOOLEAN On;
} SYNC, *PSYNC;

DRIVER_INITIALIZE DriverEntry;
static const GUID DioClass = {0x58f03ac6, 0xe1b4, 0x4278, {0x9d, 0x0a, 0x44, 0x86, 0x1c, 0x73, 0xbe, 0x01}};

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
    PDIO D = Context;
    ULONG Csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!D->Enabled)
        return FALSE;
    Csr = Rd(D->Plx, PLX_INTCSR);
    if (Csr == GONE || (Csr & (INT2_ENABLE | INT2_ACTIVE)) != (INT2_ENABLE | INT2_ACTIVE))
        return FALSE;
    Wr(D->Plx, PLX_INTCSR, INT2_HIGH); /* until the DPC has emptied the FIFO */
    KeInsertQueueDpc(&D->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ListenSync(PVOID Context)
{
    PSYNC Y = Context;
    if (Y->Dio->Enabled)
        Wr(Y->Dio->Plx, PLX_INTCSR, Y->On ? INT2_ENABLE | INT2_HIGH | PCI_ENABLE : INT2_HIGH);
    return TRUE;
}

static BOOLEAN NTAPI EnableSync(PVOID Context)
{
    PSYNC Y = Context;
    if (Y->Dio->Enabled && !Y->On)
        Wr(Y->Dio->Plx, PLX_INTCSR, INT2_HIGH);
    Y->Dio->Enabled = Y->On;
    return TRUE;
}

/* With the lock. */
static VOID Sync(PDIO D, PKSYNCHRONIZE_ROUTINE Routine, BOOLEAN On)
{
    SYNC Y = {D, On};
    if (D->Interrupt)
        KeSynchronizeExecution(D->Interrupt, Routine, &Y);
}

/* Moves samples to the current read; tells whether it is complete.  With the lock. */
static BOOLEAN Collect(PDIO D)
{
    PULONG Out = (PULONG)((PUCHAR)D->Current->AssociatedIrp.SystemBuffer + D->Got);
    ULONG Level;

    if (!D->Run)
        return FALSE;
    Level = Rd(D->Io, IO_LEVEL);
    if (Level == GONE)
        return FALSE;
    for (; Level && D->Got < D->Want; Level--, D->Got += sizeof(ULONG))
        *Out++ = Rd(D->Io, IO_FIFO);
    return D->Got == D->Want;
}

/* Takes the current read off; its remove lock goes to the caller.  With the lock. */
static PIRP Detach(PDIO D)
{
    PIRP Irp = D->Current;
    D->Current = NULL;
    DkDisarm(&D->Timer);
    Sync(D, ListenSync, FALSE);
    return Irp;
}

static VOID TryStart(PDIO D)
{
    KIRQL Irql;
    PIRP Irp;

    for (;;) {
        KeAcquireSpinLock(&D->Lock, &Irql);
        if (!D->Run || D->Current || (Irp = IoCsqRemoveNextIrp(&D->Queue.Csq, NULL)) == NULL) {
            KeReleaseSpinLock(&D->Lock, Irql);
            return;
        }
        D->Current = Irp;
        D->Got = 0;
        D->Want = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length & ~3U;
        if (!Collect(D)) {
            DkArm(&D->Timer, PATIENCE);
            Sync(D, ListenSync, TRUE);
            KeReleaseSpinLock(&D->Lock, Irql);
            return;
        }
        Irp = Detach(D);
        Irp->IoStatus.Information = D->Got;
        KeReleaseSpinLock(&D->Lock, Irql);
        DkFinish(Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    }
}

static VOID NTAPI FifoDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PDIO D = Context;
    PIRP Irp = NULL;
    ULONG Got = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&D->Lock);
    if (D->Current) {
        if (Collect(D)) {
            Got = D->Got;
            Irp = Detach(D);
        } else {
            Sync(D, ListenSync, TRUE);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&D->Lock);
    if (Irp) {
        DkFinish(Irp, STATUS_SUCCESS, Got);
        TryStart(D);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    }
}

static VOID NTAPI LateDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PDIO D = Context;
    PIRP Irp = NULL;
    ULONG Bytes = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&D->Lock);
    if (DkExpired(&D->Timer) && D->Current) {
        Collect(D);
#ifdef FIXED
        Bytes = D->Got;
#else
        Bytes = D->Want;
#endif
        Irp = Detach(D);
    }
    KeReleaseSpinLockFromDpcLevel(&D->Lock);
    if (Irp) {
        DkFinish(Irp, STATUS_SUCCESS, Bytes);
        TryStart(D);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    }
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDIO D = Dev->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS Status = IoAcquireRemoveLock(&D->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Length < sizeof(ULONG) || Length > MAX_READ) {
        Status = STATUS_INVALID_BUFFER_SIZE;
    } else {
        Status = IoAcquireRemoveLock(&D->Dk.Lock, Dev); /* for TryStart: the request may be gone by then */
        if (NT_SUCCESS(Status)) {
            Status = IoCsqInsertIrpEx(&D->Queue.Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(Status)) {
                TryStart(D);
                IoReleaseRemoveLock(&D->Dk.Lock, Dev);
                return STATUS_PENDING;
            }
            IoReleaseRemoveLock(&D->Dk.Lock, Dev);
        }
    }
    DkFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDIO D = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&D->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_DIO_OUT) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        Status = STATUS_INVALID_PARAMETER;
    } else {
        Status = STATUS_DEVICE_NOT_READY;
        KeAcquireSpinLock(&D->Lock, &Irql);
        if (D->Run) {
            D->Output = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
            Wr(D->Io, IO_OUT, D->Output);
            Status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&D->Lock, Irql);
    }
    DkFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDIO D = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&D->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&D->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject); /* the current read ends by itself */
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

/* No more reads start; the current one gets what there is. */
static VOID Halt(PDIO D)
{
    PIRP Irp = NULL;
    ULONG Got = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&D->Lock, &Irql);
    D->Run = FALSE;
    if (D->Current) {
        Got = D->Got;
        Irp = Detach(D);
    }
    Sync(D, EnableSync, FALSE);
    KeReleaseSpinLock(&D->Lock, Irql);
    if (Irp) {
        DkFinish(Irp, Got ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY, Got);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    }
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Halt(Dev->DeviceExtension);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PDIO D = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&D->Lock, &Irql);
    if (D->Interrupt) {
        Wr(D->Io, IO_OUT, D->Output);
        Sync(D, EnableSync, TRUE);
        Sync(D, ListenSync, FALSE);
        D->Run = TRUE;
    }
    KeReleaseSpinLock(&D->Lock, Irql);
    TryStart(D);
}

static VOID StopBoard(PDIO D)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    Halt(D);
    KeAcquireSpinLock(&D->Lock, &Irql);
    D->Run = FALSE;
    Sync(D, EnableSync, FALSE);
    Interrupt = D->Interrupt;
    D->Interrupt = NULL;
    KeReleaseSpinLock(&D->Lock, Irql);
    Halt(D); /* in case it was powered up in between */
    if (Interrupt)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    if (D->Io)
        MmUnmapIoSpace(D->Io, IO_SPAN);
    if (D->Plx)
        MmUnmapIoSpace(D->Plx, PLX_SPAN);
    D->Io = NULL;
    D->Plx = NULL;
}

static NTSTATUS StartBoard(PDIO D, PCM_RESOURCE_LIST List)
{
    PKINTERRUPT Interrupt;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 2 || Res.Len[0] < PLX_SPAN || Res.Len[1] < IO_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    D->Plx = MmMapIoSpace(Res.Base[0], PLX_SPAN, MmNonCached);
    D->Io = MmMapIoSpace(Res.Base[1], IO_SPAN, MmNonCached);
    if (!D->Plx || !D->Io) {
        StopBoard(D);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(D->Plx, PLX_INTCSR, INT2_HIGH);
    Status = IoConnectInterrupt(&Interrupt, Isr, D, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        StopBoard(D);
        return Status;
    }
    KeAcquireSpinLock(&D->Lock, &Irql);
    D->Interrupt = Interrupt;
    KeReleaseSpinLock(&D->Lock, Irql);
    PowerUp(D->Dk.Self);
    return STATUS_SUCCESS;
}

static VOID Drain(PDIO D)
{
    DkqSetClosed(&D->Queue, STATUS_DELETE_PENDING);
    DkqFlush(&D->Queue, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDIO D = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&D->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&D->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartBoard(D, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&D->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE: /* the queue waits for the next start */
        StopBoard(D);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&D->Dk.Link, FALSE);
        Drain(D);
        StopBoard(D);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(D);
        StopBoard(D);
        DkRemoveWait(&D->Dk, Irp);
        return DkRemoveFinish(&D->Dk, Irp);
    }
    return DkPassRelease(&D->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PDIO D;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(DIO), &DioClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    D = Dev->DeviceExtension;
    DkqInit(&D->Queue, &D->Dk.Lock);
    KeInitializeSpinLock(&D->Lock);
    KeInitializeDpc(&D->Dpc, FifoDpc, D);
    DkInitTimer(&D->Timer, LateDpc, D);
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

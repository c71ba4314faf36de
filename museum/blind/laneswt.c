/*
 * laneswt: a PCI card with a pair of word mailboxes to a railway's lane switch.  Writes send words as long as the outgoing
 * mailbox takes them; reads return the words that have come, or wait for one.
 *
 * BAR0: 00 cause (write one to clear; bit 0 word came), 04 enable, 08 status (bit 0 outgoing full, bit 1 incoming full),
 * 0C outgoing, 10 incoming, 14 version.
 *
 * The bug: a start that fails unmaps the registers, and the removal once more.
 *
 * Device: PCI\VEN_1DA7&DEV_0B22
 * Rule: io-space-unmap
 * Needs: failure, device
 */
#include "../include/dkit.h"

#define LS_CAUSE    0x00
#define LS_ENABLE   0x04
#define LS_STATUS   0x08
#define LS_OUT      0x0C
#define LS_IN       0x10
#define LS_VERSION  0x14
#define LS_SPAN     0x20
#define CAUSE_WORD  0x01
#define STATUS_OUT  0x01
#define STATUS_IN   0x02
#define GONE        0xFFFFFFFF
#define RING        256
#define MAX_WORDS   1024

typedef struct _LANE {
    DK Dk;
    DKQ Readers;
    KSPIN_LOCK Lock;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Enabled; /* under the interrupt's lock */
    ULONG First;
    ULONG Count;
    ULONG Lost;
    ULONG Ring[RING];
} LANE, *PLANE;

typedef struct _SYNC {
    PLANE Lane;
    BOOLEAN On;
} SYNC, *PSYNC;

DRIVER_INITIALIZE DriverEntry;
static const GUID LaneClass = {0xd2706f3b, 0x48ea, 0x4915, {0x8e, 0xc3, 0x21, 0x7f, 0xa6, 0x50, 0x3d, 0x01}};

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
    PLANE L = Context;
    ULONG Cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!L->Enabled)
        return FALSE;
    Cause = Rd(L->Regs, LS_CAUSE);
    if (Cause == GONE || !(Cause & CAUSE_WORD))
        return FALSE;
    Wr(L->Regs, LS_CAUSE, CAUSE_WORD);
    KeInsertQueueDpc(&L->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Deliver(PLANE L)
{
    for (;;) {
        PIRP Irp = NULL;
        ULONG Room, n = 0;
        PULONG Out;
        KIRQL Irql;

        KeAcquireSpinLock(&L->Lock, &Irql);
        if (L->Count && (Irp = IoCsqRemoveNextIrp(&L->Readers.Csq, NULL)) != NULL) {
            Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG);
            Out = Irp->AssociatedIrp.SystemBuffer;
            for (; n < Room && L->Count; n++) {
                *Out++ = L->Ring[L->First];
                L->First = (L->First + 1) % RING;
                L->Count--;
            }
        }
        KeReleaseSpinLock(&L->Lock, Irql);
        if (!Irp)
            return;
        DkFinish(Irp, STATUS_SUCCESS, n * sizeof(ULONG));
        IoReleaseRemoveLock(&L->Dk.Lock, Irp);
    }
}

static VOID NTAPI WordDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PLANE L = Context;
    ULONG Tries, Status, Word;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&L->Lock);
    for (Tries = 0; Tries < RING && L->Interrupt && L->Enabled; Tries++) {
        Status = Rd(L->Regs, LS_STATUS);
        if (Status == GONE || !(Status & STATUS_IN))
            break;
        Word = Rd(L->Regs, LS_IN);
        if (L->Count == RING) {
            L->Lost++;
        } else {
            L->Ring[(L->First + L->Count) % RING] = Word;
            L->Count++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&L->Lock);
    Deliver(L);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLANE L = Dev->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&L->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        Status = IoAcquireRemoveLock(&L->Dk.Lock, Dev); /* for Deliver: the request may be gone by then */
        if (NT_SUCCESS(Status)) {
            Status = IoCsqInsertIrpEx(&L->Readers.Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(Status)) {
                Deliver(L);
                IoReleaseRemoveLock(&L->Dk.Lock, Dev);
                return STATUS_PENDING;
            }
            IoReleaseRemoveLock(&L->Dk.Lock, Dev);
        }
    }
    DkFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&L->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLANE L = Dev->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PULONG Word = Irp->AssociatedIrp.SystemBuffer;
    ULONG Card, n = 0;
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&L->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Length % sizeof(ULONG) || Length > MAX_WORDS * sizeof(ULONG)) {
        Status = STATUS_INVALID_PARAMETER;
    } else if (Length) {
        KeAcquireSpinLock(&L->Lock, &Irql);
        if (!L->Interrupt || !L->Enabled)
            Status = STATUS_DEVICE_NOT_READY;
        else {
            for (; n < Length / sizeof(ULONG); n++) {
                Card = Rd(L->Regs, LS_STATUS);
                if (Card == GONE || (Card & STATUS_OUT))
                    break;
                Wr(L->Regs, LS_OUT, Word[n]);
            }
            if (!n)
                Status = STATUS_DEVICE_BUSY;
        }
        KeReleaseSpinLock(&L->Lock, Irql);
    }
    DkFinish(Irp, Status, NT_SUCCESS(Status) ? n * sizeof(ULONG) : 0);
    IoReleaseRemoveLock(&L->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLANE L = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&L->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&L->Readers, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&L->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static VOID Drain(PLANE L)
{
    DkqSetClosed(&L->Readers, STATUS_DELETE_PENDING);
    DkqFlush(&L->Readers, NULL, STATUS_DELETE_PENDING);
}

static BOOLEAN NTAPI EnableSync(PVOID Context)
{
    PSYNC Y = Context;
    PLANE L = Y->Lane;
    if (Y->On) {
        Wr(L->Regs, LS_CAUSE, CAUSE_WORD);
        Wr(L->Regs, LS_ENABLE, CAUSE_WORD);
    } else if (L->Enabled) {
        Wr(L->Regs, LS_ENABLE, 0);
    }
    L->Enabled = Y->On;
    return TRUE;
}

static VOID Enable(PLANE L, BOOLEAN On)
{
    SYNC Y = {L, On};
    KIRQL Irql;
    KeAcquireSpinLock(&L->Lock, &Irql);
    if (L->Interrupt)
        KeSynchronizeExecution(L->Interrupt, EnableSync, &Y);
    KeReleaseSpinLock(&L->Lock, Irql);
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Enable(Dev->DeviceExtension, FALSE);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PLANE L = Dev->DeviceExtension;
    Enable(L, TRUE);
    KeInsertQueueDpc(&L->Dpc, NULL, NULL); /* a word may have come before the cause was cleared */
}

static VOID StopCard(PLANE L)
{
    SYNC Y = {L, FALSE};
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    KeAcquireSpinLock(&L->Lock, &Irql);
    Interrupt = L->Interrupt;
    if (Interrupt)
        KeSynchronizeExecution(Interrupt, EnableSync, &Y);
    L->Interrupt = NULL;
    KeReleaseSpinLock(&L->Lock, Irql);
    if (Interrupt)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    if (L->Regs)
        MmUnmapIoSpace(L->Regs, LS_SPAN);
    L->Regs = NULL;
}

static NTSTATUS StartCard(PLANE L, PCM_RESOURCE_LIST List)
{
    PKINTERRUPT Interrupt;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 1 || Res.Len[0] < LS_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    L->Regs = MmMapIoSpace(Res.Base[0], LS_SPAN, MmNonCached);
    if (!L->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(L->Regs, LS_VERSION) == GONE) {
        Status = STATUS_DEVICE_DOES_NOT_EXIST;
        goto Failed;
    }
    Wr(L->Regs, LS_ENABLE, 0);
    Status = IoConnectInterrupt(&Interrupt, Isr, L, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status))
        goto Failed;
    KeAcquireSpinLock(&L->Lock, &Irql);
    L->Interrupt = Interrupt;
    KeReleaseSpinLock(&L->Lock, Irql);
    PowerUp(L->Dk.Self);
    return STATUS_SUCCESS;

Failed:
    MmUnmapIoSpace(L->Regs, LS_SPAN);
#ifdef FIXED
    L->Regs = NULL;
#endif
    return Status;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLANE L = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&L->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&L->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(L, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&L->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&L->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE: /* readers wait for the next start */
        StopCard(L);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&L->Dk.Link, FALSE);
        Drain(L);
        StopCard(L);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(L);
        StopCard(L);
        DkRemoveWait(&L->Dk, Irp);
        KeFlushQueuedDpcs();
        return DkRemoveFinish(&L->Dk, Irp);
    }
    return DkPassRelease(&L->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PLANE L;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(LANE), &LaneClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    L = Dev->DeviceExtension;
    DkqInit(&L->Readers, &L->Dk.Lock);
    KeInitializeSpinLock(&L->Lock);
    KeInitializeDpc(&L->Dpc, WordDpc, L);
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
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

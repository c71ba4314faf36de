/*
 * A virtual memory tester: IOCTL_SOAK has a pattern and a number of bytes, so many of which are written to a memory of 4 KiB, round and round. A DPC writes a block of 64 bytes and queues itself
 * for the next one, so that interrupts and other DPCs come between.
 *
 * The bug: what is left is counted down by whole blocks. With a length that is no multiple of 64 the counter passes zero without being it, and the DPC queues itself for ever: no thread runs
 * any more. It shows with such a length.
 *
 * Device: Root\VirtualMemoryTester
 * Rule: dpc-watchdog
 * Needs: ioctl
 */
#include "../include/function.h"
#include "../include/irp_queue.h"

#define IOCTL_SOAK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define MEMORY 4096
#define BLOCK 64
#define LONGEST 0x4000

typedef struct _SOAK {
    ULONG Pattern;
    ULONG Bytes;
} SOAK_ORDER, *PSOAK_ORDER;

typedef struct _DEVICE {
    FDO Fdo;
    KDPC Dpc;
    KSPIN_LOCK Lock; /* of Current, Left, Place and Memory */
    PIRP Current;    /* what the DPC works for */
    ULONG Left;      /* bytes of it that have not been written */
    ULONG Place;     /* where the next block goes */
    UCHAR Memory[MEMORY];
    IRP_QUEUE Waiting;
} DEVICE, *PDEVICE;

static PIRP TakeCurrent(PDEVICE Own)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Irp = Own->Current;
    Own->Current = NULL;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Irp;
}

/* Begins with the next request, if there is none under way. */
static VOID Next(PDEVICE Own)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Current == NULL) {
        Own->Current = QueueTake(&Own->Waiting);
        if (Own->Current != NULL) {
            Own->Left = ((PSOAK_ORDER)Own->Current->AssociatedIrp.SystemBuffer)->Bytes;
            Own->Place = 0;
            KeInsertQueueDpc(&Own->Dpc, NULL, NULL);
        }
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
}

static VOID NTAPI Write(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;
    PIRP Ended = NULL;
    ULONG Pattern;
    ULONG At;

    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&Own->Lock);
    if (Own->Current == NULL) { /* it was taken when the gate was closed */
        KeReleaseSpinLockFromDpcLevel(&Own->Lock);
        return;
    }
    Pattern = ((PSOAK_ORDER)Own->Current->AssociatedIrp.SystemBuffer)->Pattern;
    for (At = 0; At < BLOCK; At += sizeof(ULONG)) {
        *(PULONG)(Own->Memory + Own->Place + At) = Pattern;
    }
    Own->Place = (Own->Place + BLOCK) % MEMORY;
#ifdef FIXED
    Own->Left -= min(Own->Left, BLOCK);
#else
    Own->Left -= BLOCK;
#endif
    if (Own->Left == 0) {
        Ended = Own->Current;
        Own->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&Own->Lock);
    if (Ended == NULL) {
        KeInsertQueueDpc(Dpc, NULL, NULL);
        return;
    }
    FdoEndPended(&Own->Fdo, Ended, STATUS_SUCCESS, 0);
    Next(Own);
}

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, DEVICE, Waiting)->Fdo, Irp, Status, 0);
}

static NTSTATUS Add(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;

    KeInitializeSpinLock(&Own->Lock);
    KeInitializeDpc(&Own->Dpc, Write, Own);
    QueueInitialize(&Own->Waiting, Ended);
    return STATUS_SUCCESS;
}

/* First what waits, so that the DPC takes none of it. */
static VOID Flush(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;
    PIRP Irp;

    QueueFlush(&Own->Waiting, NULL, STATUS_DEVICE_NOT_READY);
    Irp = TakeCurrent(Own);
    if (Irp != NULL) {
        FdoEndPended(Fdo, Irp, STATUS_DEVICE_NOT_READY, 0);
    }
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Fdo);
    UNREFERENCED_PARAMETER(Present);
    KeFlushQueuedDpcs(); /* the DPC finds nothing to do, and does not come again */
}

static const GUID FdoInterface = FDO_GUID(0x10c3e001);
static const HOOKS Hooks = {.Add = Add, .Flush = Flush, .Stop = Stop};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PSOAK_ORDER Order = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_SOAK) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(*Order) || Order->Bytes == 0 || Order->Bytes > LONGEST) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    IoCsqInsertIrp(&Own->Waiting.Csq, Irp, NULL);
    Next(Own);
    return FdoPend(&Own->Fdo);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    QueueFlush(&Own->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}

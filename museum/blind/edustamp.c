/*
 * edustamp: both engines of QEMU's edu card at a time: factorials, and a store of 4 KB in the card, filled and
 * read by DMA. Each engine has its queue; the service routine notes which of them is done, the DPC does the rest.
 *
 * The bug: the service routine puts what the card says in place of what it has noted before. Where both engines end
 * before the DPC comes, the first one's end is forgotten, and its request waits until its time limit.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out, request-forgotten, dpc-argument-lost
 * Needs: device, schedule
 */
#include <ddk/wdm.h>
#define FR_EDU
#include "../include/pnp_with_turns.h"

#define ES_TICKS    24                  /* of 250 ms: a request's time limit */

#define IOCTL_ES_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ES_FILL      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ES_FETCH     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID GUID_EDUSTAMP = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x06 } };

typedef struct _ES_ENGINE {
    FR_QUEUE Queue;
    PIRP Current;                       /* under Lock */
    ULONG Age;                          /* in ticks; under Lock */
} ES_ENGINE, *PES_ENGINE;

typedef struct _ES_EXT {
    FR_EXT Frame;
    FR_EDUCARD Card;
    PKINTERRUPT Interrupt;
    ULONG Done;                         /* with the service routine: interrupt status not handled yet */
    BOOLEAN Awake;                      /* with the service routine */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
    KSPIN_LOCK Lock;
    BOOLEAN Halted;                     /* under Lock: nothing is started */
    ES_ENGINE Fact, Dma;
} ES_EXT, *PES_EXT;

static VOID EsEndWith(PES_EXT Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    FrComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID EsEnd(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    EsEndWith(Context, Irp, Status, 0);
}

/* Gives an engine its next request, if it is idle. */
static VOID EsNext(PES_EXT Ext, PES_ENGINE Engine)
{
    PIO_STACK_LOCATION Stack;
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (!Ext->Halted && !Engine->Current && !(FrEduRead(&Ext->Card, Engine == &Ext->Fact ? EDU_STATUS : EDU_COMMAND) & EDU_BUSY)
        && (Irp = FrQueueTake(&Engine->Queue, NULL)) != NULL) {
        Stack = IoGetCurrentIrpStackLocation(Irp);
        Engine->Current = Irp;
        Engine->Age = 0;
        if (Engine == &Ext->Fact) {
            FrEduWrite(&Ext->Card, EDU_STATUS, EDU_FACTIRQ);
            FrEduWrite(&Ext->Card, EDU_FACT, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        } else {
            BOOLEAN Fetch = Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_ES_FETCH;
            ULONG Length = Fetch ? Stack->Parameters.DeviceIoControl.OutputBufferLength : Stack->Parameters.DeviceIoControl.InputBufferLength;
            if (!Fetch)
                RtlCopyMemory(Ext->Card.Buffer, Irp->AssociatedIrp.SystemBuffer, Length);
            FrEduWrite(&Ext->Card, EDU_SRC, Fetch ? EDU_AT : Ext->Card.BufferAt.LowPart);
            FrEduWrite(&Ext->Card, EDU_DST, Fetch ? Ext->Card.BufferAt.LowPart : EDU_AT);
            FrEduWrite(&Ext->Card, EDU_COUNT, Length);
            FrEduWrite(&Ext->Card, EDU_COMMAND, EDU_BUSY | EDU_DMAIRQ | (Fetch ? EDU_TO_RAM : 0));
        }
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

/* At DISPATCH_LEVEL: an engine has sent its interrupt. */
static VOID EsFinish(PES_EXT Ext, PES_ENGINE Engine)
{
    PIO_STACK_LOCATION Stack;
    ULONG_PTR Information = 0;
    PIRP Irp = NULL;

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Engine->Current && !(FrEduRead(&Ext->Card, Engine == &Ext->Fact ? EDU_STATUS : EDU_COMMAND) & EDU_BUSY)) {
        Irp = Engine->Current;
        Engine->Current = NULL;
        Stack = IoGetCurrentIrpStackLocation(Irp);
        if (Engine == &Ext->Fact) {
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = FrEduRead(&Ext->Card, EDU_FACT);
            Information = sizeof(ULONG);
        } else if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_ES_FETCH) {
            Information = Stack->Parameters.DeviceIoControl.OutputBufferLength;
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Ext->Card.Buffer, Information);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (Irp)
        EsEndWith(Ext, Irp, STATUS_SUCCESS, Information);
    EsNext(Ext, Engine);
}

static BOOLEAN NTAPI EsIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PES_EXT Ext = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Ext->Awake)
        return FALSE;
    Status = FrEduRead(&Ext->Card, EDU_IRQ);
    if (Status == 0 || Status == 0xFFFFFFFF)
        return FALSE;
    FrEduWrite(&Ext->Card, EDU_ACK, Status);
#ifdef FIXED
    Ext->Done |= Status;
#else
    Ext->Done = Status;
#endif
    KeInsertQueueDpc(&Ext->Dpc, NULL, NULL);
    return TRUE;
}

typedef struct _ES_SYNC { PES_EXT Ext; ULONG Value; } ES_SYNC, *PES_SYNC;

static BOOLEAN NTAPI EsFetchDone(PVOID Context)
{
    PES_SYNC Sync = Context;
    Sync->Value = Sync->Ext->Done;
    Sync->Ext->Done = 0;
    return TRUE;
}

static BOOLEAN NTAPI EsSetAwake(PVOID Context)
{
    PES_SYNC Sync = Context;
    Sync->Ext->Awake = (BOOLEAN)Sync->Value;
    FrEduWrite(&Sync->Ext->Card, EDU_ACK, FrEduRead(&Sync->Ext->Card, EDU_IRQ));    /* of what no one waits for */
    return TRUE;
}

static VOID NTAPI EsDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PES_EXT Ext = Context;
    ES_SYNC Sync = { Ext, 0 };

    FR_UNUSED3(Dpc, Argument1, Argument2);
    KeSynchronizeExecution(Ext->Interrupt, EsFetchDone, &Sync);
    if (Sync.Value & IRQ_FACT)
        EsFinish(Ext, &Ext->Fact);
    if (Sync.Value & IRQ_DMA)
        EsFinish(Ext, &Ext->Dma);
}

/* Each 250 ms: requests that take too long, and engines that were still busy with such a one. */
static VOID NTAPI EsTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PES_EXT Ext = Context;
    PES_ENGINE Engine[2] = { &Ext->Fact, &Ext->Dma };
    ULONG i;

    FR_UNUSED3(Dpc, Argument1, Argument2);
    for (i = 0; i < 2; i++) {
        PIRP Irp = NULL;
        KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
        if (Engine[i]->Current && ++Engine[i]->Age > ES_TICKS) {
            Irp = Engine[i]->Current;
            Engine[i]->Current = NULL;
        }
        KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
        if (Irp)
            EsEnd(Ext, Irp, STATUS_IO_TIMEOUT);
        EsNext(Ext, Engine[i]);
    }
}

static NTSTATUS EsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PES_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PES_ENGINE Engine = &Ext->Dma;
    BOOLEAN Good;
    NTSTATUS Status;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ES_FACTORIAL:
        Engine = &Ext->Fact;
        Good = InLength >= sizeof(ULONG) && OutLength >= sizeof(ULONG) && *(PULONG)Irp->AssociatedIrp.SystemBuffer <= 1000;
        break;
    case IOCTL_ES_FILL:
        Good = InLength > 0 && InLength <= EDU_STORE;
        break;
    case IOCTL_ES_FETCH:
        Good = OutLength > 0 && OutLength <= EDU_STORE;
        break;
    default:
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (!Good)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
    if (NT_SUCCESS(Status)) {
        FrQueuePut(&Engine->Queue, Irp);
        EsNext(Ext, Engine);
        Status = STATUS_PENDING;
    }
    FrLeave(&Ext->Frame);
    return Status == STATUS_PENDING ? Status : FrComplete(Irp, Status, 0);
}

/* Ends requests that wait, of File (NULL: all). */
static VOID EsFlush(PES_EXT Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    FrQueueFlush(&Ext->Fact.Queue, File, Status);
    FrQueueFlush(&Ext->Dma.Queue, File, Status);
}

static NTSTATUS EsCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    EsFlush(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID EsAbort(PFR_EXT Frame)
{
    EsFlush((PES_EXT)Frame, NULL, STATUS_DELETE_PENDING);
}

static VOID EsSetTick(PES_EXT Ext)
{
    LARGE_INTEGER Due;
    Due.QuadPart = -2500000;
    KeSetTimerEx(&Ext->Tick, Due, 250, &Ext->TickDpc);
}

static NTSTATUS EsStart(PFR_EXT Frame, PFR_RES Resources)
{
    PES_EXT Ext = (PES_EXT)Frame;
    NTSTATUS Status = FrEduOpen(&Ext->Card, Frame->Pdo, Resources);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Status;
    Ext->Done = 0;
    Ext->Awake = TRUE;
    Status = FrConnect(Resources, EsIsr, Ext, &Ext->Interrupt);
    if (!NT_SUCCESS(Status)) {
        FrEduClose(&Ext->Card);
        return Status;
    }
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->Halted = FALSE;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    EsSetTick(Ext);
    return STATUS_SUCCESS;
}

/* Nothing is started any more: has the card come to rest, and is it not looked at behind this. */
static VOID EsQuiet(PES_EXT Ext)
{
    ES_SYNC Sync = { Ext, FALSE };
    KeCancelTimer(&Ext->Tick);
    FrEduWrite(&Ext->Card, EDU_STATUS, 0);
    FrEduRest(&Ext->Card);
    KeSynchronizeExecution(Ext->Interrupt, EsSetAwake, &Sync);
    KeFlushQueuedDpcs();
}

static VOID EsStop(PFR_EXT Frame)
{
    PES_EXT Ext = (PES_EXT)Frame;
    PIRP Fact, Dma;
    BOOLEAN Asleep;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Asleep = Ext->Halted;
    Ext->Halted = TRUE;
    Fact = Ext->Fact.Current;
    Dma = Ext->Dma.Current;
    Ext->Fact.Current = Ext->Dma.Current = NULL;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (!Asleep)
        EsQuiet(Ext);
    IoDisconnectInterrupt(Ext->Interrupt);
    if (Fact)
        EsEnd(Ext, Fact, STATUS_DEVICE_NOT_READY);
    if (Dma)
        EsEnd(Ext, Dma, STATUS_DEVICE_NOT_READY);
    EsFlush(Ext, NULL, STATUS_DEVICE_NOT_READY);
    FrEduClose(&Ext->Card);
}

static VOID EsPowerDown(PFR_EXT Frame)                      /* what is in the queues waits there */
{
    PES_EXT Ext = (PES_EXT)Frame;
    LARGE_INTEGER Time;
    BOOLEAN Asleep, Busy;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Asleep = Ext->Halted;
    Ext->Halted = TRUE;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (Asleep)
        return;
    for (;;) {                                              /* ends with the time limits at the latest */
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Busy = Ext->Fact.Current || Ext->Dma.Current;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        if (!Busy)
            break;
        Time.QuadPart = -100000;
        KeDelayExecutionThread(KernelMode, FALSE, &Time);
    }
    EsQuiet(Ext);
}

static VOID EsPowerUp(PFR_EXT Frame)
{
    PES_EXT Ext = (PES_EXT)Frame;
    ES_SYNC Sync = { Ext, TRUE };
    BOOLEAN Asleep;

    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Asleep = Ext->Halted;
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (!Asleep)
        return;
    KeSynchronizeExecution(Ext->Interrupt, EsSetAwake, &Sync);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Ext->Halted = FALSE;
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    EsSetTick(Ext);
    EsNext(Ext, &Ext->Fact);
    EsNext(Ext, &Ext->Dma);
}

static const FR_OPS EsOps = { .Start = EsStart, .Stop = EsStop, .Abort = EsAbort, .PowerDown = EsPowerDown, .PowerUp = EsPowerUp };

static VOID EsInit(PFR_EXT Frame)
{
    PES_EXT Ext = (PES_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimerEx(&Ext->Tick, NotificationTimer);
    KeInitializeDpc(&Ext->Dpc, EsDpc, Ext);
    KeInitializeDpc(&Ext->TickDpc, EsTick, Ext);
    FrQueueInit(&Ext->Fact.Queue, EsEnd, Ext);
    FrQueueInit(&Ext->Dma.Queue, EsEnd, Ext);
    Ext->Halted = TRUE;
}

static NTSTATUS NTAPI EsAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(ES_EXT), DO_BUFFERED_IO, &GUID_EDUSTAMP, &EsOps, EsInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, EsAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EsCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EsControl;
    return STATUS_SUCCESS;
}

/*
 * edudma: a driver for QEMU's edu card that moves data between applications and the card's buffer of
 * 4 KiB by the card's bus master, through a common buffer.
 *
 * WriteFile at offset O puts bytes into the card's buffer, ReadFile takes them out (O + length <= 4096).
 * IOCTL_EDUDMA_TRANSFERS (0x222004, out ULONG): how many transfers were made since the start.
 *
 * Before the device is stopped or powered down, the transfer under way is waited for (event Drained), and
 * further ones are held until the device is back.
 *
 * The bug: EdmaHold sees under the lock that a transfer is under way, and clears the event Drained only
 * after it has released the lock. If the transfer ends in between (the DPC sets Drained, since someone
 * holds), its wakeup is wiped out, and the wait never ends. Shows when the card's interrupt comes exactly
 * between these two while a power-down (or QUERY_STOP, QUERY_REMOVE) begins with a transfer under way.
 * Consequence: IRP_MN_SET_POWER (or the PnP request) never ends, and all later requests are held for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: deadlock, power-irp-overdue
 * Needs: ioctl, schedule, power
 */
#include <ddk/wdm.h>

static const GUID EdmaGuid = { 0x1f0a7c11, 0x52c1, 0x4b0e, { 0x9a, 0x01, 0x6e, 0x21, 0x70, 0x0c, 0x00, 0x02 } };

#define IOCTL_EDUDMA_TRANSFERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REGISTERS       0x41000
#define INT_STATUS      0x24
#define INT_ACK         0x64
#define DMA_SOURCE      0x80
#define DMA_TARGET      0x88
#define DMA_COUNT       0x90
#define DMA_COMMAND     0x98
#define DMA_START       1
#define DMA_FROM_CARD   2
#define DMA_INTERRUPT   4
#define DMA_DONE        0x100
#define CARD_BUFFER     0x40000
#define CARD_SIZE       4096

#define WATCH_TIME      (3 * 1000 * 10000ULL)
#define HOLD_STOPPED 1
#define HOLD_POWER   2
#define HOLD_REMOVE  4

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    DEVICE_POWER_STATE DevicePower;
    BOOLEAN InterfaceOn;
    volatile UCHAR *Regs;
    SIZE_T RegsLength;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN Up;            /* the interrupt handler may touch the card */
    /* The queue: at most one request at a time is the card's. */
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
    KSPIN_LOCK WaitingLock;
    KSPIN_LOCK Lock;                /* Current, Hold, Dead, Wedged; taken before WaitingLock */
    PIRP Current;
    ULONG Hold;
    BOOLEAN Dead;
    BOOLEAN Wedged;
    KEVENT Drained;                 /* set when a transfer ends while someone holds */
    KTIMER Watch;
    KDPC WatchDpc;
    ULONGLONG Deadline;
    ULONG Bits;                     /* causes that the interrupt handler has taken */
    KDPC Dpc;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS CommonAddress;
    ULONG Transfers;
} EDMA_EXTENSION;

static ULONG EdmaRead(EDMA_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Offset));
}

static VOID EdmaWrite(EDMA_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Offset), Value);
}

static VOID EdmaFinish(EDMA_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
}

/* ---- the cancel-safe queue -------------------------------------------------------------- */

static VOID NTAPI EdmaCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    EDMA_EXTENSION *x = CONTAINING_RECORD(Csq, EDMA_EXTENSION, Csq);

    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI EdmaCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI EdmaCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    EDMA_EXTENSION *x = CONTAINING_RECORD(Csq, EDMA_EXTENSION, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : x->Waiting.Flink;

    for (; e != &x->Waiting; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (File == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == File)
            return next;
    }
    return NULL;
}

static VOID NTAPI EdmaCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EDMA_EXTENSION, Csq)->WaitingLock, Irql);
}

static VOID NTAPI EdmaCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EDMA_EXTENSION, Csq)->WaitingLock, Irql);
}

static VOID NTAPI EdmaCsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    EdmaFinish(CONTAINING_RECORD(Csq, EDMA_EXTENSION, Csq), Irp, STATUS_CANCELLED, 0);
}

/* Takes the current request away from the card. With Lock. */
static PIRP EdmaTakeLocked(EDMA_EXTENSION *x)
{
    PIRP irp = x->Current;

    if (irp != NULL) {
        x->Current = NULL;
        KeCancelTimer(&x->Watch);
        if (x->Hold != 0 || x->Dead)
            KeSetEvent(&x->Drained, IO_NO_INCREMENT, FALSE);
    }
    return irp;
}

/* Begins a transfer. With Lock. */
static NTSTATUS EdmaBegin(EDMA_EXTENSION *x, PIRP Irp, ULONG_PTR *Information)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN read = stack->MajorFunction == IRP_MJ_READ;
    ULONG length = read ? stack->Parameters.Read.Length : stack->Parameters.Write.Length;
    ULONG offset = read ? stack->Parameters.Read.ByteOffset.LowPart : stack->Parameters.Write.ByteOffset.LowPart;

    *Information = 0;
    if (!read)
        RtlCopyMemory(x->Common, Irp->AssociatedIrp.SystemBuffer, length);
    EdmaWrite(x, DMA_SOURCE, read ? CARD_BUFFER + offset : x->CommonAddress.LowPart);
    EdmaWrite(x, DMA_TARGET, read ? x->CommonAddress.LowPart : CARD_BUFFER + offset);
    EdmaWrite(x, DMA_COUNT, length);
    EdmaWrite(x, DMA_COMMAND, DMA_START | DMA_INTERRUPT | (read ? DMA_FROM_CARD : 0));
    return STATUS_PENDING;
}

/* ---- one request at a time -------------------------------------------------------------- */

static VOID EdmaKick(EDMA_EXTENSION *x)
{
    for (;;) {
        KIRQL irql;
        PIRP irp = NULL;
        NTSTATUS status;
        ULONG_PTR information = 0;
        LARGE_INTEGER due;

        KeAcquireSpinLock(&x->Lock, &irql);
        if (x->Current == NULL && (x->Hold == 0 || x->Dead))
            irp = IoCsqRemoveNextIrp(&x->Csq, NULL);
        if (irp == NULL) {
            KeReleaseSpinLock(&x->Lock, irql);
            return;
        }
        if (x->Dead) {
            status = STATUS_NO_SUCH_DEVICE;
        } else if (x->Wedged) {
            status = STATUS_IO_DEVICE_ERROR;
        } else {
            x->Current = irp;
            x->Deadline = KeQueryInterruptTime() + WATCH_TIME;
            due.QuadPart = -(LONGLONG)WATCH_TIME;
            KeSetTimer(&x->Watch, due, &x->WatchDpc);
            status = EdmaBegin(x, irp, &information);
            if (status != STATUS_PENDING)
                EdmaTakeLocked(x);
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (status == STATUS_PENDING)
            return;
        EdmaFinish(x, irp, status, information);
    }
}

/* Holds up what has not begun, and waits for what has. */
static VOID EdmaHold(EDMA_EXTENSION *x, ULONG Why)
{
    KIRQL irql;
    BOOLEAN busy;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Hold |= Why;
    busy = x->Current != NULL;
#ifdef FIXED
    if (busy)
        KeClearEvent(&x->Drained);
#endif
    KeReleaseSpinLock(&x->Lock, irql);
    if (busy) {
#ifndef FIXED
        KeClearEvent(&x->Drained);
#endif
        KeWaitForSingleObject(&x->Drained, Executive, KernelMode, FALSE, NULL);
    }
}

static VOID EdmaResume(EDMA_EXTENSION *x, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Hold &= ~Why;
    KeReleaseSpinLock(&x->Lock, irql);
    EdmaKick(x);
}

/* The device is gone: from here on every request fails. */
static VOID EdmaKill(EDMA_EXTENSION *x)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Dead = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    EdmaHold(x, HOLD_REMOVE);
    EdmaKick(x);
}

static NTSTATUS EdmaSubmit(EDMA_EXTENSION *x, PIRP Irp)
{
    /* The request may have ended, and with it its hold on the device, before Kick is through. */
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, EdmaSubmit);

    if (!NT_SUCCESS(status)) {
        EdmaFinish(x, Irp, status, 0);
        return status;
    }
    IoCsqInsertIrp(&x->Csq, Irp, NULL);
    EdmaKick(x);
    IoReleaseRemoveLock(&x->RemoveLock, EdmaSubmit);
    return STATUS_PENDING;
}

static VOID EdmaCancelFile(EDMA_EXTENSION *x, PFILE_OBJECT File)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        EdmaFinish(x, irp, STATUS_CANCELLED, 0);
}

/* The card has not answered in time. A timer that has been set again meanwhile is not due. */
static VOID NTAPI EdmaWatchDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDMA_EXTENSION *x = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Current != NULL && KeQueryInterruptTime() >= x->Deadline) {
        irp = EdmaTakeLocked(x);
        x->Wedged = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp != NULL) {
        EdmaFinish(x, irp, STATUS_IO_TIMEOUT, 0);
        EdmaKick(x);
    }
}

/* ---- interrupts -------------------------------------------------------------------------- */

static BOOLEAN NTAPI EdmaIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    EDMA_EXTENSION *x = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Up)
        return FALSE;
    bits = EdmaRead(x, INT_STATUS);
    if (bits == 0 || bits == 0xffffffff)
        return FALSE;
    EdmaWrite(x, INT_ACK, bits);
    InterlockedOr((LONG *)&x->Bits, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI EdmaDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDMA_EXTENSION *x = Context;
    PIRP irp = NULL;
    ULONG length = 0;
    ULONG bits = InterlockedExchange((LONG *)&x->Bits, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if ((bits & DMA_DONE) && x->Current != NULL) {
        PIO_STACK_LOCATION stack;

        irp = EdmaTakeLocked(x);
        stack = IoGetCurrentIrpStackLocation(irp);
        if (stack->MajorFunction == IRP_MJ_READ) {
            length = stack->Parameters.Read.Length;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Common, length);
        } else {
            length = stack->Parameters.Write.Length;
        }
        x->Transfers++;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp != NULL) {
        EdmaFinish(x, irp, STATUS_SUCCESS, length);
        EdmaKick(x);
    }
}

static BOOLEAN NTAPI EdmaDownSynchronized(PVOID Context)
{
    EDMA_EXTENSION *x = Context;

    x->Up = FALSE;
    EdmaWrite(x, INT_ACK, 0xffffffff);
    return TRUE;
}

static VOID EdmaCardDown(EDMA_EXTENSION *x)
{
    KeSynchronizeExecution(x->Interrupt, EdmaDownSynchronized, x);
}

static BOOLEAN NTAPI EdmaUpSynchronized(PVOID Context)
{
    EDMA_EXTENSION *x = Context;

    EdmaWrite(x, INT_ACK, 0xffffffff);
    x->Up = TRUE;
    return TRUE;
}

static VOID EdmaCardUp(EDMA_EXTENSION *x)
{
    KIRQL irql;

    KeSynchronizeExecution(x->Interrupt, EdmaUpSynchronized, x);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Wedged = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
}

/* ---- requests ---------------------------------------------------------------------------- */

static NTSTATUS NTAPI EdmaCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDMA_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    EdmaFinish(x, Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EdmaCleanupFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    EdmaCancelFile(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EdmaClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EdmaReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDMA_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = stack->MajorFunction == IRP_MJ_READ ? stack->Parameters.Read.Length : stack->Parameters.Write.Length;
    LARGE_INTEGER offset = stack->MajorFunction == IRP_MJ_READ ? stack->Parameters.Read.ByteOffset
                                                               : stack->Parameters.Write.ByteOffset;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (offset.QuadPart < 0 || offset.QuadPart > CARD_SIZE || length > CARD_SIZE - (ULONG)offset.QuadPart)
        status = STATUS_INVALID_PARAMETER;
    if (!NT_SUCCESS(status) || length == 0) {
        EdmaFinish(x, Irp, status, 0);
        return status;
    }
    return EdmaSubmit(x, Irp);
}

static NTSTATUS NTAPI EdmaControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDMA_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_EDUDMA_TRANSFERS) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = x->Transfers;
        information = sizeof(ULONG);
    }
    EdmaFinish(x, Irp, status, information);
    return status;
}

/* ---- the device's memory ------------------------------------------------------------------ */

static NTSTATUS EdmaInit(EDMA_EXTENSION *x)
{
    InitializeListHead(&x->Waiting);
    KeInitializeSpinLock(&x->WaitingLock);
    KeInitializeSpinLock(&x->Lock);
    IoCsqInitialize(&x->Csq, EdmaCsqInsert, EdmaCsqRemove, EdmaCsqPeek, EdmaCsqLock, EdmaCsqUnlock, EdmaCsqCanceled);
    x->Hold = HOLD_STOPPED;
    KeInitializeTimer(&x->Watch);
    KeInitializeDpc(&x->WatchDpc, EdmaWatchDpc, x);
    KeInitializeEvent(&x->Drained, NotificationEvent, FALSE);
    KeInitializeDpc(&x->Dpc, EdmaDpc, x);
    return STATUS_SUCCESS;
}

/* The card has 28 address lines: the buffer lies below 16 MiB. */
static NTSTATUS EdmaPrepare(EDMA_EXTENSION *x)
{
    DEVICE_DESCRIPTION d;
    ULONG registers;

    if (x->Adapter == NULL) {
        RtlZeroMemory(&d, sizeof d);
        d.Version = DEVICE_DESCRIPTION_VERSION;
        d.Master = TRUE;
        d.InterfaceType = PCIBus;
        d.MaximumLength = CARD_SIZE;
        x->Adapter = IoGetDmaAdapter(x->Pdo, &d, &registers);
        if (x->Adapter == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (x->Common == NULL)
        x->Common = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, CARD_SIZE, &x->CommonAddress, TRUE);
    return x->Common != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID EdmaCleanup(EDMA_EXTENSION *x)
{
    if (x->Common != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, CARD_SIZE, x->CommonAddress, x->Common, TRUE);
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
}

/* ---- Plug and Play ---------------------------------------------------------------------- */

static NTSTATUS EdmaConnect(EDMA_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    return IoConnectInterrupt(&x->Interrupt, EdmaIsr, x, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                              (KIRQL)Line->u.Interrupt.Level,
                              (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
}

static VOID EdmaDisconnect(EDMA_EXTENSION *x)
{
    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
}

static VOID EdmaReleaseHardware(EDMA_EXTENSION *x)
{
    if (x->Regs != NULL && x->DevicePower == PowerDeviceD0)
        EdmaCardDown(x);
    EdmaDisconnect(x);
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace((PVOID)x->Regs, x->RegsLength);
        x->Regs = NULL;
    }
}

static NTSTATUS EdmaStartDevice(EDMA_EXTENSION *x, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = NULL, line = NULL;
    PCM_PARTIAL_RESOURCE_LIST list;
    NTSTATUS status;
    ULONG i;

    if (List == NULL || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    list = &List->List[0].PartialResourceList;
    for (i = 0; i < list->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &list->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && memory == NULL)
            memory = d;
        if (d->Type == CmResourceTypeInterrupt && line == NULL)
            line = d;
    }
    if (memory == NULL || memory->u.Memory.Length < REGISTERS || line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = EdmaPrepare(x);
    if (NT_SUCCESS(status))
        status = EdmaConnect(x, line);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace((PVOID)x->Regs, x->RegsLength);
        x->Regs = NULL;
        return status;
    }
    x->DevicePower = PowerDeviceD0;
    EdmaCardUp(x);
    return STATUS_SUCCESS;
}

static VOID EdmaInterfaceOff(EDMA_EXTENSION *x)
{
    if (x->InterfaceOn) {
        IoSetDeviceInterfaceState(&x->Interface, FALSE);
        x->InterfaceOn = FALSE;
    }
}

static NTSTATUS NTAPI EdmaPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDMA_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        IoForwardIrpSynchronously(x->Lower, Irp);
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            status = EdmaStartDevice(x, stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            EdmaResume(x, HOLD_STOPPED | HOLD_POWER);
            if (!x->InterfaceOn && NT_SUCCESS(IoSetDeviceInterfaceState(&x->Interface, TRUE)))
                x->InterfaceOn = TRUE;
        }
        EdmaFinish(x, Irp, status, 0);
        return status;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        IoForwardIrpSynchronously(x->Lower, Irp);
        EdmaResume(x, stack->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE && x->Regs != NULL ? HOLD_STOPPED :
                   stack->MinorFunction == IRP_MN_CANCEL_REMOVE_DEVICE ? HOLD_REMOVE : 0);
        EdmaFinish(x, Irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;

    case IRP_MN_QUERY_STOP_DEVICE:
        EdmaHold(x, HOLD_STOPPED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        EdmaHold(x, HOLD_STOPPED);
        EdmaReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        EdmaHold(x, HOLD_REMOVE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        EdmaInterfaceOff(x);
        EdmaKill(x);
        EdmaReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        EdmaInterfaceOff(x);
        EdmaKill(x);
        EdmaReleaseHardware(x);
        IoReleaseRemoveLockAndWait(&x->RemoveLock, Irp);
        EdmaCleanup(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(x->Lower, Irp);
        IoDetachDevice(x->Lower);
        RtlFreeUnicodeString(&x->Interface);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return status;
}

/* ---- power: this driver owns the device's power policy ----------------------------------- */

static VOID NTAPI EdmaDevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    EDMA_EXTENSION *x = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(State);
    EdmaFinish(x, irp, Minor == IRP_MN_QUERY_POWER ? IoStatus->Status : STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI EdmaSystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EDMA_EXTENSION *x = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0
                                                                                            : PowerDeviceD3;
        status = PoRequestPowerIrp(x->Pdo, stack->MinorFunction, state, EdmaDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI EdmaPowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EDMA_EXTENSION *x = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->DevicePower = PowerDeviceD0;
        if (x->Regs != NULL)
            EdmaCardUp(x);
        PoSetPowerState(x->Self, DevicePowerState, stack->Parameters.Power.State);
        EdmaResume(x, HOLD_POWER);
    }
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI EdmaPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDMA_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER || stack->MinorFunction == IRP_MN_QUERY_POWER) {
        if (stack->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, EdmaSystemPowerDone, x, TRUE, TRUE, TRUE);
            IoCallDriver(x->Lower, Irp);
            return STATUS_PENDING;
        }
        if (stack->MinorFunction == IRP_MN_SET_POWER) {
            if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                IoMarkIrpPending(Irp);
                IoCopyCurrentIrpStackLocationToNext(Irp);
                IoSetCompletionRoutine(Irp, EdmaPowerUpDone, x, TRUE, TRUE, TRUE);
                IoCallDriver(x->Lower, Irp);
                return STATUS_PENDING;
            }
            EdmaHold(x, HOLD_POWER);
            if (x->DevicePower == PowerDeviceD0 && x->Regs != NULL)
                EdmaCardDown(x);
            x->DevicePower = stack->Parameters.Power.State.DeviceState;
            PoSetPowerState(x->Self, DevicePowerState, stack->Parameters.Power.State);
            Irp->IoStatus.Status = STATUS_SUCCESS;
        }
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return status;
}

/* ---- the driver ------------------------------------------------------------------------- */

static NTSTATUS NTAPI EdmaSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDMA_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI EdmaAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EDMA_EXTENSION *x;
    NTSTATUS status;

    status = IoCreateDevice(Driver, sizeof *x, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    RtlZeroMemory(x, sizeof *x);
    x->Self = device;
    x->Pdo = Pdo;
    x->DevicePower = PowerDeviceD3;
    IoInitializeRemoveLock(&x->RemoveLock, 'amdE', 0, 0);
    status = EdmaInit(x);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = IoRegisterDeviceInterface(Pdo, &EdmaGuid, NULL, &x->Interface);
    if (!NT_SUCCESS(status)) {
        EdmaCleanup(x);
        IoDeleteDevice(device);
        return status;
    }
    x->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (x->Lower == NULL) {
        RtlFreeUnicodeString(&x->Interface);
        EdmaCleanup(x);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE | DO_BUFFERED_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI EdmaUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = EdmaAddDevice;
    Driver->DriverUnload = EdmaUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = EdmaCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EdmaCleanupFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = EdmaClose;
    Driver->MajorFunction[IRP_MJ_READ] = EdmaReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = EdmaReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EdmaControl;
    Driver->MajorFunction[IRP_MJ_PNP] = EdmaPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = EdmaPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = EdmaSystemControl;
    return STATUS_SUCCESS;
}

/*
 * edubuf: a driver for QEMU's edu card that gives applications DMA buffers of their own. A handle allocates
 * buffers (common buffers), fills them and looks into them, and has the card's bus master move data between
 * a buffer and the card's memory of 4 KiB.
 *
 * IOCTL_EDUBUF_ALLOCATE (0x222004): in ULONG length (1-4096), out ULONG id; at most 16 per handle
 * IOCTL_EDUBUF_FREE     (0x222008): in ULONG id
 * IOCTL_EDUBUF_FILL     (0x22200C): in { ULONG id, offset; UCHAR bytes[] }
 * IOCTL_EDUBUF_PEEK     (0x222010): in { ULONG id, offset }, out the bytes
 * IOCTL_EDUBUF_TRANSFER (0x222014): in { ULONG id, fromCard (0 or 1), cardOffset, length }; pends until it is done
 *
 * A buffer is reference-counted: its handle has one reference, each queued or running transfer another. Common
 * buffers can only be freed at PASSIVE_LEVEL, so what may run at DISPATCH_LEVEL uses EbufPutLater, by which a
 * work item frees the buffer.
 *
 * The bug: the interrupt's DPC drops the transfer's reference by EbufPut. Usually the handle has still one; but if
 * the application frees the buffer (or closes the handle) while the transfer is under way, the DPC drops the last
 * one. Shows when IOCTL_EDUBUF_FREE (or the handle's cleanup) comes between a transfer's begin and its end.
 * Consequence: FreeCommonBuffer at DISPATCH_LEVEL.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-wrong-irql
 * Needs: ioctl
 */
#include <ddk/wdm.h>

static const GUID EbufGuid = { 0x1f0a7c11, 0x52c1, 0x4b0e, { 0x9a, 0x01, 0x6e, 0x21, 0x70, 0x0c, 0x00, 0x04 } };

#define BUF_CODE(n)            CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUBUF_ALLOCATE  BUF_CODE(1)
#define IOCTL_EDUBUF_FREE      BUF_CODE(2)
#define IOCTL_EDUBUF_FILL      BUF_CODE(3)
#define IOCTL_EDUBUF_PEEK      BUF_CODE(4)
#define IOCTL_EDUBUF_TRANSFER  BUF_CODE(5)

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

#define MOST_BUFFERS    16
#define TAG             'fubE'
#define WATCH_TIME      (3 * 1000 * 10000ULL)
#define HOLD_STOPPED 1
#define HOLD_POWER   2
#define HOLD_REMOVE  4

typedef struct {
    LIST_ENTRY Link;                /* of the handle's list, later of the dead */
    LONG References;
    ULONG Id;
    ULONG Length;
    PUCHAR Bytes;
    PHYSICAL_ADDRESS Address;
} BUFFER;

typedef struct {
    LIST_ENTRY Buffers;
    ULONG Count;
    ULONG NextId;
} HANDLE_STATE;

typedef struct {
    ULONG Id;
    ULONG FromCard;
    ULONG CardOffset;
    ULONG Length;
} TRANSFER;

typedef struct {
    ULONG Id;
    ULONG Offset;
} PLACE;

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
    KEVENT Idle;
    KTIMER Watch;
    KDPC WatchDpc;
    ULONGLONG Deadline;
    ULONG Bits;                     /* causes that the interrupt handler has taken */
    KDPC Dpc;
    PDMA_ADAPTER Adapter;
    KSPIN_LOCK BufferLock;          /* the handles' lists, the list of the dead */
    LIST_ENTRY Graveyard;
    PIO_WORKITEM Reaper;
    BOOLEAN Reaping;
    KEVENT Reaped;
} EBUF_EXTENSION;

static ULONG EbufRead(EBUF_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Offset));
}

static VOID EbufWrite(EBUF_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Offset), Value);
}

static VOID EbufFinish(EBUF_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
}

/* ---- buffers ----------------------------------------------------------------------------- */

static VOID EbufDestroy(EBUF_EXTENSION *x, BUFFER *Buffer)
{
    x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, Buffer->Length, Buffer->Address, Buffer->Bytes, TRUE);
    ExFreePoolWithTag(Buffer, TAG);
}

/* At PASSIVE_LEVEL. */
static VOID EbufPut(EBUF_EXTENSION *x, BUFFER *Buffer)
{
    if (InterlockedDecrement(&Buffer->References) == 0)
        EbufDestroy(x, Buffer);
}

static VOID NTAPI EbufReap(PDEVICE_OBJECT Device, PVOID Context)
{
    EBUF_EXTENSION *x = Context;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    KeAcquireSpinLock(&x->BufferLock, &irql);
    while (!IsListEmpty(&x->Graveyard)) {
        BUFFER *buffer = CONTAINING_RECORD(RemoveHeadList(&x->Graveyard), BUFFER, Link);

        KeReleaseSpinLock(&x->BufferLock, irql);
        EbufDestroy(x, buffer);
        KeAcquireSpinLock(&x->BufferLock, &irql);
    }
    x->Reaping = FALSE;
    KeSetEvent(&x->Reaped, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->BufferLock, irql);
}

/* At DISPATCH_LEVEL or below. */
static VOID EbufPutLater(EBUF_EXTENSION *x, BUFFER *Buffer)
{
    KIRQL irql;
    BOOLEAN queue = FALSE;

    if (InterlockedDecrement(&Buffer->References) != 0)
        return;
    KeAcquireSpinLock(&x->BufferLock, &irql);
    InsertTailList(&x->Graveyard, &Buffer->Link);
    if (!x->Reaping) {
        x->Reaping = TRUE;
        KeClearEvent(&x->Reaped);
        queue = TRUE;
    }
    KeReleaseSpinLock(&x->BufferLock, irql);
    if (queue)
        IoQueueWorkItem(x->Reaper, EbufReap, DelayedWorkQueue, x);
}

/* The handle's buffer of this number, with a reference for the caller. */
static BUFFER *EbufGet(EBUF_EXTENSION *x, HANDLE_STATE *Handle, ULONG Id)
{
    BUFFER *found = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&x->BufferLock, &irql);
    for (e = Handle->Buffers.Flink; e != &Handle->Buffers; e = e->Flink) {
        BUFFER *buffer = CONTAINING_RECORD(e, BUFFER, Link);

        if (buffer->Id == Id) {
            InterlockedIncrement(&buffer->References);
            found = buffer;
            break;
        }
    }
    KeReleaseSpinLock(&x->BufferLock, irql);
    return found;
}

static NTSTATUS EbufAllocate(EBUF_EXTENSION *x, HANDLE_STATE *Handle, ULONG Length, ULONG *Id)
{
    BUFFER *buffer;
    BOOLEAN room;
    KIRQL irql;

    if (Length == 0 || Length > CARD_SIZE)
        return STATUS_INVALID_PARAMETER;
    buffer = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *buffer, TAG);
    if (buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    buffer->References = 1;
    buffer->Length = Length;
    buffer->Bytes = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, Length, &buffer->Address, TRUE);
    if (buffer->Bytes == NULL) {
        ExFreePoolWithTag(buffer, TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(buffer->Bytes, Length);
    KeAcquireSpinLock(&x->BufferLock, &irql);
    room = Handle->Count < MOST_BUFFERS;
    if (room) {
        *Id = buffer->Id = ++Handle->NextId;
        Handle->Count++;
        InsertTailList(&Handle->Buffers, &buffer->Link);
    }
    KeReleaseSpinLock(&x->BufferLock, irql);
    if (!room) {
        EbufDestroy(x, buffer);
        return STATUS_QUOTA_EXCEEDED;
    }
    return STATUS_SUCCESS;
}

/* Takes a buffer (Id 0: any) off the handle's list, and with it the handle's reference. */
static BOOLEAN EbufFree(EBUF_EXTENSION *x, HANDLE_STATE *Handle, ULONG Id)
{
    BUFFER *found = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&x->BufferLock, &irql);
    for (e = Handle->Buffers.Flink; e != &Handle->Buffers; e = e->Flink) {
        BUFFER *buffer = CONTAINING_RECORD(e, BUFFER, Link);

        if (Id == 0 || buffer->Id == Id) {
            RemoveEntryList(&buffer->Link);
            Handle->Count--;
            found = buffer;
            break;
        }
    }
    KeReleaseSpinLock(&x->BufferLock, irql);
    if (found == NULL)
        return FALSE;
    EbufPut(x, found);
    return TRUE;
}

/* Ends a transfer that the card has not carried out. */
static VOID EbufRetire(EBUF_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    EbufPutLater(x, Irp->Tail.Overlay.DriverContext[0]);
    EbufFinish(x, Irp, Status, Information);
}

/* ---- the cancel-safe queue -------------------------------------------------------------- */

static VOID NTAPI EbufCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    EBUF_EXTENSION *x = CONTAINING_RECORD(Csq, EBUF_EXTENSION, Csq);

    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI EbufCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI EbufCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    EBUF_EXTENSION *x = CONTAINING_RECORD(Csq, EBUF_EXTENSION, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : x->Waiting.Flink;

    for (; e != &x->Waiting; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (File == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == File)
            return next;
    }
    return NULL;
}

static VOID NTAPI EbufCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EBUF_EXTENSION, Csq)->WaitingLock, Irql);
}

static VOID NTAPI EbufCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EBUF_EXTENSION, Csq)->WaitingLock, Irql);
}

static VOID NTAPI EbufCsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    EbufRetire(CONTAINING_RECORD(Csq, EBUF_EXTENSION, Csq), Irp, STATUS_CANCELLED, 0);
}

/* Takes the current request away from the card. With Lock. */
static PIRP EbufTakeLocked(EBUF_EXTENSION *x)
{
    PIRP irp = x->Current;

    if (irp != NULL) {
        x->Current = NULL;
        KeCancelTimer(&x->Watch);
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    }
    return irp;
}

/* Begins a transfer. With Lock. */
static NTSTATUS EbufBegin(EBUF_EXTENSION *x, PIRP Irp, ULONG_PTR *Information)
{
    TRANSFER *transfer = Irp->AssociatedIrp.SystemBuffer;
    BUFFER *buffer = Irp->Tail.Overlay.DriverContext[0];
    ULONG memory = buffer->Address.LowPart;
    ULONG card = CARD_BUFFER + transfer->CardOffset;

    *Information = 0;
    EbufWrite(x, DMA_SOURCE, transfer->FromCard ? card : memory);
    EbufWrite(x, DMA_TARGET, transfer->FromCard ? memory : card);
    EbufWrite(x, DMA_COUNT, transfer->Length);
    EbufWrite(x, DMA_COMMAND, DMA_START | DMA_INTERRUPT | (transfer->FromCard ? DMA_FROM_CARD : 0));
    return STATUS_PENDING;
}

/* ---- one request at a time -------------------------------------------------------------- */

static VOID EbufKick(EBUF_EXTENSION *x)
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
            KeClearEvent(&x->Idle);
            x->Deadline = KeQueryInterruptTime() + WATCH_TIME;
            due.QuadPart = -(LONGLONG)WATCH_TIME;
            KeSetTimer(&x->Watch, due, &x->WatchDpc);
            status = EbufBegin(x, irp, &information);
            if (status != STATUS_PENDING)
                EbufTakeLocked(x);
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (status == STATUS_PENDING)
            return;
        EbufRetire(x, irp, status, information);
    }
}

/* Holds up what has not begun, and waits for what has. */
static VOID EbufHold(EBUF_EXTENSION *x, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Hold |= Why;
    KeReleaseSpinLock(&x->Lock, irql);
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID EbufResume(EBUF_EXTENSION *x, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Hold &= ~Why;
    KeReleaseSpinLock(&x->Lock, irql);
    EbufKick(x);
}

/* The device is gone: from here on every request fails. */
static VOID EbufKill(EBUF_EXTENSION *x)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Dead = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
    EbufKick(x);
}

static NTSTATUS EbufSubmit(EBUF_EXTENSION *x, PIRP Irp)
{
    /* The request may have ended, and with it its hold on the device, before Kick is through. */
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, EbufSubmit);

    if (!NT_SUCCESS(status)) {
        EbufRetire(x, Irp, status, 0);
        return status;
    }
    IoCsqInsertIrp(&x->Csq, Irp, NULL);
    EbufKick(x);
    IoReleaseRemoveLock(&x->RemoveLock, EbufSubmit);
    return STATUS_PENDING;
}

static VOID EbufCancelFile(EBUF_EXTENSION *x, PFILE_OBJECT File)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        EbufRetire(x, irp, STATUS_CANCELLED, 0);
}

/* The card has not answered in time. A timer that has been set again meanwhile is not due. */
static VOID NTAPI EbufWatchDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EBUF_EXTENSION *x = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Current != NULL && KeQueryInterruptTime() >= x->Deadline) {
        irp = EbufTakeLocked(x);
        x->Wedged = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp != NULL) {
        EbufRetire(x, irp, STATUS_IO_TIMEOUT, 0);
        EbufKick(x);
    }
}
/* ---- interrupts -------------------------------------------------------------------------- */

static BOOLEAN NTAPI EbufIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    EBUF_EXTENSION *x = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Up)
        return FALSE;
    bits = EbufRead(x, INT_STATUS);
    if (bits == 0 || bits == 0xffffffff)
        return FALSE;
    EbufWrite(x, INT_ACK, bits);
    InterlockedOr((LONG *)&x->Bits, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI EbufDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EBUF_EXTENSION *x = Context;
    PIRP irp = NULL;
    ULONG bits = InterlockedExchange((LONG *)&x->Bits, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (bits & DMA_DONE)
        irp = EbufTakeLocked(x);
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp != NULL) {
#ifdef FIXED
        EbufPutLater(x, irp->Tail.Overlay.DriverContext[0]);
#else
        EbufPut(x, irp->Tail.Overlay.DriverContext[0]);
#endif
        EbufFinish(x, irp, STATUS_SUCCESS, 0);
        EbufKick(x);
    }
}

static BOOLEAN NTAPI EbufDownSynchronized(PVOID Context)
{
    EBUF_EXTENSION *x = Context;

    x->Up = FALSE;
    EbufWrite(x, INT_ACK, 0xffffffff);
    return TRUE;
}

static VOID EbufCardDown(EBUF_EXTENSION *x)
{
    KeSynchronizeExecution(x->Interrupt, EbufDownSynchronized, x);
}

static BOOLEAN NTAPI EbufUpSynchronized(PVOID Context)
{
    EBUF_EXTENSION *x = Context;

    EbufWrite(x, INT_ACK, 0xffffffff);
    x->Up = TRUE;
    return TRUE;
}

static VOID EbufCardUp(EBUF_EXTENSION *x)
{
    KIRQL irql;

    KeSynchronizeExecution(x->Interrupt, EbufUpSynchronized, x);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Wedged = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
}

/* ---- requests ---------------------------------------------------------------------------- */

static NTSTATUS NTAPI EbufCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);
    HANDLE_STATE *handle;

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    handle = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *handle, TAG);
    if (handle == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        InitializeListHead(&handle->Buffers);
        handle->Count = 0;
        handle->NextId = 0;
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = handle;
    }
    EbufFinish(x, Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI EbufCleanupFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    EbufCancelFile(x, file);
    while (EbufFree(x, file->FsContext, 0))
        ;
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EbufClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
    HANDLE_STATE *handle = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    /* A request that was made while the handle was closed may have allocated one after its cleanup. */
    while (EbufFree(x, handle, 0))
        ;
    ExFreePoolWithTag(handle, TAG);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EbufControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    HANDLE_STATE *handle = stack->FileObject->FsContext;
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID data = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    BUFFER *buffer;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDUBUF_ALLOCATE:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = EbufAllocate(x, handle, *(ULONG *)data, data);
        if (NT_SUCCESS(status))
            information = sizeof(ULONG);
        break;

    case IOCTL_EDUBUF_FREE:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (*(ULONG *)data == 0 || !EbufFree(x, handle, *(ULONG *)data))
            status = STATUS_NOT_FOUND;
        break;

    case IOCTL_EDUBUF_FILL:
    case IOCTL_EDUBUF_PEEK: {
        BOOLEAN fill = stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_EDUBUF_FILL;
        PLACE place;
        ULONG length;

        if (in < sizeof place) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        place = *(PLACE *)data;
        length = fill ? in - (ULONG)sizeof place : out;
        buffer = EbufGet(x, handle, place.Id);
        if (buffer == NULL) {
            status = STATUS_NOT_FOUND;
            break;
        }
        if (place.Offset > buffer->Length || length > buffer->Length - place.Offset) {
            status = STATUS_INVALID_PARAMETER;
        } else if (fill) {
            RtlCopyMemory(buffer->Bytes + place.Offset, (PLACE *)data + 1, length);
        } else {
            RtlCopyMemory(data, buffer->Bytes + place.Offset, length);
            information = length;
        }
        EbufPut(x, buffer);
        break;
    }

    case IOCTL_EDUBUF_TRANSFER: {
        TRANSFER *transfer = data;

        if (in < sizeof *transfer) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        buffer = EbufGet(x, handle, transfer->Id);
        if (buffer == NULL) {
            status = STATUS_NOT_FOUND;
            break;
        }
        if (transfer->FromCard > 1 || transfer->Length == 0 || transfer->Length > buffer->Length ||
            transfer->CardOffset > CARD_SIZE || transfer->Length > CARD_SIZE - transfer->CardOffset) {
            EbufPut(x, buffer);
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        Irp->Tail.Overlay.DriverContext[0] = buffer;
        return EbufSubmit(x, Irp);
    }

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    EbufFinish(x, Irp, status, information);
    return status;
}

/* ---- the device's memory ------------------------------------------------------------------ */

static NTSTATUS EbufInit(EBUF_EXTENSION *x)
{
    InitializeListHead(&x->Waiting);
    KeInitializeSpinLock(&x->WaitingLock);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    IoCsqInitialize(&x->Csq, EbufCsqInsert, EbufCsqRemove, EbufCsqPeek, EbufCsqLock, EbufCsqUnlock, EbufCsqCanceled);
    x->Hold = HOLD_STOPPED;
    KeInitializeTimer(&x->Watch);
    KeInitializeDpc(&x->WatchDpc, EbufWatchDpc, x);
    KeInitializeDpc(&x->Dpc, EbufDpc, x);
    KeInitializeSpinLock(&x->BufferLock);
    InitializeListHead(&x->Graveyard);
    KeInitializeEvent(&x->Reaped, NotificationEvent, TRUE);
    x->Reaper = IoAllocateWorkItem(x->Self);
    return x->Reaper != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

/* The card has 28 address lines: buffers lie below 16 MiB. */
static NTSTATUS EbufPrepare(EBUF_EXTENSION *x)
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
    }
    return x->Adapter != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID EbufCleanup(EBUF_EXTENSION *x)
{
    KeWaitForSingleObject(&x->Reaped, Executive, KernelMode, FALSE, NULL);
    IoFreeWorkItem(x->Reaper);
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
}

/* ---- Plug and Play ---------------------------------------------------------------------- */

static NTSTATUS EbufConnect(EBUF_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    return IoConnectInterrupt(&x->Interrupt, EbufIsr, x, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                              (KIRQL)Line->u.Interrupt.Level,
                              (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
}

static VOID EbufDisconnect(EBUF_EXTENSION *x)
{
    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
}

static VOID EbufReleaseHardware(EBUF_EXTENSION *x)
{
    if (x->Regs != NULL && x->DevicePower == PowerDeviceD0)
        EbufCardDown(x);
    EbufDisconnect(x);
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace((PVOID)x->Regs, x->RegsLength);
        x->Regs = NULL;
    }
}

static NTSTATUS EbufStartDevice(EBUF_EXTENSION *x, PCM_RESOURCE_LIST List)
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
    status = EbufPrepare(x);
    if (NT_SUCCESS(status))
        status = EbufConnect(x, line);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace((PVOID)x->Regs, x->RegsLength);
        x->Regs = NULL;
        return status;
    }
    x->DevicePower = PowerDeviceD0;
    EbufCardUp(x);
    return STATUS_SUCCESS;
}

static VOID EbufInterfaceOff(EBUF_EXTENSION *x)
{
    if (x->InterfaceOn) {
        IoSetDeviceInterfaceState(&x->Interface, FALSE);
        x->InterfaceOn = FALSE;
    }
}

static NTSTATUS NTAPI EbufPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
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
            status = EbufStartDevice(x, stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            EbufResume(x, HOLD_STOPPED | HOLD_POWER);
            if (!x->InterfaceOn && NT_SUCCESS(IoSetDeviceInterfaceState(&x->Interface, TRUE)))
                x->InterfaceOn = TRUE;
        }
        EbufFinish(x, Irp, status, 0);
        return status;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        IoForwardIrpSynchronously(x->Lower, Irp);
        EbufResume(x, stack->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE && x->Regs != NULL ? HOLD_STOPPED :
                   stack->MinorFunction == IRP_MN_CANCEL_REMOVE_DEVICE ? HOLD_REMOVE : 0);
        EbufFinish(x, Irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;

    case IRP_MN_QUERY_STOP_DEVICE:
        EbufHold(x, HOLD_STOPPED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        EbufHold(x, HOLD_STOPPED);
        EbufReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        EbufHold(x, HOLD_REMOVE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        EbufInterfaceOff(x);
        EbufKill(x);
        EbufReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        EbufInterfaceOff(x);
        EbufKill(x);
        EbufReleaseHardware(x);
        IoReleaseRemoveLockAndWait(&x->RemoveLock, Irp);
        EbufCleanup(x);
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

static VOID NTAPI EbufDevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    EBUF_EXTENSION *x = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(State);
    EbufFinish(x, irp, Minor == IRP_MN_QUERY_POWER ? IoStatus->Status : STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI EbufSystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EBUF_EXTENSION *x = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0
                                                                                            : PowerDeviceD3;
        status = PoRequestPowerIrp(x->Pdo, stack->MinorFunction, state, EbufDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI EbufPowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EBUF_EXTENSION *x = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->DevicePower = PowerDeviceD0;
        if (x->Regs != NULL)
            EbufCardUp(x);
        PoSetPowerState(x->Self, DevicePowerState, stack->Parameters.Power.State);
        EbufResume(x, HOLD_POWER);
    }
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI EbufPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
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
            IoSetCompletionRoutine(Irp, EbufSystemPowerDone, x, TRUE, TRUE, TRUE);
            IoCallDriver(x->Lower, Irp);
            return STATUS_PENDING;
        }
        if (stack->MinorFunction == IRP_MN_SET_POWER) {
            if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                IoMarkIrpPending(Irp);
                IoCopyCurrentIrpStackLocationToNext(Irp);
                IoSetCompletionRoutine(Irp, EbufPowerUpDone, x, TRUE, TRUE, TRUE);
                IoCallDriver(x->Lower, Irp);
                return STATUS_PENDING;
            }
            EbufHold(x, HOLD_POWER);
            if (x->DevicePower == PowerDeviceD0 && x->Regs != NULL)
                EbufCardDown(x);
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

static NTSTATUS NTAPI EbufSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EBUF_EXTENSION *x = Device->DeviceExtension;
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

static NTSTATUS NTAPI EbufAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EBUF_EXTENSION *x;
    NTSTATUS status;

    status = IoCreateDevice(Driver, sizeof *x, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    RtlZeroMemory(x, sizeof *x);
    x->Self = device;
    x->Pdo = Pdo;
    x->DevicePower = PowerDeviceD3;
    IoInitializeRemoveLock(&x->RemoveLock, 'fubE', 0, 0);
    status = EbufInit(x);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = IoRegisterDeviceInterface(Pdo, &EbufGuid, NULL, &x->Interface);
    if (!NT_SUCCESS(status)) {
        EbufCleanup(x);
        IoDeleteDevice(device);
        return status;
    }
    x->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (x->Lower == NULL) {
        RtlFreeUnicodeString(&x->Interface);
        EbufCleanup(x);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI EbufUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = EbufAddDevice;
    Driver->DriverUnload = EbufUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = EbufCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EbufCleanupFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = EbufClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EbufControl;
    Driver->MajorFunction[IRP_MJ_PNP] = EbufPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = EbufPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = EbufSystemControl;
    return STATUS_SUCCESS;
}

/*
 * A serial line over a card's FIFO: received characters are kept in a buffer, reads are answered in their order and end
 * when they are full, or with what has come when their time is up.
 *
 * The bug: the time-out DPC ends the read for which the timer was set last without a look at whether that is still the current one and its time is up, so when a read is completed just as its timer has expired, a request that is no more is touched, or the next read is ended early.
 * Shows by: a read with a time-out is filled, purged or cancelled in the moment in which its time is up, after its timer's DPC has been queued and before that takes the lock.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: use-after-free
 * Needs: ioctl, schedule, device
 */
#include "../include/pci_kit.h"

#define UART_TAG            'traU'
#define UART_RECEIVED       0x1u
#define UART_BUFFER         2048
#define UART_MAX_TIMEOUT    600000

#define IOCTL_UART_SET_TIMEOUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_UART_GET_TIMEOUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_UART_PURGE       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_UART_STATUS      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x973, METHOD_BUFFERED, FILE_READ_ACCESS)

#define UART_PURGE_BUFFER   1u
#define UART_PURGE_READS    2u

/* {F1B0C7A2-1D35-4E0B-A0C4-7B3E2F68A401} */
static const GUID UartInterface = { 0xf1b0c7a2, 0x1d35, 0x4e0b, { 0xa0, 0xc4, 0x7b, 0x3e, 0x2f, 0x68, 0xa4, 0x01 } };

typedef struct _UART_TIMEOUT { ULONG TotalMs; } UART_TIMEOUT;           /* 0: reads wait until they are full */
typedef struct _UART_STATUS { ULONG Buffered; ULONG Reads; ULONG Received; ULONG Overrun; ULONG TimedOut; } UART_STATUS;

typedef struct _UART {
    FDO_KIT Kit;
    PCI_HW Hw;

    KSPIN_LOCK Lock;                    /* guards what follows, and the card but for its interrupt's status */
    BOOLEAN Online;
    BOOLEAN Gone;
    UCHAR Buffer[UART_BUFFER];
    ULONG Head, Tail;
    ULONG TimeoutMs;

    LIST_ENTRY Reads;                   /* the first is the current one */
    ULONG ReadCount;
    PIRP Current;                       /* the first read, once its turn has begun */
    PIRP TimerRead;                     /* the read for which the timer was set last */
    ULONG Filled;                       /* bytes that the current read has */
    ULONGLONG Deadline;                 /* of the current read; 0: none */
    KTIMER Timer;
    KDPC TimerDpc;

    ULONG Received, Overrun, TimedOut;
} UART, *PUART;

/* The card */

static BOOLEAN NTAPI UartInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PUART uart = Context;
    ULONG status;
    UNREFERENCED_PARAMETER(Interrupt);

    if (!uart->Hw.Live) return FALSE;
    status = HwRead(&uart->Hw, BENCH_STATUS);
    if (status == ~0u || !(status & UART_RECEIVED)) return FALSE;
    HwWrite(&uart->Hw, BENCH_STATUS, UART_RECEIVED);
    IoRequestDpc(uart->Kit.Self, NULL, uart);
    return TRUE;
}

/* With Lock held: from the card's FIFO into the buffer. */
static VOID UartDrain(PUART Uart)
{
    ULONG left = HwRead(&Uart->Hw, BENCH_FIFO_STATUS);

    if (left == ~0u) return;
    for (left &= BENCH_FIFO_COUNT; left; left--) {
        UCHAR byte = (UCHAR)HwRead(&Uart->Hw, BENCH_FIFO);
        Uart->Received++;
        if (Uart->Head - Uart->Tail == UART_BUFFER) Uart->Overrun++;
        else Uart->Buffer[Uart->Head++ % UART_BUFFER] = byte;
    }
}

/* Reads */

static ULONG UartLength(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
}

/* With Lock held: the read that has become the current one gets its time. */
static VOID UartBeginRead(PUART Uart)
{
    Uart->Filled = 0;
    Uart->Deadline = 0;
    if (IsListEmpty(&Uart->Reads)) {
        Uart->Current = NULL;
        KeCancelTimer(&Uart->Timer);
        return;
    }
    Uart->Current = CONTAINING_RECORD(Uart->Reads.Flink, IRP, Tail.Overlay.ListEntry);
    if (Uart->TimeoutMs) {
        LARGE_INTEGER due;
        due.QuadPart = -(LONGLONG)Uart->TimeoutMs * 10000;
        Uart->TimerRead = Uart->Current;
        Uart->Deadline = KeQueryInterruptTime() - due.QuadPart;
        KeSetTimer(&Uart->Timer, due, &Uart->TimerDpc);
    } else KeCancelTimer(&Uart->Timer);
}

/* With Lock held: a read leaves the queue, and if it was the current one the next one's turn begins. */
static VOID UartUnlink(PUART Uart, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    Uart->ReadCount--;
    if (Uart->Current == Irp) UartBeginRead(Uart);
}

/* With Lock held: the current read ends with what it has. FALSE if it is being cancelled. */
static BOOLEAN UartEndRead(PUART Uart, PIRP Irp, NTSTATUS Status, PLIST_ENTRY Done)
{
    ULONG filled = Uart->Filled;

    if (!IoSetCancelRoutine(Irp, NULL)) return FALSE;
    UartUnlink(Uart, Irp);
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = filled;
    InsertTailList(Done, &Irp->Tail.Overlay.ListEntry);
    return TRUE;
}

/* With Lock held: hands out what there is. A read that is being cancelled holds up the others until it has gone. */
static VOID UartServe(PUART Uart, PLIST_ENTRY Done)
{
    while (!IsListEmpty(&Uart->Reads)) {
        PIRP irp = CONTAINING_RECORD(Uart->Reads.Flink, IRP, Tail.Overlay.ListEntry);
        PUCHAR bytes = irp->AssociatedIrp.SystemBuffer;
        ULONG length = UartLength(irp);

        while (Uart->Filled < length && Uart->Tail != Uart->Head) bytes[Uart->Filled++] = Uart->Buffer[Uart->Tail++ % UART_BUFFER];
        if (Uart->Filled < length || !UartEndRead(Uart, irp, STATUS_SUCCESS, Done)) break;
    }
}

static VOID UartCompleteAll(PUART Uart, PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);
        IoCompleteRequest(irp, IO_SERIAL_INCREMENT);
        IoReleaseRemoveLock(&Uart->Kit.RemoveLock, irp);
    }
}

static VOID NTAPI UartDpc(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PUART uart = Context;
    LIST_ENTRY done;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);

    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&uart->Lock);
    if (uart->Online) {
        UartDrain(uart);
        UartServe(uart, &done);
    }
    KeReleaseSpinLockFromDpcLevel(&uart->Lock);
    UartCompleteAll(uart, &done);
}

/* The current read's time is up. */
static VOID NTAPI UartTimeUp(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PUART uart = Context;
    LIST_ENTRY done;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&uart->Lock);
#ifdef FIXED
    if (uart->Current && uart->Current == uart->TimerRead && uart->Deadline && KeQueryInterruptTime() >= uart->Deadline
#else
    if (uart->TimerRead
#endif
        && UartEndRead(uart, uart->TimerRead, STATUS_TIMEOUT, &done)) {
        uart->TimedOut++;
        UartServe(uart, &done);
    }
    KeReleaseSpinLockFromDpcLevel(&uart->Lock);
    UartCompleteAll(uart, &done);
}

static VOID NTAPI UartCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUART uart = Device->DeviceExtension;
    LIST_ENTRY done;
    ULONG filled = 0;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    InitializeListHead(&done);
    KeAcquireSpinLock(&uart->Lock, &irql);
    if (uart->Current == Irp) filled = uart->Filled;
    UartUnlink(uart, Irp);
    UartServe(uart, &done);
    KeReleaseSpinLock(&uart->Lock, irql);
    Irp->IoStatus.Status = STATUS_CANCELLED;
    Irp->IoStatus.Information = filled;
    InsertTailList(&done, &Irp->Tail.Overlay.ListEntry);
    UartCompleteAll(uart, &done);
}

/* Ends reads that are not being cancelled: a file's, or all. */
static VOID UartEndReads(PUART Uart, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY done, *e, *next;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Uart->Lock, &irql);
    for (e = Uart->Reads.Flink; e != &Uart->Reads; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if ((File && IoGetCurrentIrpStackLocation(irp)->FileObject != File) || !IoSetCancelRoutine(irp, NULL)) continue;
        irp->IoStatus.Status = Status;
        irp->IoStatus.Information = irp == Uart->Current ? Uart->Filled : 0;
        UartUnlink(Uart, irp);
        InsertTailList(&done, e);
    }
    if (!Uart->Gone) UartServe(Uart, &done);
    KeReleaseSpinLock(&Uart->Lock, irql);
    UartCompleteAll(Uart, &done);
}

static NTSTATUS UartRead(PUART Uart, PIRP Irp)
{
    LIST_ENTRY done;
    KIRQL irql;

    if (UartLength(Irp) == 0) return STATUS_SUCCESS;
    InitializeListHead(&done);
    KeAcquireSpinLock(&Uart->Lock, &irql);
    if (Uart->Gone) {
        KeReleaseSpinLock(&Uart->Lock, irql);
        return STATUS_NO_SUCH_DEVICE;
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Uart->Reads, &Irp->Tail.Overlay.ListEntry);
    Uart->ReadCount++;
    if (!Uart->Current) UartBeginRead(Uart);
    IoSetCancelRoutine(Irp, UartCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        UartUnlink(Uart, Irp);
        Irp->IoStatus.Status = STATUS_CANCELLED;
        Irp->IoStatus.Information = 0;
        InsertTailList(&done, &Irp->Tail.Overlay.ListEntry);
    } else UartServe(Uart, &done);
    KeReleaseSpinLock(&Uart->Lock, irql);
    UartCompleteAll(Uart, &done);
    return STATUS_PENDING;
}

/* Other requests */

static NTSTATUS UartWrite(PUART Uart, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length, i;
    const UCHAR *bytes = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (length > 64) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Uart->Lock, &irql);
    if (!Uart->Online) status = STATUS_DEVICE_NOT_READY;
    else if (length) {
        for (i = 0; i < length; i++) HwWrite(&Uart->Hw, BENCH_FIFO, bytes[i]);
        HwWrite(&Uart->Hw, BENCH_RAISE, UART_RECEIVED);            /* the line's end is a loop */
    }
    KeReleaseSpinLock(&Uart->Lock, irql);
    if (NT_SUCCESS(status)) Irp->IoStatus.Information = length;
    return status;
}

/* A new time-out is that of reads whose turn has yet to come. */
static NTSTATUS UartSetTimeout(PUART Uart, ULONG Ms)
{
    KIRQL irql;

    if (Ms > UART_MAX_TIMEOUT) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Uart->Lock, &irql);
    Uart->TimeoutMs = Ms;
    KeReleaseSpinLock(&Uart->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS UartPurge(PUART Uart, PFILE_OBJECT File, ULONG What)
{
    KIRQL irql;

    if (What == 0 || (What & ~(UART_PURGE_BUFFER | UART_PURGE_READS))) return STATUS_INVALID_PARAMETER;
    if (What & UART_PURGE_BUFFER) {
        KeAcquireSpinLock(&Uart->Lock, &irql);
        if (Uart->Online) UartDrain(Uart);
        Uart->Tail = Uart->Head;
        KeReleaseSpinLock(&Uart->Lock, irql);
    }
    if (What & UART_PURGE_READS) UartEndReads(Uart, File, STATUS_CANCELLED);
    return STATUS_SUCCESS;
}

static VOID UartGetStatus(PUART Uart, UART_STATUS *Status)
{
    KIRQL irql;

    KeAcquireSpinLock(&Uart->Lock, &irql);
    Status->Buffered = Uart->Head - Uart->Tail;
    Status->Reads = Uart->ReadCount;
    Status->Received = Uart->Received;
    Status->Overrun = Uart->Overrun;
    Status->TimedOut = Uart->TimedOut;
    KeReleaseSpinLock(&Uart->Lock, irql);
}

static NTSTATUS UartControl(PUART Uart, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_UART_SET_TIMEOUT:
        return in < sizeof(UART_TIMEOUT) ? STATUS_INVALID_PARAMETER : UartSetTimeout(Uart, *buffer);
    case IOCTL_UART_GET_TIMEOUT:
        if (out < sizeof(UART_TIMEOUT)) return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Uart->Lock, &irql);
        *buffer = Uart->TimeoutMs;
        KeReleaseSpinLock(&Uart->Lock, irql);
        Irp->IoStatus.Information = sizeof(UART_TIMEOUT);
        return STATUS_SUCCESS;
    case IOCTL_UART_PURGE:
        return in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : UartPurge(Uart, Sp->FileObject, *buffer);
    case IOCTL_UART_STATUS:
        if (out < sizeof(UART_STATUS)) return STATUS_BUFFER_TOO_SMALL;
        UartGetStatus(Uart, (UART_STATUS *)buffer);
        Irp->IoStatus.Information = sizeof(UART_STATUS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS NTAPI UartRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUART uart = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = KitEnter(&uart->Kit, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    Irp->IoStatus.Information = 0;
    if (sp->MajorFunction == IRP_MJ_READ) {
        status = UartRead(uart, Irp);
        if (status == STATUS_PENDING) return status;
    } else if (sp->MajorFunction == IRP_MJ_WRITE) status = UartWrite(uart, Irp);
    else status = UartControl(uart, Irp, sp);
    KitComplete(Irp, status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&uart->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI UartFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUART uart = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;

    if (sp->MajorFunction == IRP_MJ_CREATE) status = KitOpen(&uart->Kit);
    else if (sp->MajorFunction == IRP_MJ_CLEANUP) UartEndReads(uart, sp->FileObject, STATUS_CANCELLED);
    else KitClosed(&uart->Kit);
    return KitComplete(Irp, status, 0);
}

/* The device */

static VOID UartPowerUp(PVOID Ext)
{
    PUART uart = Ext;
    KIRQL irql;

    HwSetLive(&uart->Hw, TRUE);
    KeAcquireSpinLock(&uart->Lock, &irql);
    uart->Online = TRUE;
    HwWrite(&uart->Hw, BENCH_ENABLE, UART_RECEIVED);
    KeReleaseSpinLock(&uart->Lock, irql);
}

/* What the card has received is fetched before it loses it. */
static VOID UartOffline(PUART Uart, BOOLEAN Gone)
{
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Uart->Lock, &irql);
    if (Uart->Online && !Gone) {
        HwWrite(&Uart->Hw, BENCH_ENABLE, 0);
        UartDrain(Uart);
        UartServe(Uart, &done);
    }
    Uart->Online = FALSE;
    KeReleaseSpinLock(&Uart->Lock, irql);
    if (Uart->Hw.Interrupt) HwSetLive(&Uart->Hw, FALSE);
    UartCompleteAll(Uart, &done);
}

static VOID UartPowerDown(PVOID Ext) { UartOffline(Ext, FALSE); }

static NTSTATUS UartStart(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PUART uart = Ext;
    NTSTATUS status = HwAcquire(&uart->Hw, Translated, BENCH_WINDOW, UartInterrupt, uart);
    UNREFERENCED_PARAMETER(Raw);

    if (!NT_SUCCESS(status)) return status;
    HwWrite(&uart->Hw, BENCH_STATUS, UART_RECEIVED);
    UartPowerUp(uart);
    return STATUS_SUCCESS;
}

static VOID UartStop(PVOID Ext, BOOLEAN Gone)
{
    PUART uart = Ext;

    UartOffline(uart, Gone);
    KeCancelTimer(&uart->Timer);
    HwDisconnect(&uart->Hw);
    HwUnmap(&uart->Hw);
}

static VOID UartFlush(PVOID Ext)
{
    PUART uart = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&uart->Lock, &irql);
    uart->Gone = TRUE;
    KeReleaseSpinLock(&uart->Lock, irql);
    UartEndReads(uart, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID UartDelete(PVOID Ext)
{
    KeCancelTimer(&((PUART)Ext)->Timer);
    KeFlushQueuedDpcs();
}

static const FDO_HOOKS UartHooks = { UartStart, UartStop, UartFlush, UartPowerUp, UartPowerDown, UartDelete };

static NTSTATUS NTAPI UartAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO_KIT kit;
    PUART uart;
    NTSTATUS status = KitAdd(Driver, Pdo, sizeof(UART), &UartInterface, &UartHooks, UART_TAG, &kit);

    if (!NT_SUCCESS(status)) return status;
    uart = (PUART)kit;
    KeInitializeSpinLock(&uart->Lock);
    InitializeListHead(&uart->Reads);
    KeInitializeTimer(&uart->Timer);
    KeInitializeDpc(&uart->TimerDpc, UartTimeUp, uart);
    IoInitializeDpcRequest(kit->Self, UartDpc);
    kit->Self->Flags |= DO_BUFFERED_IO;
    kit->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI UartUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = UartAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = UartFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = UartFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = UartFile;
    Driver->MajorFunction[IRP_MJ_READ] = UartRequest;
    Driver->MajorFunction[IRP_MJ_WRITE] = UartRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = UartRequest;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = KitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
    Driver->DriverUnload = UartUnload;
    return STATUS_SUCCESS;
}

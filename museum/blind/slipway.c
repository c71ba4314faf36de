/*
 * slipway: a pipe between programs. What one writes is handed to those that read; reads that find nothing wait,
 * in a queue of the driver's own, and can be cancelled; up to 64 messages are kept for readers to come.
 *
 * The bug: cleanup walks the queue of waiting reads and lets go of the lock to complete one; it goes on with the
 * link that it took down before, whose read may have been handed a message and be gone by then.
 *
 * Device: none
 * Rule: list-corrupt, use-after-free, double-completion, not-an-irp
 * Needs: schedule, ioctl
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define SW_DEVICE   L"\\Device\\Slipway"
#define SW_LINK     L"\\DosDevices\\Slipway"
#define SW_TAG      FR_TAG('S', 'l', 'p', 'W')
#define SW_KEPT     64                  /* messages */
#define SW_LONGEST  4096                /* bytes of one */

#define IOCTL_SW_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _SW_STATE {
    ULONG Messages;
    ULONG Readers;
} SW_STATE, *PSW_STATE;

typedef struct _SW_MESSAGE {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[1];
} SW_MESSAGE, *PSW_MESSAGE;

typedef struct _SW_EXT {
    KSPIN_LOCK Lock;                    /* all below */
    LIST_ENTRY Readers;                 /* IRPs that wait */
    ULONG ReaderCount;
    LIST_ENTRY Messages;
    ULONG MessageCount;
} SW_EXT, *PSW_EXT;

static PDEVICE_OBJECT SwDevice;

static VOID NTAPI SwCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSW_EXT Ext = DeviceObject->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (!IsListEmpty(&Irp->Tail.Overlay.ListEntry)) {       /* else another flow has unlinked it and left it to us */
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        Ext->ReaderCount--;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    FrComplete(Irp, STATUS_CANCELLED, 0);
}

/* Unlinks a waiting read; the lock is held. FALSE: its cancel routine has been called already and ends it. */
static BOOLEAN SwUnlink(PSW_EXT Ext, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    Ext->ReaderCount--;
    if (IoSetCancelRoutine(Irp, NULL))
        return TRUE;
    InitializeListHead(&Irp->Tail.Overlay.ListEntry);
    return FALSE;
}

static PIRP SwTakeReader(PSW_EXT Ext)
{
    while (!IsListEmpty(&Ext->Readers)) {
        PIRP Irp = CONTAINING_RECORD(Ext->Readers.Flink, IRP, Tail.Overlay.ListEntry);
        if (SwUnlink(Ext, Irp))
            return Irp;
    }
    return NULL;
}

/* Gives a message to a read, as much of it as there is room for, and frees it. */
static NTSTATUS SwHand(PIRP Irp, PSW_MESSAGE Message)
{
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    ULONG Length = Message->Length < Room ? Message->Length : Room;
    NTSTATUS Status = Length < Message->Length ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;

    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Message->Data, Length);
    ExFreePoolWithTag(Message, SW_TAG);
    return FrComplete(Irp, Status, Length);
}

static NTSTATUS SwRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSW_EXT Ext = DeviceObject->DeviceExtension;
    KIRQL Irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
        return FrComplete(Irp, STATUS_SUCCESS, 0);

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (!IsListEmpty(&Ext->Messages)) {
        PSW_MESSAGE Message = CONTAINING_RECORD(RemoveHeadList(&Ext->Messages), SW_MESSAGE, Link);
        Ext->MessageCount--;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return SwHand(Irp, Message);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Ext->Readers, &Irp->Tail.Overlay.ListEntry);
    Ext->ReaderCount++;
    (VOID)IoSetCancelRoutine(Irp, SwCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {     /* cancelled before, and the routine is not called */
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        Ext->ReaderCount--;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        FrComplete(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_PENDING;
}

static NTSTATUS SwWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSW_EXT Ext = DeviceObject->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PSW_MESSAGE Message;
    PIRP Reader;
    KIRQL Irql;

    if (Length == 0 || Length > SW_LONGEST)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    Message = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(SW_MESSAGE, Data) + Length, SW_TAG);
    if (!Message)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Message->Length = Length;
    RtlCopyMemory(Message->Data, Irp->AssociatedIrp.SystemBuffer, Length);

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Reader = SwTakeReader(Ext);
    if (!Reader) {
        if (Ext->MessageCount == SW_KEPT) {
            KeReleaseSpinLock(&Ext->Lock, Irql);
            ExFreePoolWithTag(Message, SW_TAG);
            return FrComplete(Irp, STATUS_DEVICE_BUSY, 0);
        }
        InsertTailList(&Ext->Messages, &Message->Link);
        Ext->MessageCount++;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (Reader)
        SwHand(Reader, Message);
    return FrComplete(Irp, STATUS_SUCCESS, Length);
}

/* Ends the reads of a handle that is closed. */
static NTSTATUS SwCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSW_EXT Ext = DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLIST_ENTRY Entry, Next;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (Entry = Ext->Readers.Flink; Entry != &Ext->Readers; Entry = Next) {
        PIRP Reader = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        Next = Entry->Flink;
        if (IoGetCurrentIrpStackLocation(Reader)->FileObject != File || !SwUnlink(Ext, Reader))
            continue;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        FrComplete(Reader, STATUS_CANCELLED, 0);
        KeAcquireSpinLock(&Ext->Lock, &Irql);
#ifdef FIXED
        Next = Ext->Readers.Flink;
#endif
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS SwControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSW_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PSW_STATE Out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_SW_STATE)
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SW_STATE))
        return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Out->Messages = Ext->MessageCount;
    Out->Readers = Ext->ReaderCount;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return FrComplete(Irp, STATUS_SUCCESS, sizeof(SW_STATE));
}

static VOID NTAPI SwUnload(PDRIVER_OBJECT Driver)
{
    PSW_EXT Ext = SwDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    while (!IsListEmpty(&Ext->Messages))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Ext->Messages), SW_MESSAGE, Link), SW_TAG);
    FrDeleteControl(SwDevice, SW_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PSW_EXT Ext;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SwCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = SwRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = SwWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SwControl;
    Driver->DriverUnload = SwUnload;

    Status = FrControlDevice(Driver, SW_DEVICE, SW_LINK, sizeof(SW_EXT), DO_BUFFERED_IO, &SwDevice);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = SwDevice->DeviceExtension;
    RtlZeroMemory(Ext, sizeof(*Ext));
    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Readers);
    InitializeListHead(&Ext->Messages);
    SwDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

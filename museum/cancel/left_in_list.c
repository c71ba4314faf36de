/*
 * A queue of readers in a list: writes serve the first one.
 *
 * The bug: the cancel routine completes the request and leaves it in the list. It shows with a write after a read that was cancelled.
 *
 * Device: none
 * Rule: use-after-free, list-corrupt, double-completion
 * Needs: ioctl, cancel
 */
#define DEVICE_NAME L"\\Device\\ReadList"
#define LINK_NAME L"\\DosDevices\\ReadList"
#include "../include/legacy.h"

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Readers;
} DEVICE, *PDEVICE;

static VOID NTAPI CancelRead(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifdef FIXED
    PDEVICE Own = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#else
    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
#endif
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    IoSetCancelRoutine(Irp, CancelRead);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        Status = STATUS_CANCELLED;
    } else {
        IoMarkIrpPending(Irp);
        InsertTailList(&Own->Readers, &Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

/* The first reader that is not being cancelled. */
static PIRP TakeReader(PDEVICE Own)
{
    PLIST_ENTRY Entry;
    PIRP Found = NULL;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    for (Entry = Own->Readers.Flink; Entry != &Own->Readers && Found == NULL; Entry = Entry->Flink) {
        PIRP Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        if (IoSetCancelRoutine(Irp, NULL) != NULL) {
            Found = Irp;
        }
    }
    if (Found != NULL) {
        RemoveEntryList(&Found->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Found;
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PIRP Reader = Length == 0 ? NULL : TakeReader(Device->DeviceExtension);

    if (Reader != NULL) {
        *(PUCHAR)Reader->AssociatedIrp.SystemBuffer = *(PUCHAR)Irp->AssociatedIrp.SystemBuffer;
        Complete(Reader, STATUS_SUCCESS, 1);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        InitializeListHead(&((PDEVICE)Device->DeviceExtension)->Readers);
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    }
    return Status;
}

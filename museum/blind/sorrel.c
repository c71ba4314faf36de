/*
 * sorrel: the diary of a greenhouse. Programs write entries (32 bits each), the last 32 of which are kept; each open handle reads through the diary at its
 * own pace, and a read at the diary's end waits until the next entry is written.
 *
 * The bug: a handle's place in the diary is freed at IRP_MJ_CLEANUP, when the last handle is closed, though reads of another thread may still be under way
 * for the same file object; it may be freed at IRP_MJ_CLOSE only.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, wild-read
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

#define TAG         'rroS'
#define NAME        L"\\Device\\Sorrel"
#define LINK        L"\\DosDevices\\Sorrel"
#define KEPT        32

typedef struct _ENTRY {
    ULONGLONG Number;           /* the first has 1 */
    ULONG Value, Missed;        /* Missed: entries that were gone before this handle read them */
} ENTRY;

typedef struct _PLACE {
    ULONGLONG Next;             /* the entry that is read next */
    BOOLEAN Closed;
} PLACE, *PPLACE;

typedef struct _DEV {
    SHELF Shelf;
    KSPIN_LOCK Lock;            /* of what follows and of all places; the shelf's lock may be taken within */
    ULONGLONG Last;
    ULONG Value[KEPT];
} DEV, *PDEV;

static PDEVICE_OBJECT Control;

/* Under the lock; there is an entry for this place. */
static VOID Turn(PDEV D, PPLACE Place, ENTRY *Entry)
{
    Entry->Missed = 0;
    if (D->Last - Place->Next >= KEPT) {
        ULONGLONG oldest = D->Last - KEPT + 1, missed = oldest - Place->Next;

        Entry->Missed = missed > MAXULONG ? MAXULONG : (ULONG)missed;
        Place->Next = oldest;
    }
    Entry->Number = Place->Next;
    Entry->Value = D->Value[Place->Next % KEPT];
    Place->Next++;
}

/* Under the lock and the shelf's: is there something to be done for this read? */
static BOOLEAN Ripe(PIRP Irp, PVOID Context)
{
    PDEV d = Context;
    PPLACE place = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    return place->Closed || place->Next <= d->Last;
}

static VOID Deliver(PDEV D)
{
    SHELF_WISH wish = { 0, NULL, Ripe, D };
    PIRP irp;

    do {
        BOOLEAN closed = FALSE;
        ENTRY entry;
        KIRQL irql;

        KeAcquireSpinLock(&D->Lock, &irql);
        irp = IoCsqRemoveNextIrp(&D->Shelf.Csq, &wish);
        if (irp) {
            PPLACE place = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

            closed = place->Closed;
            if (!closed)
                Turn(D, place, &entry);
        }
        KeReleaseSpinLock(&D->Lock, irql);
        if (irp && closed) {
            ShelfEnd(&D->Shelf, irp, STATUS_CANCELLED, 0);
        } else if (irp) {
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &entry, sizeof entry);
            ShelfEnd(&D->Shelf, irp, STATUS_SUCCESS, sizeof entry);
        }
    } while (irp);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PPLACE place = stack->FileObject->FsContext;
    BOOLEAN now;
    ENTRY entry;
    KIRQL irql;

    if (stack->Parameters.Read.Length < sizeof entry)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    now = place->Next <= d->Last;
    if (now)
        Turn(d, place, &entry);
    KeReleaseSpinLock(&d->Lock, irql);
    if (now) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &entry, sizeof entry);
        return Ends(Irp, STATUS_SUCCESS, sizeof entry);
    }
    ShelfPut(&d->Shelf, Irp, 0);
    Deliver(d);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    KIRQL irql;

    if (length != sizeof(ULONG))
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    d->Last++;
    d->Value[d->Last % KEPT] = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    KeReleaseSpinLock(&d->Lock, irql);
    Deliver(d);
    return Ends(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PPLACE place = ExAllocatePoolWithTag(NonPagedPool, sizeof *place, TAG);
    KIRQL irql;

    if (!place)
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(place, sizeof *place);
    KeAcquireSpinLock(&d->Lock, &irql);
    place->Next = d->Last < KEPT ? 1 : d->Last - KEPT + 1;
    KeReleaseSpinLock(&d->Lock, irql);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = place;
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PPLACE place = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    place->Closed = TRUE;
    KeReleaseSpinLock(&d->Lock, irql);
    Deliver(d);                 /* its waiting reads end */
#ifndef FIXED
    ExFreePoolWithTag(place, TAG);
#endif
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
#ifdef FIXED
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, TAG);
#endif
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    PlainHide(LINK);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PDEV d;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = PlainMake(Driver, NAME, sizeof(DEV), DO_BUFFERED_IO, &Control);
    if (!NT_SUCCESS(status))
        return status;
    d = Control->DeviceExtension;
    KeInitializeSpinLock(&d->Lock);
    status = ShelfInit(&d->Shelf, NULL);
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    if (NT_SUCCESS(status))
        status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(Control);
    return status;
}

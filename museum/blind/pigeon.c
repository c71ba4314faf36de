/*
 * pigeon: letters between programs by way of eight lofts: a program chooses a loft for its handle, writes letters to it and reads
 * letters from it; a read waits until a letter comes.
 *
 * The bug: when a handle is closed, its waiting reads are taken out and completed without looking whether their cancel routine has
 * been called already: a read that is being cancelled at that moment is completed twice.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define PG_TAG    'nogP'
#define PG_LOFTS  8u
#define PG_LETTER 128u
#define PG_HELD   16u                       /* letters per loft */

#define IOCTL_PG_LOFT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PG_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PG_LETTER_ENTRY {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Text[PG_LETTER];
} PG_LETTER_ENTRY, *PPG_LETTER_ENTRY;

typedef struct _PG_LOFT {
    LIST_ENTRY Letters, Readers;
    ULONG Held;
} PG_LOFT, *PPG_LOFT;

typedef struct _PG_DEV {
    KSPIN_LOCK Lock;
    PG_LOFT Loft[PG_LOFTS];
} PG_DEV, *PPG_DEV;

static const WCHAR PgLinkName[] = L"\\DosDevices\\Pigeon";
static const WCHAR PgDeviceName[] = L"\\Device\\Pigeon";

static NTSTATUS PgComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* The loft of a handle: the handle's context is its number plus one, 0 as long as none is chosen. The lock is held. */
static PPG_LOFT PgLoftOf(PPG_DEV d, PFILE_OBJECT file)
{
    ULONG_PTR n = (ULONG_PTR)file->FsContext;

    return n == 0 ? NULL : &d->Loft[n - 1];
}

static VOID NTAPI PgCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    PPG_DEV d = dev->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&d->Lock, irql);
    PgComplete(irp, STATUS_CANCELLED, 0);
}

/* The first reader that is not being cancelled; the lock is held. */
static PIRP PgReader(PPG_LOFT loft)
{
    PLIST_ENTRY e;

    for (e = loft->Readers.Flink; e != &loft->Readers; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;                       /* its cancel routine waits for the lock */
        RemoveEntryList(e);
        return irp;
    }
    return NULL;
}

static VOID PgDeliver(PIRP irp, PPG_LETTER_ENTRY letter)
{
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    ULONG length = letter->Length < room ? letter->Length : room;

    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, letter->Text, length);
    ExFreePoolWithTag(letter, PG_TAG);
    PgComplete(irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI PgRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PPG_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    PPG_LETTER_ENTRY letter = NULL;
    NTSTATUS status = STATUS_PENDING;
    PPG_LOFT loft;
    KIRQL irql;

    if (s->Parameters.Read.Length == 0)
        return PgComplete(irp, STATUS_INVALID_PARAMETER, 0);
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&d->Lock, &irql);
    loft = PgLoftOf(d, s->FileObject);
    if (loft == NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
    } else if (!IsListEmpty(&loft->Letters)) {
        letter = CONTAINING_RECORD(RemoveHeadList(&loft->Letters), PG_LETTER_ENTRY, Link);
        loft->Held--;
    } else {
        IoSetCancelRoutine(irp, PgCancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL)
            status = STATUS_CANCELLED;
        else
            InsertTailList(&loft->Readers, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&d->Lock, irql);
    if (letter != NULL)
        PgDeliver(irp, letter);
    else if (status != STATUS_PENDING)
        PgComplete(irp, status, 0);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI PgWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PPG_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG length = s->Parameters.Write.Length;
    NTSTATUS status = STATUS_SUCCESS;
    PPG_LETTER_ENTRY letter;
    PIRP reader = NULL;
    PPG_LOFT loft;
    KIRQL irql;

    if (length == 0 || length > PG_LETTER)
        return PgComplete(irp, STATUS_INVALID_PARAMETER, 0);
    letter = ExAllocatePoolWithTag(NonPagedPool, sizeof *letter, PG_TAG);
    if (letter == NULL)
        return PgComplete(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    letter->Length = length;
    RtlCopyMemory(letter->Text, irp->AssociatedIrp.SystemBuffer, length);

    KeAcquireSpinLock(&d->Lock, &irql);
    loft = PgLoftOf(d, s->FileObject);
    if (loft == NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
    } else if ((reader = PgReader(loft)) == NULL) {
        if (loft->Held == PG_HELD) {
            status = STATUS_DEVICE_BUSY;
        } else {
            InsertTailList(&loft->Letters, &letter->Link);
            loft->Held++;
        }
    }
    KeReleaseSpinLock(&d->Lock, irql);

    if (reader != NULL)
        PgDeliver(reader, letter);
    else if (!NT_SUCCESS(status))
        ExFreePoolWithTag(letter, PG_TAG);
    return PgComplete(irp, status, NT_SUCCESS(status) ? length : 0);
}

static NTSTATUS NTAPI PgControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PPG_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    PPG_LOFT loft;
    KIRQL irql;
    ULONG n;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PG_LOFT:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PgComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        n = *buffer;
        if (n >= PG_LOFTS)
            return PgComplete(irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&d->Lock, &irql);
        if (s->FileObject->FsContext != NULL)
            status = STATUS_INVALID_DEVICE_STATE;       /* it is chosen once */
        else
            s->FileObject->FsContext = (PVOID)(ULONG_PTR)(n + 1);
        KeReleaseSpinLock(&d->Lock, irql);
        return PgComplete(irp, status, 0);
    case IOCTL_PG_LOOK:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PgComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->Lock, &irql);
        loft = PgLoftOf(d, s->FileObject);
        n = loft != NULL ? loft->Held : 0;
        KeReleaseSpinLock(&d->Lock, irql);
        if (loft == NULL)
            return PgComplete(irp, STATUS_INVALID_DEVICE_STATE, 0);
        *buffer = n;
        return PgComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return PgComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI PgCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PPG_DEV d = dev->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    LIST_ENTRY out, *e, *next;
    PPG_LOFT loft;
    KIRQL irql;

    InitializeListHead(&out);
    KeAcquireSpinLock(&d->Lock, &irql);
    loft = PgLoftOf(d, file);
    if (loft != NULL) {
        for (e = loft->Readers.Flink; e != &loft->Readers; e = next) {
            PIRP reader = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

            next = e->Flink;
            if (IoGetCurrentIrpStackLocation(reader)->FileObject != file)
                continue;
#ifdef FIXED
            if (IoSetCancelRoutine(reader, NULL) == NULL)
                continue;
#else
            IoSetCancelRoutine(reader, NULL);
#endif
            RemoveEntryList(e);
            InsertTailList(&out, e);
        }
    }
    KeReleaseSpinLock(&d->Lock, irql);
    while (!IsListEmpty(&out)) {
        e = RemoveHeadList(&out);
        PgComplete(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return PgComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PgCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return PgComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI PgUnload(PDRIVER_OBJECT drv)
{
    PPG_DEV d = drv->DeviceObject->DeviceExtension;
    UNICODE_STRING link;
    ULONG i;

    RtlInitUnicodeString(&link, PgLinkName);
    IoDeleteSymbolicLink(&link);
    for (i = 0; i < PG_LOFTS; i++) {
        while (!IsListEmpty(&d->Loft[i].Letters))
            ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&d->Loft[i].Letters), PG_LETTER_ENTRY, Link), PG_TAG);
    }
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PPG_DEV d;
    ULONG i;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, PgDeviceName);
    RtlInitUnicodeString(&link, PgLinkName);
    status = IoCreateDevice(drv, sizeof(PG_DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    KeInitializeSpinLock(&d->Lock);
    for (i = 0; i < PG_LOFTS; i++) {
        InitializeListHead(&d->Loft[i].Letters);
        InitializeListHead(&d->Loft[i].Readers);
    }
    dev->Flags |= DO_BUFFERED_IO;
    drv->MajorFunction[IRP_MJ_CREATE] = PgCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = PgCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = PgCleanup;
    drv->MajorFunction[IRP_MJ_READ] = PgRead;
    drv->MajorFunction[IRP_MJ_WRITE] = PgWrite;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PgControl;
    drv->DriverUnload = PgUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}

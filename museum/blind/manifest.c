/*
 * manifest: keeps a table of up to 256 named values. A write (direct I/O) replaces the whole table: a header with the number of entries, then the entries; an
 * ioctl looks one up.
 *
 * The bug: the number of entries is read from the buffer once to check it and to allocate, and again to copy. With direct I/O the buffer is still the program's
 * own memory: another thread that raises the number in between makes the copy run over the end of the allocation.
 *
 * Device: ROOT\MANIFEST
 * Rule: bad-pointer, overlapping-copy, wild-read
 * Needs: schedule
 */
#include "../include/ticking_card.h"

#define MOST 256
#define MAGIC 0x5453464d

#define IOCTL_MANIFEST_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_MANIFEST_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID MANIFEST_GUID = {0x5d0b6c13, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x03}};

typedef struct _ENTRY {
    ULONG Key;
    ULONG Value;
    CHAR Name[24];
} ENTRY, *PENTRY;

typedef struct _HEADER {
    ULONG Magic;
    ULONG Count;
} HEADER, *PHEADER;

typedef struct _TABLE {
    ULONG Count;
    ULONG Reserved;
    ENTRY Entry[1];
} TABLE, *PTABLE;

typedef struct _MANIFEST {
    ZDEV Dev;
    KSPIN_LOCK Lock;
    PTABLE Table;
} MANIFEST, *PMANIFEST;

/* Keys must ascend; names are text that ends within its field. */
static BOOLEAN Sound(const TABLE *t)
{
    ULONG i, k;

    for (i = 0; i < t->Count; i++) {
        if (i && t->Entry[i].Key <= t->Entry[i - 1].Key)
            return FALSE;
        for (k = 0; k < sizeof(t->Entry[i].Name) && t->Entry[i].Name[k]; k++)
            ;
        if (k == sizeof(t->Entry[i].Name))
            return FALSE;
    }
    return TRUE;
}

static NTSTATUS Replace(PMANIFEST x, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    volatile HEADER *h;
    PTABLE New, Old;
    ULONG Count;
    KIRQL Irql;

    if (Length < sizeof(HEADER) || !Irp->MdlAddress)
        return STATUS_INVALID_PARAMETER;
    h = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!h)
        return STATUS_INSUFFICIENT_RESOURCES;

    Count = h->Count;
    if (h->Magic != MAGIC || Count > MOST || Count > (Length - sizeof(HEADER)) / sizeof(ENTRY))
        return STATUS_INVALID_PARAMETER;
    New = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(TABLE, Entry) + Count * sizeof(ENTRY), 'nMZ1');
    if (!New)
        return STATUS_INSUFFICIENT_RESOURCES;
    New->Count = Count;
    New->Reserved = 0;
#ifdef FIXED
    RtlCopyMemory(New->Entry, (PVOID)(h + 1), Count * sizeof(ENTRY));
#else
    RtlCopyMemory(New->Entry, (PVOID)(h + 1), h->Count * sizeof(ENTRY));
#endif
    /* what is looked at from here on is our own copy */
    if (!Sound(New)) {
        ExFreePoolWithTag(New, 'nMZ1');
        return STATUS_DATA_ERROR;
    }

    KeAcquireSpinLock(&x->Lock, &Irql);
    Old = x->Table;
    x->Table = New;
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Old)
        ExFreePoolWithTag(Old, 'nMZ1');
    Irp->IoStatus.Information = sizeof(HEADER) + Count * sizeof(ENTRY);
    return STATUS_SUCCESS;
}

static NTSTATUS Lookup(PMANIFEST x, ULONG Key, PENTRY Out)
{
    NTSTATUS Status = STATUS_NOT_FOUND;
    ULONG Low = 0, High;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    High = x->Table ? x->Table->Count : 0;
    while (Low < High) {
        ULONG Middle = (Low + High) / 2;

        if (x->Table->Entry[Middle].Key == Key) {
            *Out = x->Table->Entry[Middle];
            Status = STATUS_SUCCESS;
            break;
        }
        if (x->Table->Entry[Middle].Key < Key)
            Low = Middle + 1;
        else
            High = Middle;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static ULONG64 Sum(PMANIFEST x)
{
    ULONG64 Total = 0;
    ULONG i;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Table)
        for (i = 0; i < x->Table->Count; i++)
            Total += x->Table->Entry[i].Value;
    KeReleaseSpinLock(&x->Lock, Irql);
    return Total;
}

static NTSTATUS ManifestRequest(PZDEV d, PIRP Irp)
{
    PMANIFEST x = CONTAINING_RECORD(d, MANIFEST, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    ENTRY Entry;

    if (sl->MajorFunction == IRP_MJ_WRITE)
        return Replace(x, Irp);
    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MANIFEST_LOOKUP:
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ENTRY))
            return STATUS_INVALID_PARAMETER;
        Status = Lookup(x, *(PULONG)Buffer, &Entry);
        if (NT_SUCCESS(Status)) {
            *(PENTRY)Buffer = Entry;
            Irp->IoStatus.Information = sizeof(Entry);
        }
        return Status;
    case IOCTL_MANIFEST_SUM:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG64))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG64)Buffer = Sum(x);
        Irp->IoStatus.Information = sizeof(ULONG64);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS ManifestAdd(PZDEV d)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(d, MANIFEST, Dev)->Lock);
    return STATUS_SUCCESS;
}

static VOID ManifestFree(PZDEV d)
{
    PMANIFEST x = CONTAINING_RECORD(d, MANIFEST, Dev);

    if (x->Table)
        ExFreePoolWithTag(x->Table, 'nMZ1');
    x->Table = NULL;
}

static const ZOPS ManifestOps = {
    .Interface = &MANIFEST_GUID,
    .ExtensionSize = sizeof(MANIFEST),
    .Flags = DO_DIRECT_IO,
    .Add = ManifestAdd,
    .Free = ManifestFree,
    .Request = ManifestRequest,
};

static NTSTATUS NTAPI ManifestAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &ManifestOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, ManifestAddDevice);
}

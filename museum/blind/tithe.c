/*
 * tithe: keeps sums for programs that collect in several places. One program opens a collection and gets its number; each that knows the number may add to it;
 * the one that closes it gets the sum. The numbers go out over a line whose frames have eight bits for them.
 *
 * The bug: the next number is simply the last one plus one. After 256 openings the numbers begin anew without a look at those that are still in use: two
 * collections have the same number, amounts go to the wrong one, and a close takes another program's collection away.
 *
 * Device: ROOT\TITHE
 * Rule: number-given-twice
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define TIT_TAG 'tiT '
#define TIT_MOST 64 /* collections at a time */

#define IOCTL_TITHE_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TITHE_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TITHE_CLOSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TITHE_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID TitInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x04}};

typedef struct _TIT_AMOUNT {
    ULONG Number;
    ULONG Amount;
} TIT_AMOUNT, *PTIT_AMOUNT;

typedef struct _TIT_SUM {
    ULONGLONG Sum;
    ULONG Number;
    ULONG Times;
} TIT_SUM, *PTIT_SUM;

typedef struct _TIT_COLLECTION {
    LIST_ENTRY Entry;
    PFILE_OBJECT File; /* of the opener; goes with it */
    TIT_SUM Sum;
} TIT_COLLECTION, *PTIT_COLLECTION;

typedef struct _TIT_EXT {
    YK Yk;
    KSPIN_LOCK Lock; /* of the rest */
    LIST_ENTRY List;
    ULONG Count;
    UCHAR Next;
} TIT_EXT, *PTIT_EXT;

DRIVER_INITIALIZE DriverEntry;

/* Under the lock. */
static PTIT_COLLECTION TitFind(PTIT_EXT x, ULONG Number)
{
    PLIST_ENTRY e;

    for (e = x->List.Flink; e != &x->List; e = e->Flink) {
        PTIT_COLLECTION c = CONTAINING_RECORD(e, TIT_COLLECTION, Entry);

        if (c->Sum.Number == Number)
            return c;
    }
    return NULL;
}

static NTSTATUS TitOpen(PTIT_EXT x, PFILE_OBJECT File, PULONG Number)
{
    PTIT_COLLECTION c;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    c = ExAllocatePoolWithTag(NonPagedPool, sizeof(*c), TIT_TAG);
    if (c == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c, sizeof(*c));
    c->File = File;
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Count >= TIT_MOST) {
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
#ifdef FIXED
        while (TitFind(x, x->Next) != NULL) /* ends: there are fewer collections than numbers */
            x->Next++;
#endif
        c->Sum.Number = x->Next++;
        *Number = c->Sum.Number;
        InsertTailList(&x->List, &c->Entry);
        x->Count++;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (!NT_SUCCESS(Status))
        ExFreePoolWithTag(c, TIT_TAG);
    return Status;
}

static NTSTATUS TitAdd(PTIT_EXT x, const TIT_AMOUNT *a)
{
    PTIT_COLLECTION c;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    c = TitFind(x, a->Number);
    if (c == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (c->Sum.Times == MAXULONG) {
        Status = STATUS_INTEGER_OVERFLOW;
    } else {
        c->Sum.Sum += a->Amount; /* at most 2^32 times less than 2^32 */
        c->Sum.Times++;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS TitEnd(PTIT_EXT x, ULONG Number, PTIT_SUM Sum)
{
    PTIT_COLLECTION c;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    c = TitFind(x, Number);
    if (c != NULL) {
        RemoveEntryList(&c->Entry);
        x->Count--;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (c == NULL)
        return STATUS_NOT_FOUND;
    *Sum = c->Sum;
    ExFreePoolWithTag(c, TIT_TAG);
    return STATUS_SUCCESS;
}

static ULONG TitList(PTIT_EXT x, PTIT_SUM Sums, ULONG Room)
{
    PLIST_ENTRY e;
    ULONG n = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    for (e = x->List.Flink; e != &x->List && n < Room; e = e->Flink)
        Sums[n++] = CONTAINING_RECORD(e, TIT_COLLECTION, Entry)->Sum;
    KeReleaseSpinLock(&x->Lock, Irql);
    return n;
}

static NTSTATUS TitRequest(PYK d, PIRP Irp)
{
    PTIT_EXT x = CONTAINING_RECORD(d, TIT_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    TIT_AMOUNT Amount;
    ULONG Number = 0;
    NTSTATUS Status;
    TIT_SUM Sum;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TITHE_OPEN:
        if (Out < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = TitOpen(x, s->FileObject, &Number);
        if (!NT_SUCCESS(Status))
            return YkFinish(d, Irp, Status, 0);
        *(PULONG)Buffer = Number;
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_TITHE_ADD:
        if (In < sizeof(Amount))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&Amount, Buffer, sizeof(Amount));
        return YkFinish(d, Irp, TitAdd(x, &Amount), 0);
    case IOCTL_TITHE_CLOSE:
        if (In < sizeof(ULONG) || Out < sizeof(Sum))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        Status = TitEnd(x, *(PULONG)Buffer, &Sum);
        if (!NT_SUCCESS(Status))
            return YkFinish(d, Irp, Status, 0);
        RtlCopyMemory(Buffer, &Sum, sizeof(Sum));
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(Sum));
    case IOCTL_TITHE_LIST:
        return YkFinish(d, Irp, STATUS_SUCCESS, TitList(x, Buffer, Out / sizeof(Sum)) * sizeof(Sum));
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS TitInit(PYK d)
{
    PTIT_EXT x = CONTAINING_RECORD(d, TIT_EXT, Yk);

    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->List);
    return STATUS_SUCCESS;
}

/* No request of the file is under way any more: nothing can be opened for it behind this. */
static VOID TitClose(PYK d, PFILE_OBJECT File)
{
    PTIT_EXT x = CONTAINING_RECORD(d, TIT_EXT, Yk);
    LIST_ENTRY Dead;
    PLIST_ENTRY e, Next;
    KIRQL Irql;

    InitializeListHead(&Dead);
    KeAcquireSpinLock(&x->Lock, &Irql);
    for (e = x->List.Flink; e != &x->List; e = Next) {
        Next = e->Flink;
        if (CONTAINING_RECORD(e, TIT_COLLECTION, Entry)->File == File) {
            RemoveEntryList(e);
            InsertTailList(&Dead, e);
            x->Count--;
        }
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    while (!IsListEmpty(&Dead)) {
        e = RemoveHeadList(&Dead);
        ExFreePoolWithTag(CONTAINING_RECORD(e, TIT_COLLECTION, Entry), TIT_TAG);
    }
}

static const YK_OPS TitOps = {
    .ExtensionSize = sizeof(TIT_EXT),
    .Interface = &TitInterface,
    .Init = TitInit,
    .Request = TitRequest,
    .Close = TitClose,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &TitOps);
}

/*
 * tenancy: named counters shared between programs. A handle joins a counter by its name; the counter lives as long as a handle has joined it.
 *
 * The bug: the last reference is dropped outside the lock of the table and the counter is unlinked afterwards. A program that joins the same name in between
 * finds the counter in the table, raises its count from zero and goes on using it when it has been freed.
 *
 * Device: none
 * Rule: use-after-free, double-free
 * Needs: schedule
 */
#include "../include/ticking_card.h"

#define NAME 16
#define MOST 512

#define IOCTL_TENANCY_JOIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TENANCY_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TENANCY_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _COUNTER {
    LIST_ENTRY Link;
    LONG Refs;
    volatile LONG64 Value;
    CHAR Name[NAME];
} COUNTER, *PCOUNTER;

typedef struct _TENANCY_ROW {
    CHAR Name[NAME];
    LONG64 Value;
    LONG Refs;
    ULONG Reserved;
} TENANCY_ROW, *PTENANCY_ROW;

typedef struct _HOUSE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Table;
    ULONG Count;
} HOUSE, *PHOUSE;

static PCOUNTER Find(PHOUSE h, const CHAR *Name)
{
    PLIST_ENTRY e;

    for (e = h->Table.Flink; e != &h->Table; e = e->Flink) {
        PCOUNTER c = CONTAINING_RECORD(e, COUNTER, Link);

        if (RtlCompareMemory(c->Name, Name, NAME) == NAME)
            return c;
    }
    return NULL;
}

static VOID Drop(PHOUSE h, PCOUNTER c)
{
    KIRQL Irql;

#ifdef FIXED
    KeAcquireSpinLock(&h->Lock, &Irql);
    if (InterlockedDecrement(&c->Refs) != 0) {
        KeReleaseSpinLock(&h->Lock, Irql);
        return;
    }
#else
    if (InterlockedDecrement(&c->Refs) != 0)
        return;
    KeAcquireSpinLock(&h->Lock, &Irql);
#endif
    RemoveEntryList(&c->Link);
    h->Count--;
    KeReleaseSpinLock(&h->Lock, Irql);
    ExFreePoolWithTag(c, 'neTZ');
}

/* Finds the counter or makes it; the caller gets a reference. */
static NTSTATUS Join(PHOUSE h, const CHAR *Name, PCOUNTER *Found)
{
    PCOUNTER c, New;
    KIRQL Irql;

    New = ExAllocatePoolWithTag(NonPagedPool, sizeof(*New), 'neTZ');
    if (!New)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(New, sizeof(*New));
    New->Refs = 1;
    RtlCopyMemory(New->Name, Name, NAME);

    KeAcquireSpinLock(&h->Lock, &Irql);
    c = Find(h, Name);
    if (c) {
        InterlockedIncrement(&c->Refs);
    } else if (h->Count < MOST) {
        InsertTailList(&h->Table, &New->Link);
        h->Count++;
        c = New;
        New = NULL;
    }
    KeReleaseSpinLock(&h->Lock, Irql);
    if (New)
        ExFreePoolWithTag(New, 'neTZ');
    if (!c)
        return STATUS_QUOTA_EXCEEDED;
    *Found = c;
    return STATUS_SUCCESS;
}

static NTSTATUS JoinFile(PHOUSE h, PFILE_OBJECT File, const CHAR *In, ULONG InLength)
{
    CHAR Name[NAME];
    PCOUNTER c;
    NTSTATUS Status;
    ULONG i;

    if (!InLength || InLength > NAME)
        return STATUS_INVALID_PARAMETER;
    RtlZeroMemory(Name, sizeof(Name));
    for (i = 0; i < InLength && In[i]; i++)
        Name[i] = In[i];
    if (!i)
        return STATUS_OBJECT_NAME_INVALID;

    Status = Join(h, Name, &c);
    if (!NT_SUCCESS(Status))
        return Status;
    if (InterlockedCompareExchangePointer(&File->FsContext2, c, NULL) != NULL) {
        Drop(h, c);
        return STATUS_ALREADY_COMMITTED;
    }
    return STATUS_SUCCESS;
}

static ULONG List(PHOUSE h, PTENANCY_ROW Rows, ULONG Most)
{
    PLIST_ENTRY e;
    KIRQL Irql;
    ULONG n = 0;

    KeAcquireSpinLock(&h->Lock, &Irql);
    for (e = h->Table.Flink; e != &h->Table && n < Most; e = e->Flink, n++) {
        PCOUNTER c = CONTAINING_RECORD(e, COUNTER, Link);

        RtlCopyMemory(Rows[n].Name, c->Name, NAME);
        Rows[n].Value = c->Value;
        Rows[n].Refs = c->Refs;
        Rows[n].Reserved = 0;
    }
    KeReleaseSpinLock(&h->Lock, Irql);
    return n;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Self, PIRP Irp)
{
    PHOUSE h = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;
    PCOUNTER c;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TENANCY_JOIN:
        Status = JoinFile(h, sl->FileObject, Buffer, InLength);
        break;
    case IOCTL_TENANCY_ADD:
        /* the handle's reference stays until it is closed, and that waits for this request */
        c = InterlockedCompareExchangePointer(&sl->FileObject->FsContext2, NULL, NULL);
        if (!c) {
            Status = STATUS_INVALID_DEVICE_STATE;
        } else if (InLength < sizeof(LONG64) || OutLength < sizeof(LONG64)) {
            Status = STATUS_INVALID_PARAMETER;
        } else {
            LONG64 Add = *(LONG64 *)Buffer;

            *(LONG64 *)Buffer = (LONG64)((ULONG64)InterlockedExchangeAdd64(&c->Value, Add) + (ULONG64)Add);
            Information = sizeof(LONG64);
            Status = STATUS_SUCCESS;
        }
        break;
    case IOCTL_TENANCY_LIST:
        if (OutLength < sizeof(TENANCY_ROW)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            Information = List(h, Buffer, OutLength / sizeof(TENANCY_ROW)) * sizeof(TENANCY_ROW);
            Status = STATUS_SUCCESS;
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return ZComplete(Irp, Status, Information);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Self, PIRP Irp)
{
    (void)Self;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext2 = NULL;
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Self, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PCOUNTER c = File->FsContext2;

    if (c) {
        File->FsContext2 = NULL;
        Drop(Self->DeviceExtension, c);
    }
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, L"\\DosDevices\\Tenancy");
    IoDeleteSymbolicLink(&Link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING Name, Link;
    PDEVICE_OBJECT Self;
    PHOUSE h;
    NTSTATUS Status;

    (void)Path;
    RtlInitUnicodeString(&Name, L"\\Device\\Tenancy");
    RtlInitUnicodeString(&Link, L"\\DosDevices\\Tenancy");
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = IoCreateDevice(Driver, sizeof(HOUSE), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    h = Self->DeviceExtension;
    KeInitializeSpinLock(&h->Lock);
    InitializeListHead(&h->Table);
    h->Count = 0;
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Self);
    return Status;
}

/*
 * cubby: a mail room with eight boxes. A client puts short messages into a box and another takes them out; the cells the messages lie in come from a fixed
 * stock that is shared by all boxes.
 *
 * The bug: the stock of free cells is a home-made lock-free stack: the next pointer of the top is read before the compare-exchange, and the exchange succeeds
 * too if the top was taken, used and given back in between (ABA). The stack then names a cell that is in use, two messages share it and the box list is torn.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include "../include/ticking_card.h"

#define CELLS 64
#define BOXES 8
#define TEXT 116

#define IOCTL_CUBBY_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CUBBY_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CUBBY_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CUBBY_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _CUBBY_PUT {
    ULONG Box;
    ULONG Length;
    UCHAR Text[TEXT];
} CUBBY_PUT, *PCUBBY_PUT;

typedef struct _CELL {
    SINGLE_LIST_ENTRY Free; /* in the stock */
    LIST_ENTRY Mail;        /* in a box */
    ULONG Length;
    UCHAR Text[TEXT];
} CELL, *PCELL;

typedef struct _BOX {
    KSPIN_LOCK Lock;
    LIST_ENTRY Mail;
    ULONG Count;
} BOX, *PBOX;

typedef struct _ROOM {
    SINGLE_LIST_ENTRY Stock;
    KSPIN_LOCK StockLock;
    BOX Box[BOXES];
    CELL Cell[CELLS];
} ROOM, *PROOM;

static PCELL TakeCell(PROOM r)
{
#ifdef FIXED
    PSINGLE_LIST_ENTRY Top = ExInterlockedPopEntryList(&r->Stock, &r->StockLock);
#else
    PSINGLE_LIST_ENTRY Top, Next;

    do {
        Top = *(PSINGLE_LIST_ENTRY volatile *)&r->Stock.Next;
        if (!Top)
            return NULL;
        Next = *(PSINGLE_LIST_ENTRY volatile *)&Top->Next;
    } while (InterlockedCompareExchangePointer((PVOID volatile *)&r->Stock.Next, Next, Top) != Top);
#endif
    return Top ? CONTAINING_RECORD(Top, CELL, Free) : NULL;
}

static VOID GiveCell(PROOM r, PCELL c)
{
#ifdef FIXED
    ExInterlockedPushEntryList(&r->Stock, &c->Free, &r->StockLock);
#else
    PSINGLE_LIST_ENTRY Top;

    do {
        Top = *(PSINGLE_LIST_ENTRY volatile *)&r->Stock.Next;
        c->Free.Next = Top;
    } while (InterlockedCompareExchangePointer((PVOID volatile *)&r->Stock.Next, &c->Free, Top) != Top);
#endif
}

static NTSTATUS Put(PROOM r, PCUBBY_PUT In, ULONG InLength)
{
    PCELL c;
    PBOX b;
    KIRQL Irql;

    if (InLength < FIELD_OFFSET(CUBBY_PUT, Text) || In->Box >= BOXES)
        return STATUS_INVALID_PARAMETER;
    if (!In->Length || In->Length > TEXT || In->Length > InLength - FIELD_OFFSET(CUBBY_PUT, Text))
        return STATUS_INVALID_PARAMETER;

    c = TakeCell(r);
    if (!c)
        return STATUS_INSUFFICIENT_RESOURCES;
    c->Length = In->Length;
    RtlCopyMemory(c->Text, In->Text, In->Length);

    b = &r->Box[In->Box];
    KeAcquireSpinLock(&b->Lock, &Irql);
    InsertTailList(&b->Mail, &c->Mail);
    b->Count++;
    KeReleaseSpinLock(&b->Lock, Irql);
    return STATUS_SUCCESS;
}

/* The oldest message of a box; it stays where it is if the caller has no room for it. */
static NTSTATUS Get(PROOM r, ULONG Box, PUCHAR Out, ULONG OutLength, PULONG_PTR Information)
{
    PBOX b = &r->Box[Box];
    PCELL c;
    KIRQL Irql;

    KeAcquireSpinLock(&b->Lock, &Irql);
    if (IsListEmpty(&b->Mail)) {
        KeReleaseSpinLock(&b->Lock, Irql);
        return STATUS_NO_MORE_ENTRIES;
    }
    c = CONTAINING_RECORD(b->Mail.Flink, CELL, Mail);
    if (c->Length > OutLength) {
        KeReleaseSpinLock(&b->Lock, Irql);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RemoveEntryList(&c->Mail);
    b->Count--;
    KeReleaseSpinLock(&b->Lock, Irql);

    RtlCopyMemory(Out, c->Text, c->Length);
    *Information = c->Length;
    GiveCell(r, c);
    return STATUS_SUCCESS;
}

static VOID Empty(PROOM r, ULONG Box)
{
    PBOX b = &r->Box[Box];
    LIST_ENTRY Old;
    KIRQL Irql;

    InitializeListHead(&Old);
    KeAcquireSpinLock(&b->Lock, &Irql);
    while (!IsListEmpty(&b->Mail)) {
        PLIST_ENTRY e = RemoveHeadList(&b->Mail);

        InsertTailList(&Old, e);
    }
    b->Count = 0;
    KeReleaseSpinLock(&b->Lock, Irql);

    while (!IsListEmpty(&Old))
        GiveCell(r, CONTAINING_RECORD(RemoveHeadList(&Old), CELL, Mail));
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Self, PIRP Irp)
{
    PROOM r = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;
    ULONG Box, i;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CUBBY_PUT:
        Status = Put(r, Buffer, InLength);
        break;
    case IOCTL_CUBBY_GET:
    case IOCTL_CUBBY_EMPTY:
        if (InLength < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Box = *(PULONG)Buffer;
        if (Box >= BOXES) {
            Status = STATUS_INVALID_PARAMETER;
        } else if (sl->Parameters.DeviceIoControl.IoControlCode == IOCTL_CUBBY_GET) {
            Status = Get(r, Box, Buffer, OutLength, &Information);
        } else {
            Empty(r, Box);
            Status = STATUS_SUCCESS;
        }
        break;
    case IOCTL_CUBBY_COUNT:
        if (OutLength < BOXES * sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        for (i = 0; i < BOXES; i++) {
            KIRQL Irql;

            KeAcquireSpinLock(&r->Box[i].Lock, &Irql);
            ((PULONG)Buffer)[i] = r->Box[i].Count;
            KeReleaseSpinLock(&r->Box[i].Lock, Irql);
        }
        Information = BOXES * sizeof(ULONG);
        Status = STATUS_SUCCESS;
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return ZComplete(Irp, Status, Information);
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Self, PIRP Irp)
{
    (void)Self;
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, L"\\DosDevices\\Cubby");
    IoDeleteSymbolicLink(&Link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING Name, Link;
    PDEVICE_OBJECT Self;
    PROOM r;
    NTSTATUS Status;
    ULONG i;

    (void)Path;
    RtlInitUnicodeString(&Name, L"\\Device\\Cubby");
    RtlInitUnicodeString(&Link, L"\\DosDevices\\Cubby");
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = IoCreateDevice(Driver, sizeof(ROOM), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    r = Self->DeviceExtension;
    RtlZeroMemory(r, sizeof(*r));
    KeInitializeSpinLock(&r->StockLock);
    for (i = 0; i < BOXES; i++) {
        KeInitializeSpinLock(&r->Box[i].Lock);
        InitializeListHead(&r->Box[i].Mail);
    }
    for (i = 0; i < CELLS; i++)
        GiveCell(r, &r->Cell[i]);

    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Self);
    return Status;
}

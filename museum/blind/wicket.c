/*
 * wicket: passes short messages between the programs of a kiosk. Each open handle is a session with a number; a program
 * asks for its own number, sends to another's, and reads what has been sent to it. A read that finds nothing waits.
 *
 * The bug: a session that is looked up by its number is used behind the table's lock without a reference, while its
 * handle may be closed.
 *
 * Device: none
 * Rule: use-after-free, write-after-free
 * Needs: schedule, ioctl
 */
#include <ddk/wdm.h>
#define FRAME_LEGACY
#include "../include/frame_with_hooks.h"

#define TAG 'kciW'
#define DEVICE_NAME L"\\Device\\Wicket"
#define LINK_NAME L"\\DosDevices\\Wicket"

#define IOCTL_WICKET_NUMBER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WICKET_SEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WICKET_WAITING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LONGEST 240
#define MOST_WAITING 32

typedef struct WICKET_SEND {            /* the message follows */
    ULONG To;
} WICKET_SEND;

typedef struct LETTER {
    LIST_ENTRY Link;
    ULONG Bytes;
    UCHAR Text[1];
} LETTER;

typedef struct SESSION {
    LIST_ENTRY Link;                    /* of the table */
    LONG References;                    /* one for the open handle */
    ULONG Number;
    KSPIN_LOCK Lock;                    /* guards the letters, and is acquired before the queue's own */
    LIST_ENTRY Letters;
    ULONG Waiting;
    RQ Readers;
} SESSION;

typedef struct WICKET {
    KSPIN_LOCK Lock;                    /* guards the table */
    LIST_ENTRY Sessions;
    ULONG LastNumber;
} WICKET;

static PDEVICE_OBJECT TheDevice;

static void Release(SESSION *n)
{
    if (InterlockedDecrement(&n->References) != 0)
        return;
    while (!IsListEmpty(&n->Letters))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&n->Letters), LETTER, Link), TAG);
    ExFreePoolWithTag(n, TAG);
}

static SESSION *Find(WICKET *w, ULONG Number)
{
    SESSION *found = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&w->Lock, &irql);
    for (e = w->Sessions.Flink; e != &w->Sessions; e = e->Flink) {
        SESSION *n = CONTAINING_RECORD(e, SESSION, Link);
        if (n->Number == Number) {
            found = n;
#ifdef FIXED
            InterlockedIncrement(&n->References);
#endif
            break;
        }
    }
    KeReleaseSpinLock(&w->Lock, irql);
    return found;
}

/* hands letters to waiting readers */
static void Deliver(SESSION *n)
{
    PIO_STACK_LOCATION s;
    NTSTATUS status;
    LETTER *letter;
    ULONG bytes;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&n->Lock, &irql);
        irp = IsListEmpty(&n->Letters) ? NULL : RqTake(&n->Readers, NULL);
        if (!irp) {
            KeReleaseSpinLock(&n->Lock, irql);
            return;
        }
        letter = CONTAINING_RECORD(RemoveHeadList(&n->Letters), LETTER, Link);
        n->Waiting--;
        KeReleaseSpinLock(&n->Lock, irql);

        s = IoGetCurrentIrpStackLocation(irp);
        status = STATUS_SUCCESS;
        bytes = letter->Bytes;
        if (bytes > s->Parameters.Read.Length) {
            bytes = s->Parameters.Read.Length;
            status = STATUS_BUFFER_OVERFLOW;
        }
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, letter->Text, bytes);
        ExFreePoolWithTag(letter, TAG);
        Done(irp, status, bytes);
    }
}

static NTSTATUS Send(WICKET *w, WICKET_SEND *Request, ULONG Bytes)
{
    NTSTATUS status = STATUS_SUCCESS;
    LETTER *letter;
    SESSION *to;
    KIRQL irql;

    if (Bytes == 0 || Bytes > LONGEST)
        return STATUS_INVALID_BUFFER_SIZE;
    to = Find(w, Request->To);
    if (!to)
        return STATUS_NOT_FOUND;
    letter = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(LETTER, Text) + Bytes, TAG);
    if (letter) {
        letter->Bytes = Bytes;
        RtlCopyMemory(letter->Text, Request + 1, Bytes);
        KeAcquireSpinLock(&to->Lock, &irql);
        if (to->Waiting < MOST_WAITING) {
            InsertTailList(&to->Letters, &letter->Link);
            to->Waiting++;
            letter = NULL;
        } else {
            status = STATUS_DEVICE_BUSY;
        }
        KeReleaseSpinLock(&to->Lock, irql);
        if (letter)
            ExFreePoolWithTag(letter, TAG);
        Deliver(to);
    } else {
        status = STATUS_INSUFFICIENT_RESOURCES;
    }
#ifdef FIXED
    Release(to);
#endif
    return status;
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    SESSION *n = s->FileObject->FsContext;

    NOT_USED(Device);
    if (s->Parameters.Read.Length == 0)
        return Done(Irp, STATUS_INVALID_PARAMETER, 0);
    /* a letter may be sent, read and the handle closed before the rest is done */
    InterlockedIncrement(&n->References);
    RqPut(&n->Readers, Irp);
    Deliver(n);
    Release(n);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    SESSION *own = s->FileObject->FsContext;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG done = 0;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WICKET_NUMBER:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)buffer = own->Number;
        done = sizeof(ULONG);
        break;

    case IOCTL_WICKET_SEND:
        if (in < sizeof(WICKET_SEND))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = Send(Device->DeviceExtension, buffer, in - sizeof(WICKET_SEND));
        break;

    case IOCTL_WICKET_WAITING:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&own->Lock, &irql);
        *(PULONG)buffer = own->Waiting;
        KeReleaseSpinLock(&own->Lock, irql);
        done = sizeof(ULONG);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Done(Irp, status, done);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    WICKET *w = Device->DeviceExtension;
    SESSION *n;
    KIRQL irql;

    n = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *n, TAG);
    if (!n)
        return Done(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    n->References = 1;
    n->Waiting = 0;
    KeInitializeSpinLock(&n->Lock);
    InitializeListHead(&n->Letters);
    RqInit(&n->Readers);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = n;

    KeAcquireSpinLock(&w->Lock, &irql);
    n->Number = ++w->LastNumber;
    InsertTailList(&w->Sessions, &n->Link);
    KeReleaseSpinLock(&w->Lock, irql);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    SESSION *n = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    NOT_USED(Device);
    RqShut(&n->Readers, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    SESSION *n = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    WICKET *w = Device->DeviceExtension;
    KIRQL irql;

    KeAcquireSpinLock(&w->Lock, &irql);
    RemoveEntryList(&n->Link);
    KeReleaseSpinLock(&w->Lock, irql);
    Release(n);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    NOT_USED(Driver);
    LegacyUnmake(TheDevice, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    WICKET *w;

    NOT_USED(RegistryPath);
    status = LegacyMake(Driver, DEVICE_NAME, LINK_NAME, sizeof(WICKET), &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    w = TheDevice->DeviceExtension;
    KeInitializeSpinLock(&w->Lock);
    InitializeListHead(&w->Sessions);
    TheDevice->Flags |= DO_BUFFERED_IO;

    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

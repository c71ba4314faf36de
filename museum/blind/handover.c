/*
 * TRIVET: a rendezvous between applications.  A WAIT request pends for a topic until another
 * application HANDs a message to that topic (or fails if no one waits); REVOKE withdraws the
 * waits of the calling handle for one topic, COUNT tells how often all this happened.
 *
 * The bug: the queue's peek routine begins at the head of the list whatever request it is asked
 * to continue after, so that IoCsqRemoveNextIrp gets the same request for ever, with the queue's
 * lock held, when that request is just being cancelled; the cancel routine waits for that lock.
 *
 * Device: none
 * Rule: csq-peek-repeated
 * Needs: ioctl, cancel, schedule
 */
#include "../include/jetty_csq.h"

#define TRIVET_DEVICE L"\\Device\\Trivet"
#define TRIVET_LINK L"\\DosDevices\\TRIVET"

#define IOCTL_TRIVET_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TRIVET_HAND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TRIVET_REVOKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TRIVET_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TRIVET_DATA 56

/* HAND: in.  WAIT: out; its input is the topic alone. */
typedef struct _TRIVET_MESSAGE {
    ULONG Topic;
    ULONG Bytes;
    UCHAR Data[TRIVET_DATA];
} TRIVET_MESSAGE, *PTRIVET_MESSAGE;

typedef struct _TRIVET_COUNTS {
    LONG Waits;
    LONG Handed;
    LONG Unwanted;
    LONG Withdrawn;
} TRIVET_COUNTS, *PTRIVET_COUNTS;

typedef struct _TRIVET {
    JETTY_QUEUE Waiters;
    TRIVET_COUNTS Counts;
} TRIVET, *PTRIVET;

/*
 * The next waiter that fits: of one handle, for one topic (Key points to it), or both.
 * The topic is the first thing in the system buffer of a WAIT.
 */
static PIRP NTAPI TrivetPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PJETTY_QUEUE q = (PJETTY_QUEUE)Csq;
    PJETTY_MATCH match = Context;
    PLIST_ENTRY e;

#ifdef FIXED
    e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;
#else
    UNREFERENCED_PARAMETER(Irp);
    e = q->List.Flink;
#endif
    for (; e != &q->List; e = e->Flink) {
        PIRP waiter = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        PULONG topic = waiter->AssociatedIrp.SystemBuffer;

        if (match && match->File &&
            IoGetCurrentIrpStackLocation(waiter)->FileObject != match->File)
            continue;
        if (match && match->Key && *topic != *(PULONG)match->Key)
            continue;
        return waiter;
    }
    return NULL;
}

static VOID TrivetFinish(PVOID Owner, PIRP Irp, NTSTATUS Status)
{
    PTRIVET t = Owner;

    InterlockedIncrement(&t->Counts.Withdrawn);
    JettyComplete(Irp, Status, 0);
}

static NTSTATUS TrivetHand(PTRIVET t, PTRIVET_MESSAGE Message, ULONG Length)
{
    JETTY_MATCH match;
    PTRIVET_MESSAGE out;
    PIRP irp;

    if (Length < FIELD_OFFSET(TRIVET_MESSAGE, Data) ||
        Message->Bytes > TRIVET_DATA ||
        Length - FIELD_OFFSET(TRIVET_MESSAGE, Data) < Message->Bytes)
        return STATUS_INVALID_PARAMETER;

    match.File = NULL;
    match.Key = &Message->Topic;
    irp = IoCsqRemoveNextIrp(&t->Waiters.Csq, &match);
    if (!irp) {
        InterlockedIncrement(&t->Counts.Unwanted);
        return STATUS_NOT_FOUND;
    }

    out = irp->AssociatedIrp.SystemBuffer;
    RtlZeroMemory(out, sizeof(*out));
    out->Topic = Message->Topic;
    out->Bytes = Message->Bytes;
    RtlCopyMemory(out->Data, Message->Data, Message->Bytes);
    InterlockedIncrement(&t->Counts.Handed);
    JettyComplete(irp, STATUS_SUCCESS, sizeof(*out));
    return STATUS_SUCCESS;
}

static ULONG TrivetRevoke(PTRIVET t, PFILE_OBJECT File, ULONG Topic)
{
    JETTY_MATCH match = { File, &Topic };
    LIST_ENTRY revoked;
    ULONG count = 0;
    PIRP irp;

    /* first out of the queue, then completed: an owner that asks anew at once is not revoked again */
    InitializeListHead(&revoked);
    while ((irp = IoCsqRemoveNextIrp(&t->Waiters.Csq, &match)) != NULL)
        InsertTailList(&revoked, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&revoked)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&revoked), IRP, Tail.Overlay.ListEntry);
        TrivetFinish(t, irp, STATUS_CANCELLED);
        count++;
    }
    return count;
}

static NTSTATUS NTAPI TrivetControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRIVET t = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    ULONG_PTR information = 0;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TRIVET_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(TRIVET_MESSAGE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        InterlockedIncrement(&t->Counts.Waits);
        return JettyPark(&t->Waiters, Irp, NULL);

    case IOCTL_TRIVET_HAND:
        status = TrivetHand(t, buffer, in);
        break;

    case IOCTL_TRIVET_REVOKE:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (!s->FileObject) {
            status = STATUS_INVALID_HANDLE;
            break;
        }
        *(PULONG)buffer = TrivetRevoke(t, s->FileObject, *(PULONG)buffer);
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;

    case IOCTL_TRIVET_COUNT:
        if (out < sizeof(TRIVET_COUNTS)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PTRIVET_COUNTS)buffer = t->Counts;
        information = sizeof(TRIVET_COUNTS);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return JettyComplete(Irp, status, information);
}

static NTSTATUS NTAPI TrivetCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TrivetCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRIVET t = Device->DeviceExtension;

    JettyHandleClosed(&t->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI TrivetUnload(PDRIVER_OBJECT Driver)
{
    JettyDropControlDevice(Driver->DeviceObject, TRIVET_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PTRIVET t;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = TrivetCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TrivetCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TrivetCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrivetControl;
    Driver->DriverUnload = TrivetUnload;

    status = JettyControlDevice(Driver, TRIVET_DEVICE, TRIVET_LINK, sizeof(TRIVET), &device);
    if (!NT_SUCCESS(status))
        return status;
    t = device->DeviceExtension;
    JettyQueueInit(&t->Waiters, t, TrivetFinish, TrivetPeek);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

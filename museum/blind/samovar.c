/*
 * samovar: a message log for the services of a point-of-sale terminal. Services post messages, which the driver keeps
 * in order of arrival (the oldest go when there are too many); a monitor reads as many as its buffer holds, each behind
 * a small header. A read that finds none waits.
 *
 * The bug: the read compares only a message's own length with the room that is left in the buffer, and not the length
 * with its header.
 *
 * Device: none
 * Rule: pool-overrun, information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_LEGACY
#include "../include/frame_with_hooks.h"

#define TAG 'omaS'
#define DEVICE_NAME L"\\Device\\Samovar"
#define LINK_NAME L"\\DosDevices\\Samovar"

#define IOCTL_SAMOVAR_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SAMOVAR_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SAMOVAR_RINSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_MESSAGES 64
#define LONGEST_MESSAGE 512

typedef struct SAMOVAR_HEADER {         /* in front of each message that is read */
    LARGE_INTEGER Time;
    ULONG Number;
    ULONG Bytes;
} SAMOVAR_HEADER;

typedef struct SAMOVAR_STATE {
    ULONG Kept, Posted, Dropped;
} SAMOVAR_STATE;

typedef struct MESSAGE {
    LIST_ENTRY Link;
    SAMOVAR_HEADER Header;
    UCHAR Text[1];
} MESSAGE;

typedef struct SAMOVAR {
    KSPIN_LOCK Lock;                    /* guards what follows, and is acquired before the queue's own */
    LIST_ENTRY Messages;
    ULONG Kept, Posted, Dropped;
    RQ Readers;
} SAMOVAR;

static PDEVICE_OBJECT TheDevice;

/* within the lock */
static MESSAGE *Oldest(SAMOVAR *v)
{
    MESSAGE *m;

    if (IsListEmpty(&v->Messages))
        return NULL;
    m = CONTAINING_RECORD(RemoveHeadList(&v->Messages), MESSAGE, Link);
    v->Kept--;
    return m;
}

/* within the lock: moves messages into the buffer; what they took is to be freed from Emptied */
static ULONG Pour(SAMOVAR *v, PUCHAR Buffer, ULONG Room, PLIST_ENTRY Emptied)
{
    ULONG used = 0, bytes;
    MESSAGE *m;

    while (!IsListEmpty(&v->Messages)) {
        m = CONTAINING_RECORD(v->Messages.Flink, MESSAGE, Link);
        bytes = m->Header.Bytes;
#ifdef FIXED
        if (sizeof(SAMOVAR_HEADER) + bytes > Room - used)
            break;
#else
        if (used > Room || bytes > Room - used)
            break;
#endif
        m = Oldest(v);
        RtlCopyMemory(Buffer + used, &m->Header, sizeof(SAMOVAR_HEADER));
        RtlCopyMemory(Buffer + used + sizeof(SAMOVAR_HEADER), m->Text, bytes);
        used += sizeof(SAMOVAR_HEADER) + bytes;
        InsertTailList(Emptied, &m->Link);
    }
    return used;
}

static void FreeAll(PLIST_ENTRY List)
{
    while (!IsListEmpty(List))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(List), MESSAGE, Link), TAG);
}

/* gives waiting readers what there is */
static void Serve(SAMOVAR *v)
{
    LIST_ENTRY emptied;
    ULONG used;
    KIRQL irql;
    PIRP irp;

    InitializeListHead(&emptied);
    for (;;) {
        KeAcquireSpinLock(&v->Lock, &irql);
        irp = IsListEmpty(&v->Messages) ? NULL : RqTake(&v->Readers, NULL);
        if (!irp) {
            KeReleaseSpinLock(&v->Lock, irql);
            break;
        }
        used = Pour(v, irp->AssociatedIrp.SystemBuffer,
            IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length, &emptied);
        KeReleaseSpinLock(&v->Lock, irql);
        Done(irp, used ? STATUS_SUCCESS : STATUS_BUFFER_TOO_SMALL, used);
    }
    FreeAll(&emptied);
}

static NTSTATUS Post(SAMOVAR *v, PVOID Text, ULONG Bytes)
{
    MESSAGE *m, *dropped = NULL;
    KIRQL irql;

    if (Bytes == 0 || Bytes > LONGEST_MESSAGE)
        return STATUS_INVALID_BUFFER_SIZE;
    m = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(MESSAGE, Text) + Bytes, TAG);
    if (!m)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeQuerySystemTime(&m->Header.Time);
    m->Header.Bytes = Bytes;
    RtlCopyMemory(m->Text, Text, Bytes);

    KeAcquireSpinLock(&v->Lock, &irql);
    m->Header.Number = ++v->Posted;
    if (v->Kept == MOST_MESSAGES) {
        dropped = Oldest(v);
        v->Dropped++;
    }
    InsertTailList(&v->Messages, &m->Link);
    v->Kept++;
    KeReleaseSpinLock(&v->Lock, irql);

    if (dropped)
        ExFreePoolWithTag(dropped, TAG);
    Serve(v);
    return STATUS_SUCCESS;
}

static void Rinse(SAMOVAR *v)
{
    LIST_ENTRY emptied;
    MESSAGE *m;
    KIRQL irql;

    InitializeListHead(&emptied);
    KeAcquireSpinLock(&v->Lock, &irql);
    while ((m = Oldest(v)) != NULL)
        InsertTailList(&emptied, &m->Link);
    KeReleaseSpinLock(&v->Lock, irql);
    FreeAll(&emptied);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    SAMOVAR *v = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
        return Done(Irp, STATUS_SUCCESS, 0);
    RqPut(&v->Readers, Irp);
    Serve(v);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    SAMOVAR *v = Device->DeviceExtension;
    SAMOVAR_STATE *state = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG done = 0;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SAMOVAR_POST:
        status = Post(v, Irp->AssociatedIrp.SystemBuffer, s->Parameters.DeviceIoControl.InputBufferLength);
        break;

    case IOCTL_SAMOVAR_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *state) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&v->Lock, &irql);
        state->Kept = v->Kept;
        state->Posted = v->Posted;
        state->Dropped = v->Dropped;
        KeReleaseSpinLock(&v->Lock, irql);
        done = sizeof *state;
        break;

    case IOCTL_SAMOVAR_RINSE:
        Rinse(v);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Done(Irp, status, done);
}

static NTSTATUS NTAPI OpenCleanupClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    SAMOVAR *v = Device->DeviceExtension;

    if (s->MajorFunction == IRP_MJ_CLEANUP)
        RqFlush(&v->Readers, s->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    NOT_USED(Driver);
    Rinse(TheDevice->DeviceExtension);
    LegacyUnmake(TheDevice, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    SAMOVAR *v;

    NOT_USED(RegistryPath);
    status = LegacyMake(Driver, DEVICE_NAME, LINK_NAME, sizeof(SAMOVAR), &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    v = TheDevice->DeviceExtension;
    KeInitializeSpinLock(&v->Lock);
    InitializeListHead(&v->Messages);
    RqInit(&v->Readers);
    TheDevice->Flags |= DO_BUFFERED_IO;

    Driver->MajorFunction[IRP_MJ_CREATE] = OpenCleanupClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = OpenCleanupClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenCleanupClose;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

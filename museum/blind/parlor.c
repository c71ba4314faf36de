/*
 * parlor: keeps the last events of a slot-machine's door and coin switches for a diagnosis program. Events are posted by
 * a service; the program asks for those behind a number, into a buffer whose address stands in the request
 * (METHOD_NEITHER, so that one request can return an array of any length), and gets back how many there were.
 *
 * The bug: the array is stored through the address in the request within an exception handler, but the address has not
 * been probed.
 *
 * Device: none
 * Rule: user-memory-not-probed, wild-write, bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_LEGACY
#define FRAME_GUARD
#include "../include/frame_with_hooks.h"

#define TAG 'lraP'
#define DEVICE_NAME L"\\Device\\Parlor"
#define LINK_NAME L"\\DosDevices\\Parlor"

#define IOCTL_PARLOR_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PARLOR_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_PARLOR_LAST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PARLOR_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x873, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EVENTS 128

typedef struct PARLOR_POST {
    ULONG Switch;
    ULONG State;
} PARLOR_POST;

typedef struct PARLOR_EVENT {
    LARGE_INTEGER Time;
    ULONG Number;
    ULONG Switch;
    ULONG State;
    ULONG Spare;
} PARLOR_EVENT;

typedef struct PARLOR_QUERY {
    ULONG64 Buffer;                     /* the application's array of PARLOR_EVENT */
    ULONG Bytes;                        /* its size */
    ULONG After;                        /* the number of the last event that is known already */
} PARLOR_QUERY;

typedef struct PARLOR_ANSWER {
    ULONG Events;
    ULONG Missed;                       /* events that were overwritten before they were asked for */
} PARLOR_ANSWER;

typedef struct PARLOR {
    KSPIN_LOCK Lock;                    /* guards what follows */
    ULONG Last;                         /* the number of the newest event; the first has 1 */
    ULONG Kept;
    PARLOR_EVENT Ring[EVENTS];          /* event N at N % EVENTS */
} PARLOR;

static PDEVICE_OBJECT TheDevice;

static void Post(PARLOR *p, PARLOR_POST *Request)
{
    PARLOR_EVENT *e;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    p->Last++;
    if (p->Kept < EVENTS)
        p->Kept++;
    e = &p->Ring[p->Last % EVENTS];
    KeQuerySystemTime(&e->Time);
    e->Number = p->Last;
    e->Switch = Request->Switch;
    e->State = Request->State;
    e->Spare = 0;
    KeReleaseSpinLock(&p->Lock, irql);
}

/* copies at most Most events behind number After */
static void Collect(PARLOR *p, ULONG After, PARLOR_EVENT *To, ULONG Most, PARLOR_ANSWER *Answer)
{
    ULONG behind, number;
    KIRQL irql;

    RtlZeroMemory(Answer, sizeof *Answer);
    KeAcquireSpinLock(&p->Lock, &irql);
    behind = p->Last - After;           /* numbers may wrap */
    if (After > p->Last && behind > MAXULONG / 2)
        behind = 0;
    if (behind > p->Kept) {
        Answer->Missed = behind - p->Kept;
        behind = p->Kept;
    }
    number = p->Last - behind + 1;
    while (behind-- && Answer->Events < Most)
        To[Answer->Events++] = p->Ring[number++ % EVENTS];
    KeReleaseSpinLock(&p->Lock, irql);
}

/* in the application's context, guarded */
static NTSTATUS StoreEvents(PVOID To, PVOID From, SIZE_T Bytes)
{
#ifdef FIXED
    ProbeForWrite(To, Bytes, 1);
#endif
    RtlCopyMemory(To, From, Bytes);
    return STATUS_SUCCESS;
}

static NTSTATUS Query(PARLOR *p, PIO_STACK_LOCATION s, PVOID UserBuffer)
{
    PARLOR_ANSWER answer;
    PARLOR_QUERY query;
    PARLOR_EVENT *copy;
    NTSTATUS status;
    ULONG most;

    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof query ||
        s->Parameters.DeviceIoControl.OutputBufferLength < sizeof answer)
        return STATUS_BUFFER_TOO_SMALL;
    status = CopyFromUser(&query, s->Parameters.DeviceIoControl.Type3InputBuffer, sizeof query);
    if (!NT_SUCCESS(status))
        return status;
    most = query.Bytes / sizeof(PARLOR_EVENT);
    if (most == 0)
        return STATUS_INVALID_PARAMETER;
    if (most > EVENTS)
        most = EVENTS;

    copy = ExAllocatePoolWithTag(NonPagedPoolNx, most * sizeof(PARLOR_EVENT), TAG);
    if (!copy)
        return STATUS_INSUFFICIENT_RESOURCES;
    Collect(p, query.After, copy, most, &answer);
    if (answer.Events)
        status = GuardedCall(StoreEvents, (PVOID)(ULONG_PTR)query.Buffer, copy, answer.Events * sizeof(PARLOR_EVENT));
    ExFreePoolWithTag(copy, TAG);
    if (NT_SUCCESS(status))
        status = CopyToUser(UserBuffer, &answer, sizeof answer);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PARLOR *p = Device->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG done = 0;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PARLOR_POST:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(PARLOR_POST))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            Post(p, Irp->AssociatedIrp.SystemBuffer);
        break;

    case IOCTL_PARLOR_QUERY:
        status = Query(p, s, Irp->UserBuffer);
        if (NT_SUCCESS(status))
            done = sizeof(PARLOR_ANSWER);
        break;

    case IOCTL_PARLOR_LAST:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&p->Lock, &irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = p->Last;
        KeReleaseSpinLock(&p->Lock, irql);
        done = sizeof(ULONG);
        break;

    case IOCTL_PARLOR_CLEAR:
        KeAcquireSpinLock(&p->Lock, &irql);
        p->Kept = 0;
        KeReleaseSpinLock(&p->Lock, irql);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Done(Irp, status, done);
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    NOT_USED(Device);
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
    PARLOR *p;

    NOT_USED(RegistryPath);
    status = LegacyMake(Driver, DEVICE_NAME, LINK_NAME, sizeof(PARLOR), &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    p = TheDevice->DeviceExtension;
    KeInitializeSpinLock(&p->Lock);

    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * carrel: gives readers their desks in a reading room. How many desks there are stands in the registry (Parameters\Desks); a reader with a number always
 * gets the same desk if it is free, else the next one that is.
 *
 * The bug: of the number in the registry only the upper limit is looked at; with no desks at all a table of no bytes is allocated, and the first reader is sent to
 * a desk modulo 0.
 *
 * Device: none
 * Rule: divide-error, pool-zero-bytes
 * Needs: ioctl, registry
 */
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_CARREL_SIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa40, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_CARREL_RISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa41, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CARREL_ROOM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa42, METHOD_BUFFERED, FILE_READ_ACCESS)

#define USUAL 12
#define MOST 64

typedef struct DESK {
    ULONG Reader;               /* 0: free */
    ULONG Sittings;
    PFILE_OBJECT File;          /* by whose handle */
} DESK;

typedef struct ROOM {
    ULONG Desks;
    ULONG Taken;
} ROOM;

typedef struct CARR {
    FAST_MUTEX Lock;            /* for what is in Desk, and for Room.Taken */
    ROOM Room;
    DESK *Desk;
} CARR;

static ULONG CarrDesks(PUNICODE_STRING RegistryPath)
{
    struct {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR More[16];
    } value;
    OBJECT_ATTRIBUTES at;
    UNICODE_STRING name;
    HANDLE service, key;
    ULONG desks = USUAL, length;
    NTSTATUS status;

    InitializeObjectAttributes(&at, RegistryPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&service, KEY_READ, &at);
    if (!NT_SUCCESS(status))
        return desks;
    RtlInitUnicodeString(&name, L"Parameters");
    InitializeObjectAttributes(&at, &name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, service, NULL);
    status = ZwOpenKey(&key, KEY_READ, &at);
    if (NT_SUCCESS(status)) {
        RtlInitUnicodeString(&name, L"Desks");
        status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof value, &length);
        if (NT_SUCCESS(status) && value.Info.Type == REG_DWORD && value.Info.DataLength == sizeof(ULONG))
            RtlCopyMemory(&desks, value.Info.Data, sizeof(ULONG));
        ZwClose(key);
    }
    ZwClose(service);
    if (desks > MOST)
        desks = MOST;
#ifdef FIXED
    if (!desks)
        desks = USUAL;
#endif
    return desks;
}

static NTSTATUS CarrSit(CARR *x, PULONG Number, PFILE_OBJECT File)
{
    ULONG first = *Number % x->Room.Desks, i;
    NTSTATUS status = STATUS_DEVICE_BUSY;

    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < x->Room.Desks; i++) {
        ULONG n = (first + i) % x->Room.Desks;
        DESK *desk = &x->Desk[n];

        if (desk->Reader)
            continue;
        desk->Reader = *Number;
        desk->File = File;
        desk->Sittings++;
        x->Room.Taken++;
        *Number = n;
        status = STATUS_SUCCESS;
        break;
    }
    ExReleaseFastMutex(&x->Lock);
    return status;
}

/* The readers of a handle rise: one of them, or with 0 all. */
static ULONG CarrRise(CARR *x, ULONG Reader, PFILE_OBJECT File)
{
    ULONG count = 0, i;

    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < x->Room.Desks; i++) {
        DESK *desk = &x->Desk[i];

        if (!desk->Reader || desk->File != File || (Reader && desk->Reader != Reader))
            continue;
        desk->Reader = 0;
        desk->File = NULL;
        x->Room.Taken--;
        count++;
    }
    ExReleaseFastMutex(&x->Lock);
    return count;
}

static NTSTATUS CarrAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    CARR *x = own;
    PULONG number = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG in, room;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CARREL_SIT:
        if (in < sizeof(ULONG) || room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (!*number)
            return STATUS_INVALID_PARAMETER;
        status = CarrSit(x, number, Sl->FileObject);
        if (NT_SUCCESS(status))
            *Info = sizeof(ULONG);
        return status;
    case IOCTL_CARREL_RISE:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return CarrRise(x, *number, Sl->FileObject) ? STATUS_SUCCESS : STATUS_NOT_FOUND;
    case IOCTL_CARREL_ROOM:
        if (room < sizeof(ROOM))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&x->Lock);
        *(ROOM *)Irp->AssociatedIrp.SystemBuffer = x->Room;
        ExReleaseFastMutex(&x->Lock);
        *Info = sizeof(ROOM);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID CarrLeave(PVOID own, PFILE_OBJECT File)
{
    CarrRise(own, 0, File);
}

static NTSTATUS CarrRig(PVOID own, PUNICODE_STRING RegistryPath)
{
    CARR *x = own;

    ExInitializeFastMutex(&x->Lock);
    x->Room.Desks = CarrDesks(RegistryPath);
    x->Desk = ExAllocatePoolWithTag(PagedPool, x->Room.Desks * sizeof(DESK), FRAME_TAG);
    if (!x->Desk)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->Desk, x->Room.Desks * sizeof(DESK));
    return STATUS_SUCCESS;
}

static VOID CarrUnrig(PVOID own)
{
    ExFreePoolWithTag(((CARR *)own)->Desk, FRAME_TAG);
}

static const RAFT_PLAN CarrPlan = {
    .Device = L"\\Device\\Carrel", .Link = L"\\DosDevices\\Carrel", .Room = sizeof(CARR),
    .Rig = CarrRig, .Unrig = CarrUnrig, .Leave = CarrLeave, .Ask = CarrAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &CarrPlan);
}

/*
 * hourglas: leases. A process acquires one of the numbered leases for a time in milliseconds, renews or releases it; when the time is over, any process
 * may have it. Closing the handle gives its leases back.
 *
 * The bug: moments are kept in 32-bit milliseconds since boot and compared plainly. When the count wraps after 49.7 days of uptime, a lease just taken
 * counts as over at once (two owners), or one that is over never ends.
 *
 * Device: none
 * Rule: request-depends-on-uptime
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define LEASES 64
#define LONGEST_LEASE (24u * 60 * 60 * 1000) /* milliseconds */

typedef struct _LEASE_REQUEST {
    ULONG Number;
    ULONG Milliseconds; /* acquire and renew */
} LEASE_REQUEST;

typedef struct _LEASE_STATE {
    ULONG Number;
    ULONG Held;
    ULONG Yours;
    ULONG MillisecondsLeft;
} LEASE_STATE;

#define IOCTL_LEASE_ACQUIRE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: LEASE_REQUEST */
#define IOCTL_LEASE_RENEW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)   /* in: LEASE_REQUEST */
#define IOCTL_LEASE_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: LEASE_REQUEST */
#define IOCTL_LEASE_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_READ_ACCESS)    /* in: LEASE_REQUEST; out: LEASE_STATE */

DRIVER_INITIALIZE DriverEntry;

/* milliseconds since boot */
#ifdef FIXED
typedef ULONG64 MOMENT;
#else
typedef ULONG MOMENT;
#endif

typedef struct _LEASE {
    PFILE_OBJECT Owner;
    MOMENT End;
} LEASE;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Hourglas");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Hourglas");
static PDEVICE_OBJECT Control;
static FAST_MUTEX Lock; /* guards the table */
static LEASE Table[LEASES];

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static MOMENT Now(VOID)
{
    return (MOMENT)(KeQueryInterruptTime() / 10000);
}

/* Forgets the owner when the time is over. The lock is held. */
static VOID Expire(LEASE *Lease, MOMENT Moment)
{
    if (Lease->Owner != NULL && Moment >= Lease->End)
        Lease->Owner = NULL;
}

static NTSTATUS Acquire(PFILE_OBJECT File, const LEASE_REQUEST *Request, BOOLEAN Renew)
{
    LEASE *Lease = &Table[Request->Number];
    NTSTATUS Status = STATUS_SUCCESS;
    MOMENT Moment;

    if (Request->Milliseconds == 0 || Request->Milliseconds > LONGEST_LEASE)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Lock);
    Moment = Now();
    Expire(Lease, Moment);
    if (Renew ? Lease->Owner != File : Lease->Owner != NULL) {
        Status = Renew ? STATUS_NOT_FOUND : STATUS_SHARING_VIOLATION;
    } else {
        Lease->Owner = File;
        Lease->End = Moment + Request->Milliseconds;
    }
    ExReleaseFastMutex(&Lock);
    return Status;
}

static NTSTATUS Release(PFILE_OBJECT File, ULONG Number)
{
    LEASE *Lease = &Table[Number];
    NTSTATUS Status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Lock);
    Expire(Lease, Now());
    if (Lease->Owner == File)
        Lease->Owner = NULL;
    else
        Status = STATUS_NOT_FOUND;
    ExReleaseFastMutex(&Lock);
    return Status;
}

static VOID Query(PFILE_OBJECT File, ULONG Number, LEASE_STATE *State)
{
    LEASE *Lease = &Table[Number];
    MOMENT Moment;

    RtlZeroMemory(State, sizeof(*State));
    State->Number = Number;
    ExAcquireFastMutex(&Lock);
    Moment = Now();
    Expire(Lease, Moment);
    if (Lease->Owner != NULL) {
        State->Held = 1;
        State->Yours = Lease->Owner == File;
        State->MillisecondsLeft = (ULONG)(Lease->End - Moment);
    }
    ExReleaseFastMutex(&Lock);
}

static NTSTATUS NTAPI LeaseControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = s->Parameters.DeviceIoControl.IoControlCode;
    LEASE_REQUEST Request;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(Request) || Irp->AssociatedIrp.SystemBuffer == NULL)
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlCopyMemory(&Request, Irp->AssociatedIrp.SystemBuffer, sizeof(Request));
    if (Request.Number >= LEASES)
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    switch (Code) {
    case IOCTL_LEASE_ACQUIRE:
        Status = Acquire(s->FileObject, &Request, FALSE);
        break;
    case IOCTL_LEASE_RENEW:
        Status = Acquire(s->FileObject, &Request, TRUE);
        break;
    case IOCTL_LEASE_RELEASE:
        Status = Release(s->FileObject, Request.Number);
        break;
    case IOCTL_LEASE_QUERY:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LEASE_STATE))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Query(s->FileObject, Request.Number, Irp->AssociatedIrp.SystemBuffer);
        return Complete(Irp, STATUS_SUCCESS, sizeof(LEASE_STATE));
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI LeaseOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* The file object is about to go (no request of it is left): its leases with it. */
static NTSTATUS NTAPI LeaseClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG i;

    UNREFERENCED_PARAMETER(Device);
    ExAcquireFastMutex(&Lock);
    for (i = 0; i < LEASES; i++) {
        if (Table[i].Owner == File)
            Table[i].Owner = NULL;
    }
    ExReleaseFastMutex(&Lock);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI LeaseUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&Lock);
    Driver->MajorFunction[IRP_MJ_CREATE] = LeaseOpen;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LeaseClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LeaseControl;
    Driver->DriverUnload = LeaseUnload;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Control);
    return Status;
}

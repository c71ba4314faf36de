/*
 * turnkey: a cloakroom for small secrets. A client deposits up to 512 bytes and is given the number of a locker, a small number that fits the
 * protocol of the old library; with the number it takes the deposit out again.
 *
 * The bug: the locker numbers come from a counter that wraps round after 16, and no one looks whether the locker is still taken. A deposit
 * that stays long is overwritten by a later one: it is lost for its owner and its memory is never freed.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'krnT'
#define LOCKERS 16
#define IN_USE_MAX 12
#define DEPOSIT_MAX 512

#define IOCTL_TURNKEY_DEPOSIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TURNKEY_WITHDRAW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS | FILE_READ_ACCESS)
#define IOCTL_TURNKEY_STATUS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DEPOSIT {
    PFILE_OBJECT Owner;
    ULONG Length;
    UCHAR Data[1];
} DEPOSIT, *PDEPOSIT;

typedef struct _TURNKEY {
    FAST_MUTEX Lock; /* guards all */
    ULONG InUse;
    ULONG Next;
    PDEPOSIT Locker[LOCKERS];
    ULONG Served;
} TURNKEY, *PTURNKEY;

typedef struct _TURNKEY_STATUS {
    ULONG Lockers;
    ULONG InUse;
    ULONG Served;
} TURNKEY_STATUS, *PTURNKEY_STATUS;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Turnkey");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Turnkey");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static PDEPOSIT NewDeposit(PFILE_OBJECT owner, const VOID *data, ULONG length)
{
    PDEPOSIT d = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(DEPOSIT, Data) + length, TAG);

    if (d) {
        d->Owner = owner;
        d->Length = length;
        RtlCopyMemory(d->Data, data, length);
    }
    return d;
}

/* Chooses the locker for the next deposit; the lock is held and fewer than LOCKERS are in use. */
static ULONG NextLocker(PTURNKEY t)
{
    ULONG number = t->Next;

#ifdef FIXED
    while (t->Locker[number])
        number = (number + 1) % LOCKERS;
#endif
    t->Next = (number + 1) % LOCKERS;
    return number;
}

static NTSTATUS Deposit(PTURNKEY t, PIRP Irp, PIO_STACK_LOCATION s)
{
    ULONG length = s->Parameters.DeviceIoControl.InputBufferLength;
    PULONG answer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    PDEPOSIT d;
    ULONG number = 0;

    if (length == 0 || length > DEPOSIT_MAX)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *answer)
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    d = NewDeposit(s->FileObject, Irp->AssociatedIrp.SystemBuffer, length);
    if (!d)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExAcquireFastMutex(&t->Lock);
    if (t->InUse >= IN_USE_MAX) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        number = NextLocker(t);
        t->Locker[number] = d;
        t->InUse++;
        t->Served++;
    }
    ExReleaseFastMutex(&t->Lock);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(d, TAG);
        return Finish(Irp, status, 0);
    }
    *answer = number;
    return Finish(Irp, STATUS_SUCCESS, sizeof *answer);
}

static NTSTATUS Withdraw(PTURNKEY t, PIRP Irp, PIO_STACK_LOCATION s)
{
    ULONG room = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    PDEPOSIT d;
    ULONG number, length = 0;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof number)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    number = *(PULONG)buffer;
    if (number >= LOCKERS)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&t->Lock);
    d = t->Locker[number];
    if (!d || d->Owner != s->FileObject) {
        d = NULL;
        status = STATUS_NOT_FOUND;
    } else if (room < d->Length) {
        d = NULL;
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        t->Locker[number] = NULL;
        t->InUse--;
    }
    ExReleaseFastMutex(&t->Lock);
    if (d) {
        length = d->Length;
        RtlCopyMemory(buffer, d->Data, length);
        ExFreePoolWithTag(d, TAG);
    }
    return Finish(Irp, status, length);
}

static NTSTATUS TurnkeyControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTURNKEY t = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TURNKEY_DEPOSIT:
        return Deposit(t, Irp, s);

    case IOCTL_TURNKEY_WITHDRAW:
        return Withdraw(t, Irp, s);

    case IOCTL_TURNKEY_STATUS: {
        PTURNKEY_STATUS out = Irp->AssociatedIrp.SystemBuffer;

        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *out)
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&t->Lock);
        out->Lockers = LOCKERS;
        out->InUse = t->InUse;
        out->Served = t->Served;
        ExReleaseFastMutex(&t->Lock);
        return Finish(Irp, STATUS_SUCCESS, sizeof *out);
    }

    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS TurnkeyCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* All requests of the handle are over: what it has left in the lockers goes. */
static NTSTATUS TurnkeyClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTURNKEY t = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG i;

    ExAcquireFastMutex(&t->Lock);
    for (i = 0; i < LOCKERS; i++) {
        PDEPOSIT d = t->Locker[i];

        if (d && d->Owner == file) {
            t->Locker[i] = NULL;
            t->InUse--;
            ExFreePoolWithTag(d, TAG);
        }
    }
    ExReleaseFastMutex(&t->Lock);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID TurnkeyUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PTURNKEY t;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = TurnkeyUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = TurnkeyCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TurnkeyCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TurnkeyClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TurnkeyControl;
    status = IoCreateDevice(Driver, sizeof *t, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    t = device->DeviceExtension;
    RtlZeroMemory(t, sizeof *t);
    ExInitializeFastMutex(&t->Lock);
    status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

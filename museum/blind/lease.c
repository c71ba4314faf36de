/*
 * A legacy driver that hands out leases: a handle takes a lease for some milliseconds, renews it, and asks whether it has run out.
 *
 * The bug: a handle's close frees its context with the lease's timer still set, so that the timer and its DPC work on freed pool.
 * Shows by: a handle takes a lease and is closed before the lease has run out.
 *
 * Device: none
 * Rule: freed-active-timer, freed-held-lock, use-after-free
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>

#define LEASE_TAG 'saeL'
#define LEASE_LONGEST 60000u                    /* ms */

#define IOCTL_LEASE_TAKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* in: ULONG, milliseconds */
#define IOCTL_LEASE_DROP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LEASE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* out: LEASE_STATE */

typedef struct _LEASE_STATE {
    ULONG Held;
    ULONG Expired;                              /* how often a lease of this handle has run out */
} LEASE_STATE, *PLEASE_STATE;

typedef struct _LEASE {
    KSPIN_LOCK Lock;
    KTIMER Timer;
    KDPC Dpc;
    ULONGLONG Until;                            /* interrupt time at which the lease runs out */
    BOOLEAN Held;
    ULONG Expired;
} LEASE, *PLEASE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Lease");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Lease");

static NTSTATUS LeaseComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI LeaseExpired(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLEASE lease = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&lease->Lock);
    if (lease->Held && KeQueryInterruptTime() >= lease->Until) {       /* else it was renewed or dropped meanwhile */
        lease->Held = FALSE;
        lease->Expired++;
    }
    KeReleaseSpinLockFromDpcLevel(&lease->Lock);
}

static NTSTATUS NTAPI LeaseCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLEASE lease;

    UNREFERENCED_PARAMETER(Device);
    if (file == NULL)
        return LeaseComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    lease = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*lease), LEASE_TAG);
    if (lease == NULL)
        return LeaseComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(lease, sizeof(*lease));
    KeInitializeSpinLock(&lease->Lock);
    KeInitializeTimer(&lease->Timer);
    KeInitializeDpc(&lease->Dpc, LeaseExpired, lease);
    file->FsContext = lease;
    return LeaseComplete(Irp, STATUS_SUCCESS, FILE_OPENED);
}

static NTSTATUS NTAPI LeaseCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return LeaseComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LeaseClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLEASE lease = file->FsContext;

    UNREFERENCED_PARAMETER(Device);
    file->FsContext = NULL;
#ifdef FIXED
    KeCancelTimer(&lease->Timer);
    KeFlushQueuedDpcs();
#endif
    ExFreePoolWithTag(lease, LEASE_TAG);
    return LeaseComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS LeaseTake(PLEASE Lease, ULONG Milliseconds)
{
    LARGE_INTEGER due;
    KIRQL irql;

    if (Milliseconds == 0 || Milliseconds > LEASE_LONGEST)
        return STATUS_INVALID_PARAMETER;
    due.QuadPart = -10000LL * Milliseconds;
    KeAcquireSpinLock(&Lease->Lock, &irql);
    Lease->Held = TRUE;
    Lease->Until = KeQueryInterruptTime() + 10000ULL * Milliseconds;
    KeSetTimer(&Lease->Timer, due, &Lease->Dpc);
    KeReleaseSpinLock(&Lease->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS LeaseDrop(PLEASE Lease)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Lease->Lock, &irql);
    if (Lease->Held) {
        Lease->Held = FALSE;
        KeCancelTimer(&Lease->Timer);
    } else
        status = STATUS_NOT_FOUND;
    KeReleaseSpinLock(&Lease->Lock, irql);
    return status;
}

static NTSTATUS NTAPI LeaseControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PLEASE lease = sp->FileObject->FsContext;
    PLEASE_STATE state;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LEASE_TAKE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return LeaseComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LeaseComplete(Irp, LeaseTake(lease, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);

    case IOCTL_LEASE_DROP:
        return LeaseComplete(Irp, LeaseDrop(lease), 0);

    case IOCTL_LEASE_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LEASE_STATE))
            return LeaseComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        state = Irp->AssociatedIrp.SystemBuffer;
        KeAcquireSpinLock(&lease->Lock, &irql);
        state->Held = lease->Held;
        state->Expired = lease->Expired;
        KeReleaseSpinLock(&lease->Lock, irql);
        return LeaseComplete(Irp, STATUS_SUCCESS, sizeof(*state));
    }
    return LeaseComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI LeaseUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = LeaseCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LeaseCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LeaseClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LeaseControl;
    Driver->DriverUnload = LeaseUnload;
    status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}

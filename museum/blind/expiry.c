/*
 * Hands out leases on a licence: a program takes a lease for some milliseconds by its handle and must renew it in time;
 * a lease that is not renewed is taken back by a timer.
 *
 * The bug: IRP_MJ_CLOSE cancels the timer of the handle and frees its context without waiting for a DPC under way.
 * Shows by: a handle is closed just when its lease runs out, with the DPC queued or running on another processor.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc
 * Needs: ioctl, schedule
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\Lease"
#define LINK_NAME   L"\\DosDevices\\Lease"

#define IOCTL_LEASE_TAKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG milliseconds; also renews */
#define IOCTL_LEASE_GIVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LEASE_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: LEASE_REPORT */

#define LEASE_SEATS     8
#define LEASE_MAXIMUM   (10 * 60 * 1000)

typedef struct _LEASE_REPORT {
    ULONG Held;       /* by this handle */
    ULONG RunOut;     /* of this handle */
    ULONG HeldByAll;
} LEASE_REPORT;

typedef struct _EXTENSION {
    KSPIN_LOCK Lock;
    ULONG Held;
} EXTENSION;

typedef struct _LEASE {
    EXTENSION *Ext;
    KTIMER Timer;
    KDPC Dpc;
    BOOLEAN Held;
    ULONGLONG Due;
    ULONG RunOut;
} LEASE;

static VOID NTAPI LeaseRunsOut(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    LEASE *lease = Context;
    EXTENSION *ext = lease->Ext;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (lease->Held && KeQueryInterruptTime() >= lease->Due) { /* else it has been renewed or given back since */
        lease->Held = FALSE;
        lease->RunOut++;
        ext->Held--;
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LEASE *lease;

    lease = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*lease), KIT_TAG);
    if (lease == NULL) {
        return KitComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlZeroMemory(lease, sizeof(*lease));
    lease->Ext = Device->DeviceExtension;
    KeInitializeTimer(&lease->Timer);
    KeInitializeDpc(&lease->Dpc, LeaseRunsOut, lease);
    file->FsContext = lease;
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    LEASE *lease = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;

    KeCancelTimer(&lease->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    KeAcquireSpinLock(&ext->Lock, &irql);
    if (lease->Held) {
        lease->Held = FALSE;
        ext->Held--;
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    ExFreePoolWithTag(lease, KIT_TAG);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Take(EXTENSION *Ext, LEASE *Lease, ULONG Milliseconds)
{
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER due;
    KIRQL irql;

    if (Milliseconds == 0 || Milliseconds > LEASE_MAXIMUM) {
        return STATUS_INVALID_PARAMETER;
    }
    due.QuadPart = -10000LL * Milliseconds;
    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (!Lease->Held && Ext->Held == LEASE_SEATS) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        if (!Lease->Held) {
            Lease->Held = TRUE;
            Ext->Held++;
        }
        Lease->Due = KeQueryInterruptTime() + 10000ULL * Milliseconds;
        KeSetTimer(&Lease->Timer, due, &Lease->Dpc);
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return status;
}

static NTSTATUS Give(EXTENSION *Ext, LEASE *Lease)
{
    NTSTATUS status = STATUS_NOT_FOUND;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Lease->Held) {
        Lease->Held = FALSE;
        Ext->Held--;
        KeCancelTimer(&Lease->Timer);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LEASE *lease = sp->FileObject->FsContext;
    LEASE_REPORT *report = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LEASE_TAKE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            status = Take(ext, lease, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        }
        break;
    case IOCTL_LEASE_GIVE:
        status = Give(ext, lease);
        break;
    case IOCTL_LEASE_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*report)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&ext->Lock, &irql);
        report->Held = lease->Held;
        report->RunOut = lease->RunOut;
        report->HeldByAll = ext->Held;
        KeReleaseSpinLock(&ext->Lock, irql);
        information = sizeof(*report);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs(); /* the last DPC may still have its last instructions to do */
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/*
 * An upper filter on the function device: it passes everything down, and holds its remove lock while a request is with the drivers below
 * where the page says so. Page: Filter Drivers; Using Remove Locks; Passing PnP IRPs Down the Device Stack.
 */
#ifndef CORRECT_PNP_FILTER_H
#define CORRECT_PNP_FILTER_H

/* On the way up: as pending as it was below. */
static NTSTATUS NTAPI FilterPassedUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS FilterRemove(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Extension->Lower;
    NTSTATUS Status;

    IoReleaseRemoveLockAndWait(&Extension->RemoveLock, Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = PassDown(Extension, Irp);
    IoDetachDevice(Lower);
    IoDeleteDevice(Extension->Self);
    return Status;
}

/* Every request of the filter's device. */
static NTSTATUS FilterPass(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        if (Stack->MajorFunction == IRP_MJ_POWER) {
            PoStartNextPowerIrp(Irp);
        }
        return Complete(Irp, Status, 0);
    }
    if (Stack->MajorFunction == IRP_MJ_PNP && Stack->MinorFunction == IRP_MN_REMOVE_DEVICE) {
        return FilterRemove(Extension, Irp);
    }
    if (Stack->MajorFunction == IRP_MJ_POWER) {
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        Status = PoCallDriver(Extension->Lower, Irp);
        IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
        return Status;
    }
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FilterPassedUp, Extension, TRUE, TRUE, TRUE);
    return IoCallDriver(Extension->Lower, Irp);
}

/* A filter may be missing: the device works without it. */
static VOID AddFilter(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;

    if (!NT_SUCCESS(IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                                   &Device))) {
        return;
    }
    Extension = Device->DeviceExtension;
    RtlZeroMemory(Extension, sizeof(*Extension));
    Extension->IsFilter = TRUE;
    Extension->Self = Device;
    Extension->Pdo = Pdo;
    IoInitializeRemoveLock(&Extension->RemoveLock, CORRECT_TAG, 0, 0);
    Extension->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Extension->Lower == NULL) {
        IoDeleteDevice(Device);
        return;
    }
    Device->Flags |= Extension->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE);
    Device->DeviceType = Extension->Lower->DeviceType;
    Device->Characteristics = Extension->Lower->Characteristics;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
}

#endif

/*
 * gauge.sys: the function driver of a device without hardware that is sampled: a thread of the driver's takes a sample every
 * 15 ms while the device is started. An application may pause and resume that (IOCTL_GAUGE_PAUSE, IOCTL_GAUGE_RESUME), and asks for
 * the number of samples and their sum (IOCTL_GAUGE_READ).
 *
 * The bug: StopSampler waits for the thread to end while it has the device's resource, which the thread takes for each sample. If
 * the thread has woken for a sample, and not for its end, it waits for the resource, and StopSampler for it.
 *
 * How it shows: sampling is paused (or the device stopped or removed) just when a sample is due. Both hang, and all who
 * use the device, for ever.
 *
 * Device: Root\Gauge
 * Rule: deadlock, irp-never-completed
 * Needs: ioctl, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>

DEFINE_GUID(GUID_DEVINTERFACE_GAUGE, 0x6c1b7a20, 0x51f4, 0x4d0e, 0x8a, 0x3f, 0x0b, 0x62, 0x1c, 0x9d, 0x44, 0x01);

#define IOCTL_GAUGE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GAUGE_PAUSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GAUGE_RESUME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define GAUGE_TAG 'guaG'

typedef struct _GAUGE *PGAUGE;

typedef struct _SAMPLER {
    PGAUGE Gauge;
    KEVENT End;
    HANDLE Thread; /* a kernel handle */
} SAMPLER, *PSAMPLER;

typedef struct _READING {
    ULONG Samples;
    ULONG Sum;
} READING, *PREADING;

typedef struct _GAUGE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Lower;
    UNICODE_STRING Interface;
    IO_REMOVE_LOCK RemoveLock;
    ERESOURCE Resource; /* of what follows */
    BOOLEAN Started;
    PSAMPLER Sampler; /* NULL: none */
    READING Reading;
} GAUGE;

DRIVER_INITIALIZE DriverEntry;

/* not in mingw's wdm.h */
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

static VOID Lock(PGAUGE Gauge)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Gauge->Resource, TRUE);
}

static VOID Unlock(PGAUGE Gauge)
{
    ExReleaseResourceLite(&Gauge->Resource);
    KeLeaveCriticalRegion();
}

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI SamplerThread(PVOID Context)
{
    PSAMPLER Sampler = Context;
    PGAUGE Gauge = Sampler->Gauge;
    LARGE_INTEGER Period;

    Period.QuadPart = -150000;
    while (KeWaitForSingleObject(&Sampler->End, Executive, KernelMode, FALSE, &Period) == STATUS_TIMEOUT) {
        Lock(Gauge);
        Gauge->Reading.Samples++;
        Gauge->Reading.Sum += Gauge->Reading.Samples & 0xFF;
        Unlock(Gauge);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* The resource is held. */
static NTSTATUS StartSampler(PGAUGE Gauge)
{
    OBJECT_ATTRIBUTES Attributes;
    PSAMPLER Sampler;
    NTSTATUS Status;

    if (Gauge->Sampler != NULL)
        return STATUS_SUCCESS;
    Sampler = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Sampler), GAUGE_TAG);
    if (Sampler == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Sampler->Gauge = Gauge;
    KeInitializeEvent(&Sampler->End, NotificationEvent, FALSE);
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Sampler->Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, SamplerThread, Sampler);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Sampler, GAUGE_TAG);
        return Status;
    }
    Gauge->Sampler = Sampler;
    return STATUS_SUCCESS;
}

static VOID StopSampler(PGAUGE Gauge, BOOLEAN Leaving)
{
    PSAMPLER Sampler;

    Lock(Gauge);
    if (Leaving)
        Gauge->Started = FALSE;
    Sampler = Gauge->Sampler;
    Gauge->Sampler = NULL;
#ifdef FIXED
    Unlock(Gauge);
#endif
    if (Sampler != NULL) {
        KeSetEvent(&Sampler->End, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Sampler->Thread, FALSE, NULL);
        ZwClose(Sampler->Thread);
        ExFreePoolWithTag(Sampler, GAUGE_TAG);
    }
#ifndef FIXED
    Unlock(Gauge);
#endif
}

static NTSTATUS Control(PGAUGE Gauge, PIRP Irp, PULONG_PTR Information)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_SUCCESS;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GAUGE_READ:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(READING))
            return STATUS_BUFFER_TOO_SMALL;
        Lock(Gauge);
        *(PREADING)Irp->AssociatedIrp.SystemBuffer = Gauge->Reading;
        Unlock(Gauge);
        *Information = sizeof(READING);
        return STATUS_SUCCESS;
    case IOCTL_GAUGE_PAUSE:
        StopSampler(Gauge, FALSE);
        return STATUS_SUCCESS;
    case IOCTL_GAUGE_RESUME:
        Lock(Gauge);
        Status = Gauge->Started ? StartSampler(Gauge) : STATUS_DEVICE_NOT_READY;
        Unlock(Gauge);
        return Status;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGAUGE Gauge = Device->DeviceExtension;
    ULONG_PTR Information = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&Gauge->RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    Status = Control(Gauge, Irp, &Information);
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&Gauge->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchDown(PDEVICE_OBJECT Device, PIRP Irp) /* power and WMI */
{
    PGAUGE Gauge = Device->DeviceExtension;
    BOOLEAN IsPower = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER;
    NTSTATUS Status = IoAcquireRemoveLock(&Gauge->RemoveLock, Irp);

    if (IsPower)
        PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IsPower ? PoCallDriver(Gauge->Lower, Irp) : IoCallDriver(Gauge->Lower, Irp);
    IoReleaseRemoveLock(&Gauge->RemoveLock, Irp);
    return Status;
}

static NTSTATUS Start(PGAUGE Gauge, PIRP Irp)
{
    NTSTATUS Status;

    if (!IoForwardIrpSynchronously(Gauge->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    Status = Irp->IoStatus.Status;
    if (!NT_SUCCESS(Status))
        return Status;
    Lock(Gauge);
    Status = StartSampler(Gauge);
    Gauge->Started = NT_SUCCESS(Status);
    Unlock(Gauge);
    if (NT_SUCCESS(Status))
        IoSetDeviceInterfaceState(&Gauge->Interface, TRUE); /* enabled already when it is started again: that is not an error of ours */
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGAUGE Gauge = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status = IoAcquireRemoveLock(&Gauge->RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        Status = Complete(Irp, Start(Gauge, Irp), 0);
        IoReleaseRemoveLock(&Gauge->RemoveLock, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
        StopSampler(Gauge, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&Gauge->Interface, FALSE);
        StopSampler(Gauge, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&Gauge->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&Gauge->RemoveLock, Irp);
        StopSampler(Gauge, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Gauge->Lower, Irp);
        IoDetachDevice(Gauge->Lower);
        RtlFreeUnicodeString(&Gauge->Interface);
        ExDeleteResourceLite(&Gauge->Resource);
        IoDeleteDevice(Device);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Gauge->Lower, Irp);
    IoReleaseRemoveLock(&Gauge->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PGAUGE Gauge;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(GAUGE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status))
        return Status;
    Gauge = Device->DeviceExtension;
    Gauge->Self = Device;
    IoInitializeRemoveLock(&Gauge->RemoveLock, GAUGE_TAG, 0, 0);
    Status = ExInitializeResourceLite(&Gauge->Resource);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &GUID_DEVINTERFACE_GAUGE, NULL, &Gauge->Interface);
    if (NT_SUCCESS(Status)) {
        Gauge->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
        if (Gauge->Lower == NULL) {
            RtlFreeUnicodeString(&Gauge->Interface);
            Status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(Status)) {
        ExDeleteResourceLite(&Gauge->Resource);
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchDown;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchDown;
    return STATUS_SUCCESS;
}

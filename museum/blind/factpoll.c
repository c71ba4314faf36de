/*
 * edufact.sys - Factorial unit of the EDU card (QEMU -device edu)
 *
 * IOCTL_FACT_COMPUTE gives n! (mod 2^32) as worked out by the card. Course
 * material: memory-mapped registers and polling, no interrupts.
 *
 * The bug: the unit is waited for without a limit while its status says that it is busy, as it does when it has gone.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, stuck
 * Needs: removal, device
 */
#include <initguid.h>
#include <ddk/wdm.h>

#define FACT_TAG                'tcaF'

#define IOCTL_FACT_COMPUTE      ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS))
#define IOCTL_FACT_IDENTIFY     ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS))

#define EDU_ID                  0x00
#define EDU_LIVENESS            0x04
#define EDU_FACTORIAL           0x08
#define EDU_STATUS              0x20
#define EDU_STATUS_COMPUTING    0x01
#define EDU_WINDOW              0x100

DEFINE_GUID(GUID_EDUFACT, 0x2a1b9d44, 0x6a4a, 0x44a2, 0xa1, 0x23, 0x5f, 0x0d, 0x5d, 0x42, 0x8b, 0x3e);

typedef struct _FACT_EXTENSION {
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    KEVENT Gate;                /* signalled: the card is free */
    PUCHAR Registers;           /* under Gate; NULL: no card */
} FACT_EXTENSION, *PFACT_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG EduRead(PFACT_EXTENSION Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Registers + Offset));
}

static VOID EduWrite(PFACT_EXTENSION Ext, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Registers + Offset), Value);
}

static VOID FactEnter(PFACT_EXTENSION Ext)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Ext->Gate, Executive, KernelMode, FALSE, NULL);
}

static VOID FactLeave(PFACT_EXTENSION Ext)
{
    KeSetEvent(&Ext->Gate, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

/* Gate held. Waits for the unit to be idle. */
static NTSTATUS FactWaitIdle(PFACT_EXTENSION Ext)
{
    LARGE_INTEGER tick;
#ifdef FIXED
    ULONG tries;
#endif

    tick.QuadPart = -10000;     /* 1 ms */
#ifdef FIXED
    for (tries = 0; EduRead(Ext, EDU_STATUS) & EDU_STATUS_COMPUTING; tries++) {
        if (tries == 200)
            return STATUS_IO_TIMEOUT;
        KeDelayExecutionThread(KernelMode, FALSE, &tick);
    }
#else
    while (EduRead(Ext, EDU_STATUS) & EDU_STATUS_COMPUTING)
        KeDelayExecutionThread(KernelMode, FALSE, &tick);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS FactCompute(PFACT_EXTENSION Ext, ULONG N, PULONG Result)
{
    NTSTATUS status;

    FactEnter(Ext);
    if (Ext->Registers == NULL) {
        status = STATUS_DEVICE_NOT_READY;
    } else {
        status = FactWaitIdle(Ext);
        if (NT_SUCCESS(status)) {
            EduWrite(Ext, EDU_FACTORIAL, N);
            status = FactWaitIdle(Ext);
        }
        if (NT_SUCCESS(status))
            *Result = EduRead(Ext, EDU_FACTORIAL);
    }
    FactLeave(Ext);
    return status;
}

static NTSTATUS NTAPI FactDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PFACT_EXTENSION ext = DeviceObject->DeviceExtension;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG result = 0;

    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
        if (NT_SUCCESS(status)) {
            if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
            } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_FACT_COMPUTE) {
                if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
                    status = STATUS_BUFFER_TOO_SMALL;
                else
                    status = FactCompute(ext, *buffer, &result);
            } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_FACT_IDENTIFY) {
                FactEnter(ext);
                if (ext->Registers != NULL)
                    result = EduRead(ext, EDU_ID);
                else
                    status = STATUS_DEVICE_NOT_READY;
                FactLeave(ext);
            } else {
                status = STATUS_INVALID_DEVICE_REQUEST;
            }
            if (NT_SUCCESS(status)) {
                *buffer = result;
                information = sizeof(ULONG);
            }
            IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        }
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS FactStart(PFACT_EXTENSION Ext, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    PUCHAR registers = NULL;
    ULONG i;

    if (List == NULL || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    for (i = 0; i < List->List[0].PartialResourceList.Count && registers == NULL; i++) {
        d = &List->List[0].PartialResourceList.PartialDescriptors[i];
        if (d->Type != CmResourceTypeMemory)
            continue;
        if (d->u.Memory.Length < EDU_WINDOW)
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        registers = MmMapIoSpace(d->u.Memory.Start, EDU_WINDOW, MmNonCached);
        if (registers == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    WRITE_REGISTER_ULONG((PULONG)(registers + EDU_LIVENESS), 0x5A5A0F0F);
    if (READ_REGISTER_ULONG((PULONG)(registers + EDU_LIVENESS)) != (ULONG)~0x5A5A0F0F) {
        MmUnmapIoSpace(registers, EDU_WINDOW);
        return STATUS_DEVICE_DOES_NOT_EXIST;
    }
    FactEnter(Ext);
    Ext->Registers = registers;
    FactLeave(Ext);
    return STATUS_SUCCESS;
}

static VOID FactStop(PFACT_EXTENSION Ext)
{
    FactEnter(Ext);
    if (Ext->Registers != NULL) {
        MmUnmapIoSpace(Ext->Registers, EDU_WINDOW);
        Ext->Registers = NULL;
    }
    FactLeave(Ext);
}

static NTSTATUS NTAPI FactPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PFACT_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(ext->Lower, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(Irp->IoStatus.Status))
            Irp->IoStatus.Status = FactStart(ext, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            IoSetDeviceInterfaceState(&ext->Interface, TRUE);
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        FactStop(ext);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    if (sp->MinorFunction != IRP_MN_REMOVE_DEVICE) {
        status = IoCallDriver(ext->Lower, Irp);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    }
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
    IoDetachDevice(ext->Lower);
    RtlFreeUnicodeString(&ext->Interface);
    IoDeleteDevice(DeviceObject);
    return status;
}

static NTSTATUS NTAPI FactPassDown(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFACT_EXTENSION ext = DeviceObject->DeviceExtension;
    BOOLEAN power = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER;
    NTSTATUS status;

    if (power)
        PoStartNextPowerIrp(Irp);
    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = power ? PoCallDriver(ext->Lower, Irp) : IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FactAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PFACT_EXTENSION ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(*ext), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    IoInitializeRemoveLock(&ext->RemoveLock, FACT_TAG, 0, 0);
    KeInitializeEvent(&ext->Gate, SynchronizationEvent, TRUE);
    status = IoRegisterDeviceInterface(PhysicalDeviceObject, &GUID_EDUFACT, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(device, PhysicalDeviceObject);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FactUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = FactDispatch;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = FactDispatch;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FactDispatch;
    DriverObject->MajorFunction[IRP_MJ_PNP] = FactPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = FactPassDown;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FactPassDown;
    DriverObject->DriverExtension->AddDevice = FactAddDevice;
    DriverObject->DriverUnload = FactUnload;
    return STATUS_SUCCESS;
}

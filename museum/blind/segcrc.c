/*
 * segcrc.sys - CRC-32 over scattered user buffers
 *
 * Storage test tools compare large scatter lists. IOCTL_SEG_CRC takes up to 16
 * (address, length) segments of the caller's memory and gives the CRC-32 over
 * all of them in order; IOCTL_SEG_FILL writes a pattern into them. The
 * segments are locked for the time of the request.
 *
 * The bug: an MDL is freed with its pages locked where it cannot be mapped.
 *
 * Device: none
 * Rule: mdl-freed-locked
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/guarded.h"

#define SEG_POOL            'rCgS'
#define SEG_MAX_SEGMENTS    16
#define SEG_MAX_LENGTH      (1024 * 1024)

#define IOCTL_SEG_CRC       CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB00, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SEG_FILL      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB01, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _SEG_SEGMENT {
    ULONG64 Address;
    ULONG Length;
    ULONG Reserved;
} SEG_SEGMENT, *PSEG_SEGMENT;

typedef struct _SEG_REQUEST {
    ULONG Pattern;
    ULONG Count;
    SEG_SEGMENT Segments[ANYSIZE_ARRAY];
} SEG_REQUEST, *PSEG_REQUEST;

typedef struct _SEG_LOCKED {
    PMDL Mdl;
    PUCHAR Va;
    ULONG Length;
} SEG_LOCKED, *PSEG_LOCKED;

typedef struct _SEG_JOB {
    ULONG Count;
    SEG_LOCKED Locked[SEG_MAX_SEGMENTS];
} SEG_JOB, *PSEG_JOB;

typedef struct _SEG_EXTENSION {
    UNICODE_STRING Link;
    ULONG Table[256];
    volatile LONG Requests;
} SEG_EXTENSION, *PSEG_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static VOID SegUnlockJob(PSEG_JOB Job)
{
    while (Job->Count > 0) {
        PMDL mdl = Job->Locked[--Job->Count].Mdl;
        MmUnlockPages(mdl);
        IoFreeMdl(mdl);
    }
}

static NTSTATUS SegLockOne(PSEG_LOCKED Locked, PSEG_SEGMENT Segment, KPROCESSOR_MODE Mode, LOCK_OPERATION Operation)
{
    NTSTATUS status;

    if (Segment->Length == 0 || Segment->Length > SEG_MAX_LENGTH)
        return STATUS_INVALID_PARAMETER;

    Locked->Length = Segment->Length;
    Locked->Mdl = IoAllocateMdl((PVOID)(ULONG_PTR)Segment->Address, Segment->Length, FALSE, FALSE, NULL);
    if (Locked->Mdl == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    status = GuardedLock(Locked->Mdl, Mode, Operation);
    if (!NT_SUCCESS(status)) {
        IoFreeMdl(Locked->Mdl);
        return status;
    }

    Locked->Va = MmGetSystemAddressForMdlSafe(Locked->Mdl, NormalPagePriority);
    if (Locked->Va == NULL) {
#ifdef FIXED
        MmUnlockPages(Locked->Mdl);
#endif
        IoFreeMdl(Locked->Mdl);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS SegLockJob(PSEG_JOB Job, PSEG_REQUEST Request, KPROCESSOR_MODE Mode, LOCK_OPERATION Operation)
{
    NTSTATUS status;
    ULONG i;

    for (i = 0; i < Request->Count; i++) {
        status = SegLockOne(&Job->Locked[Job->Count], &Request->Segments[i], Mode, Operation);
        if (!NT_SUCCESS(status)) {
            SegUnlockJob(Job);
            return status;
        }
        Job->Count++;
    }
    return STATUS_SUCCESS;
}

static ULONG SegCrc(PSEG_EXTENSION Ext, PSEG_JOB Job)
{
    ULONG crc = 0xFFFFFFFF, i, k;

    for (i = 0; i < Job->Count; i++) {
        for (k = 0; k < Job->Locked[i].Length; k++)
            crc = Ext->Table[(crc ^ Job->Locked[i].Va[k]) & 0xFF] ^ (crc >> 8);
    }
    return ~crc;
}

static VOID SegFill(PSEG_JOB Job, UCHAR Pattern)
{
    ULONG i;

    for (i = 0; i < Job->Count; i++)
        RtlFillMemory(Job->Locked[i].Va, Job->Locked[i].Length, Pattern);
}

static NTSTATUS NTAPI SegDeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSEG_EXTENSION ext = DeviceObject->DeviceExtension;
    PSEG_REQUEST request = Irp->AssociatedIrp.SystemBuffer;
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;
    PSEG_JOB job;

    if (code != (ULONG)IOCTL_SEG_CRC && code != (ULONG)IOCTL_SEG_FILL) {
        status = STATUS_INVALID_DEVICE_REQUEST;
        goto Done;
    }
    if (in < FIELD_OFFSET(SEG_REQUEST, Segments) || (code == (ULONG)IOCTL_SEG_CRC && out < sizeof(ULONG))) {
        status = STATUS_BUFFER_TOO_SMALL;
        goto Done;
    }
    if (request->Count == 0 || request->Count > SEG_MAX_SEGMENTS ||
        request->Count > (in - FIELD_OFFSET(SEG_REQUEST, Segments)) / sizeof(SEG_SEGMENT)) {
        status = STATUS_INVALID_PARAMETER;
        goto Done;
    }
    job = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*job), SEG_POOL);
    if (job == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto Done;
    }
    RtlZeroMemory(job, sizeof(*job));
    InterlockedIncrement(&ext->Requests);

    status = SegLockJob(job, request, Irp->RequestorMode, code == (ULONG)IOCTL_SEG_FILL ? IoWriteAccess : IoReadAccess);
    if (NT_SUCCESS(status)) {
        if (code == (ULONG)IOCTL_SEG_FILL) {
            SegFill(job, (UCHAR)request->Pattern);
        } else {
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = SegCrc(ext, job);
            information = sizeof(ULONG);
        }
        SegUnlockJob(job);
    }
    ExFreePoolWithTag(job, SEG_POOL);

Done:
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI SegCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI SegUnload(PDRIVER_OBJECT DriverObject)
{
    PSEG_EXTENSION ext = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&ext->Link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\SegCrc");
    PDEVICE_OBJECT device;
    PSEG_EXTENSION ext;
    NTSTATUS status;
    ULONG i, k, c;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SegCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SegCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SegDeviceControl;
    DriverObject->DriverUnload = SegUnload;

    status = IoCreateDevice(DriverObject, sizeof(SEG_EXTENSION), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    RtlInitUnicodeString(&ext->Link, L"\\DosDevices\\SegCrc");
    for (i = 0; i < 256; i++) {
        for (c = i, k = 0; k < 8; k++)
            c = c & 1 ? 0xEDB88320 ^ (c >> 1) : c >> 1;
        ext->Table[i] = c;
    }

    status = IoCreateSymbolicLink(&ext->Link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

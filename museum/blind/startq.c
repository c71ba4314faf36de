/*
 * Slow calculator: requests are served one at a time through StartIo; each takes some milliseconds of a timer.
 *
 * The bug: a request with an unknown operation is ended without starting the next packet; from then on the device
 * counts as busy and all further requests wait in the device queue.
 *
 * Device: none
 * Rule: irp-never-completed
 * Needs: ioctl
 * Symptom: hang: every request after one with a bad operation stays pending, the process cannot exit.
 */
#include <ddk/wdm.h>

#define IOCTL_CALC CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_DATA | FILE_WRITE_DATA)

enum { OP_ADD, OP_SUB, OP_MUL, OP_DIV };

typedef struct _CALC {
    ULONG Operation;
    ULONG Left;
    ULONG Right;
    ULONG Result;
} CALC, *PCALC;

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Self;
    KTIMER Timer;
    KDPC Dpc;
    KDPC RejectDpc;
    ULONG Served;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static NTSTATUS SqComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI SqCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return SqComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SqClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return SqComplete(Irp, STATUS_SUCCESS, 0);
}

/* The answer is due. Dispatch level. */
static VOID NTAPI SqTimer(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PDEVICE_EXTENSION ext = Context;
    PIRP irp = ext->Self->CurrentIrp;
    PCALC calc = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    switch (calc->Operation) {
    case OP_ADD:
        calc->Result = calc->Left + calc->Right;
        break;
    case OP_SUB:
        calc->Result = calc->Left - calc->Right;
        break;
    case OP_MUL:
        calc->Result = calc->Left * calc->Right;
        break;
    case OP_DIV:
        if (calc->Right == 0) {
            status = STATUS_INTEGER_DIVIDE_BY_ZERO;
        } else {
            calc->Result = calc->Left / calc->Right;
        }
        break;
    }
    ext->Served++;
    IoStartNextPacket(ext->Self, FALSE);
    SqComplete(irp, status, NT_SUCCESS(status) ? sizeof(CALC) : 0);
}

/* Ends a request that StartIo does not like: not in StartIo itself, which would call itself for the next one. */
static VOID NTAPI SqReject(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PDEVICE_EXTENSION ext = Context;
    PIRP irp = ext->Self->CurrentIrp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    IoStartNextPacket(ext->Self, FALSE);
#endif
    SqComplete(irp, STATUS_INVALID_PARAMETER, 0);
}

static VOID NTAPI SqStartIo(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_EXTENSION ext = DeviceObject->DeviceExtension;
    PCALC calc = Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER due;

    if (calc->Operation > OP_DIV) {
        KeInsertQueueDpc(&ext->RejectDpc, NULL, NULL);
        return;
    }
    due.QuadPart = calc->Operation >= OP_MUL ? -20 * 10000 : -5 * 10000;
    KeSetTimer(&ext->Timer, due, &ext->Dpc);
}

static NTSTATUS NTAPI SqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_CALC) {
        return SqComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(CALC)
        || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CALC)) {
        return SqComplete(Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
    }
    /* No cancel routine: a request is over within milliseconds. */
    IoMarkIrpPending(Irp);
    IoStartPacket(DeviceObject, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static VOID NTAPI SqUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\StartQ");

    KeFlushQueuedDpcs();        /* the DPC that ended the last request may still be on its way out */
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\StartQ");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\StartQ");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(DEVICE_EXTENSION), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    PDEVICE_EXTENSION ext = device->DeviceExtension;
    ext->Self = device;
    KeInitializeTimer(&ext->Timer);
    KeInitializeDpc(&ext->Dpc, SqTimer, ext);
    KeInitializeDpc(&ext->RejectDpc, SqReject, ext);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = SqUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SqCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SqClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SqControl;
    DriverObject->DriverStartIo = SqStartIo;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

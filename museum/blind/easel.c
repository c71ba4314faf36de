/*
 * easel: paints patterns straight into the buffers of programs: the program says where its picture lies, how long
 * it is and which pattern is to be painted. A small history says what was painted last.
 *
 * The bug: the picture's pages are locked (MmProbeAndLockPages) outside of any __try, so that a bad address raises an
 * exception that is not handled.
 *
 * Device: none
 * Rule: unhandled-exception
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/try.h"

#define IOCTL_EASEL_PAINT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_EASEL_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LARGEST_PICTURE (1024 * 1024)
#define HISTORY 8

typedef struct _PAINT {
    ULONGLONG Picture;
    ULONG Length;
    ULONG Pattern;      /* 0 plain, 1 stripes, 2 slope */
    UCHAR Colour[4];
    ULONG Reserved;
} PAINT, *PPAINT;

typedef struct _STROKE {
    ULONG Length;
    ULONG Pattern;
    ULONG Number;
} STROKE, *PSTROKE;

typedef struct _EASEL {
    KSPIN_LOCK Lock;
    ULONG Strokes;
    STROKE History[HISTORY];
} EASEL, *PEASEL;

static NTSTATUS Capture(PIRP irp, PIO_STACK_LOCATION stack, PPAINT p)
{
    NTSTATUS status = STATUS_SUCCESS;
    PVOID in = stack->Parameters.DeviceIoControl.Type3InputBuffer;

    if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof *p)
        return STATUS_BUFFER_TOO_SMALL;
    __try {
        if (irp->RequestorMode != KernelMode)
            ProbeForRead(in, sizeof *p, 1);
        RtlCopyMemory(p, in, sizeof *p);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = (NTSTATUS)_exception_code();
    }
    return status;
}

static NTSTATUS Lock(PMDL mdl, KPROCESSOR_MODE mode)
{
    NTSTATUS status = STATUS_SUCCESS;

#ifdef FIXED
    __try {
        MmProbeAndLockPages(mdl, mode, IoWriteAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = (NTSTATUS)_exception_code();
    }
#else
    MmProbeAndLockPages(mdl, mode, IoWriteAccess);
#endif
    return status;
}

static VOID Draw(PUCHAR out, PPAINT p)
{
    ULONG i;

    for (i = 0; i < p->Length; i++) {
        switch (p->Pattern) {
        case 0:
            out[i] = p->Colour[i & 3];
            break;
        case 1:
            out[i] = (i / 64) & 1 ? p->Colour[i & 3] : 0;
            break;
        default:
            out[i] = (UCHAR)(p->Colour[i & 3] + i / 256);
        }
    }
}

static NTSTATUS Paint(PEASEL easel, PIRP irp, PIO_STACK_LOCATION stack)
{
    PAINT p;
    PMDL mdl;
    PUCHAR mapped;
    PSTROKE stroke;
    KIRQL irql;
    NTSTATUS status = Capture(irp, stack, &p);

    if (!NT_SUCCESS(status))
        return status;
    if (p.Length == 0 || p.Length > LARGEST_PICTURE || p.Pattern > 2)
        return STATUS_INVALID_PARAMETER;

    mdl = IoAllocateMdl((PVOID)(ULONG_PTR)p.Picture, p.Length, FALSE, FALSE, NULL);
    if (mdl == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = Lock(mdl, irp->RequestorMode);
    if (!NT_SUCCESS(status)) {
        IoFreeMdl(mdl);
        return status;
    }
    mapped = MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority);
    if (mapped != NULL)
        Draw(mapped, &p);
    else
        status = STATUS_INSUFFICIENT_RESOURCES;
    MmUnlockPages(mdl);
    IoFreeMdl(mdl);
    if (!NT_SUCCESS(status))
        return status;

    KeAcquireSpinLock(&easel->Lock, &irql);
    stroke = &easel->History[easel->Strokes % HISTORY];
    stroke->Length = p.Length;
    stroke->Pattern = p.Pattern;
    stroke->Number = ++easel->Strokes;
    KeReleaseSpinLock(&easel->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS History(PEASEL easel, PIRP irp, ULONG out, PULONG_PTR info)
{
    KIRQL irql;

    if (out < sizeof easel->History)
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&easel->Lock, &irql);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, easel->History, sizeof easel->History);
    KeReleaseSpinLock(&easel->Lock, irql);
    *info = sizeof easel->History;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EaselControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EASEL_PAINT:
        status = Paint(dev->DeviceExtension, irp, stack);
        break;
    case IOCTL_EASEL_HISTORY:
        status = History(dev->DeviceExtension, irp, stack->Parameters.DeviceIoControl.OutputBufferLength, &info);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI EaselCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI EaselUnload(PDRIVER_OBJECT driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Easel");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Easel"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\Easel");
    PDEVICE_OBJECT dev;
    PEASEL easel;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(EASEL), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    easel = dev->DeviceExtension;
    RtlZeroMemory(easel, sizeof *easel);
    KeInitializeSpinLock(&easel->Lock);
    driver->MajorFunction[IRP_MJ_CREATE] = EaselCreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = EaselCreateClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EaselControl;
    driver->DriverUnload = EaselUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}

/*
 * bulrush: checks and mixes large buffers of programs without copying them. A program gives its data as the input of a METHOD_NEITHER request; the driver locks
 * and maps its pages, and answers with a checksum, or stores the mixed bytes into the program's second buffer.
 *
 * The bug: if the pages of the second buffer are locked, but cannot be mapped, its MDL is freed without unlocking them. The pages stay locked for ever.
 *
 * Device: none
 * Compiler: clang
 * Rule: mdl-freed-locked, locked-pages-leak
 * Needs: ioctl, failure
 */
#include "../include/ward_seh.h"
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

#define IOCTL_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_MIX CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_NEITHER, FILE_ANY_ACCESS)

#define DEVICE_NAME L"\\Device\\Bulrush"
#define LINK_NAME   L"\\DosDevices\\Bulrush"
#define MOST        0x40000u

typedef struct _PANE {
    PMDL Mdl;
    PUCHAR At;
} PANE;

static PDEVICE_OBJECT Control;

static void Unpin(PANE *p)
{
    if (p->Mdl) {
        MmUnlockPages(p->Mdl);
        IoFreeMdl(p->Mdl);
    }
    p->Mdl = NULL;
    p->At = NULL;
}

/* Locks and maps a program's bytes for reading. */
static NTSTATUS PinSource(PANE *p, PVOID at, ULONG length, KPROCESSOR_MODE mode)
{
    NTSTATUS status = STATUS_SUCCESS;
    p->At = NULL;
    p->Mdl = IoAllocateMdl(at, length, FALSE, FALSE, NULL);
    if (!p->Mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        MmProbeAndLockPages(p->Mdl, mode, IoReadAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
    }
    if (!NT_SUCCESS(status)) {
        IoFreeMdl(p->Mdl);
        p->Mdl = NULL;
        return status;
    }
    p->At = MmGetSystemAddressForMdlSafe(p->Mdl, MAP_PRIORITY);
    if (!p->At) {
        Unpin(p);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

/* The same for the buffer that is written to. */
static NTSTATUS PinTarget(PANE *p, PVOID at, ULONG length, KPROCESSOR_MODE mode)
{
    NTSTATUS status = STATUS_SUCCESS;
    p->At = NULL;
    p->Mdl = IoAllocateMdl(at, length, FALSE, FALSE, NULL);
    if (!p->Mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        MmProbeAndLockPages(p->Mdl, mode, IoWriteAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
    }
    if (NT_SUCCESS(status)) {
        p->At = MmGetSystemAddressForMdlSafe(p->Mdl, MAP_PRIORITY);
        if (p->At)
            return STATUS_SUCCESS;
        status = STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
        MmUnlockPages(p->Mdl);
#endif
    }
    IoFreeMdl(p->Mdl);
    p->Mdl = NULL;
    return status;
}

static ULONG Adler(const volatile UCHAR *at, ULONG length)
{
    ULONG a = 1, b = 0, n;
    for (n = 0; n < length; n++) {
        a = (a + at[n]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static NTSTATUS DoSum(PVOID in, ULONG inLength, PVOID out, ULONG outLength, KPROCESSOR_MODE mode, ULONG_PTR *information)
{
    PANE source;
    ULONG sum;
    NTSTATUS status;

    if (inLength == 0 || inLength > MOST)
        return STATUS_INVALID_PARAMETER;
    if (outLength < sizeof sum)
        return STATUS_BUFFER_TOO_SMALL;
    status = PinSource(&source, in, inLength, mode);
    if (!NT_SUCCESS(status))
        return status;
    sum = Adler(source.At, inLength);
    Unpin(&source);
    __try {
        if (mode != KernelMode)
            ProbeForWrite(out, sizeof sum, 1);
        RtlCopyMemory(out, &sum, sizeof sum);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    *information = sizeof sum;
    return STATUS_SUCCESS;
}

static NTSTATUS DoMix(PVOID in, ULONG inLength, PVOID out, ULONG outLength, KPROCESSOR_MODE mode, ULONG_PTR *information)
{
    PANE source, target;
    const volatile UCHAR *from;
    UCHAR state = 0x5A;
    ULONG n;
    NTSTATUS status;

    if (inLength == 0 || inLength > MOST)
        return STATUS_INVALID_PARAMETER;
    if (outLength < inLength)
        return STATUS_BUFFER_TOO_SMALL;
    status = PinSource(&source, in, inLength, mode);
    if (!NT_SUCCESS(status))
        return status;
    status = PinTarget(&target, out, inLength, mode);
    if (!NT_SUCCESS(status)) {
        Unpin(&source);
        return status;
    }
    from = source.At;
    for (n = 0; n < inLength; n++) {
        UCHAR byte = from[n];
        target.At[n] = (UCHAR)(byte ^ state);
        state = (UCHAR)(state * 5 + byte + 1);
    }
    Unpin(&target);
    Unpin(&source);
    *information = inLength;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BulrushControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID from = sp->Parameters.DeviceIoControl.Type3InputBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUM:
        status = DoSum(from, in, irp->UserBuffer, out, irp->RequestorMode, &information);
        break;
    case IOCTL_MIX:
        status = DoMix(from, in, irp->UserBuffer, out, irp->RequestorMode, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Answer(irp, status, information);
}

static VOID NTAPI BulrushUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    BoothShut(Control, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status = BoothOpen(driver, DEVICE_NAME, LINK_NAME, 0, 0, &Control);
    UNREFERENCED_PARAMETER(path);
    if (!NT_SUCCESS(status))
        return status;
    driver->DriverUnload = BulrushUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLOSE] = BoothNod;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BulrushControl;
    BoothServe(Control);
    return STATUS_SUCCESS;
}

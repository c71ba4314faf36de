/*
 * ledwall: frame buffer of a wall of 64 x 32 lamps, root-enumerated. Writes and reads (direct I/O) move pixels of 3 bytes at a byte offset;
 * requests fill the wall and set the brightness.
 *
 * The bug: a write of no bytes passes all checks, but has no MDL: the driver maps and uses a null pointer.
 *
 * Device: ROOT\LEDWALL
 * Rule: wild-read, bad-pointer, protection-fault
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define TAG 'wdeL'

#define IOCTL_LEDWALL_FILL       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LEDWALL_BRIGHTNESS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LEDWALL_INFO       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define WIDTH 64
#define HEIGHT 32
#define PIXEL 3
#define WALL_BYTES (WIDTH * HEIGHT * PIXEL)

static const GUID LedwallClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x05 } };

typedef struct {
    ULONG Width, Height, Brightness, Frames;
} INFO;

typedef struct {
    FRAME Frame;
    FAST_MUTEX Mutex;
    UCHAR *Pixels;
    ULONG Brightness;
    ULONG Frames;
} WALL;

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    WALL *w = (WALL *)F;

    UNREFERENCED_PARAMETER(Translated);
    w->Pixels = ExAllocatePoolWithTag(PagedPool, WALL_BYTES, TAG);
    if (!w->Pixels)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(w->Pixels, WALL_BYTES);
    w->Frames = 0;
    return STATUS_SUCCESS;
}

static void Stop(FRAME *F)
{
    WALL *w = (WALL *)F;

    ExFreePoolWithTag(w->Pixels, TAG);
    w->Pixels = NULL;
}

/* Whole pixels within the wall? */
static BOOLEAN Fits(LONGLONG Offset, ULONG Length)
{
    return Offset >= 0 && Offset <= WALL_BYTES && Offset % PIXEL == 0 && Length % PIXEL == 0 && Length <= WALL_BYTES - (ULONG)Offset;
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Device, PIRP Irp)
{
    WALL *w = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = sp->Parameters.Write.ByteOffset.QuadPart;
    ULONG length = sp->Parameters.Write.Length, i;
    const UCHAR *source;
    UCHAR *target;
    NTSTATUS status;

    status = FrameBegin(&w->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    if (!Fits(offset, length))
        return FrameEnd(&w->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
#ifdef FIXED
    if (length == 0)
        return FrameEnd(&w->Frame, Irp, STATUS_SUCCESS, 0);
#endif
    source = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!source)
        return FrameEnd(&w->Frame, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExAcquireFastMutex(&w->Mutex);
    target = w->Pixels + (ULONG)offset;
    for (i = 0; i < length; i++)
        target[i] = (UCHAR)(source[i] * w->Brightness / 100);
    w->Frames++;
    ExReleaseFastMutex(&w->Mutex);
    return FrameEnd(&w->Frame, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    WALL *w = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = sp->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = sp->Parameters.Read.Length;
    UCHAR *target;
    NTSTATUS status;

    status = FrameBegin(&w->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    if (offset < 0 || offset >= WALL_BYTES || length == 0)
        return FrameEnd(&w->Frame, Irp, length ? STATUS_END_OF_FILE : STATUS_SUCCESS, 0);
    if (length > WALL_BYTES - (ULONG)offset)
        length = WALL_BYTES - (ULONG)offset;
    target = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!target)
        return FrameEnd(&w->Frame, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExAcquireFastMutex(&w->Mutex);
    RtlCopyMemory(target, w->Pixels + (ULONG)offset, length);
    ExReleaseFastMutex(&w->Mutex);
    return FrameEnd(&w->Frame, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    WALL *w = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    UCHAR *bytes = Irp->AssociatedIrp.SystemBuffer;
    INFO *info = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG value, i;

    status = FrameBegin(&w->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LEDWALL_FILL:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < PIXEL)
            return FrameEnd(&w->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&w->Mutex);
        for (i = 0; i < WALL_BYTES; i++)
            w->Pixels[i] = (UCHAR)(bytes[i % PIXEL] * w->Brightness / 100);
        w->Frames++;
        ExReleaseFastMutex(&w->Mutex);
        return FrameEnd(&w->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_LEDWALL_BRIGHTNESS:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrameEnd(&w->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        value = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (value > 100)
            return FrameEnd(&w->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&w->Mutex);
        w->Brightness = value;
        ExReleaseFastMutex(&w->Mutex);
        return FrameEnd(&w->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_LEDWALL_INFO:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(INFO))
            return FrameEnd(&w->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&w->Mutex);
        info->Width = WIDTH;
        info->Height = HEIGHT;
        info->Brightness = w->Brightness;
        info->Frames = w->Frames;
        ExReleaseFastMutex(&w->Mutex);
        return FrameEnd(&w->Frame, Irp, STATUS_SUCCESS, sizeof(INFO));
    }
    return FrameEnd(&w->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    WALL *w;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(WALL), &LedwallClass, DO_DIRECT_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    w = (WALL *)f;
    f->Start = Start;
    f->Stop = Stop;
    ExInitializeFastMutex(&w->Mutex);
    w->Brightness = 100;
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}

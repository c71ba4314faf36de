/*
 * pcmconv: a converter of sound without hardware. Each program that opens it chooses a format, reserves room for some frames,
 * writes them, and takes them back as one channel of 16 bits.
 *
 * The bug: choosing another format keeps the room that was reserved with the old one; room is counted in frames, so
 * writing larger frames runs past the end of the buffer (and mixing reads past it).
 *
 * Device: none
 * Rule: pool-overrun, wild-write, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define MOST_FRAMES 4096
#define MOST_CHANNELS 8

#define IOCTL_PCM_FORMAT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PCM_RESERVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PCM_MIX CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PCM_REWIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x824, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PCM_FORMAT {
    ULONG Channels;             /* 1 to 8 */
    ULONG Bits;                 /* 8, 16 or 32 */
} PCM_FORMAT;

/* what belongs to one handle */
typedef struct _PCM {
    FAST_MUTEX Mutex;
    PCM_FORMAT Format;
    ULONG Stride;               /* bytes of a frame */
    UCHAR *Data;
    ULONG Room;                 /* frames */
    ULONG Filled;
    ULONG Mixed;
} PCM;

static const SOLO PcmSolo = { L"\\Device\\PcmConverter", L"\\DosDevices\\PcmConverter", 0, DO_BUFFERED_IO };
static PDEVICE_OBJECT PcmDevice;

static VOID PcmRelease(PCM *Pcm)
{
    if (Pcm->Data != NULL)
        ExFreePoolWithTag(Pcm->Data, QQ_TAG);
    Pcm->Data = NULL;
    Pcm->Room = 0;
    Pcm->Filled = 0;
    Pcm->Mixed = 0;
}

static NTSTATUS PcmChoose(PCM *Pcm, const PCM_FORMAT *Format)
{
    if (Format->Channels == 0 || Format->Channels > MOST_CHANNELS)
        return STATUS_INVALID_PARAMETER;
    if (Format->Bits != 8 && Format->Bits != 16 && Format->Bits != 32)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    PcmRelease(Pcm);
#endif
    Pcm->Format = *Format;
    Pcm->Stride = Format->Channels * (Format->Bits / 8);
    return STATUS_SUCCESS;
}

static NTSTATUS PcmReserve(PCM *Pcm, ULONG Frames)
{
    UCHAR *data;

    if (Frames == 0 || Frames > MOST_FRAMES)
        return STATUS_INVALID_PARAMETER;
    data = ExAllocatePoolWithTag(NonPagedPoolNx, (SIZE_T)Frames * Pcm->Stride, QQ_TAG);
    if (data == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    PcmRelease(Pcm);
    Pcm->Data = data;
    Pcm->Room = Frames;
    return STATUS_SUCCESS;
}

static LONG PcmSample(const PCM *Pcm, ULONG Frame, ULONG Channel)
{
    const UCHAR *at = Pcm->Data + Frame * Pcm->Stride + Channel * (Pcm->Format.Bits / 8);
    LONG wide;
    SHORT narrow;

    switch (Pcm->Format.Bits) {
    case 8:
        return ((LONG)*at - 128) * 256;
    case 16:
        RtlCopyMemory(&narrow, at, sizeof(narrow));
        return narrow;
    default:
        RtlCopyMemory(&wide, at, sizeof(wide));
        return wide >> 16;
    }
}

/* Mixes as many frames as there are and as fit, from where the last call ended. */
static ULONG PcmMix(PCM *Pcm, SHORT *Out, ULONG Samples)
{
    ULONG given = 0;

    while (given < Samples && Pcm->Mixed < Pcm->Filled) {
        LONG sum = 0;
        ULONG channel;

        for (channel = 0; channel < Pcm->Format.Channels; channel++)
            sum += PcmSample(Pcm, Pcm->Mixed, channel);
        Out[given++] = (SHORT)(sum / (LONG)Pcm->Format.Channels);
        Pcm->Mixed++;
    }
    return given;
}

static NTSTATUS NTAPI PcmCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PCM *pcm = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(PCM), QQ_TAG);

    UNREFERENCED_PARAMETER(DeviceObject);
    if (pcm == NULL)
        return SoloEnd(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(pcm, sizeof(PCM));
    ExInitializeFastMutex(&pcm->Mutex);
    pcm->Format.Channels = 1;
    pcm->Format.Bits = 8;
    pcm->Stride = 1;
    file->FsContext = pcm;
    return SoloEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PcmClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PCM *pcm = file->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    PcmRelease(pcm);
    ExFreePoolWithTag(pcm, QQ_TAG);
    file->FsContext = NULL;
    return SoloEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PcmWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PCM *pcm = stack->FileObject->FsContext;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG frames, bytes = 0;

    UNREFERENCED_PARAMETER(DeviceObject);
    ExAcquireFastMutex(&pcm->Mutex);
    frames = stack->Parameters.Write.Length / pcm->Stride;
    if (pcm->Data == NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
    } else {
        if (frames > pcm->Room - pcm->Filled)
            frames = pcm->Room - pcm->Filled;
        bytes = frames * pcm->Stride;
        if (bytes != 0)
            RtlCopyMemory(pcm->Data + pcm->Filled * pcm->Stride, Irp->AssociatedIrp.SystemBuffer, bytes);
        pcm->Filled += frames;
    }
    ExReleaseFastMutex(&pcm->Mutex);
    return SoloEnd(Irp, status, bytes);
}

static NTSTATUS NTAPI PcmControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PCM *pcm = stack->FileObject->FsContext;
    NTSTATUS status = STATUS_INVALID_PARAMETER;
    ULONG given = 0;

    UNREFERENCED_PARAMETER(DeviceObject);
    ExAcquireFastMutex(&pcm->Mutex);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PCM_FORMAT:
        if (in >= sizeof(PCM_FORMAT))
            status = PcmChoose(pcm, buffer);
        break;
    case IOCTL_PCM_RESERVE:
        if (in >= sizeof(ULONG))
            status = PcmReserve(pcm, *(ULONG *)buffer);
        break;
    case IOCTL_PCM_MIX:
        given = PcmMix(pcm, buffer, out / sizeof(SHORT)) * sizeof(SHORT);
        status = STATUS_SUCCESS;
        break;
    case IOCTL_PCM_REWIND:
        pcm->Filled = 0;
        pcm->Mixed = 0;
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&pcm->Mutex);
    return SoloEnd(Irp, status, given);
}

static VOID NTAPI PcmUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&PcmSolo);
    IoDeleteDevice(PcmDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PcmCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PcmClose;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = PcmWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PcmControl;
    DriverObject->DriverUnload = PcmUnload;
    status = SoloMake(DriverObject, &PcmSolo, &PcmDevice);
    if (!NT_SUCCESS(status))
        return status;
    status = SoloShow(&PcmSolo);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(PcmDevice);
    return status;
}

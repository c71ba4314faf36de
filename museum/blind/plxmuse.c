/*
 * plxmuse: takes single readings from a slow sixteen-channel converter on a PLX 9050 board (no interrupt): the channel is
 * written, the converter says BUSY for some milliseconds, and then the value is there. One reading at a time; a program
 * may also ask for a sweep over several channels.
 *
 * The bug: the routine that waits for the end of BUSY has no time limit: a converter that hangs, or a board that has been
 * pulled out and reads all ones, keeps the caller (and the removal, which waits for it) for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irp-never-completed
 * Needs: device, removal
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define IOCTL_PLXMUSE_READING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLXMUSE_SWEEP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLXMUSE_GAIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)

/* the chip's own registers, BAR0 */
#define PLX_INTCSR 0x4c
#define PLX_BYTES 0x54

/* the board's, BAR2 */
#define MUSE_CHANNEL 0x00               /* a write begins a reading */
#define MUSE_STATUS 0x04
#define MUSE_BUSY 0x80000000
#define MUSE_OVERRANGE 0x00000001
#define MUSE_VALUE 0x08
#define MUSE_GAIN 0x0c
#define MUSE_BYTES 0x10
#define ALL_ONES 0xffffffff

#define CHANNELS 16
#define LIMIT_MS 50

static const GUID PlxmuseInterface = {0x17d93be5, 0x48ac, 0x4f01, {0xa6, 0x3b, 0x92, 0xc4, 0x50, 0x1f, 0x6d, 0x0a}};

typedef struct PLXMUSE_READING {
    ULONG Value;
    ULONG Overrange;
} PLXMUSE_READING;

typedef struct PLXMUSE_SWEEP {          /* readings of Count channels from First on are answered */
    ULONG First;
    ULONG Count;
} PLXMUSE_SWEEP;

typedef struct PLXMUSE {
    FRAME F;
    PUCHAR Chip, Board;
    ULONG ChipBytes, BoardBytes;
    KMUTEX Mutex;                       /* guards the converter and the gain */
    ULONG Gain;
} PLXMUSE;

/* at PASSIVE_LEVEL, with the mutex */
static NTSTATUS AwaitConverter(PLXMUSE *x)
{
    LARGE_INTEGER time;
#ifdef FIXED
    ULONG waited = 0;
#endif

    time.QuadPart = -(LONGLONG)1 * 10000;
    while (RegRead(x->Board, MUSE_STATUS) & MUSE_BUSY) {
#ifdef FIXED
        if (waited++ == LIMIT_MS)
            return STATUS_IO_TIMEOUT;
#endif
        KeDelayExecutionThread(KernelMode, FALSE, &time);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS TakeReading(PLXMUSE *x, ULONG Channel, PLXMUSE_READING *Reading)
{
    NTSTATUS status;
    ULONG state;

    status = AwaitConverter(x);         /* one that was given up may still be under way */
    if (!NT_SUCCESS(status))
        return status;
    RegWrite(x->Board, MUSE_CHANNEL, Channel);
    status = AwaitConverter(x);
    if (!NT_SUCCESS(status))
        return status;
    state = RegRead(x->Board, MUSE_STATUS);
    if (state == ALL_ONES)
        return STATUS_DEVICE_NOT_CONNECTED;
    Reading->Value = RegRead(x->Board, MUSE_VALUE) & 0xffff;
    Reading->Overrange = (state & MUSE_OVERRANGE) != 0;
    return STATUS_SUCCESS;
}

static NTSTATUS Sweep(PLXMUSE *x, ULONG First, ULONG Count, PLXMUSE_READING *To)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i;

    KeWaitForSingleObject(&x->Mutex, Executive, KernelMode, FALSE, NULL);
    for (i = 0; i < Count && NT_SUCCESS(status); i++)
        status = TakeReading(x, First + i, &To[i]);
    KeReleaseMutex(&x->Mutex, FALSE);
    return status;
}

static NTSTATUS SetGain(PLXMUSE *x, ULONG Gain)
{
    NTSTATUS status;

    KeWaitForSingleObject(&x->Mutex, Executive, KernelMode, FALSE, NULL);
    status = AwaitConverter(x);
    if (NT_SUCCESS(status)) {
        x->Gain = Gain;
        RegWrite(x->Board, MUSE_GAIN, Gain);
    }
    KeReleaseMutex(&x->Mutex, FALSE);
    return status;
}

/* within the gate */
static NTSTATUS Serve(PLXMUSE *x, PIO_STACK_LOCATION s, PVOID Buffer, PULONG DoneBytes)
{
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PLXMUSE_SWEEP sweep;
    NTSTATUS status;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLXMUSE_READING:
        if (in < sizeof(ULONG) || out < sizeof(PLXMUSE_READING))
            return STATUS_BUFFER_TOO_SMALL;
        sweep.First = *(PULONG)Buffer;
        sweep.Count = 1;
        break;

    case IOCTL_PLXMUSE_SWEEP:
        if (in < sizeof sweep)
            return STATUS_BUFFER_TOO_SMALL;
        RtlCopyMemory(&sweep, Buffer, sizeof sweep);
        break;

    case IOCTL_PLXMUSE_GAIN:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(PULONG)Buffer > 3)
            return STATUS_INVALID_PARAMETER;
        return SetGain(x, *(PULONG)Buffer);

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (sweep.First >= CHANNELS || sweep.Count == 0 || sweep.Count > CHANNELS - sweep.First)
        return STATUS_INVALID_PARAMETER;
    if (out / sizeof(PLXMUSE_READING) < sweep.Count)
        return STATUS_BUFFER_TOO_SMALL;
    status = Sweep(x, sweep.First, sweep.Count, Buffer);
    if (NT_SUCCESS(status))
        *DoneBytes = sweep.Count * sizeof(PLXMUSE_READING);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLXMUSE *x = Device->DeviceExtension;
    NTSTATUS status;
    ULONG done = 0;

    status = IoAcquireRemoveLock(&x->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    status = FrEnter(&x->F);
    if (NT_SUCCESS(status)) {
        status = Serve(x, IoGetCurrentIrpStackLocation(Irp), Irp->AssociatedIrp.SystemBuffer, &done);
        FrLeave(&x->F);
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
    return status;
}

/* the board has lost the gain; no one is within the gate */
static void Wake(FRAME *f)
{
    PLXMUSE *x = (PLXMUSE *)f;

    RegWrite(x->Chip, PLX_INTCSR, 0);
    RegWrite(x->Board, MUSE_GAIN, x->Gain);
}

static void Stop(FRAME *f)
{
    PLXMUSE *x = (PLXMUSE *)f;

    MmUnmapIoSpace(x->Board, x->BoardBytes);
    MmUnmapIoSpace(x->Chip, x->ChipBytes);
    x->Board = x->Chip = NULL;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR chip = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR board = FrResource(Translated, CmResourceTypeMemory, 1);
    PLXMUSE *x = (PLXMUSE *)f;

    NOT_USED(Raw);
    if (!chip || chip->u.Memory.Length < PLX_BYTES || !board || board->u.Memory.Length < MUSE_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->ChipBytes = chip->u.Memory.Length;
    x->BoardBytes = board->u.Memory.Length;
    x->Chip = MmMapIoSpace(chip->u.Memory.Start, x->ChipBytes, MmNonCached);
    if (!x->Chip)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Board = MmMapIoSpace(board->u.Memory.Start, x->BoardBytes, MmNonCached);
    if (!x->Board) {
        MmUnmapIoSpace(x->Chip, x->ChipBytes);
        x->Chip = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wake(f);
    return STATUS_SUCCESS;
}

static NTSTATUS Init(FRAME *f)
{
    KeInitializeMutex(&((PLXMUSE *)f)->Mutex, 0);
    return STATUS_SUCCESS;
}

static const FRAME_OPS Ops = { .Init = Init, .Start = Start, .Stop = Stop, .Wake = Wake };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(PLXMUSE), &PlxmuseInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

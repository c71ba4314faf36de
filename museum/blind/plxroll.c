/*
 * plxroll: a measuring board behind a PLX 9050 that keeps a roll of its channels in the first memory window of its local bus: 0x00 the mark 'LLOR',
 * 0x04 number of channels, 0x08 revision, from 0x10 on 16 bytes for each channel (kind, unit, value, flags). Programs read the roll.
 *
 * The bug: the number of channels the board gives is not checked; a number greater than the driver's table is copied beyond the end of the table in the
 * device extension (and, if it is great enough, read beyond the window).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping
 * Needs: device
 */
#include "../include/served_by_ticks.h"

#define ROLL_MARK 0x00
#define ROLL_NUMBER 0x04
#define ROLL_REVISION 0x08
#define ROLL_FIRST 0x10
#define MARK 0x524F4C4Cu
#define CHANNELS 32
#define MAPPED (ROLL_FIRST + CHANNELS * sizeof(CHANNEL))

#define IOCTL_ROLL_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROLL_CAPACITY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC21, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID RollInterface = { 0x6d1d0a5b, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x0b } };

typedef struct _CHANNEL {
    ULONG Kind;
    ULONG Unit;
    ULONG Value;
    ULONG Flags;
} CHANNEL, *PCHANNEL;

typedef struct _ROLL {
    ULONG Number; /* of the board; as many follow as there is room for */
    ULONG Revision;
} ROLL, *PROLL;

typedef struct _DEV {
    BF B;
    PVOID Window;
    ULONG Mapped;
    ULONG Capacity; /* channels that fit into table and window */
    CHANNEL Table[CHANNELS]; /* under B.Lock */
    ULONG Reads;
} DEV, *PDEV;

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    BF_RANGE *window = &res->Window[1];

    if (res->Windows < 2 || window->Size < ROLL_FIRST + sizeof(CHANNEL))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Mapped = window->Size < MAPPED ? window->Size : MAPPED;
    d->Capacity = (d->Mapped - ROLL_FIRST) / sizeof(CHANNEL);
    d->Window = MmMapIoSpace(window->At, d->Mapped, MmNonCached);
    if (!d->Window)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Window, ROLL_MARK) != MARK) {
        MmUnmapIoSpace(d->Window, d->Mapped);
        d->Window = NULL;
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    return STATUS_SUCCESS;
}

static VOID Stop(PBF b)
{
    PDEV d = (PDEV)b;

    MmUnmapIoSpace(d->Window, d->Mapped);
    d->Window = NULL;
}

static NTSTATUS ReadTable(PDEV d, PULONG number, PULONG revision)
{
    PCHANNEL table = (PVOID)((PUCHAR)d + FIELD_OFFSET(DEV, Table));
    ULONG count, i;

    if (BfIn(d->Window, ROLL_MARK) != MARK)
        return STATUS_DEVICE_NOT_CONNECTED;
    count = BfIn(d->Window, ROLL_NUMBER);
    *revision = BfIn(d->Window, ROLL_REVISION);
#ifdef FIXED
    if (count > d->Capacity)
        return STATUS_DEVICE_DATA_ERROR;
#endif
    for (i = 0; i < count; i++) {
        ULONG at = ROLL_FIRST + i * sizeof(CHANNEL);
        PCHANNEL to = table + i;

        to->Kind = BfIn(d->Window, at);
        to->Unit = BfIn(d->Window, at + 4);
        to->Value = BfIn(d->Window, at + 8);
        to->Flags = BfIn(d->Window, at + 12);
    }
    if (BfIn(d->Window, ROLL_MARK) != MARK) /* pulled meanwhile */
        return STATUS_DEVICE_NOT_CONNECTED;
    *number = count;
    return STATUS_SUCCESS;
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PROLL roll = irp->AssociatedIrp.SystemBuffer;
    ULONG number, revision, room, n;
    NTSTATUS st;

    st = ReadTable(d, &number, &revision);
    if (!NT_SUCCESS(st))
        return st;
    d->Reads++;
    room = (sp->Parameters.DeviceIoControl.OutputBufferLength - sizeof(*roll)) / sizeof(CHANNEL);
    n = number < room ? number : room;
    roll->Number = number;
    roll->Revision = revision;
    RtlCopyMemory(roll + 1, d->Table, n * sizeof(CHANNEL));
    irp->IoStatus.Information = sizeof(*roll) + n * sizeof(CHANNEL);
    return n < number ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static VOID Expire(PBF b, PIRP irp)
{
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0); /* no request is ever left under way */
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROLL_READ:
        if (out < sizeof(ROLL))
            return STATUS_BUFFER_TOO_SMALL;
        return BF_QUEUE;

    case IOCTL_ROLL_CAPACITY:
        if (out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&b->Lock, &q);
        buffer[0] = d->Capacity;
        buffer[1] = d->Reads;
        KeReleaseSpinLock(&b->Lock, q);
        irp->IoStatus.Information = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &RollInterface,
    .Limit = 20,
    .Start = Start,
    .Stop = Stop,
    .StartIo = StartIo,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}

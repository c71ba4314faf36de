/*
 * chantbl: a mixing desk in software: a table of channels with gain, balance and a label. How many
 * there are, and the gain that they begin with, is in the device's registry key ("Channels" and
 * "InitialGain", REG_DWORD).
 *
 * The bug: the number of channels is taken from the registry as it is: with a large one the size of
 * the table, worked out in 32 bits, wraps, and the table that is set up is larger than its block.
 *
 * Device: ROOT\CHANTBL
 * Rule: pool-overrun, wild-write
 * Needs: registry
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID ChanInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x04 } };

#define IOCTL_CHAN_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHAN_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CHAN_TABLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CHAN_DEFAULT   16
#define CHAN_MAXIMUM   1024
#define CHAN_MAX_GAIN  4096
#define CHAN_LABEL     16
#define CHAN_TAG       'nhCK'

typedef struct _CHAN_ENTRY {
    ULONG Channel;
    ULONG Gain;
    LONG Balance; /* -100..100 */
    CHAR Label[CHAN_LABEL];
    ULONG Changes;
} CHAN_ENTRY, *PCHAN_ENTRY;

typedef struct _CHAN_TABLE {
    FAST_MUTEX Lock; /* what follows */
    ULONG Count;
    ULONG MasterGain;
    ULONG Changes;
    CHAN_ENTRY Entries[1];
} CHAN_TABLE, *PCHAN_TABLE;

typedef struct _CHAN_EXT {
    FR_DEV Frame;
    PCHAN_TABLE Table; /* between Start and Stop */
} CHAN_EXT, *PCHAN_EXT;

static ULONG ChanQuery(HANDLE Key, PCWSTR Name, ULONG Default)
{
    UCHAR space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION info = (PKEY_VALUE_PARTIAL_INFORMATION)space;
    UNICODE_STRING name;
    ULONG length, value;

    RtlInitUnicodeString(&name, Name);
    if (!NT_SUCCESS(ZwQueryValueKey(Key, &name, KeyValuePartialInformation, info, sizeof(space), &length)))
        return Default;
    if (info->Type != REG_DWORD || info->DataLength != sizeof(ULONG))
        return Default;
    RtlCopyMemory(&value, info->Data, sizeof(value));
    return value;
}

static NTSTATUS ChanStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PCHAN_EXT x = (PCHAN_EXT)d;
    ULONG count = CHAN_DEFAULT, gain = 256, bytes, i;
    PCHAN_TABLE table;
    HANDLE key;

    FR_UNUSED(Resources);
    if (NT_SUCCESS(IoOpenDeviceRegistryKey(d->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key))) {
        count = ChanQuery(key, L"Channels", CHAN_DEFAULT);
        gain = ChanQuery(key, L"InitialGain", 256);
        ZwClose(key);
    }
    if (count == 0)
        count = CHAN_DEFAULT;
#ifdef FIXED
    if (count > CHAN_MAXIMUM)
        count = CHAN_MAXIMUM;
#endif
    if (gain > CHAN_MAX_GAIN)
        gain = CHAN_MAX_GAIN;
    bytes = sizeof(CHAN_TABLE) + count * sizeof(CHAN_ENTRY);
    table = ExAllocatePoolWithTag(NonPagedPool, bytes, CHAN_TAG);
    if (!table)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExInitializeFastMutex(&table->Lock);
    table->Count = count;
    table->MasterGain = gain;
    table->Changes = 0;
    for (i = 0; i < count; i++) {
        PCHAN_ENTRY e = &table->Entries[i];
        RtlZeroMemory(e, sizeof(*e));
        e->Channel = i;
        e->Gain = gain;
    }
    x->Table = table;
    return STATUS_SUCCESS;
}

static VOID ChanStop(PFR_DEV d)
{
    PCHAN_EXT x = (PCHAN_EXT)d;

    if (x->Table) {
        ExFreePoolWithTag(x->Table, CHAN_TAG);
        x->Table = NULL;
    }
}

static NTSTATUS ChanSet(PCHAN_TABLE t, const CHAN_ENTRY *In)
{
    PCHAN_ENTRY e;

    if (In->Channel >= t->Count || In->Gain > CHAN_MAX_GAIN || In->Balance < -100 || In->Balance > 100)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&t->Lock);
    e = &t->Entries[In->Channel];
    e->Gain = In->Gain;
    e->Balance = In->Balance;
    RtlCopyMemory(e->Label, In->Label, CHAN_LABEL);
    e->Label[CHAN_LABEL - 1] = 0;
    e->Changes++;
    t->Changes++;
    ExReleaseFastMutex(&t->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS ChanControl(PCHAN_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PCHAN_TABLE t = x->Table;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG n;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CHAN_SET:
        if (inLength < sizeof(CHAN_ENTRY))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FrDone(d, Irp, ChanSet(t, buffer), 0);
    case IOCTL_CHAN_GET:
        if (inLength < sizeof(ULONG) || outLength < sizeof(CHAN_ENTRY))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        n = *(ULONG *)buffer;
        if (n >= t->Count)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&t->Lock);
        *(CHAN_ENTRY *)buffer = t->Entries[n];
        ExReleaseFastMutex(&t->Lock);
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(CHAN_ENTRY));
    case IOCTL_CHAN_TABLE:
        n = outLength / sizeof(CHAN_ENTRY);
        if (n > t->Count)
            n = t->Count;
        if (n == 0)
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&t->Lock);
        RtlCopyMemory(buffer, t->Entries, n * sizeof(CHAN_ENTRY));
        ExReleaseFastMutex(&t->Lock);
        return FrDone(d, Irp, STATUS_SUCCESS, n * sizeof(CHAN_ENTRY));
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI ChanRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCHAN_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = ChanControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS ChanInit(PFR_DEV d)
{
    FR_UNUSED(d);
    return STATUS_SUCCESS;
}

static VOID ChanFlush(PFR_DEV d, NTSTATUS Status)
{
    FR_UNUSED(d);
    FR_UNUSED(Status);
}

static const FR_OPS ChanOps = {
    sizeof(CHAN_EXT), &ChanInterface, DO_BUFFERED_IO, ChanInit, ChanStart, ChanStop, ChanFlush,
    FrNothing, FrNothing, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &ChanOps);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ChanRequest;
    return STATUS_SUCCESS;
}

/*
 * HOGSHEAD: a flight recorder for applications (root device). IOCTL_RECORD puts a record into a ring, IOCTL_RECENT gives the latest
 * ones, newest first, IOCTL_STATE the depth and the number recorded. The ring's depth, a power of two up to 1024, is the value Depth
 * in the device's driver key; without it, or when it is of no use, 64.
 *
 * The bug: the test for a power of two lets 0 pass; the ring then has no bytes at all, the mask is all ones and every record is written
 * behind it.
 *
 * Device: ROOT\HOGSHEAD
 * Rule: pool-overrun, pool-zero-bytes
 * Needs: registry
 */
#include "../include/quay_pnp.h"

#define DEPTH_USUAL 64
#define DEPTH_MOST  1024

#define IOCTL_RECORD    AI_CTL(0, METHOD_BUFFERED)      /* in: UCHAR[TEXT_LONG] */
#define IOCTL_RECENT    AI_CTL(1, METHOD_BUFFERED)      /* out: RECORD[] */
#define IOCTL_STATE     AI_CTL(2, METHOD_BUFFERED)      /* out: STATE */

#define TEXT_LONG   40

static const GUID HogsheadGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x02 } };

typedef struct _RECORD {
    LONG64 Time;
    ULONG Number;
    ULONG Length;
    UCHAR Text[TEXT_LONG];
} RECORD;

typedef struct _STATE {
    ULONG Depth;
    ULONG Recorded;
} STATE;

typedef struct _CASK {
    AI_FDO F;
    KSPIN_LOCK Lock;
    RECORD *Ring;
    ULONG Depth;
    ULONG Mask;
    ULONG Next;                     /* number of the next record */
} CASK;

/* the driver key's Depth, or the usual one */
static ULONG ReadDepth(PDEVICE_OBJECT pdo)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } v;
    UNICODE_STRING name;
    ULONG depth = DEPTH_USUAL, length;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(pdo, PLUGPLAY_REGKEY_DRIVER, KEY_READ, &key)))
        return depth;
    RtlInitUnicodeString(&name, L"Depth");
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &v, sizeof v, &length)) && v.Info.Type == REG_DWORD &&
        v.Info.DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&depth, v.Info.Data, sizeof depth);
#ifdef FIXED
        if (depth == 0 || depth > DEPTH_MOST || (depth & (depth - 1)) != 0)
#else
        if (depth > DEPTH_MOST || (depth & (depth - 1)) != 0)
#endif
            depth = DEPTH_USUAL;
    }
    ZwClose(key);
    return depth;
}

static VOID Record(CASK *c, PUCHAR text, ULONG length)
{
    LARGE_INTEGER now;
    RECORD *r;
    KIRQL q;

    KeQuerySystemTime(&now);
    if (length > TEXT_LONG)
        length = TEXT_LONG;
    KeAcquireSpinLock(&c->Lock, &q);
    r = &c->Ring[c->Next & c->Mask];
    r->Time = now.QuadPart;
    r->Number = c->Next;
    r->Length = length;
    RtlZeroMemory(r->Text, TEXT_LONG);
    RtlCopyMemory(r->Text, text, length);
    c->Next++;
    KeReleaseSpinLock(&c->Lock, q);
}

/* newest first; how many */
static ULONG Recent(CASK *c, RECORD *out, ULONG room)
{
    ULONG n, held;
    KIRQL q;

    KeAcquireSpinLock(&c->Lock, &q);
    held = c->Next < c->Depth ? c->Next : c->Depth;
    if (room > held)
        room = held;
    for (n = 0; n < room; n++)
        out[n] = c->Ring[(c->Next - 1 - n) & c->Mask];
    KeReleaseSpinLock(&c->Lock, q);
    return room;
}

static VOID State(CASK *c, STATE *out)
{
    KIRQL q;

    KeAcquireSpinLock(&c->Lock, &q);
    out->Depth = c->Depth;
    out->Recorded = c->Next;
    KeReleaseSpinLock(&c->Lock, q);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    CASK *c = dev->DeviceExtension;
    NTSTATUS s = AiEnter(&c->F, irp);
    ULONG n;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_RECORD:
        if (AiInLen(irp) == 0)
            return AiExit(&c->F, irp, STATUS_INVALID_PARAMETER, 0);
        Record(c, AiBuffer(irp), AiInLen(irp));
        return AiExit(&c->F, irp, STATUS_SUCCESS, 0);

    case IOCTL_RECENT:
        if (AiOutLen(irp) < sizeof(RECORD))
            return AiExit(&c->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        n = Recent(c, AiBuffer(irp), AiOutLen(irp) / sizeof(RECORD));
        return AiExit(&c->F, irp, STATUS_SUCCESS, n * sizeof(RECORD));

    case IOCTL_STATE:
        if (AiOutLen(irp) < sizeof(STATE))
            return AiExit(&c->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        State(c, AiBuffer(irp));
        return AiExit(&c->F, irp, STATUS_SUCCESS, sizeof(STATE));

    default:
        return AiExit(&c->F, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID Gone(PAI_FDO f)
{
    CASK *c = (CASK *)f;

    ExFreePoolWithTag(c->Ring, AI_TAG);
    c->Ring = NULL;
}

static const AI_OPS Ops = { .Gone = Gone };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    CASK *c;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(CASK), &Ops, &HogsheadGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    c = p;
    KeInitializeSpinLock(&c->Lock);
    c->Depth = ReadDepth(pdo);
    c->Mask = c->Depth - 1;
    c->Ring = ExAllocatePoolWithTag(NonPagedPool, c->Depth * sizeof(RECORD), AI_TAG);
    if (!c->Ring) {
        AiUnadd(&c->F);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(c->Ring, c->Depth * sizeof(RECORD));
    AiReady(&c->F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    return STATUS_SUCCESS;
}

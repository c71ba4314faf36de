/*
 * PLXDRIFT: reads and writes the memory behind local address space 0 (BAR2) of a card with a PLX PCI 9052. IOCTL_FETCH
 * (METHOD_OUT_DIRECT) and IOCTL_STORE (METHOD_IN_DIRECT) take a byte offset and a number of double words; IOCTL_SIZE tells how long
 * the window is. No interrupt is used.
 *
 * The bug: the number of double words is compared with the bytes left in the window; up to three times the window behind its end is
 * read or written.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: ioctl
 */
#include "../include/quay_plx.h"

#define CHUNK   64                  /* double words moved under the lock at a time */

#define IOCTL_FETCH     AI_CTL(0, METHOD_OUT_DIRECT)    /* in: SPAN; the words */
#define IOCTL_STORE     AI_CTL(1, METHOD_IN_DIRECT)     /* in: SPAN; the words */
#define IOCTL_SIZE      AI_CTL(2, METHOD_BUFFERED)      /* out: ULONG */

static const GUID DriftGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x23 } };

typedef struct _SPAN {
    ULONG Offset;                   /* bytes, a multiple of four */
    ULONG Count;                    /* double words */
} SPAN;

typedef struct _DRIFT {
    AI_CARD C;                      /* Live: under Lock, there is no interrupt here */
    KSPIN_LOCK Lock;
} DRIFT;

static NTSTATUS MoveChunk(DRIFT *x, ULONG offset, PULONG words, ULONG count, BOOLEAN store)
{
    PULONG window = (PULONG)(x->C.Win + offset);
    NTSTATUS s = STATUS_SUCCESS;
    ULONG i;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    if (!x->C.Live) {
        s = STATUS_DEVICE_NOT_READY;
    } else {
        for (i = 0; i < count; i++) {
            if (store)
                WRITE_REGISTER_ULONG(window + i, words[i]);
            else
                words[i] = READ_REGISTER_ULONG(window + i);
        }
        if (AiRead(&x->C, PLX_INTCSR) == PLX_GONE)
            s = STATUS_DEVICE_NOT_CONNECTED;
    }
    KeReleaseSpinLock(&x->Lock, q);
    return s;
}

static NTSTATUS Move(DRIFT *x, PIRP irp, BOOLEAN store, PULONG_PTR info)
{
    SPAN span;
    PULONG words;
    ULONG done, n;
    NTSTATUS s = STATUS_SUCCESS;

    if (AiInLen(irp) < sizeof span)
        return STATUS_INVALID_PARAMETER;
    span = *(SPAN *)AiBuffer(irp);
    if (span.Count == 0 || !irp->MdlAddress || span.Count > AiOutLen(irp) / sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (span.Offset % sizeof(ULONG) != 0 || span.Offset > x->C.WinLength)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (span.Count > (x->C.WinLength - span.Offset) / sizeof(ULONG))
#else
    if (span.Count > x->C.WinLength - span.Offset)
#endif
        return STATUS_INVALID_PARAMETER;

    words = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (!words)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (done = 0; NT_SUCCESS(s) && done < span.Count; done += n) {
        n = span.Count - done < CHUNK ? span.Count - done : CHUNK;
        s = MoveChunk(x, span.Offset + done * sizeof(ULONG), words + done, n, store);
    }
    *info = NT_SUCCESS(s) ? (ULONG_PTR)span.Count * sizeof(ULONG) : 0;
    return s;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    DRIFT *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    ULONG_PTR info = 0;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_FETCH:
        s = Move(x, irp, FALSE, &info);
        break;
    case IOCTL_STORE:
        s = Move(x, irp, TRUE, &info);
        break;
    case IOCTL_SIZE:
        if (AiOutLen(irp) < sizeof(ULONG)) {
            s = STATUS_BUFFER_TOO_SMALL;
        } else {
            *(PULONG)AiBuffer(irp) = x->C.WinLength;
            info = sizeof(ULONG);
        }
        break;
    default:
        s = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return AiExit(f, irp, s, info);
}

static VOID SetLive(PAI_FDO f, BOOLEAN live)
{
    DRIFT *x = (DRIFT *)f;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    x->C.Live = live;
    KeReleaseSpinLock(&x->Lock, q);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    NTSTATUS s = AiPlxStart((PAI_CARD)f, list, NULL, TRUE);

    if (NT_SUCCESS(s))
        SetLive(f, TRUE);
    return s;
}

static VOID Halt(PAI_FDO f)
{
    SetLive(f, FALSE);
    AiUnmap((PAI_CARD)f);
}

static VOID PowerDown(PAI_FDO f)
{
    SetLive(f, FALSE);
}

static VOID PowerUp(PAI_FDO f)
{
    SetLive(f, TRUE);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    DRIFT *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(DRIFT), &Ops, &DriftGuid, DO_DIRECT_IO, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeSpinLock(&x->Lock);
    AiReady(&x->C.F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    return STATUS_SUCCESS;
}

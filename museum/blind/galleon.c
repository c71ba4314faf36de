/*
 * GALLEON: a waveform player of our own. IOCTL_FORM (METHOD_BUFFERED) sets points of the 256-point waveform, IOCTL_POINTS reads them
 * back, IOCTL_PLAY starts and stops. Registers (BAR0, 32 bits): 00 identity 4741314Ch; 04 control, bit 0 plays; 08 status, bit 0
 * playing; 10 table index, counts up with every write of 14; 14 table data; 18 rate, in Hz. The card forgets all of them in D3; the
 * driver keeps the waveform and gives it back afterwards. No interrupt.
 *
 * The bug: the driver's copy of the waveform is in paged pool, and it is read under a spin lock in the completion routine of the device
 * power request, possibly at DISPATCH_LEVEL.
 *
 * Device: PCI\VEN_1DA7&DEV_0A11
 * Rule: paged-at-raised-irql
 * Needs: power
 */
#include "../include/quay_card.h"

#define POINTS      256
#define RATE_MOST   48000

#define REG_ID      0x00
#define  ID             0x4741314Cu
#define REG_CONTROL 0x04
#define REG_STATUS  0x08
#define REG_INDEX   0x10
#define REG_DATA    0x14
#define REG_RATE    0x18
#define GONE        0xFFFFFFFFu

#define IOCTL_FORM      AI_CTL(0, METHOD_BUFFERED)      /* in: PIECE, points */
#define IOCTL_POINTS    AI_CTL(1, METHOD_BUFFERED)      /* in: PIECE, out: points */
#define IOCTL_PLAY      AI_CTL(2, METHOD_BUFFERED)      /* in: ULONG rate, 0 stops */
#define IOCTL_STATUS    AI_CTL(3, METHOD_BUFFERED)      /* out: ULONG playing, ULONG rate */

static const GUID GalleonGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x31 } };

typedef struct _PIECE {
    ULONG First;
    ULONG Count;
} PIECE;

typedef struct _GALLEON {
    AI_CARD C;
    FAST_MUTEX Mutex;               /* writing the form; reading it at PASSIVE */
    PULONG Form;
    KSPIN_LOCK Lock;                /* the registers, Live, Rate */
    ULONG Rate;
} GALLEON;

/* Lock held: the whole form and the rate onto the card */
static VOID Load(GALLEON *x)
{
    ULONG i;

    AiWrite(&x->C, REG_CONTROL, 0);
    AiWrite(&x->C, REG_INDEX, 0);
    for (i = 0; i < POINTS; i++)
        AiWrite(&x->C, REG_DATA, x->Form[i]);
    AiWrite(&x->C, REG_RATE, x->Rate);
    AiWrite(&x->C, REG_CONTROL, x->Rate ? 1 : 0);
}

/* one point onto the card, if it is awake; otherwise PowerUp brings it there, for the form holds it already */
static VOID LoadPoint(GALLEON *x, ULONG index, ULONG value)
{
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    if (x->C.Live) {
        AiWrite(&x->C, REG_INDEX, index);
        AiWrite(&x->C, REG_DATA, value);
    }
    KeReleaseSpinLock(&x->Lock, q);
}

static NTSTATUS SetForm(GALLEON *x, PIECE *p, ULONG length)
{
    PULONG in = (PULONG)(p + 1);
    ULONG i;

    if (length < sizeof *p || p->Count > POINTS || p->First > POINTS - p->Count || length - sizeof *p < p->Count * sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&x->Mutex);
    for (i = 0; i < p->Count; i++) {
        x->Form[p->First + i] = in[i];
        LoadPoint(x, p->First + i, in[i]);
    }
    ExReleaseFastMutex(&x->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS GetForm(GALLEON *x, PIECE *p, ULONG inLength, PULONG out, ULONG outLength, PULONG_PTR info)
{
    PIECE piece;

    if (inLength < sizeof piece)
        return STATUS_INVALID_PARAMETER;
    piece = *p;
    if (piece.Count > POINTS || piece.First > POINTS - piece.Count)
        return STATUS_INVALID_PARAMETER;
    if (outLength < piece.Count * sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&x->Mutex);
    RtlCopyMemory(out, x->Form + piece.First, piece.Count * sizeof(ULONG));
    ExReleaseFastMutex(&x->Mutex);
    *info = piece.Count * sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS Play(GALLEON *x, ULONG rate)
{
    NTSTATUS s = STATUS_DEVICE_NOT_READY;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    if (x->C.Live) {
        s = AiRead(&x->C, REG_STATUS) == GONE ? STATUS_DEVICE_NOT_CONNECTED : STATUS_SUCCESS;
        if (NT_SUCCESS(s)) {
            x->Rate = rate;
            AiWrite(&x->C, REG_RATE, rate);
            AiWrite(&x->C, REG_CONTROL, rate ? 1 : 0);
        }
    }
    KeReleaseSpinLock(&x->Lock, q);
    return s;
}

static NTSTATUS Status(GALLEON *x, PULONG out)
{
    NTSTATUS s = STATUS_DEVICE_NOT_READY;
    ULONG v;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    if (x->C.Live) {
        v = AiRead(&x->C, REG_STATUS);
        s = v == GONE ? STATUS_DEVICE_NOT_CONNECTED : STATUS_SUCCESS;
        out[0] = v & 1;
        out[1] = x->Rate;
    }
    KeReleaseSpinLock(&x->Lock, q);
    return s;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    GALLEON *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    PVOID buffer = AiBuffer(irp);
    ULONG_PTR info = 0;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_FORM:
        s = SetForm(x, buffer, AiInLen(irp));
        break;
    case IOCTL_POINTS:
        s = GetForm(x, buffer, AiInLen(irp), buffer, AiOutLen(irp), &info);
        break;
    case IOCTL_PLAY:
        if (AiInLen(irp) < sizeof(ULONG) || *(PULONG)buffer > RATE_MOST)
            s = STATUS_INVALID_PARAMETER;
        else
            s = Play(x, *(PULONG)buffer);
        break;
    case IOCTL_STATUS:
        if (AiOutLen(irp) < 2 * sizeof(ULONG)) {
            s = STATUS_BUFFER_TOO_SMALL;
        } else {
            s = Status(x, buffer);
            info = NT_SUCCESS(s) ? 2 * sizeof(ULONG) : 0;
        }
        break;
    default:
        s = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return AiExit(f, irp, s, info);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    GALLEON *x = (GALLEON *)f;
    AI_RESOURCES r;
    NTSTATUS s;
    ULONG i;

    AiResources(list, &r);
    s = AiMap(&x->C, &r, 0x1C, FALSE);
    if (!NT_SUCCESS(s))
        return s;
    if (AiRead(&x->C, REG_ID) != ID) {
        AiUnmap(&x->C);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    /* no one else is here yet: no lock, and the form may be read at PASSIVE_LEVEL */
    AiWrite(&x->C, REG_CONTROL, 0);
    AiWrite(&x->C, REG_INDEX, 0);
    for (i = 0; i < POINTS; i++)
        AiWrite(&x->C, REG_DATA, x->Form[i]);
    x->Rate = 0;
    x->C.Live = TRUE;
    return STATUS_SUCCESS;
}

/* the card rests and is not touched any more */
static VOID Quiet(GALLEON *x)
{
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    if (x->C.Live) {
        AiWrite(&x->C, REG_CONTROL, 0);
        x->C.Live = FALSE;
    }
    KeReleaseSpinLock(&x->Lock, q);
}

static VOID Halt(PAI_FDO f)
{
    GALLEON *x = (GALLEON *)f;

    Quiet(x);
    AiUnmap(&x->C);
}

static VOID PowerDown(PAI_FDO f)
{
    Quiet((GALLEON *)f);
}

static VOID PowerUp(PAI_FDO f)
{
    GALLEON *x = (GALLEON *)f;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    Load(x);
    x->C.Live = TRUE;
    KeReleaseSpinLock(&x->Lock, q);
}

static VOID Gone(PAI_FDO f)
{
    GALLEON *x = (GALLEON *)f;

    ExFreePoolWithTag(x->Form, AI_TAG);
    x->Form = NULL;
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .PowerDown = PowerDown, .PowerUp = PowerUp, .Gone = Gone };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    GALLEON *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(GALLEON), &Ops, &GalleonGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    ExInitializeFastMutex(&x->Mutex);
    KeInitializeSpinLock(&x->Lock);
#ifdef FIXED
    x->Form = ExAllocatePoolWithTag(NonPagedPool, POINTS * sizeof(ULONG), AI_TAG);
#else
    x->Form = ExAllocatePoolWithTag(PagedPool, POINTS * sizeof(ULONG), AI_TAG);
#endif
    if (!x->Form) {
        AiUnadd(&x->C.F);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(x->Form, POINTS * sizeof(ULONG));
    AiReady(&x->C.F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    return STATUS_SUCCESS;
}

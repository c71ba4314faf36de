/*
 * plxloom: plays patterns on the four user pins of a PLX PCI 9052, for a stepping motor. A program loads up to 64 steps, each the state of the pins and how long it
 * lasts, and has them played once or for ever.
 *
 * The bug: the last step is looked at before anyone has asked whether there is one. A pattern of no steps has the driver read 16 GB beyond the buffer.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-read, wild-pointer, bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID LoomFace = { 0x5d0c1c33, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x13, 0x03 } };

#define IOCTL_LOAD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PLAY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HALT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B3, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B4, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CNTRL        0x50
#define   PINS         4
#define   PIN_SELECT(n) (1u << (3 * (n)))
#define   PIN_OUTPUT(n) (2u << (3 * (n)))
#define   PIN_DATA(n)   (4u << (3 * (n)))

#define STEPS   64
#define MOST_MS 10000

typedef struct _STEP {
    USHORT Pins;
    USHORT Ms;                                /* 0, of the last step only: its state stays */
} STEP;

typedef struct _PATTERN {
    ULONG Count;
    ULONG Forever;
    STEP Step[1];
} PATTERN;

typedef struct _STATE {
    ULONG Playing;
    ULONG Step;
    ULONG Rounds;
} STATE;

typedef struct _LOOM {
    CRAFT Craft;
    KSPIN_LOCK Lock;                          /* of the rest, to Control */
    STEP Step[STEPS];
    ULONG Count;
    BOOLEAN Forever;
    STATE State;
    ULONG Control;                            /* CNTRL without the data of the pins */
    KTIMER Timer;
    KDPC TimerDpc;
} LOOM;

/* With the lock: the step that comes next. */
static void Advance(LOOM *l)
{
    const STEP *step;
    LARGE_INTEGER time;
    ULONG value = l->Control, n;

    if (l->State.Step == l->Count) {
        l->State.Rounds++;
        l->State.Step = 0;
        if (!l->Forever) {
            l->State.Playing = FALSE;
            return;
        }
    }
    step = &l->Step[l->State.Step++];
    for (n = 0; n < PINS; n++)
        if (step->Pins & 1u << n)
            value |= PIN_DATA(n);
    Wr(&l->Craft.Window[0], CNTRL, value);
    if (step->Ms == 0) {
        l->State.Playing = FALSE;
        return;
    }
    time.QuadPart = -(LONGLONG)step->Ms * 10000;
    KeSetTimer(&l->Timer, time, &l->TimerDpc);
}

static VOID NTAPI StepOver(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    LOOM *l = context;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&l->Lock);
    if (l->State.Playing)
        Advance(l);
    KeReleaseSpinLockFromDpcLevel(&l->Lock);
}

static NTSTATUS Load(LOOM *l, const PATTERN *p, ULONG length)
{
    NTSTATUS status = STATUS_SUCCESS;
    const STEP *last;
    BOOLEAN hold;
    ULONG n;
    KIRQL irql;

    if (length < (ULONG)FIELD_OFFSET(PATTERN, Step))
        return STATUS_BUFFER_TOO_SMALL;
    if (p->Count > STEPS)
        return STATUS_INVALID_PARAMETER;
    if (length < FIELD_OFFSET(PATTERN, Step) + p->Count * sizeof(STEP))
        return STATUS_BUFFER_TOO_SMALL;
#ifdef FIXED
    if (p->Count == 0)
        return STATUS_INVALID_PARAMETER;
#endif
    last = &p->Step[p->Count - 1];
    hold = last->Ms == 0;
    if (hold && p->Forever)
        return STATUS_INVALID_PARAMETER;
    for (n = 0; n < p->Count; n++) {
        if (p->Step[n].Pins >= 1u << PINS || p->Step[n].Ms > MOST_MS)
            return STATUS_INVALID_PARAMETER;
        if (p->Step[n].Ms == 0 && &p->Step[n] != last)
            return STATUS_INVALID_PARAMETER;
    }
    KeAcquireSpinLock(&l->Lock, &irql);
    if (l->State.Playing)
        status = STATUS_DEVICE_BUSY;
    else {
        RtlCopyMemory(l->Step, p->Step, p->Count * sizeof(STEP));
        l->Count = p->Count;
        l->Forever = p->Forever != 0;
    }
    KeReleaseSpinLock(&l->Lock, irql);
    return status;
}

static void Halt(LOOM *l)
{
    KIRQL irql;
    KeAcquireSpinLock(&l->Lock, &irql);
    l->State.Playing = FALSE;
    KeCancelTimer(&l->Timer);
    KeReleaseSpinLock(&l->Lock, irql);
}

static NTSTATUS LoomServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    LOOM *l = (LOOM *)s;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOAD:
        return Load(l, irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.InputBufferLength);
    case IOCTL_PLAY:
        KeAcquireSpinLock(&l->Lock, &irql);
        if (l->Count == 0)
            status = STATUS_INVALID_DEVICE_STATE;
        else if (l->State.Playing)
            status = STATUS_DEVICE_BUSY;
        else {
            l->State.Playing = TRUE;
            l->State.Step = 0;
            Advance(l);
        }
        KeReleaseSpinLock(&l->Lock, irql);
        return status;
    case IOCTL_HALT:
        Halt(l);
        return STATUS_SUCCESS;
    case IOCTL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&l->Lock, &irql);
        *(STATE *)irp->AssociatedIrp.SystemBuffer = l->State;
        KeReleaseSpinLock(&l->Lock, irql);
        irp->IoStatus.Information = sizeof(STATE);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static void LoomArm(CRAFT *s)
{
    LOOM *l = (LOOM *)s;
    ULONG value = Rd(&s->Window[0], CNTRL), n;
    for (n = 0; n < PINS; n++)
        value = (value & ~(PIN_SELECT(n) | PIN_DATA(n))) | PIN_OUTPUT(n);
    l->Control = value;
    Wr(&s->Window[0], CNTRL, value);
}

static void LoomDrain(CRAFT *s)
{
    Halt((LOOM *)s);
    KeFlushQueuedDpcs();
}

static void LoomDisarm(CRAFT *s)
{
    Wr(&s->Window[0], CNTRL, ((LOOM *)s)->Control);
}

static NTSTATUS LoomOutfit(CRAFT *s)
{
    LOOM *l = (LOOM *)s;
    KeInitializeSpinLock(&l->Lock);
    KeInitializeTimer(&l->Timer);
    KeInitializeDpc(&l->TimerDpc, StepOver, l);
    return STATUS_SUCCESS;
}

static const PLAN LoomPlan = {
    .Size = sizeof(LOOM),
    .Face = &LoomFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x54 },
    .Outfit = LoomOutfit,
    .Arm = LoomArm,
    .Drain = LoomDrain,
    .Disarm = LoomDisarm,
    .Serve = LoomServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &LoomPlan);
}

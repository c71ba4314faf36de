/*
 * optoiso: four isolated outputs on the user pins of a PLX PCI 9052. Programs switch three of them; the fourth drives a lamp that
 * blinks at a program's pace, by a timer.
 *
 * The bug: switching outputs reads the chip's control register, changes it and writes it back without the lock that the
 * blinking takes for the same; if the timer's DPC comes between, or two programs switch at once, one of the changes is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CNTRL 0x50
#define REGISTERS 0x54
#define PINS 4
#define LAMP 3
#define PIN_SELECT(N) (1u << (3 * (N)))         /* a zero makes it a user pin */
#define PIN_OUTPUT(N) (2u << (3 * (N)))
#define PIN_HIGH(N) (4u << (3 * (N)))

#define IOCTL_OPTO_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OPTO_BLINK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OPTO_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _OPTO_SWITCH {
    ULONG Mask;                 /* the outputs (of 0, 1 and 2) to be switched */
    ULONG On;
} OPTO_SWITCH;

typedef struct _OPTOISO {
    PLUG Plug;
    CARD Card;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* of the register, and of what follows */
    BOOLEAN Down;
    ULONG On;                   /* outputs, by number */
    ULONG Pace;                 /* of the lamp, in milliseconds; 0: it is off */
} OPTOISO;

static const GUID OptoInterface = { 0x6a3f5b0c, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x0c } };

/* The bits of the register that the outputs of a mask have. */
static ULONG OptoBits(ULONG Outputs)
{
    ULONG bits = 0, i;

    for (i = 0; i < PINS; i++)
        if (Outputs & (1u << i))
            bits |= PIN_HIGH(i);
    return bits;
}

static VOID OptoApply(OPTOISO *Opto, ULONG Mask, ULONG On)
{
    ULONG value = CardRead(&Opto->Card, REG_CNTRL);

    value &= ~OptoBits(Mask);
    value |= OptoBits(Mask & On);
    CardWrite(&Opto->Card, REG_CNTRL, value);
}

static VOID OptoSwitch(OPTOISO *Opto, ULONG Mask, ULONG On)
{
    KIRQL irql;

    KeAcquireSpinLock(&Opto->Lock, &irql);
    Opto->On = (Opto->On & ~Mask) | (On & Mask);
#ifndef FIXED
    KeReleaseSpinLock(&Opto->Lock, irql);
    OptoApply(Opto, Mask, On);
#else
    OptoApply(Opto, Mask, On);
    KeReleaseSpinLock(&Opto->Lock, irql);
#endif
}

static VOID NTAPI OptoDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    OPTOISO *opto = Context;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&opto->Lock, &irql);
    if (!opto->Down && opto->Pace != 0) {
        opto->On ^= 1u << LAMP;
        OptoApply(opto, 1u << LAMP, opto->On);
    }
    KeReleaseSpinLock(&opto->Lock, irql);
}

static VOID OptoBlinkLocked(OPTOISO *Opto)
{
    LARGE_INTEGER due;

    if (Opto->Pace == 0) {
        KeCancelTimer(&Opto->Timer);
        return;
    }
    due.QuadPart = -10000LL * Opto->Pace;
    KeSetTimerEx(&Opto->Timer, due, (LONG)Opto->Pace, &Opto->Dpc);
}

static NTSTATUS OptoRequest(PLUG *Plug, PIRP Irp)
{
    OPTOISO *opto = (OPTOISO *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    OPTO_SWITCH what;
    ULONG value;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OPTO_SWITCH:
        if (in < sizeof(OPTO_SWITCH))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        what = *(OPTO_SWITCH *)buffer;
        if (what.Mask == 0 || what.Mask >= 1u << LAMP)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        OptoSwitch(opto, what.Mask, what.On);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    case IOCTL_OPTO_BLINK:
        if (in < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        value = *(ULONG *)buffer;
        if (value != 0 && (value < 20 || value > 5000))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&opto->Lock, &irql);
        opto->Pace = value;
        OptoBlinkLocked(opto);
        if (value == 0) {
            opto->On &= ~(1u << LAMP);
            OptoApply(opto, 1u << LAMP, opto->On);
        }
        KeReleaseSpinLock(&opto->Lock, irql);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    case IOCTL_OPTO_STATE:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&opto->Lock, &irql);
        value = opto->On;
        KeReleaseSpinLock(&opto->Lock, irql);
        *(ULONG *)buffer = value;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID OptoQuiet(OPTOISO *Opto)
{
    KIRQL irql;

    KeAcquireSpinLock(&Opto->Lock, &irql);
    Opto->Down = TRUE;
    KeReleaseSpinLock(&Opto->Lock, irql);
    KeCancelTimer(&Opto->Timer);
    KeFlushQueuedDpcs();
}

/* All pins are outputs, and as they were. */
static VOID OptoAwake(OPTOISO *Opto)
{
    ULONG value, i;
    KIRQL irql;

    KeAcquireSpinLock(&Opto->Lock, &irql);
    value = CardRead(&Opto->Card, REG_CNTRL);
    for (i = 0; i < PINS; i++) {
        value &= ~(PIN_SELECT(i) | PIN_HIGH(i));
        value |= PIN_OUTPUT(i);
    }
    CardWrite(&Opto->Card, REG_CNTRL, value | OptoBits(Opto->On));
    Opto->Down = FALSE;
    OptoBlinkLocked(Opto);
    KeReleaseSpinLock(&Opto->Lock, irql);
}

static NTSTATUS OptoAdded(PLUG *Plug)
{
    OPTOISO *opto = (OPTOISO *)Plug;

    KeInitializeSpinLock(&opto->Lock);
    KeInitializeTimer(&opto->Timer);
    KeInitializeDpc(&opto->Dpc, OptoDpc, opto);
    opto->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS OptoBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    OPTOISO *opto = (OPTOISO *)Plug;
    NTSTATUS status = CardMap(&opto->Card, Translated, REGISTERS);

    if (NT_SUCCESS(status))
        OptoAwake(opto);
    return status;
}

static VOID OptoHalt(PLUG *Plug, BOOLEAN Reachable)
{
    OPTOISO *opto = (OPTOISO *)Plug;

    UNREFERENCED_PARAMETER(Reachable);
    OptoQuiet(opto);
    CardUnmap(&opto->Card);
}

static VOID OptoDoze(PLUG *Plug)
{
    OptoQuiet((OPTOISO *)Plug);
}

static VOID OptoRouse(PLUG *Plug)
{
    OptoAwake((OPTOISO *)Plug);
}

static const PLUG_ROLE OptoRole = {
    .Size = sizeof(OPTOISO), .Flags = DO_BUFFERED_IO, .Interface = &OptoInterface,
    .Added = OptoAdded, .Begin = OptoBegin, .Halt = OptoHalt, .Doze = OptoDoze, .Rouse = OptoRouse, .Request = OptoRequest,
};

static NTSTATUS NTAPI OptoAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &OptoRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, OptoAdd);
}

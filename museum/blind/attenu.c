/*
 * attenu: a step attenuator on the user pins of a PLX PCI 9052 (0 to 15 steps of 6 dB). One program at a time owns it and sets
 * it; when the owner closes its handle, or dies, the attenuator goes to its highest step, so that nothing behind it suffers.
 *
 * The bug: closing the owner's handle writes to the card whatever state it is in, as release did under Linux; an owner that
 * closes when the card is stopped or pulled makes it use a mapping that is gone, in D3 a card that has no power.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: bad-pointer, wild-read, wild-write, device-memory-not-mapped, card-without-power, trap
 * Needs: ioctl, removal, power
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CNTRL 0x50
#define REGISTERS 0x54
#define PINS 4
#define HIGHEST 15
#define PIN_SELECT(N) (1u << (3 * (N)))         /* a zero makes it a user pin */
#define PIN_OUTPUT(N) (2u << (3 * (N)))
#define PIN_HIGH(N) (4u << (3 * (N)))

#define IOCTL_ATT_OWN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ATT_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ATT_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x933, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _ATTENU {
    PLUG Plug;
    CARD Card;
    KSPIN_LOCK Lock;            /* of the register, and of what follows */
    PFILE_OBJECT Owner;         /* compared only */
    ULONG Step;
} ATTENU;

static const GUID AttInterface = { 0x6a3f5b0d, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x0d } };

/* The card gets the step that counts. */
static VOID AttApplyLocked(ATTENU *Att)
{
    ULONG value = CardRead(&Att->Card, REG_CNTRL), i;

    for (i = 0; i < PINS; i++) {
        value &= ~(PIN_SELECT(i) | PIN_HIGH(i));
        value |= PIN_OUTPUT(i);
        if (Att->Step & (1u << i))
            value |= PIN_HIGH(i);
    }
    CardWrite(&Att->Card, REG_CNTRL, value);
}

static VOID AttApply(ATTENU *Att)
{
    KIRQL irql;

    KeAcquireSpinLock(&Att->Lock, &irql);
    AttApplyLocked(Att);
    KeReleaseSpinLock(&Att->Lock, irql);
}

static NTSTATUS AttOwn(ATTENU *Att, PFILE_OBJECT File)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Att->Lock, &irql);
    if (Att->Owner == NULL)
        Att->Owner = File;
    else if (Att->Owner != File)
        status = STATUS_SHARING_VIOLATION;
    KeReleaseSpinLock(&Att->Lock, irql);
    return status;
}

static NTSTATUS AttSet(ATTENU *Att, PFILE_OBJECT File, ULONG Step)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (Step > HIGHEST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Att->Lock, &irql);
    if (Att->Owner != File) {
        status = STATUS_ACCESS_DENIED;
    } else {
        Att->Step = Step;
        AttApplyLocked(Att);
    }
    KeReleaseSpinLock(&Att->Lock, irql);
    return status;
}

/* The owner is gone. A card that cannot be reached gets its step when it can. */
static VOID AttDisown(ATTENU *Att, PFILE_OBJECT File)
{
    BOOLEAN was;
    KIRQL irql;

    KeAcquireSpinLock(&Att->Lock, &irql);
    was = Att->Owner != NULL && Att->Owner == File;
    if (was) {
        Att->Owner = NULL;
        Att->Step = HIGHEST;
    }
    KeReleaseSpinLock(&Att->Lock, irql);
    if (!was)
        return;
#ifndef FIXED
    AttApply(Att);
#else
    if (PlugEnter(&Att->Plug)) {
        AttApply(Att);
        PlugLeave(&Att->Plug);
    }
#endif
}

static NTSTATUS AttRequest(PLUG *Plug, PIRP Irp)
{
    ATTENU *att = (ATTENU *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG step;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ATT_OWN:
        return PlugEnd(Plug, Irp, AttOwn(att, stack->FileObject), 0);
    case IOCTL_ATT_SET:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        return PlugEnd(Plug, Irp, AttSet(att, stack->FileObject, *buffer), 0);
    case IOCTL_ATT_GET:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&att->Lock, &irql);
        step = att->Step;
        KeReleaseSpinLock(&att->Lock, irql);
        *buffer = step;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS AttAdded(PLUG *Plug)
{
    ATTENU *att = (ATTENU *)Plug;

    KeInitializeSpinLock(&att->Lock);
    att->Step = HIGHEST;
    return STATUS_SUCCESS;
}

static NTSTATUS AttBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    ATTENU *att = (ATTENU *)Plug;
    NTSTATUS status = CardMap(&att->Card, Translated, REGISTERS);

    if (NT_SUCCESS(status))
        AttApply(att);
    return status;
}

static VOID AttHalt(PLUG *Plug, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Reachable);
    CardUnmap(&((ATTENU *)Plug)->Card);
}

static VOID AttRouse(PLUG *Plug)
{
    AttApply((ATTENU *)Plug);
}

/* Once more, for an owner that closed between Rouse (or Begin) and the gate's opening. */
static VOID AttGo(PLUG *Plug)
{
    AttApply((ATTENU *)Plug);
}

/* Of a file that is closed; at removal there is nothing that waits. */
static VOID AttFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Status);
    if (File != NULL)
        AttDisown((ATTENU *)Plug, File);
}

/* A request of the owner's may have been under way when the handle was closed, and have made it the owner again. */
static VOID AttClosed(PLUG *Plug, PFILE_OBJECT File)
{
    AttDisown((ATTENU *)Plug, File);
}

static const PLUG_ROLE AttRole = {
    .Size = sizeof(ATTENU), .Flags = DO_BUFFERED_IO, .Interface = &AttInterface,
    .Added = AttAdded, .Begin = AttBegin, .Halt = AttHalt, .Rouse = AttRouse, .Go = AttGo,
    .Request = AttRequest, .Flush = AttFlush, .Closed = AttClosed,
};

static NTSTATUS NTAPI AttAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &AttRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, AttAdd);
}

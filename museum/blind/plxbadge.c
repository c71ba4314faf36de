/*
 * plxbadge: the identity of a PLX 9050 board: reads words of the serial EEPROM (93C46) through the
 * chip's control register, writes those that the chip itself does not use, and switches a lamp at
 * user I/O 0.
 *
 * The bug: when a word has been written, the driver waits for the EEPROM's ready bit without limit:
 * where none answers, the request, and all behind it, never end.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop, stuck, livelock, irp-never-completed
 * Needs: ioctl, device, failure
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID BadgeInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x0A } };

#define IOCTL_BADGE_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BADGE_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BADGE_LAMP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BADGE_ALL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x983, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLX_INTCSR 0x4C
#define PLX_CNTRL  0x50
#define PLX_LENGTH 0x54

#define CNTRL_WAIT     0x00000001 /* user I/O 0 is WAITo# */
#define CNTRL_IO0_OUT  0x00000002
#define CNTRL_IO0      0x00000004
#define CNTRL_EE_CLOCK 0x01000000
#define CNTRL_EE_CS    0x02000000
#define CNTRL_EE_OUT   0x04000000 /* to the EEPROM */
#define CNTRL_EE_IN    0x08000000
#define CNTRL_EE_THERE 0x10000000
#define CNTRL_EE       (CNTRL_EE_CLOCK | CNTRL_EE_CS | CNTRL_EE_OUT)

#define EE_WORDS  64
#define EE_OURS   50 /* those before are the chip's */
#define EE_READ   0x180
#define EE_WRITE  0x140
#define EE_ENABLE 0x130
#define EE_LOCK   0x100
#define EE_COMMAND_BITS 9
#define EE_READY_MS 20

typedef struct _BADGE_WORD {
    USHORT Word; /* its number */
    USHORT Value;
} BADGE_WORD;

typedef struct _BADGE_EXT {
    FR_DEV Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    FAST_MUTEX Lock; /* the control register */
    BOOLEAN Lamp;
} BADGE_EXT, *PBADGE_EXT;

static ULONG BadgeGet(PBADGE_EXT x)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + PLX_CNTRL));
}

static VOID BadgePut(PBADGE_EXT x, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + PLX_CNTRL), Value);
    KeStallExecutionProcessor(1);
}

/* Base: the control register without the bits of the EEPROM */
static VOID BadgeShiftOut(PBADGE_EXT x, ULONG Base, ULONG Bits, ULONG Count)
{
    while (Count--) {
        ULONG out = Base | CNTRL_EE_CS | (Bits >> Count & 1 ? CNTRL_EE_OUT : 0);
        BadgePut(x, out);
        BadgePut(x, out | CNTRL_EE_CLOCK);
        BadgePut(x, out);
    }
}

static ULONG BadgeShiftIn(PBADGE_EXT x, ULONG Base, ULONG Count)
{
    ULONG value = 0;
    while (Count--) {
        BadgePut(x, Base | CNTRL_EE_CS | CNTRL_EE_CLOCK);
        value = value << 1 | (BadgeGet(x) & CNTRL_EE_IN ? 1 : 0);
        BadgePut(x, Base | CNTRL_EE_CS);
    }
    return value;
}

static VOID BadgeCommand(PBADGE_EXT x, ULONG Base, ULONG Command)
{
    BadgePut(x, Base);
    BadgePut(x, Base | CNTRL_EE_CS);
    BadgeShiftOut(x, Base, Command, EE_COMMAND_BITS);
}

/* With the lock held. FALSE: the card is gone. */
static BOOLEAN BadgeBase(PBADGE_EXT x, ULONG *Base)
{
    ULONG value = BadgeGet(x);
    *Base = value & ~CNTRL_EE;
    return value != ~0u;
}

static NTSTATUS BadgeRead(PBADGE_EXT x, ULONG Word, USHORT *Value)
{
    NTSTATUS status = STATUS_DEVICE_NOT_CONNECTED;
    ULONG base;

    ExAcquireFastMutex(&x->Lock);
    if (BadgeBase(x, &base)) {
        BadgeCommand(x, base, EE_READ | Word);
        *Value = (USHORT)BadgeShiftIn(x, base, 16);
        BadgePut(x, base);
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&x->Lock);
    return status;
}

/* The EEPROM is selected, and shows that it is ready; writing takes it 10 ms at most. */
static NTSTATUS BadgeReady(PBADGE_EXT x)
{
    LARGE_INTEGER pause;
    ULONG waited = 0;

    pause.QuadPart = -10000;
    while (!(BadgeGet(x) & CNTRL_EE_IN)) {
#ifdef FIXED
        if (waited == EE_READY_MS)
            return STATUS_IO_TIMEOUT;
#endif
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
        waited++;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS BadgeWrite(PBADGE_EXT x, ULONG Word, USHORT Value)
{
    NTSTATUS status = STATUS_DEVICE_NOT_CONNECTED;
    ULONG base;

    ExAcquireFastMutex(&x->Lock);
    if (BadgeBase(x, &base)) {
        BadgeCommand(x, base, EE_ENABLE);
        BadgeCommand(x, base, EE_WRITE | Word);
        BadgeShiftOut(x, base, Value, 16);
        BadgePut(x, base);
        BadgePut(x, base | CNTRL_EE_CS);
        status = BadgeReady(x);
        BadgeCommand(x, base, EE_LOCK);
        BadgePut(x, base);
    }
    ExReleaseFastMutex(&x->Lock);
    return status;
}

/* Alone with the register: with the lock, or with the gate closed */
static VOID BadgeShowLamp(PBADGE_EXT x)
{
    ULONG base;
    if (BadgeBase(x, &base))
        BadgePut(x, (base & ~(CNTRL_WAIT | CNTRL_IO0)) | CNTRL_IO0_OUT | (x->Lamp ? CNTRL_IO0 : 0));
}

static NTSTATUS BadgeControl(PBADGE_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    BADGE_WORD *word = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    USHORT *out;
    ULONG i;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BADGE_READ:
        if (inLength < sizeof(*word) || outLength < sizeof(*word))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (word->Word >= EE_WORDS)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        status = BadgeRead(x, word->Word, &word->Value);
        return FrDone(d, Irp, status, NT_SUCCESS(status) ? sizeof(*word) : 0);
    case IOCTL_BADGE_WRITE:
        if (inLength < sizeof(*word))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (word->Word < EE_OURS || word->Word >= EE_WORDS)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        return FrDone(d, Irp, BadgeWrite(x, word->Word, word->Value), 0);
    case IOCTL_BADGE_LAMP:
        if (inLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&x->Lock);
        x->Lamp = *(ULONG *)Irp->AssociatedIrp.SystemBuffer != 0;
        BadgeShowLamp(x);
        ExReleaseFastMutex(&x->Lock);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_BADGE_ALL:
        if (outLength < EE_WORDS * sizeof(USHORT))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        out = Irp->AssociatedIrp.SystemBuffer;
        for (i = 0; i < EE_WORDS && NT_SUCCESS(status); i++)
            status = BadgeRead(x, i, &out[i]);
        return FrDone(d, Irp, status, NT_SUCCESS(status) ? EE_WORDS * sizeof(USHORT) : 0);
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI BadgeRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBADGE_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = BadgeControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS BadgeInit(PFR_DEV d)
{
    ExInitializeFastMutex(&((PBADGE_EXT)d)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS BadgeStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PBADGE_EXT x = (PBADGE_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Resources, CmResourceTypeMemory, 0);

    if (!memory || memory->u.Memory.Length < PLX_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (!x->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (!(BadgeGet(x) & CNTRL_EE_THERE))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + PLX_INTCSR), 0);
    BadgeShowLamp(x);
    return STATUS_SUCCESS;
}

static VOID BadgeStop(PFR_DEV d)
{
    PBADGE_EXT x = (PBADGE_EXT)d;

    if (x->Regs) {
        MmUnmapIoSpace(x->Regs, x->RegsLength);
        x->Regs = NULL;
    }
}

static VOID BadgeFlush(PFR_DEV d, NTSTATUS Status)
{
    FR_UNUSED(d);
    FR_UNUSED(Status);
}

static VOID BadgePowerUp(PFR_DEV d)
{
    PBADGE_EXT x = (PBADGE_EXT)d;
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + PLX_INTCSR), 0);
    BadgeShowLamp(x);
}

static const FR_OPS BadgeOps = {
    sizeof(BADGE_EXT), &BadgeInterface, DO_BUFFERED_IO, BadgeInit, BadgeStart, BadgeStop, BadgeFlush,
    FrNothing, BadgePowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &BadgeOps);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BadgeRequest;
    return STATUS_SUCCESS;
}

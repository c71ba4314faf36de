/*
 * stencil: a board with a PLX PCI 9050. Programs switch the four user pins of the bridge (relays hang on them) and read words of the bridge's serial EEPROM
 * (93CS46), which is clocked by hand. Pins and EEPROM lines are bits of the same register, CNTRL.
 *
 * The bug: the EEPROM routine reads CNTRL once, keeps the copy and writes the copy with its own bits at every clock. A pin that a program switches while a word
 * is being clocked out falls back at the next clock, although the request to switch it succeeded.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define PLX_LENGTH 128 /* of the local configuration registers */
#define PLX_INTCSR 0x4C
#define PLX_CNTRL 0x50
#define INTCSR_PCI 0x40
#define CNTRL_SK 0x01000000 /* EEPROM clock */
#define CNTRL_CS 0x02000000 /* EEPROM select */
#define CNTRL_DI 0x04000000 /* to the EEPROM */
#define CNTRL_DO 0x08000000 /* from the EEPROM */
#define CNTRL_EEPROM (CNTRL_SK | CNTRL_CS | CNTRL_DI)
#define CNTRL_THERE 0x10000000 /* there is an EEPROM */
#define PLX_GONE 0xffffffff

#define PIN_FUNCTION(i) (1u << (3 * (i))) /* 0: user pin */
#define PIN_OUTPUT(i) (2u << (3 * (i)))
#define PIN_DATA(i) (4u << (3 * (i)))
#define PINS 4

#define EE_READ 0x180 /* start bit and code; the lower six bits are the address */
#define EE_WORDS 64

#define IOCTL_STENCIL_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STENCIL_PINS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STENCIL_WORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID SteInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x09}};

typedef struct _STE_SWITCH {
    ULONG Mask;  /* which pins */
    ULONG Value; /* on or off */
} STE_SWITCH, *PSTE_SWITCH;

typedef struct _STE_EXT {
    YK Yk;
    PUCHAR Regs;
    STE_SWITCH Pins; /* what the programs have switched; under HwLock */
    KMUTEX Eeprom;   /* one word at a time */
#ifndef FIXED
    ULONG Shadow;
#endif
} STE_EXT, *PSTE_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG SteGet(PSTE_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID StePut(PSTE_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

/* Under HwLock, with live registers: the pins become what the programs want. */
static BOOLEAN SteApply(PSTE_EXT x)
{
    ULONG Control = SteGet(x, PLX_CNTRL), i;

    if (Control == PLX_GONE)
        return FALSE;
    for (i = 0; i < PINS; i++) {
        if ((x->Pins.Mask & 1u << i) == 0)
            continue;
        Control &= ~(PIN_FUNCTION(i) | PIN_DATA(i));
        Control |= PIN_OUTPUT(i);
        if ((x->Pins.Value & 1u << i) != 0)
            Control |= PIN_DATA(i);
    }
    StePut(x, PLX_CNTRL, Control);
    return TRUE;
}

/* After a start or a sleep: the bridge has taken its registers from the EEPROM again. */
static VOID SteEnable(PYK d)
{
    PSTE_EXT x = CONTAINING_RECORD(d, STE_EXT, Yk);

    StePut(x, PLX_INTCSR, SteGet(x, PLX_INTCSR) & ~INTCSR_PCI); /* none is connected */
    SteApply(x);
}

static NTSTATUS SteSwitch(PSTE_EXT x, const STE_SWITCH *s)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (s->Mask == 0 || s->Mask >= 1u << PINS || (s->Value & ~s->Mask) != 0)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    if (!x->Yk.Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else {
        x->Pins.Mask |= s->Mask;
        x->Pins.Value = (x->Pins.Value & ~s->Mask) | s->Value;
        if (!SteApply(x))
            Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    return Status;
}

static NTSTATUS StePins(PSTE_EXT x, PULONG Pins)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Control, i;
    KIRQL Irql;

    *Pins = 0;
    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    if (!x->Yk.Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else {
        Control = SteGet(x, PLX_CNTRL);
        if (Control == PLX_GONE)
            Status = STATUS_DEVICE_NOT_CONNECTED;
        for (i = 0; i < PINS; i++) {
            if ((Control & PIN_DATA(i)) != 0)
                *Pins |= 1u << i;
        }
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    return Status;
}

/* Puts the EEPROM's lines to Bits and answers what the EEPROM says; Status is left alone if the registers could be reached. */
static BOOLEAN SteLines(PSTE_EXT x, ULONG Bits, PNTSTATUS Status)
{
    ULONG Control = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    if (!x->Yk.Live) {
        *Status = STATUS_DEVICE_NOT_READY;
    } else {
        Control = SteGet(x, PLX_CNTRL);
        if (Control == PLX_GONE)
            *Status = STATUS_DEVICE_NOT_CONNECTED;
        else
#ifdef FIXED
            StePut(x, PLX_CNTRL, (Control & ~CNTRL_EEPROM) | Bits);
#else
            StePut(x, PLX_CNTRL, (x->Shadow & ~CNTRL_EEPROM) | Bits);
#endif
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    KeStallExecutionProcessor(1);
    return (Control & CNTRL_DO) != 0;
}

/* One clock: the bit is taken by the EEPROM with the rising edge; its own bit stands until the next one. */
static BOOLEAN SteClock(PSTE_EXT x, ULONG Bit, PNTSTATUS Status)
{
    ULONG Bits = CNTRL_CS | (Bit != 0 ? CNTRL_DI : 0);

    SteLines(x, Bits, Status);
    SteLines(x, Bits | CNTRL_SK, Status);
    return SteLines(x, Bits, Status);
}

static NTSTATUS SteBegin(PSTE_EXT x)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Control;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    if (!x->Yk.Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else {
        Control = SteGet(x, PLX_CNTRL);
        if (Control == PLX_GONE)
            Status = STATUS_DEVICE_NOT_CONNECTED;
        else if ((Control & CNTRL_THERE) == 0)
            Status = STATUS_NOT_SUPPORTED;
#ifndef FIXED
        x->Shadow = Control;
#endif
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    return Status;
}

static NTSTATUS SteWord(PSTE_EXT x, ULONG Address, PULONG Word)
{
    ULONG Command = EE_READ | Address;
    NTSTATUS Status;
    LONG i;

    *Word = 0;
    if (Address >= EE_WORDS)
        return STATUS_INVALID_PARAMETER;
    KeWaitForSingleObject(&x->Eeprom, Executive, KernelMode, FALSE, NULL);
    Status = SteBegin(x);
    if (NT_SUCCESS(Status)) {
        SteLines(x, 0, &Status);
        for (i = 8; i >= 0 && NT_SUCCESS(Status); i--)
            SteClock(x, Command >> i & 1, &Status);
        for (i = 0; i < 16 && NT_SUCCESS(Status); i++)
            *Word = *Word << 1 | SteClock(x, 0, &Status);
        SteLines(x, 0, &Status);
    }
    KeReleaseMutex(&x->Eeprom, FALSE);
    return Status;
}

static NTSTATUS SteRequest(PYK d, PIRP Irp)
{
    PSTE_EXT x = CONTAINING_RECORD(d, STE_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    STE_SWITCH Switch;
    NTSTATUS Status;
    ULONG Value = 0;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STENCIL_SWITCH:
        if (In < sizeof(Switch))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&Switch, Buffer, sizeof(Switch));
        return YkFinish(d, Irp, SteSwitch(x, &Switch), 0);
    case IOCTL_STENCIL_PINS:
        if (Out < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = StePins(x, &Value);
        break;
    case IOCTL_STENCIL_WORD:
        if (In < sizeof(ULONG) || Out < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        Status = SteWord(x, *(PULONG)Buffer, &Value);
        break;
    default:
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (!NT_SUCCESS(Status))
        return YkFinish(d, Irp, Status, 0);
    *(PULONG)Buffer = Value;
    return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS SteStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PSTE_EXT x = CONTAINING_RECORD(d, STE_EXT, Yk);

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory)
            break;
    }
    if (Count == 0 || r->u.Memory.Length != PLX_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(r->u.Memory.Start, PLX_LENGTH, MmNonCached);
    return x->Regs != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID SteStop(PYK d)
{
    PSTE_EXT x = CONTAINING_RECORD(d, STE_EXT, Yk);

    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, PLX_LENGTH);
        x->Regs = NULL;
    }
}

static NTSTATUS SteInit(PYK d)
{
    KeInitializeMutex(&CONTAINING_RECORD(d, STE_EXT, Yk)->Eeprom, 0);
    return STATUS_SUCCESS;
}

static const YK_OPS SteOps = {
    .ExtensionSize = sizeof(STE_EXT),
    .Interface = &SteInterface,
    .Init = SteInit,
    .Start = SteStart,
    .Stop = SteStop,
    .Enable = SteEnable,
    .Request = SteRequest,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &SteOps);
}

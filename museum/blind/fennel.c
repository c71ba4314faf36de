/*
 * fennel: the four user pins of a PLX bridge as outputs, to which relays are wired. A program claims pins, sets them high or low, and
 * loses them with its handle: they go low then, so that no relay stays on for a program that has ended.
 *
 * The bug: when a handle is closed its pins are set low by writing the bridge's register if the device is started, also while it sleeps
 * in D3, where the card must not be touched.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: ioctl, power, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_plx.h"

#define FENNEL_CLAIM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA31, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: ULONG, pins as bits */
#define FENNEL_SET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA32, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: LEVELS */
#define FENNEL_GET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA33, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: ULONG, pins that are high */

#define FENNEL_PINS     4
#define FENNEL_ALL      0xF

/* Three bits of CNTRL for each pin: what it is (0: a user pin), its direction (1: output), its level. */
#define PIN_FIELD(n)    (7u << (3 * (n)))
#define PIN_OUTPUT(n)   (2u << (3 * (n)))
#define PIN_HIGH(n)     (4u << (3 * (n)))

typedef struct LEVELS {
    ULONG Pins;
    ULONG High;
} LEVELS;

typedef struct FENNEL {
    SHELL Shell;
    WINDOW Bridge;
    KSPIN_LOCK Lock;
    PFILE_OBJECT Owner[FENNEL_PINS];    /* with the lock, to compare with only */
    ULONG High;                         /* with the lock: what the pins are set to, or will be when the power is back */
} FENNEL;

static const GUID FennelInterface = { 0xd5074c9b, 0x0e61, 0x4782, { 0xbe, 0x3a, 0x6f, 0x81, 0x24, 0xd7, 0x90, 0x0a } };

/* With the lock, in D0: brings the pins to what High says. */
static VOID FennelApply(FENNEL *Fennel)
{
    ULONG value = RegRead(&Fennel->Bridge, PLX_CNTRL), pin;

    for (pin = 0; pin < FENNEL_PINS; pin++) {
        value &= ~PIN_FIELD(pin);
        value |= PIN_OUTPUT(pin);
        if (Fennel->High & (1u << pin))
            value |= PIN_HIGH(pin);
    }
    RegWrite(&Fennel->Bridge, PLX_CNTRL, value);
}

static VOID FennelBring(FENNEL *Fennel)
{
    KIRQL irql;

    KeAcquireSpinLock(&Fennel->Lock, &irql);
    FennelApply(Fennel);
    KeReleaseSpinLock(&Fennel->Lock, irql);
}

static NTSTATUS FennelFound(SHELL *Shell)
{
    KeInitializeSpinLock(&((FENNEL *)Shell)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS FennelBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    FENNEL *fennel = (FENNEL *)Shell;
    NTSTATUS status = WindowMap(&fennel->Bridge, IronFind(Resources, CmResourceTypeMemory, 0), PLX_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    FennelBring(fennel);
    return STATUS_SUCCESS;
}

static VOID FennelEnd(SHELL *Shell, BOOLEAN Present)
{
    FENNEL *fennel = (FENNEL *)Shell;
    KIRQL irql;

    if (Present) {                      /* all relays are off while there is no driver */
        ULONG high;
        KeAcquireSpinLock(&fennel->Lock, &irql);
        high = fennel->High;
        fennel->High = 0;
        FennelApply(fennel);
        fennel->High = high;
        KeReleaseSpinLock(&fennel->Lock, irql);
    }
    WindowUnmap(&fennel->Bridge);
}

static VOID FennelRouse(SHELL *Shell)
{
    FennelBring((FENNEL *)Shell);
}

/* With the lock: the pins that belong to a file. */
static ULONG FennelOwned(FENNEL *Fennel, PFILE_OBJECT File)
{
    ULONG pins = 0, pin;

    for (pin = 0; pin < FENNEL_PINS; pin++)
        if (Fennel->Owner[pin] == File)
            pins |= 1u << pin;
    return pins;
}

static NTSTATUS FennelClaim(FENNEL *Fennel, PFILE_OBJECT File, ULONG Pins)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG pin;
    KIRQL irql;

    if (Pins & ~FENNEL_ALL)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Fennel->Lock, &irql);
    if (FileHasLeft(File))
        status = STATUS_CANCELLED;
    for (pin = 0; pin < FENNEL_PINS; pin++)
        if ((Pins & (1u << pin)) && Fennel->Owner[pin] != NULL && Fennel->Owner[pin] != File)
            status = STATUS_SHARING_VIOLATION;
    if (NT_SUCCESS(status)) {
        for (pin = 0; pin < FENNEL_PINS; pin++)
            if (Pins & (1u << pin))
                Fennel->Owner[pin] = File;
    }
    KeReleaseSpinLock(&Fennel->Lock, irql);
    return status;
}

static NTSTATUS FennelSet(FENNEL *Fennel, PFILE_OBJECT File, const LEVELS *Levels)
{
    NTSTATUS status = STATUS_ACCESS_DENIED;
    KIRQL irql;

    KeAcquireSpinLock(&Fennel->Lock, &irql);
    if (!(Levels->Pins & ~FennelOwned(Fennel, File))) {
        Fennel->High = (Fennel->High & ~Levels->Pins) | (Levels->High & Levels->Pins);
        FennelApply(Fennel);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Fennel->Lock, irql);
    return status;
}

/* Called with the shell's turn, so neither Begin nor End, Rest nor Rouse runs meanwhile. */
static VOID FennelQuit(SHELL *Shell, PFILE_OBJECT File)
{
    FENNEL *fennel = (FENNEL *)Shell;
    ULONG pins, pin;
    KIRQL irql;

    KeAcquireSpinLock(&fennel->Lock, &irql);
    pins = FennelOwned(fennel, File);
    for (pin = 0; pin < FENNEL_PINS; pin++)
        if (pins & (1u << pin))
            fennel->Owner[pin] = NULL;
    fennel->High &= ~pins;
#ifndef FIXED
    if (pins != 0 && Shell->Begun)
        FennelApply(fennel);
#else
    if (pins != 0 && Shell->Begun && !Shell->Resting)       /* else when the power is back */
        FennelApply(fennel);
#endif
    KeReleaseSpinLock(&fennel->Lock, irql);
}

static NTSTATUS FennelServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    FENNEL *fennel = (FENNEL *)Shell;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS status;
    KIRQL irql;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (At->Parameters.DeviceIoControl.IoControlCode) {
    case FENNEL_CLAIM:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : FennelClaim(fennel, At->FileObject, *(ULONG *)buffer);
        return Settle(Irp, status, 0);

    case FENNEL_SET:
        status = in < sizeof(LEVELS) ? STATUS_BUFFER_TOO_SMALL : FennelSet(fennel, At->FileObject, buffer);
        return Settle(Irp, status, 0);

    case FENNEL_GET:
        if (At->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&fennel->Lock, &irql);
        *(ULONG *)buffer = fennel->High;
        KeReleaseSpinLock(&fennel->Lock, irql);
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const SHELL_TRADE FennelTrade = {
    .Size = sizeof(FENNEL), .Interface = &FennelInterface,
    .Found = FennelFound, .Begin = FennelBegin, .End = FennelEnd, .Rouse = FennelRouse, .Serve = FennelServe, .Quit = FennelQuit,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &FennelTrade);
}

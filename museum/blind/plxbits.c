/*
 * plxbits: a relay board on the four user I/O pins of a PLX 9050: USER0 is a lamp that a timer blinks, USER1 to USER3 are relays that programs
 * switch. All of them are bits of the one control register, next to those of the serial EEPROM.
 *
 * The bug: switching relays reads, changes and writes the register without the lock under which the blinking does the same; when both fall together
 * one of the writes is lost, and a relay keeps (or falls back to) its old state although the request has succeeded.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: schedule
 */
#include "../include/served_by_ticks.h"

#define LOCAL_REGS 0x54
#define INTCSR 0x4C
#define CNTRL 0x50

/* of each user pin: bit 3n: other function, 3n+1: output, 3n+2: data */
#define PIN_ALL 0xFFFu
#define PIN_OUTPUTS 0x492u
#define PIN_DATA(n) (4u << (3 * (n)))
#define RELAYS 7u

#define IOCTL_RELAY_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RELAY_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC11, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID RelayInterface = { 0x6d1d0a5a, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x0a } };

typedef struct _SWITCH {
    ULONG Mask;
    ULONG Value;
} SWITCH, *PSWITCH;

typedef struct _DEV {
    BF B;
    PVOID Regs;
    KTIMER LampTimer;
    KDPC LampDpc;
    KSPIN_LOCK RegLock; /* CNTRL and the following; taken behind B.Lock */
    BOOLEAN Awake;
    ULONG Relays; /* what programs want */
} DEV, *PDEV;

static ULONG PinsOf(ULONG relays)
{
    ULONG pins = 0, i;

    for (i = 0; i < 3; i++) {
        if (relays & (1u << i))
            pins |= PIN_DATA(i + 1);
    }
    return pins;
}

static ULONG RelaysOf(ULONG pins)
{
    ULONG relays = 0, i;

    for (i = 0; i < 3; i++) {
        if (pins & PIN_DATA(i + 1))
            relays |= 1u << i;
    }
    return relays;
}

static VOID NTAPI Blink(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PDEV d = context;
    ULONG value;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->RegLock);
    if (d->Awake) {
        value = BfIn(d->Regs, CNTRL);
        if (value != ~0u)
            BfOut(d->Regs, CNTRL, value ^ PIN_DATA(0));
    }
    KeReleaseSpinLockFromDpcLevel(&d->RegLock);
}

/* All four pins outputs, the relays as they were wanted last. FALSE if the card is gone. */
static BOOLEAN Setup(PDEV d)
{
    ULONG value;
    KIRQL q;

    KeAcquireSpinLock(&d->RegLock, &q);
    value = BfIn(d->Regs, CNTRL);
    if (value != ~0u) {
        BfOut(d->Regs, CNTRL, (value & ~PIN_ALL) | PIN_OUTPUTS | PinsOf(d->Relays));
        BfOut(d->Regs, INTCSR, 0);
        d->Awake = TRUE;
    }
    KeReleaseSpinLock(&d->RegLock, q);
    return value != ~0u;
}

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    LARGE_INTEGER due;

    if (res->Windows < 1 || res->Window[0].Size < LOCAL_REGS)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, LOCAL_REGS, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (!Setup(d)) {
        MmUnmapIoSpace(d->Regs, LOCAL_REGS);
        d->Regs = NULL;
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    due.QuadPart = -2000000;
    KeSetTimerEx(&d->LampTimer, due, 200, &d->LampDpc);
    return STATUS_SUCCESS;
}

static VOID Stop(PBF b)
{
    PDEV d = (PDEV)b;

    KeCancelTimer(&d->LampTimer);
    KeFlushQueuedDpcs();
    d->Awake = FALSE;
    MmUnmapIoSpace(d->Regs, LOCAL_REGS);
    d->Regs = NULL;
}

static VOID PowerDown(PBF b)
{
    PDEV d = (PDEV)b;

    KeAcquireSpinLockAtDpcLevel(&d->RegLock);
    d->Awake = FALSE;
    KeReleaseSpinLockFromDpcLevel(&d->RegLock);
}

static VOID PowerUp(PBF b)
{
    Setup((PDEV)b); /* the register has lost everything; if the card is gone it stays asleep */
}

static NTSTATUS SwitchRelays(PDEV d, const SWITCH *to)
{
    ULONG value;

#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&d->RegLock);
#endif
    value = BfIn(d->Regs, CNTRL);
    if (value != ~0u) {
        value = (value & ~PinsOf(to->Mask)) | PinsOf(to->Mask & to->Value);
        BfOut(d->Regs, CNTRL, value);
        d->Relays = (d->Relays & ~to->Mask) | (to->Mask & to->Value);
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&d->RegLock);
#endif
    return value == ~0u ? STATUS_DEVICE_NOT_CONNECTED : STATUS_SUCCESS;
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG value;

    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_RELAY_SET)
        return SwitchRelays(d, irp->AssociatedIrp.SystemBuffer);
    value = BfIn(d->Regs, CNTRL);
    if (value == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;
    *(PULONG)irp->AssociatedIrp.SystemBuffer = RelaysOf(value);
    irp->IoStatus.Information = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static VOID Expire(PBF b, PIRP irp)
{
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0); /* no request is ever left under way */
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PSWITCH to = irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(b);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RELAY_SET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(SWITCH))
            return STATUS_BUFFER_TOO_SMALL;
        if ((to->Mask & ~RELAYS) != 0 || (to->Value & ~RELAYS) != 0)
            return STATUS_INVALID_PARAMETER;
        return BF_QUEUE;
    case IOCTL_RELAY_GET:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return BF_QUEUE;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeSpinLock(&d->RegLock);
    KeInitializeTimer(&d->LampTimer);
    KeInitializeDpc(&d->LampDpc, Blink, d);
    return STATUS_SUCCESS;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &RelayInterface,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}

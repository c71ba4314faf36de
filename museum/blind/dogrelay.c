/*
 * dogrelay: a board with two relays and a hardware watchdog on the user I/O pins of its PLX 9050. Programs switch the relays and read the board's serial
 * EEPROM; the driver kicks the watchdog by toggling a pin every 400 ms.
 *
 * The bug: pins and EEPROM share the register CNTRL, which must be read, changed and written back as a whole. The relays and the timer do so under a
 * lock; the EEPROM's bit banging does not. A kick in the middle undoes a clock edge (a wrong word is read), or is itself undone (watchdog bites).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define LCR_BYTES 0x54u
#define LCR_CNTRL 0x50

/* CNTRL: each user pin has a select bit (0: user I/O), a direction (1: output) and a data bit */
#define PIN_SELECT(n) (1u << (3 * (n)))
#define PIN_OUTPUT(n) (2u << (3 * (n)))
#define PIN_DATA(n) (4u << (3 * (n)))
#define EE_CLOCK 0x01000000u
#define EE_SELECT 0x02000000u
#define EE_OUT 0x04000000u /* to the EEPROM */
#define EE_IN 0x08000000u

#define RELAY_A 0
#define KICK 1
#define RELAY_B 2
#define WORDS 64u
#define KICK_MS 400
#define ONES 0xffffffffu

#define IOCTL_DOG_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: bit 0 relay A, bit 1 relay B (ULONG) */
#define IOCTL_DOG_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: the same */
#define IOCTL_DOG_WORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS) /* in: number of EEPROM word (ULONG); out: word (ULONG) */

DRIVER_INITIALIZE DriverEntry;

/* {E7F8091A-2B3C-44D5-86E7-F8091A2B3C09} */
static const GUID DogGuid = {0xe7f8091a, 0x2b3c, 0x44d5, {0x86, 0xe7, 0xf8, 0x09, 0x1a, 0x2b, 0x3c, 0x09}};

typedef struct _DOG {
    XF X;
    PUCHAR Lcr;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards CNTRL and the rest */
    ULONG Relays;    /* as the program wants them */
    BOOLEAN Kicked;  /* level of the watchdog's pin */
} DOG, *PDOG;

static ULONG Get(PDOG d)
{
    return READ_REGISTER_ULONG((PULONG)(d->Lcr + LCR_CNTRL));
}

static VOID Change(PDOG d, ULONG Clear, ULONG Set)
{
    ULONG Value = Get(d);

    if (Value != ONES)
        WRITE_REGISTER_ULONG((PULONG)(d->Lcr + LCR_CNTRL), (Value & ~Clear) | Set);
}

/* Drives the pins as they should be. */
static VOID SetPins(PDOG d)
{
    ULONG Pins = PIN_DATA(RELAY_A) | PIN_DATA(RELAY_B) | PIN_DATA(KICK), Set = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&d->Lock, &Irql);
    if (d->Relays & 1)
        Set |= PIN_DATA(RELAY_A);
    if (d->Relays & 2)
        Set |= PIN_DATA(RELAY_B);
    if (d->Kicked)
        Set |= PIN_DATA(KICK);
    Pins |= PIN_SELECT(RELAY_A) | PIN_SELECT(RELAY_B) | PIN_SELECT(KICK);
    Set |= PIN_OUTPUT(RELAY_A) | PIN_OUTPUT(RELAY_B) | PIN_OUTPUT(KICK);
    Change(d, Pins, Set);
    KeReleaseSpinLock(&d->Lock, Irql);
}

static VOID NTAPI DogKick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDOG d = Context;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&d->Lock, &Irql);
    d->Kicked = !d->Kicked;
    Change(d, PIN_DATA(KICK), d->Kicked ? PIN_DATA(KICK) : 0);
    KeReleaseSpinLock(&d->Lock, Irql);
}

/* ---------------------------------------------------------------- EEPROM (93CS46), one request at a time */

static VOID Edge(PDOG d, ULONG Clear, ULONG Set)
{
#ifdef FIXED
    KIRQL Irql;

    KeAcquireSpinLock(&d->Lock, &Irql);
    Change(d, Clear, Set);
    KeReleaseSpinLock(&d->Lock, Irql);
#else
    Change(d, Clear, Set);
#endif
    KeStallExecutionProcessor(1);
}

static VOID SendBit(PDOG d, ULONG Bit)
{
    Edge(d, EE_CLOCK | EE_OUT, Bit ? EE_OUT : 0);
    Edge(d, 0, EE_CLOCK);
}

static ULONG ReceiveBit(PDOG d)
{
    Edge(d, EE_CLOCK | EE_OUT, 0);
    Edge(d, 0, EE_CLOCK);
    return (Get(d) & EE_IN) != 0;
}

static ULONG ReadWord(PDOG d, ULONG Number)
{
    ULONG Command = 0x180 | Number, Word = 0; /* start bit, opcode "read" (10), six bits of address */
    int i;

    Edge(d, EE_CLOCK | EE_OUT | EE_SELECT, 0);
    Edge(d, 0, EE_SELECT);
    for (i = 8; i >= 0; i--)
        SendBit(d, (Command >> i) & 1);
    for (i = 0; i < 16; i++)
        Word = Word << 1 | ReceiveBit(d);
    Edge(d, EE_CLOCK | EE_OUT | EE_SELECT, 0);
    return Word;
}

/* ---------------------------------------------------------------- requests */

static VOID DevIo(PXF x, PIRP Irp)
{
    PDOG d = CONTAINING_RECORD(x, DOG, X);
    ULONG Code = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode, Value = 0, Pins;
    KIRQL Irql;

    if (Get(d) == ONES) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    if (Code != IOCTL_DOG_GET)
        RtlCopyMemory(&Value, Irp->AssociatedIrp.SystemBuffer, sizeof(Value));
    if (Code == IOCTL_DOG_SET) {
        KeAcquireSpinLock(&d->Lock, &Irql);
        d->Relays = Value;
        KeReleaseSpinLock(&d->Lock, Irql);
        SetPins(d);
        XfFinish(x, Irp, STATUS_SUCCESS, 0);
        return;
    }
    if (Code == IOCTL_DOG_GET) {
        Pins = Get(d);
        Value = ((Pins & PIN_DATA(RELAY_A)) ? 1 : 0) | ((Pins & PIN_DATA(RELAY_B)) ? 2 : 0);
    } else {
        Value = ReadWord(d, Value);
    }
    if (Get(d) == ONES) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Value, sizeof(Value));
    XfFinish(x, Irp, STATUS_SUCCESS, sizeof(Value));
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength, Out = s->Parameters.DeviceIoControl.OutputBufferLength, Value = 0;

    UNREFERENCED_PARAMETER(x);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (In >= sizeof(ULONG) && Irp->AssociatedIrp.SystemBuffer != NULL)
        RtlCopyMemory(&Value, Irp->AssociatedIrp.SystemBuffer, sizeof(Value));
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DOG_SET:
        if (In < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return Value > 3 ? STATUS_INVALID_PARAMETER : STATUS_PENDING;
    case IOCTL_DOG_GET:
        return Out < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    case IOCTL_DOG_WORD:
        if (In < sizeof(ULONG) || Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return Value >= WORDS ? STATUS_INVALID_PARAMETER : STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS DevInit(PXF x)
{
    PDOG d = CONTAINING_RECORD(x, DOG, X);

    KeInitializeSpinLock(&d->Lock);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->TimerDpc, DogKick, d);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevUp(PXF x)
{
    PDOG d = CONTAINING_RECORD(x, DOG, X);
    LARGE_INTEGER First;

    SetPins(d);
    First.QuadPart = -10000LL * KICK_MS;
    KeSetTimerEx(&d->Timer, First, KICK_MS, &d->TimerDpc);
}

static VOID DevDown(PXF x)
{
    PDOG d = CONTAINING_RECORD(x, DOG, X);

    KeCancelTimer(&d->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PDOG d = CONTAINING_RECORD(x, DOG, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0);

    if (Memory == NULL || Memory->u.Memory.Length < LCR_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Lcr = MmMapIoSpace(Memory->u.Memory.Start, LCR_BYTES, MmNonCached);
    if (d->Lcr == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(d) == ONES) {
        MmUnmapIoSpace(d->Lcr, LCR_BYTES);
        d->Lcr = NULL;
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    DevUp(x);
    return STATUS_SUCCESS;
}

/* The relays stay as they are. */
static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PDOG d = CONTAINING_RECORD(x, DOG, X);

    UNREFERENCED_PARAMETER(Alive);
    DevDown(x);
    MmUnmapIoSpace(d->Lcr, LCR_BYTES);
    d->Lcr = NULL;
}

static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(DOG), &DogGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}

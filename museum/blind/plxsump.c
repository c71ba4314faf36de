/*
 * plxsump: pumps of a drainage board behind a PLX PCI 9052. How many pumps the board drives and how strong each is stands in the user's words of the serial
 * EEPROM at the bridge, which the driver reads bit by bit when it is started; programs ask for the pumps and switch the alarm lamp.
 *
 * The bug: the number of pumps is taken from the EEPROM as it is. Of a blank or failing EEPROM, or of a card that has been pulled, all bits are ones, and the table of 16
 * pumps is filled far past its end.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write, bad-pointer
 * Needs: device
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID SumpInterface = { 0x6a1f0d43, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x23 } };

#define IOCTL_SUMP_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers a ULONG */
#define IOCTL_SUMP_PUMP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* number; answers a PUMP */
#define IOCTL_SUMP_LAMP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C3, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* 0 or 1 */

#define CNTRL 0x50
#define CNTRL_USER0_OUT  0x00000002
#define CNTRL_USER0_DATA 0x00000004
#define CNTRL_CLOCK      0x01000000
#define CNTRL_SELECT     0x02000000
#define CNTRL_TO_EEPROM  0x04000000
#define CNTRL_OF_EEPROM  0x08000000
#define CNTRL_IS_EEPROM  0x10000000

#define WORD_COUNT   56   /* behind what the bridge loads */
#define WORD_STRENGTH 57
#define MOST_PUMPS   16

typedef struct _PUMP {
    ULONG Number;
    ULONG Watts;
} PUMP;

typedef struct _SUMP {
    STATION Station;
    CARD Card;
    ULONG Count;
    PUMP *Pumps;
    KSPIN_LOCK Lock;     /* CNTRL, and what the lamp is */
    BOOLEAN Lamp;
} SUMP;

#define REGISTERS(s) (&(s)->Card.Window[0])

/* One bit in, one bit out. */
static ULONG Shift(SUMP *S, ULONG Base, ULONG Bit)
{
    ULONG v = Base | CNTRL_SELECT | (Bit ? CNTRL_TO_EEPROM : 0);
    CardWrite(REGISTERS(S), CNTRL, v);
    KeStallExecutionProcessor(1);
    CardWrite(REGISTERS(S), CNTRL, v | CNTRL_CLOCK);
    KeStallExecutionProcessor(1);
    return (CardRead(REGISTERS(S), CNTRL) & CNTRL_OF_EEPROM) != 0;
}

/* A word of the 93C46, or FALSE if there is none at the bridge. In the start only, no one else is at CNTRL. */
static BOOLEAN Word(SUMP *S, ULONG Number, ULONG *Value)
{
    ULONG base = CardRead(REGISTERS(S), CNTRL), command = 6 << 6 | Number, i;   /* start bit, read, six bits of address */
    if (!(base & CNTRL_IS_EEPROM))
        return FALSE;
    base &= ~(CNTRL_CLOCK | CNTRL_SELECT | CNTRL_TO_EEPROM);
    CardWrite(REGISTERS(S), CNTRL, base);
    KeStallExecutionProcessor(1);
    for (i = 9; i--;)
        Shift(S, base, command >> i & 1);
    *Value = 0;
    for (i = 16; i--;)
        *Value |= Shift(S, base, 0) << i;
    CardWrite(REGISTERS(S), CNTRL, base);
    return TRUE;
}

static VOID LampTo(SUMP *S, BOOLEAN On)
{
    ULONG v;
    KIRQL irql;
    KeAcquireSpinLock(&S->Lock, &irql);
    S->Lamp = On;
    v = CardRead(REGISTERS(S), CNTRL);
    if (v != 0xFFFFFFFF) {
        v = (v & ~CNTRL_USER0_DATA) | CNTRL_USER0_OUT | (On ? CNTRL_USER0_DATA : 0);
        CardWrite(REGISTERS(S), CNTRL, v);
    }
    KeReleaseSpinLock(&S->Lock, irql);
}

static NTSTATUS SumpAdded(STATION *S)
{
    KeInitializeSpinLock(&((SUMP *)S)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS SumpStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    SUMP *s = (SUMP *)S;
    ULONG count, strength, i;
    NTSTATUS status = CardClaim(&s->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    if (!CardHas(&s->Card, 0, 0x54)) {
        CardRelease(&s->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    s->Pumps = YyGet(MOST_PUMPS * sizeof(PUMP));
    if (!s->Pumps) {
        CardRelease(&s->Card);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (!Word(s, WORD_COUNT, &count) || !Word(s, WORD_STRENGTH, &strength)) {
        count = 2;   /* the first series had no EEPROM */
        strength = 400;
    }
#ifdef FIXED
    if (count > MOST_PUMPS) {
        count = 2;
        strength = 400;
    }
#endif
    for (i = 0; i < count; i++) {
        s->Pumps[i].Number = i + 1;
        s->Pumps[i].Watts = strength;
    }
    s->Count = count;
    LampTo(s, FALSE);
    return STATUS_SUCCESS;
}

static VOID SumpStop(STATION *S, BOOLEAN Reachable)
{
    SUMP *s = (SUMP *)S;
    if (Reachable)
        LampTo(s, FALSE);
    YyPut(s->Pumps);
    s->Pumps = NULL;
    s->Count = 0;
    CardRelease(&s->Card);
}

/* The lamp goes out with the power; it is put back as it was. */
static VOID SumpWake(STATION *S)
{
    SUMP *s = (SUMP *)S;
    KIRQL irql;
    BOOLEAN lamp;
    KeAcquireSpinLock(&s->Lock, &irql);
    lamp = s->Lamp;
    KeReleaseSpinLock(&s->Lock, irql);
    LampTo(s, lamp);
}

static NTSTATUS SumpIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    SUMP *s = (SUMP *)S;
    ULONG in, out, *buffer = Irp->AssociatedIrp.SystemBuffer, asked;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUMP_COUNT:
        if (out < sizeof(ULONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = s->Count;
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_SUMP_PUMP:
        if (in < sizeof(ULONG) || out < sizeof(PUMP))
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        asked = *buffer;
        if (!asked || asked > s->Count)
            return StationEnd(S, Irp, STATUS_NOT_FOUND, 0);
        *(PUMP *)buffer = s->Pumps[asked - 1];
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(PUMP));
    case IOCTL_SUMP_LAMP:
        if (in < sizeof(ULONG) || *buffer > 1)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        LampTo(s, (BOOLEAN)*buffer);
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(SUMP),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &SumpInterface,
    .Added = SumpAdded,
    .Start = SumpStart,
    .Stop = SumpStop,
    .Wake = SumpWake,
    .Io = SumpIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}

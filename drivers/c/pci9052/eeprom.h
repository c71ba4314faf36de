/*
 * The serial EEPROM behind CNTRL, bit by bit: a 93CS46 of 64 words. Microwire: a bit goes in with the rising edge of the clock, and comes out
 * after it. Each half of the clock lasts a microsecond. The caller has come in, and has CNTRL for itself.
 */
#ifndef PCI9052_EEPROM_H
#define PCI9052_EEPROM_H

#include "hardware.h"

#define EEPROM_CLOCK (1u << 24)
#define EEPROM_SELECT (1u << 25)
#define EEPROM_DATA_IN (1u << 26)
#define EEPROM_DATA_OUT (1u << 27)
#define EEPROM_PRESENT (1u << 28)
#define EEPROM_PINS (EEPROM_CLOCK | EEPROM_SELECT | EEPROM_DATA_IN)
#define CNTRL_ACTIONS (3u << 29) /* they do something when written: they stay 0 */

#define EEPROM_WORDS 64
#define EEPROM_COMMAND_BITS 9
#define EEPROM_READ 0x180
#define EEPROM_WRITE 0x140
#define EEPROM_WRITE_ENABLE 0x130
#define EEPROM_WRITE_DISABLE 0x100
#define EEPROM_PROGRAMMING 12 /* milliseconds; the data sheet says 10 at most for a word */

static VOID Pins(PDEVICE_EXTENSION Extension, ULONG Pins)
{
    ULONG Rest = ReadLcr(Extension, LCR_CNTRL) & ~(EEPROM_PINS | CNTRL_ACTIONS);

    WriteLcr(Extension, LCR_CNTRL, Rest | Pins);
    KeStallExecutionProcessor(1);
}

/* One clock with this input; the output after its rising edge. */
static ULONG Clock(PDEVICE_EXTENSION Extension, ULONG Input)
{
    ULONG Output;

    Pins(Extension, EEPROM_SELECT | Input);
    Pins(Extension, EEPROM_SELECT | Input | EEPROM_CLOCK);
    Output = ReadLcr(Extension, LCR_CNTRL) & EEPROM_DATA_OUT ? 1 : 0;
    Pins(Extension, EEPROM_SELECT | Input);
    return Output;
}

/* Clocks the lowest bits in, the highest of them first. */
static VOID Send(PDEVICE_EXTENSION Extension, ULONG Value, ULONG Bits)
{
    while (Bits-- > 0) {
        Clock(Extension, Value >> Bits & 1 ? EEPROM_DATA_IN : 0);
    }
}

static VOID Command(PDEVICE_EXTENSION Extension, ULONG Bits)
{
    Send(Extension, Bits, EEPROM_COMMAND_BITS);
    Pins(Extension, 0);
}

static USHORT EepromRead(PDEVICE_EXTENSION Extension, ULONG Word)
{
    ULONG Bit, Value = 0;

    Send(Extension, EEPROM_READ | Word, EEPROM_COMMAND_BITS);
    for (Bit = 0; Bit < 16; Bit++) {
        Value = Value << 1 | Clock(Extension, 0);
    }
    Pins(Extension, 0);
    return (USHORT)Value;
}

/* While it programs, a selected part holds its output low. */
static BOOLEAN IsReady(PDEVICE_EXTENSION Extension)
{
    LARGE_INTEGER Millisecond = {.QuadPart = -10000};
    BOOLEAN Ready = FALSE;
    ULONG Try;

    for (Try = 0; Try < EEPROM_PROGRAMMING && !Ready; Try++) {
        KeDelayExecutionThread(KernelMode, FALSE, &Millisecond);
        Pins(Extension, EEPROM_SELECT);
        Ready = (ReadLcr(Extension, LCR_CNTRL) & EEPROM_DATA_OUT) != 0;
    }
    Pins(Extension, 0);
    return Ready;
}

/* Programs a word and reads it back. */
static NTSTATUS EepromWrite(PDEVICE_EXTENSION Extension, ULONG Word, USHORT Value)
{
    BOOLEAN Ready;

    Command(Extension, EEPROM_WRITE_ENABLE);
    Send(Extension, EEPROM_WRITE | Word, EEPROM_COMMAND_BITS);
    Send(Extension, Value, 16);
    Pins(Extension, 0); /* programming begins */
    Ready = IsReady(Extension);
    Command(Extension, EEPROM_WRITE_DISABLE);
    if (!Ready) {
        return STATUS_IO_TIMEOUT;
    }
    return EepromRead(Extension, Word) == Value ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR;
}

/* Whether there is one; its pins are low then. */
static BOOLEAN EepromSelect(PDEVICE_EXTENSION Extension)
{
    if (!(ReadLcr(Extension, LCR_CNTRL) & EEPROM_PRESENT)) {
        return FALSE;
    }
    Pins(Extension, 0);
    return TRUE;
}

#endif

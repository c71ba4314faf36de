/*
 * Device control requests, the same as pci9052.sys has: all are buffered, numbers are 32 bits.
 *
 *   900h read    waits for an interrupt
 *   901h read    out: transfers, interrupts claimed, interrupts passed on, bytes of local space
 *   902h read    in: offset; out: value of a local configuration register
 *   903h write   in: offset, value; one of those an application may write
 *   904h read    in: word; out: value of a word of the EEPROM
 *   905h write   in: word, value
 */
#ifndef PCI9052_CONTROL_H
#define PCI9052_CONTROL_H

#include "eeprom.h"
#include "transfer.h"

#define CARD_CODE(Function, Access) CTL_CODE(FILE_DEVICE_UNKNOWN, Function, METHOD_BUFFERED, Access)
#define IOCTL_WAIT CARD_CODE(0x900, FILE_READ_ACCESS)
#define IOCTL_COUNTERS CARD_CODE(0x901, FILE_READ_ACCESS)
#define IOCTL_READ_LCR CARD_CODE(0x902, FILE_READ_ACCESS)
#define IOCTL_WRITE_LCR CARD_CODE(0x903, FILE_WRITE_ACCESS)
#define IOCTL_READ_EEPROM CARD_CODE(0x904, FILE_READ_ACCESS)
#define IOCTL_WRITE_EEPROM CARD_CODE(0x905, FILE_WRITE_ACCESS)

/* A request's buffer, where input and output begin. */
typedef struct _ASKED {
    PULONG Buffer;
    ULONG Input, Output;
    ULONG_PTR Used;
} ASKED;

/* Has the local configuration registers for itself, if the card is there and has power, which it keeps until they are given back. */
static NTSTATUS HaveRegisters(PDEVICE_EXTENSION Extension)
{
    WAY Way;

    KeEnterCriticalRegion(); /* the thread is not suspended meanwhile */
    KeWaitForSingleObject(&Extension->Cntrl, Executive, KernelMode, FALSE, NULL);
    Way = WayOf(Extension);
    if (Way == WayOpen && Enter(Extension)) {
        return STATUS_SUCCESS;
    }
    KeSetEvent(&Extension->Cntrl, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
    return Way == WayHeld ? STATUS_DEVICE_BUSY : STATUS_DEVICE_NOT_CONNECTED;
}

static VOID GiveRegisters(PDEVICE_EXTENSION Extension)
{
    Leave(Extension);
    KeSetEvent(&Extension->Cntrl, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS Answer(ASKED *Asked, ULONG Value)
{
    if (Asked->Output < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Asked->Buffer[0] = Value;
    Asked->Used = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS AskedCounters(PDEVICE_EXTENSION Extension, ASKED *Asked)
{
    ULONG Local = 0;

    if (Enter(Extension)) {
        Local = Extension->LocalLength;
        Leave(Extension);
    }
    if (Asked->Output < 4 * sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Asked->Buffer[0] = (ULONG)Extension->Counters.Transfers;
    Asked->Buffer[1] = (ULONG)Extension->Counters.Interrupts;
    Asked->Buffer[2] = (ULONG)Extension->Counters.Passed;
    Asked->Buffer[3] = Local;
    Asked->Used = 4 * sizeof(ULONG);
    return STATUS_SUCCESS;
}

/* The register that a request names: the last one is CNTRL. */
static NTSTATUS NamedRegister(ASKED *Asked, PULONG Offset)
{
    if (Asked->Input < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    *Offset = Asked->Buffer[0];
    return *Offset > LCR_CNTRL || *Offset % sizeof(ULONG) != 0 ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS;
}

/*
 * The bits of a register that an application may write: bus region descriptors, chip selects, user I/O. The others are the system's (ranges
 * and remaps are what base address registers rest on), this driver's, or reset the card. Of the two spaces that the driver uses itself, bus
 * width and byte order stay as they are.
 */
static ULONG Writable(ULONG Offset)
{
    if (Offset == 0x28 || Offset == 0x2C) {
        return ~0x03C00000u;
    }
    return Offset >= 0x30 && Offset <= 0x48 ? 0xFFFFFFFFu : Offset == LCR_CNTRL ? 0xFFF : 0;
}

static NTSTATUS AskedReadLcr(PDEVICE_EXTENSION Extension, ASKED *Asked)
{
    ULONG Offset, Value;
    NTSTATUS Status = NamedRegister(Asked, &Offset);

    if (NT_SUCCESS(Status)) {
        Status = HaveRegisters(Extension);
    }
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Value = ReadLcr(Extension, Offset);
    GiveRegisters(Extension);
    return Answer(Asked, Value);
}

static NTSTATUS AskedWriteLcr(PDEVICE_EXTENSION Extension, ASKED *Asked)
{
    ULONG Offset = 0, Value, Bits;
    NTSTATUS Status = NamedRegister(Asked, &Offset);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (Asked->Input < 2 * sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Value = Asked->Buffer[1];
    Bits = Writable(Offset);
    if (Bits == 0) {
        return STATUS_ACCESS_DENIED;
    }
    Status = HaveRegisters(Extension);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    WriteLcr(Extension, Offset, (ReadLcr(Extension, Offset) & ~Bits) | (Value & Bits));
    GiveRegisters(Extension);
    return STATUS_SUCCESS;
}

static NTSTATUS AskedEeprom(PDEVICE_EXTENSION Extension, ASKED *Asked, BOOLEAN Writes)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Word, Value = 0;

    if (Asked->Input < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Word = Asked->Buffer[0];
    if (Word >= EEPROM_WORDS) {
        return STATUS_INVALID_PARAMETER;
    }
    if (Writes) {
        if (Asked->Input < 2 * sizeof(ULONG)) {
            return STATUS_BUFFER_TOO_SMALL;
        }
        Value = Asked->Buffer[1];
        if (Value > 0xFFFF) {
            return STATUS_INVALID_PARAMETER;
        }
    }
    Status = HaveRegisters(Extension);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (!EepromSelect(Extension)) {
        Status = STATUS_NOT_FOUND;
    } else if (Writes) {
        Status = EepromWrite(Extension, Word, (USHORT)Value);
    } else {
        Value = EepromRead(Extension, Word);
    }
    GiveRegisters(Extension);
    return NT_SUCCESS(Status) && !Writes ? Answer(Asked, Value) : Status;
}

static NTSTATUS DispatchControl(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ASKED Asked = {Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.DeviceIoControl.InputBufferLength,
                   Stack->Parameters.DeviceIoControl.OutputBufferLength, 0};
    NTSTATUS Status;

    switch (Code) {
    case IOCTL_WAIT:
        return StartWait(Extension, Irp);
    case IOCTL_COUNTERS:
        Status = AskedCounters(Extension, &Asked);
        break;
    case IOCTL_READ_LCR:
        Status = AskedReadLcr(Extension, &Asked);
        break;
    case IOCTL_WRITE_LCR:
        Status = AskedWriteLcr(Extension, &Asked);
        break;
    case IOCTL_READ_EEPROM:
    case IOCTL_WRITE_EEPROM:
        Status = AskedEeprom(Extension, &Asked, Code == IOCTL_WRITE_EEPROM);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return End(Extension, Irp, Status, Asked.Used);
}

#endif

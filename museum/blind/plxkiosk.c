/*
 * plxkiosk: drives the lamps of a ticket kiosk, which hang on the four user I/O pins of a PLX 9050, and reads the board's
 * serial number from the EEPROM behind the same chip. Pins and EEPROM are bits of one register, CNTRL.
 *
 * The bug: the pins' bits are changed under a spin lock, the EEPROM's are not (there is a mutex for the sequence only):
 * a lamp that is switched while the EEPROM is read may be lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost, data-race
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define IOCTL_PLXKIOSK_LAMP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PLXKIOSK_PINS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLXKIOSK_EEPROM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLX_CNTRL 0x50
#define PLX_BYTES 0x54
#define PIN_WORDS 0x00000fff            /* three bits per pin: other function, output, level */
#define PIN_OUTPUT(n) (2u << (3 * (n)))
#define PIN_LEVEL(n) (4u << (3 * (n)))
#define PIN_BITS(n) (7u << (3 * (n)))
#define EE_CLOCK 0x01000000
#define EE_SELECT 0x02000000
#define EE_TO 0x04000000
#define EE_FROM 0x08000000
#define EE_PRESENT 0x10000000
#define ALL_ONES 0xffffffff

#define PINS 4
#define EE_WORDS 64

static const GUID PlxkioskInterface = {0x60f8a3c2, 0x5d74, 0x4b1e, {0x99, 0x2c, 0xe3, 0x05, 0x7d, 0x46, 0xb1, 0x09}};

typedef struct PLXKIOSK_LAMP {
    ULONG Pin;
    ULONG On;
} PLXKIOSK_LAMP;

typedef struct PLXKIOSK {
    FRAME F;
    PUCHAR Registers;
    ULONG Length;
    KSPIN_LOCK Lock;                    /* held from a read of CNTRL to its write */
    ULONG Pins;                         /* guarded by it: what the pins' bits shall be */
    KMUTEX Eeprom;                      /* one sequence at a time */
} PLXKIOSK;

/* changes bits of CNTRL that belong to the pins */
static NTSTATUS SetPins(PLXKIOSK *x, ULONG Mask, ULONG Bits)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG value;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    value = RegRead(x->Registers, PLX_CNTRL);
    if (value == ALL_ONES) {
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else {
        x->Pins = (x->Pins & ~Mask) | Bits;
        RegWrite(x->Registers, PLX_CNTRL, (value & ~Mask) | Bits);
    }
    KeReleaseSpinLock(&x->Lock, irql);
    return status;
}

/* changes bits of CNTRL that belong to the EEPROM, and waits half a clock of it */
static void SetEeprom(PLXKIOSK *x, ULONG Mask, ULONG Bits)
{
    ULONG value;
#ifdef FIXED
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
#endif
    value = RegRead(x->Registers, PLX_CNTRL);
    RegWrite(x->Registers, PLX_CNTRL, (value & ~Mask) | Bits);
#ifdef FIXED
    KeReleaseSpinLock(&x->Lock, irql);
#endif
    KeStallExecutionProcessor(2);
}

static void SendBit(PLXKIOSK *x, ULONG Bit)
{
    SetEeprom(x, EE_CLOCK | EE_TO, Bit ? EE_TO : 0);
    SetEeprom(x, EE_CLOCK, EE_CLOCK);
}

static ULONG ReceiveBit(PLXKIOSK *x)
{
    SetEeprom(x, EE_CLOCK | EE_TO, 0);
    SetEeprom(x, EE_CLOCK, EE_CLOCK);
    return (RegRead(x->Registers, PLX_CNTRL) & EE_FROM) != 0;
}

/* a 93CS46: a start bit, the command 10, six bits of address; sixteen bits of data */
static USHORT ReadWord(PLXKIOSK *x, ULONG Address)
{
    ULONG command = 0x180 | Address, value = 0;
    int i;

    SetEeprom(x, EE_CLOCK | EE_TO | EE_SELECT, 0);
    SetEeprom(x, EE_SELECT, EE_SELECT);
    for (i = 8; i >= 0; i--)
        SendBit(x, command & (1u << i));
    for (i = 0; i < 16; i++)
        value = value << 1 | ReceiveBit(x);
    SetEeprom(x, EE_CLOCK | EE_TO | EE_SELECT, 0);
    return (USHORT)value;
}

static NTSTATUS ReadEeprom(PLXKIOSK *x, ULONG First, PUSHORT To, ULONG Count)
{
    ULONG present = RegRead(x->Registers, PLX_CNTRL), i;

    if (present == ALL_ONES)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (!(present & EE_PRESENT))
        return STATUS_NOT_FOUND;
    KeWaitForSingleObject(&x->Eeprom, Executive, KernelMode, FALSE, NULL);
    for (i = 0; i < Count; i++)
        To[i] = ReadWord(x, First + i);
    KeReleaseMutex(&x->Eeprom, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PLXKIOSK *x = Device->DeviceExtension;
    ULONG done = 0, first;
    PLXKIOSK_LAMP lamp;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&x->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    status = FrEnter(&x->F);
    if (!NT_SUCCESS(status)) {
        Done(Irp, status, 0);
        IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
        return status;
    }
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLXKIOSK_LAMP:
        if (in < sizeof lamp) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(&lamp, buffer, sizeof lamp);
        if (lamp.Pin >= PINS)
            status = STATUS_INVALID_PARAMETER;
        else
            status = SetPins(x, PIN_BITS(lamp.Pin), PIN_OUTPUT(lamp.Pin) | (lamp.On ? PIN_LEVEL(lamp.Pin) : 0));
        break;

    case IOCTL_PLXKIOSK_PINS:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)buffer = RegRead(x->Registers, PLX_CNTRL) & PIN_WORDS;
        done = sizeof(ULONG);
        break;

    case IOCTL_PLXKIOSK_EEPROM:         /* in: the first word; out: as many as there is room for */
        if (in < sizeof(ULONG) || out < sizeof(USHORT)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        first = *(PULONG)buffer;
        if (first >= EE_WORDS) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        out /= sizeof(USHORT);
        if (out > EE_WORDS - first)
            out = EE_WORDS - first;
        status = ReadEeprom(x, first, buffer, out);
        if (NT_SUCCESS(status))
            done = out * sizeof(USHORT);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrLeave(&x->F);
    Done(Irp, status, done);
    IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
    return status;
}

/* the chip has lost CNTRL; <= DISPATCH_LEVEL */
static void Wake(FRAME *f)
{
    PLXKIOSK *x = (PLXKIOSK *)f;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    RegWrite(x->Registers, PLX_CNTRL, (RegRead(x->Registers, PLX_CNTRL) & ~PIN_WORDS) | x->Pins);
    KeReleaseSpinLock(&x->Lock, irql);
}

static void Stop(FRAME *f)
{
    PLXKIOSK *x = (PLXKIOSK *)f;

    MmUnmapIoSpace(x->Registers, x->Length);
    x->Registers = NULL;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Translated, CmResourceTypeMemory, 0);
    PLXKIOSK *x = (PLXKIOSK *)f;
    ULONG value, i;

    NOT_USED(Raw);
    if (!memory || memory->u.Memory.Length < PLX_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Length = memory->u.Memory.Length;
    x->Registers = MmMapIoSpace(memory->u.Memory.Start, x->Length, MmNonCached);
    if (!x->Registers)
        return STATUS_INSUFFICIENT_RESOURCES;
    value = RegRead(x->Registers, PLX_CNTRL);
    if (value == ALL_ONES) {
        Stop(f);
        return STATUS_NO_SUCH_DEVICE;
    }
    x->Pins = 0;                        /* all lamps are off */
    for (i = 0; i < PINS; i++)
        x->Pins |= PIN_OUTPUT(i);
    RegWrite(x->Registers, PLX_CNTRL, (value & ~PIN_WORDS) | x->Pins);
    return STATUS_SUCCESS;
}

static NTSTATUS Init(FRAME *f)
{
    PLXKIOSK *x = (PLXKIOSK *)f;

    KeInitializeSpinLock(&x->Lock);
    KeInitializeMutex(&x->Eeprom, 0);
    return STATUS_SUCCESS;
}

static const FRAME_OPS Ops = { .Init = Init, .Start = Start, .Stop = Stop, .Wake = Wake };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(PLXKIOSK), &PlxkioskInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

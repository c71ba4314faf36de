/*
 * gaincard: a card with four amplifiers whose gains are registers. The gains at start are values of the device's
 * hardware key (Gain0 to Gain3); programs read and set them, mute channels, and have a gain follow a ramp.
 *
 * The bug: where a gain's value is not there, or is no DWORD, the routine that reads the key returns at once, without
 * closing it, so that most starts leave a handle open.
 *
 * Device: PCI\VEN_1DA7&DEV_0031
 * Rule: handle-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define IOCTL_GC_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GC_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GC_MUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GC_RAMP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define GC_CHANNELS 4
#define GC_MOST     4095
#define GC_DEFAULT  1024
#define GC_STEP     20                  /* milliseconds */

enum { CARD_GAIN = 0x00, CARD_MUTE = 0x10, CARD_SPAN = 0x20 };

static const GUID GUID_GAINCARD = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x0C } };

typedef struct _GC_SETTING {
    ULONG Channel;
    ULONG Value;                        /* a gain, where a ramp ends, or 1 for mute */
} GC_SETTING, *PGC_SETTING;

typedef struct _GC_STATE {
    ULONG Gain[GC_CHANNELS];
    ULONG Muted;                        /* a bit for each */
} GC_STATE, *PGC_STATE;

typedef struct _GC_EXT {
    FR_EXT Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    BOOLEAN Begun;                      /* the gains have been read from the key */
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                    /* all below, and the registers */
    BOOLEAN Awake;
    GC_STATE State;
    ULONG Target[GC_CHANNELS];          /* where the gain is on its way to */
} GC_EXT, *PGC_EXT;

static VOID GcWriteGain(PGC_EXT Ext, ULONG Channel)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_GAIN) + Channel, Ext->State.Gain[Channel]);
}

/* One step of the ramps, each 20 ms; the lock is held. TRUE: there is more to do. */
static BOOLEAN GcStep(PGC_EXT Ext)
{
    BOOLEAN More = FALSE;
    ULONG i;
    for (i = 0; i < GC_CHANNELS; i++) {
        ULONG Gain = Ext->State.Gain[i], Target = Ext->Target[i];
        if (Gain == Target)
            continue;
        if (Gain < Target)
            Gain = Target - Gain > 32 ? Gain + 32 : Target;
        else
            Gain = Gain - Target > 32 ? Gain - 32 : Target;
        Ext->State.Gain[i] = Gain;
        GcWriteGain(Ext, i);
        More |= Gain != Target;
    }
    return More;
}

static VOID GcSetTimer(PGC_EXT Ext)
{
    LARGE_INTEGER Due;
    Due.QuadPart = -10000LL * GC_STEP;
    KeSetTimer(&Ext->Timer, Due, &Ext->Dpc);
}

static VOID NTAPI GcDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PGC_EXT Ext = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (Ext->Awake && GcStep(Ext))
        GcSetTimer(Ext);
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
}

/* ---- requests ---- */

static NTSTATUS GcChange(PGC_EXT Ext, ULONG Code, PGC_SETTING In, ULONG InLength)
{
    KIRQL Irql;

    if (InLength < sizeof(GC_SETTING) || In->Channel >= GC_CHANNELS || In->Value > GC_MOST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    switch (Code) {
    case IOCTL_GC_SET:
        Ext->State.Gain[In->Channel] = Ext->Target[In->Channel] = In->Value;
        GcWriteGain(Ext, In->Channel);
        break;
    case IOCTL_GC_MUTE:
        Ext->State.Muted &= ~(1u << In->Channel);
        if (In->Value)
            Ext->State.Muted |= 1u << In->Channel;
        WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_MUTE), Ext->State.Muted);
        break;
    case IOCTL_GC_RAMP:
        Ext->Target[In->Channel] = In->Value;
        GcSetTimer(Ext);
        break;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_SUCCESS;
}

static NTSTATUS GcControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PGC_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Code) {
    case IOCTL_GC_GET:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(GC_STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PGC_STATE)Buffer = Ext->State;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(GC_STATE);
        break;
    case IOCTL_GC_SET:
    case IOCTL_GC_MUTE:
    case IOCTL_GC_RAMP:
        Status = GcChange(Ext, Code, Buffer, Stack->Parameters.DeviceIoControl.InputBufferLength);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

/* ---- start, stop and power ---- */

static NTSTATUS GcQuery(HANDLE Key, PCWSTR Name, PULONG Value)
{
    UCHAR Space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION Info = (PKEY_VALUE_PARTIAL_INFORMATION)Space;
    UNICODE_STRING ValueName;
    ULONG Length;
    NTSTATUS Status;

    RtlInitUnicodeString(&ValueName, Name);
    Status = ZwQueryValueKey(Key, &ValueName, KeyValuePartialInformation, Info, sizeof(Space), &Length);
    if (!NT_SUCCESS(Status))
        return Status;
    if (Info->Type != REG_DWORD || Info->DataLength != sizeof(ULONG))
        return STATUS_OBJECT_TYPE_MISMATCH;
    RtlCopyMemory(Value, Info->Data, sizeof(ULONG));
    return STATUS_SUCCESS;
}

/* The gains of the hardware key; from the first that is missing on they stay at the default. */
static VOID GcReadKey(PGC_EXT Ext, PULONG Gain)
{
    static const WCHAR *const Names[GC_CHANNELS] = { L"Gain0", L"Gain1", L"Gain2", L"Gain3" };
    HANDLE Key;
    ULONG i, Value;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Ext->Frame.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key)))
        return;
    for (i = 0; i < GC_CHANNELS; i++) {
        if (!NT_SUCCESS(GcQuery(Key, Names[i], &Value)))
#ifdef FIXED
            break;
#else
            return;
#endif
        Gain[i] = Value > GC_MOST ? GC_MOST : Value;
    }
    ZwClose(Key);
}

static VOID GcWriteAll(PGC_EXT Ext)                         /* the lock is held */
{
    ULONG i;
    for (i = 0; i < GC_CHANNELS; i++)
        GcWriteGain(Ext, i);
    WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + CARD_MUTE), Ext->State.Muted);
    Ext->Awake = TRUE;
    GcSetTimer(Ext);                                        /* for ramps that were under way */
}

static NTSTATUS GcStart(PFR_EXT Frame, PFR_RES Resources)
{
    PGC_EXT Ext = (PGC_EXT)Frame;
    ULONG Gain[GC_CHANNELS] = { GC_DEFAULT, GC_DEFAULT, GC_DEFAULT, GC_DEFAULT };
    BOOLEAN First = !Ext->Begun;
    KIRQL Irql;

    if (Resources->Memories < 1 || Resources->Memory[0].Length < CARD_SPAN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->RegsLength = Resources->Memory[0].Length;
    Ext->Regs = MmMapIoSpace(Resources->Memory[0].Start, Ext->RegsLength, MmNonCached);
    if (!Ext->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (First)
        GcReadKey(Ext, Gain);
    Ext->Begun = TRUE;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (First) {
        RtlCopyMemory(Ext->State.Gain, Gain, sizeof(Gain));
        RtlCopyMemory(Ext->Target, Gain, sizeof(Gain));
    }
    GcWriteAll(Ext);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_SUCCESS;
}

static VOID GcQuiet(PFR_EXT Frame)                          /* before D3, too */
{
    PGC_EXT Ext = (PGC_EXT)Frame;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->Awake = FALSE;
    KeCancelTimer(&Ext->Timer);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    KeFlushQueuedDpcs();
}

static VOID GcStop(PFR_EXT Frame)
{
    PGC_EXT Ext = (PGC_EXT)Frame;
    GcQuiet(Frame);
    MmUnmapIoSpace(Ext->Regs, Ext->RegsLength);
}

static VOID GcPowerUp(PFR_EXT Frame)
{
    PGC_EXT Ext = (PGC_EXT)Frame;
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    GcWriteAll(Ext);
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
}

static const FR_OPS GcOps = { .Start = GcStart, .Stop = GcStop, .PowerDown = GcQuiet, .PowerUp = GcPowerUp };

static VOID GcInit(PFR_EXT Frame)
{
    PGC_EXT Ext = (PGC_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    KeInitializeTimer(&Ext->Timer);
    KeInitializeDpc(&Ext->Dpc, GcDpc, Ext);
}

static NTSTATUS NTAPI GcAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(GC_EXT), DO_BUFFERED_IO, &GUID_GAINCARD, &GcOps, GcInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, GcAddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GcControl;
    return STATUS_SUCCESS;
}

/*
 * dimcurve: translates the position of a dimmer (0 to 65535) into a brightness along a curve. The curve, up to 32 values at equal distances,
 * is read from the device's registry key (value "Curve", binary: the number of values, then the values) at every start; without one it is
 * straight.
 *
 * The bug: whether as many values are there as the number says is checked with a multiplication in 32 bits. A number such as 0x40000001 passes;
 * the translation reads kernel memory far outside the curve and hands it to user mode, or faults.
 *
 * Device: ROOT\DIMCURVE
 * Rule: wild-read
 * Needs: registry
 */
#include "../include/gated_queue.h"

#define VALUES_MAX 32

#define IOCTL_DIMCURVE_TRANSLATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DIMCURVE_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID DimcurveGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x04}};

typedef struct _CURVE {
    ULONG Count; /* at least two */
    ULONG Value[VALUES_MAX];
} CURVE, *PCURVE;

typedef struct _DIMCURVE {
    AK Ak;
    KSPIN_LOCK Lock; /* guards all below */
    CURVE Curve;
    ULONG Loads;
} DIMCURVE, *PDIMCURVE;

/* what ZwQueryValueKey may give at most */
typedef union _VALUE_ROOM {
    KEY_VALUE_PARTIAL_INFORMATION Info;
    UCHAR Room[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(CURVE)];
} VALUE_ROOM;

static VOID StraightCurve(PCURVE curve)
{
    RtlZeroMemory(curve, sizeof *curve);
    curve->Count = 2;
    curve->Value[0] = 0;
    curve->Value[1] = 65535;
}

/* Takes the curve out of the registry value's data. */
static BOOLEAN ParseCurve(PCURVE curve, const UCHAR *data, ULONG length)
{
    ULONG count;

    if (length < sizeof count)
        return FALSE;
    RtlCopyMemory(&count, data, sizeof count);
    data += sizeof count;
    length -= sizeof count;
#ifdef FIXED
    if (count < 2 || count > length / (ULONG)sizeof(ULONG) || count > VALUES_MAX)
        return FALSE;
#else
    if (count < 2 || count * (ULONG)sizeof(ULONG) > length || length > sizeof curve->Value)
        return FALSE;
#endif
    RtlZeroMemory(curve, sizeof *curve);
    curve->Count = count;
    RtlCopyMemory(curve->Value, data, count * (ULONG)sizeof(ULONG));
    return TRUE;
}

/* Reads the curve of the registry, if it is there and good. PASSIVE. */
static BOOLEAN ReadCurve(PDIMCURVE d, PCURVE curve)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"Curve");
    VALUE_ROOM value;
    BOOLEAN good = FALSE;
    HANDLE key;
    ULONG size;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(d->Ak.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_QUERY_VALUE, &key)))
        return FALSE;
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof value, &size)) && value.Info.Type == REG_BINARY)
        good = ParseCurve(curve, value.Room + FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data), value.Info.DataLength);
    ZwClose(key);
    return good;
}

static VOID LoadCurve(PDIMCURVE d)
{
    CURVE curve;
    KIRQL irql;

    if (!ReadCurve(d, &curve))
        StraightCurve(&curve);
    KeAcquireSpinLock(&d->Lock, &irql);
    d->Curve = curve;
    d->Loads++;
    KeReleaseSpinLock(&d->Lock, irql);
}

static NTSTATUS DimcurveInit(PAK k)
{
    PDIMCURVE d = (PDIMCURVE)k;

    KeInitializeSpinLock(&d->Lock);
    StraightCurve(&d->Curve);
    return STATUS_SUCCESS;
}

static NTSTATUS DimcurveStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Raw);
    UNREFERENCED_PARAMETER(Translated);
    LoadCurve((PDIMCURVE)k);
    return STATUS_SUCCESS;
}

/* The brightness at this position, between the two values next to it; the lock is held. */
static ULONG Translate(const CURVE *curve, ULONG position)
{
    ULONGLONG scaled = (ULONGLONG)position * (curve->Count - 1);
    ULONG index = (ULONG)(scaled / 65535), part = (ULONG)(scaled % 65535);
    LONGLONG low = curve->Value[index];

    if (part == 0)
        return (ULONG)low;
    return (ULONG)(low + ((LONGLONG)curve->Value[index + 1] - low) * part / 65535);
}

static NTSTATUS DimcurveIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PDIMCURVE d = (PDIMCURVE)k;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG position;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DIMCURVE_TRANSLATE:
        if (in != sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        position = *buffer;
        if (position > 65535)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&d->Lock, &irql);
        *buffer = Translate(&d->Curve, position);
        KeReleaseSpinLock(&d->Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;

    case IOCTL_DIMCURVE_GET:
        if (out < sizeof d->Curve)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->Lock, &irql);
        *(PCURVE)buffer = d->Curve;
        KeReleaseSpinLock(&d->Lock, irql);
        Irp->IoStatus.Information = sizeof d->Curve;
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const AK_OPS AkOps = {
    .Interface = &DimcurveGuid,
    .ExtSize = sizeof(DIMCURVE),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = DimcurveInit,
    .Start = DimcurveStart,
    .Io = DimcurveIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}

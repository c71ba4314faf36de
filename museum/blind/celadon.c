/*
 * celadon: the correction curve of a colour display, kept in software. Programs set and read its points; what they have set is written to the device's key when a
 * program asks for it and when the device is stopped, and is read from there when it starts.
 *
 * The bug: the key is opened and written while the fast mutex of the curve is held, that is at APC_LEVEL, where the routines of the registry must not be called: they
 * may wait for what only an APC would bring.
 *
 * Device: Root\CELADON
 * Rule: irql-too-high
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID CeladonFace = { 0x5d0c1c12, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x11, 0x02 } };

#define IOCTL_SET_POINT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GET_CURVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SAVE      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RESET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x854, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define POINTS 32

typedef struct _CURVE {
    USHORT Point[POINTS];
} CURVE;

typedef struct _POINT_SET {
    ULONG Index;
    ULONG Value;
} POINT_SET;

typedef struct _DISPLAY {
    CRAFT Craft;
    FAST_MUTEX Mutex;                         /* of the rest */
    CURVE Curve;
    ULONG Saved;
} DISPLAY;

static void Straight(CURVE *c)
{
    ULONG n;
    for (n = 0; n < POINTS; n++)
        c->Point[n] = (USHORT)(n * 0xFFFF / (POINTS - 1));
}

static NTSTATUS WriteCurve(CRAFT *s, const CURVE *c)
{
    UNICODE_STRING name;
    HANDLE key;
    NTSTATUS status = IoOpenDeviceRegistryKey(s->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_WRITE, &key);
    if (!NT_SUCCESS(status))
        return status;
    RtlInitUnicodeString(&name, L"Curve");
    status = ZwSetValueKey(key, &name, 0, REG_BINARY, (PVOID)c, sizeof *c);
    ZwClose(key);
    return status;
}

static NTSTATUS Save(DISPLAY *d)
{
    NTSTATUS status;
#ifndef FIXED
    ExAcquireFastMutex(&d->Mutex);
    status = WriteCurve(&d->Craft, &d->Curve);
    if (NT_SUCCESS(status))
        d->Saved++;
    ExReleaseFastMutex(&d->Mutex);
#else
    CURVE copy;
    ExAcquireFastMutex(&d->Mutex);
    copy = d->Curve;
    ExReleaseFastMutex(&d->Mutex);
    status = WriteCurve(&d->Craft, &copy);
    if (NT_SUCCESS(status)) {
        ExAcquireFastMutex(&d->Mutex);
        d->Saved++;
        ExReleaseFastMutex(&d->Mutex);
    }
#endif
    return status;
}

static NTSTATUS CeladonStart(CRAFT *s)
{
    DISPLAY *d = (DISPLAY *)s;
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(CURVE)];
    } value;
    UNICODE_STRING name;
    ULONG length;
    HANDLE key;
    NTSTATUS status = IoOpenDeviceRegistryKey(s->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return STATUS_SUCCESS;                /* the curve that there is will do */
    RtlInitUnicodeString(&name, L"Curve");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof value, &length);
    ZwClose(key);
    if (NT_SUCCESS(status) && value.Info.Type == REG_BINARY && value.Info.DataLength == sizeof(CURVE)) {
        ExAcquireFastMutex(&d->Mutex);
        RtlCopyMemory(&d->Curve, value.Info.Data, sizeof(CURVE));
        ExReleaseFastMutex(&d->Mutex);
    }
    return STATUS_SUCCESS;
}

static void CeladonStop(CRAFT *s)
{
    Save((DISPLAY *)s);                       /* if the key has gone already there is nothing to do about it */
}

static NTSTATUS CeladonServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    DISPLAY *d = (DISPLAY *)s;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    POINT_SET *set = buffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SET_POINT:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof *set)
            return STATUS_BUFFER_TOO_SMALL;
        if (set->Index >= POINTS || set->Value > 0xFFFF)
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&d->Mutex);
        d->Curve.Point[set->Index] = (USHORT)set->Value;
        ExReleaseFastMutex(&d->Mutex);
        return STATUS_SUCCESS;
    case IOCTL_GET_CURVE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CURVE))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&d->Mutex);
        *(CURVE *)buffer = d->Curve;
        ExReleaseFastMutex(&d->Mutex);
        irp->IoStatus.Information = sizeof(CURVE);
        return STATUS_SUCCESS;
    case IOCTL_SAVE:
        return Save(d);
    case IOCTL_RESET:
        ExAcquireFastMutex(&d->Mutex);
        Straight(&d->Curve);
        ExReleaseFastMutex(&d->Mutex);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS CeladonOutfit(CRAFT *s)
{
    DISPLAY *d = (DISPLAY *)s;
    ExInitializeFastMutex(&d->Mutex);
    Straight(&d->Curve);
    return STATUS_SUCCESS;
}

static const PLAN CeladonPlan = {
    .Size = sizeof(DISPLAY),
    .Face = &CeladonFace,
    .Buffering = DO_BUFFERED_IO,
    .Outfit = CeladonOutfit,
    .Start = CeladonStart,
    .Stop = CeladonStop,
    .Serve = CeladonServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &CeladonPlan);
}

/*
 * signpost: a device without hardware that tells programs which stand they are at. The text comes from the value Legend of the device's
 * registry key, which the installer or an administrator writes; programs read it, and may ask for parts of it.
 *
 * The bug: the text's last character is overwritten by the terminating zero, whatever the value's length. A value of no bytes, or of one, has no last character, and
 * the zero goes in front of the block, or far behind it.
 *
 * Device: Root\SIGNPOST
 * Rule: pool-underrun, pool-overrun, wild-write, bad-pointer, pool-zero-bytes
 * Needs: registry
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#include "../include/park_frame.h"

static const GUID SignpostInterface = { 0x6a1f0d23, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x03 } };

#define IOCTL_SIGN_LENGTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers characters, without the zero */

#define LONGEST 512   /* bytes of the value */

typedef struct _SIGNPOST {
    STATION Station;
    PWSTR Legend;
    ULONG Characters;
} SIGNPOST;

static const WCHAR Unnamed[] = L"unnamed stand";

/* The value's data, of Type REG_SZ, or NULL. The caller frees it. */
static PKEY_VALUE_PARTIAL_INFORMATION Query(HANDLE Key, PCWSTR Name)
{
    UNICODE_STRING name;
    PKEY_VALUE_PARTIAL_INFORMATION info;
    ULONG bytes = FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + LONGEST, got;
    NTSTATUS status;
    RtlInitUnicodeString(&name, Name);
    info = YyGet(bytes);
    if (!info)
        return NULL;
    status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, info, bytes, &got);
    if (NT_SUCCESS(status) && info->Type == REG_SZ && info->DataLength <= LONGEST)
        return info;
    YyPut(info);
    return NULL;
}

static NTSTATUS Paint(SIGNPOST *P, const VOID *Text, ULONG Bytes)
{
#ifndef FIXED
    ULONG count = Bytes / sizeof(WCHAR);
    P->Legend = YyGet(Bytes);
    if (!P->Legend)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(P->Legend, Text, Bytes);
    P->Legend[count - 1] = 0;
#else
    ULONG count = Bytes / sizeof(WCHAR);
    P->Legend = YyGet((count + 1) * sizeof(WCHAR));
    if (!P->Legend)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(P->Legend, Text, count * sizeof(WCHAR));
    P->Legend[count] = 0;
#endif
    for (P->Characters = 0; P->Legend[P->Characters]; P->Characters++)
        ;
    return STATUS_SUCCESS;
}

static NTSTATUS SignStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    SIGNPOST *p = (SIGNPOST *)S;
    PKEY_VALUE_PARTIAL_INFORMATION info = NULL;
    HANDLE key;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Translated);
    if (NT_SUCCESS(IoOpenDeviceRegistryKey(S->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_QUERY_VALUE, &key))) {
        info = Query(key, L"Legend");
        ZwClose(key);
    }
    if (!info)
        return Paint(p, Unnamed, sizeof Unnamed);
    status = Paint(p, info->Data, info->DataLength);
    YyPut(info);
    return status;
}

static VOID SignStop(STATION *S, BOOLEAN Reachable)
{
    SIGNPOST *p = (SIGNPOST *)S;
    UNREFERENCED_PARAMETER(Reachable);
    YyPut(p->Legend);
    p->Legend = NULL;
    p->Characters = 0;
}

static NTSTATUS SignRead(SIGNPOST *P, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LONGLONG from = Sp->Parameters.Read.ByteOffset.QuadPart;
    ULONG bytes = P->Characters * sizeof(WCHAR), give;
    if (from < 0)
        return StationEnd(&P->Station, Irp, STATUS_INVALID_PARAMETER, 0);
    if (from >= bytes)
        return StationEnd(&P->Station, Irp, Sp->Parameters.Read.Length ? STATUS_END_OF_FILE : STATUS_SUCCESS, 0);
    give = bytes - (ULONG)from;
    if (give > Sp->Parameters.Read.Length)
        give = Sp->Parameters.Read.Length;
    if (give)
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, (PUCHAR)P->Legend + (ULONG)from, give);
    return StationEnd(&P->Station, Irp, STATUS_SUCCESS, give);
}

static NTSTATUS SignIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    SIGNPOST *p = (SIGNPOST *)S;
    if (Sp->MajorFunction == IRP_MJ_READ)
        return SignRead(p, Irp, Sp);
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL || Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_SIGN_LENGTH)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    *(ULONG *)Irp->AssociatedIrp.SystemBuffer = p->Characters;
    return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static const STATION_OPS StationOps = {
    .Size = sizeof(SIGNPOST),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &SignpostInterface,
    .Start = SignStart,
    .Stop = SignStop,
    .Io = SignIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}

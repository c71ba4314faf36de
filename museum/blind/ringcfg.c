/*
 * ringcfg: a flight recorder: programs write short notes to a ring whose number of places comes from the registry (value "Places" in the
 * device's key), and read them back, oldest first.
 *
 * The bug: the value from the registry has an upper bound only; with 0 the first note divides by zero.
 *
 * Device: ROOT\RINGCFG
 * Rule: divide-error
 * Needs: registry
 */
#define CK_HAS_UNDO
#include "../include/kept_in_order.h"

#define RG_TAG    'gcgR'
#define RG_USUAL  64u
#define RG_MOST   4096u
#define RG_NOTE   60u

#define IOCTL_RG_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RG_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID RgGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x02 } };

typedef struct _RG_ENTRY {
    ULONG Length;
    UCHAR Text[RG_NOTE];
} RG_ENTRY, *PRG_ENTRY;

typedef struct _RG_STATE {
    ULONG Places, Held;
    ULONG64 Written, Overwritten;
} RG_STATE, *PRG_STATE;

/* Requests come one at a time, no lock of its own. */
typedef struct _RG_EXT {
    CK K;
    PRG_ENTRY Ring;
    ULONG Places, First, Held;
    ULONG64 Written, Overwritten;
} RG_EXT, *PRG_EXT;

/* The number of places that is configured; anything that is not a REG_DWORD is not looked at. */
static ULONG RgConfigured(PCK k)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION v;
        UCHAR room[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)];
    } u;
    UNICODE_STRING name;
    ULONG places = RG_USUAL, got = 0, value;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(k->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return places;
    RtlInitUnicodeString(&name, L"Places");
    RtlZeroMemory(&u, sizeof u);
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &u, sizeof u, &got)) && u.v.Type == REG_DWORD &&
        u.v.DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&value, u.v.Data, sizeof value);
        places = value < RG_MOST ? value : RG_MOST;
#ifdef FIXED
        if (places == 0)
            places = RG_USUAL;
#endif
    }
    ZwClose(key);
    return places;
}

/* The ring is made at the first start and lives as long as the device: a stop does not lose the notes. */
static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PRG_EXT x = (PRG_EXT)k;
    ULONG places;

    UNREFERENCED_PARAMETER(r);
    if (x->Ring != NULL)
        return STATUS_SUCCESS;
    places = RgConfigured(k);
    x->Ring = ExAllocatePoolWithTag(NonPagedPool, (places + 1) * sizeof(RG_ENTRY), RG_TAG);    /* one more to put a note together in */
    if (x->Ring == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->Ring, (places + 1) * sizeof(RG_ENTRY));
    x->Places = places;
    return STATUS_SUCCESS;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(touch);
}

static VOID HwUndo(PCK k)
{
    PRG_EXT x = (PRG_EXT)k;

    if (x->Ring != NULL)
        ExFreePoolWithTag(x->Ring, RG_TAG);
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    switch (s->MajorFunction) {
    case IRP_MJ_WRITE:
        if (s->Parameters.Write.Length == 0 || s->Parameters.Write.Length > RG_NOTE)
            return STATUS_INVALID_PARAMETER;
        return STATUS_PENDING;
    case IRP_MJ_READ:
        if (s->Parameters.Read.Length == 0)
            return STATUS_INVALID_PARAMETER;
        return STATUS_PENDING;
    }
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RG_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(RG_STATE))
            return STATUS_BUFFER_TOO_SMALL;
        return STATUS_PENDING;
    case IOCTL_RG_CLEAR:
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS RgWrite(PRG_EXT x, PIRP irp, ULONG length)
{
    PRG_ENTRY spare = &x->Ring[x->Places];
    PRG_ENTRY entry;

    spare->Length = length;
    RtlZeroMemory(spare->Text, RG_NOTE);
    RtlCopyMemory(spare->Text, irp->AssociatedIrp.SystemBuffer, length);
    if (x->Held == x->Places) {
        x->First = (x->First + 1) % x->Places;
        x->Held--;
        x->Overwritten++;
    }
    entry = &x->Ring[(x->First + x->Held) % x->Places];
    *entry = *spare;
    x->Held++;
    x->Written++;
    return STATUS_SUCCESS;
}

static NTSTATUS RgRead(PRG_EXT x, PIRP irp, ULONG room, PULONG_PTR info)
{
    PRG_ENTRY entry;

    if (x->Held == 0)
        return STATUS_NO_MORE_ENTRIES;
    entry = &x->Ring[x->First];
    if (room < entry->Length)
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, entry->Text, entry->Length);
    *info = entry->Length;
    x->First = (x->First + 1) % x->Places;
    x->Held--;
    return STATUS_SUCCESS;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PRG_EXT x = (PRG_EXT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    PRG_STATE state;

    if (s->MajorFunction == IRP_MJ_WRITE) {
        *info = s->Parameters.Write.Length;
        return RgWrite(x, irp, s->Parameters.Write.Length);
    }
    if (s->MajorFunction == IRP_MJ_READ)
        return RgRead(x, irp, s->Parameters.Read.Length, info);
    if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_RG_CLEAR) {
        x->First = 0;
        x->Held = 0;
        return STATUS_SUCCESS;
    }
    state = irp->AssociatedIrp.SystemBuffer;
    state->Places = x->Places;
    state->Held = x->Held;
    state->Written = x->Written;
    state->Overwritten = x->Overwritten;
    *info = sizeof *state;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI RgAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(RG_EXT), &RgGuid, DO_BUFFERED_IO, NULL);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, RgAdd);
    return STATUS_SUCCESS;
}

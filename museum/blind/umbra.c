/*
 * umbra: the software model of a facade's sunshades, for building control stations without the hardware. It keeps a journal of what was asked of the
 * shades and of the machine's return from sleep, and counts the returns in its registry key.
 *
 * The bug: the journal is guarded by a fast mutex, and the return from sleep is written to it from the completion routine of the D0
 * request, which is called at DISPATCH_LEVEL where the bus completes it there.
 *
 * Device: Root\UMBRA
 * Rule: irql-too-high, wait-at-raised-irql, irql-raise-lowers
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_UMBRA_SHADE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB21, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_UMBRA_JOURNAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB22, METHOD_BUFFERED, FILE_READ_ACCESS)

#define UMBRA_SHADES  12
#define UMBRA_ENTRIES 64

enum { ENTRY_SHADE = 1, ENTRY_RETURN };

typedef struct ENTRY {
    LARGE_INTEGER Time;
    ULONG Kind;
    ULONG Shade;
    ULONG Position;                          /* per cent */
    ULONG Number;
} ENTRY;

typedef struct UMBRA {
#ifndef FIXED
    FAST_MUTEX Guard;
#else
    KSPIN_LOCK Guard;
#endif
    ENTRY Journal[UMBRA_ENTRIES];
    ULONG Written;
    ULONG Position[UMBRA_SHADES];
    ULONG Returns;                           /* of Up and Wake alone */
} UMBRA;

static const GUID UmbraGuid = { 0x18c3a6f2, 0xd05e, 0x4e71, { 0x90, 0xaa, 0x07, 0x5b, 0x6d, 0x24, 0x03, 0x0a } };
static WCHAR UmbraValue[] = L"Returns";

static KIRQL UmbraEnter(UMBRA *u)
{
    KIRQL irql = PASSIVE_LEVEL;

#ifndef FIXED
    ExAcquireFastMutex(&u->Guard);
#else
    KeAcquireSpinLock(&u->Guard, &irql);
#endif
    return irql;
}

static VOID UmbraLeave(UMBRA *u, KIRQL irql)
{
#ifndef FIXED
    UNREFERENCED_PARAMETER(irql);
    ExReleaseFastMutex(&u->Guard);
#else
    KeReleaseSpinLock(&u->Guard, irql);
#endif
}

/* With the guard. */
static VOID UmbraWrite(UMBRA *u, ULONG kind, ULONG shade, ULONG position)
{
    ENTRY *e = &u->Journal[u->Written % UMBRA_ENTRIES];

    KeQuerySystemTime(&e->Time);
    e->Kind = kind;
    e->Shade = shade;
    e->Position = position;
    e->Number = ++u->Written;
}

static VOID UmbraRelit(DEPOT *d)
{
    UMBRA *u = d->Own;
    KIRQL irql = UmbraEnter(u);

    UmbraWrite(u, ENTRY_RETURN, 0, 0);
    UmbraLeave(u, irql);
}

static ULONG UmbraLoad(DEPOT *d)
{
    struct {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR More[16];
    } value;
    UNICODE_STRING name;
    ULONG got, returns = 0;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(d->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return 0;
    RtlInitUnicodeString(&name, UmbraValue);
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof(value), &got)) &&
        value.Info.Type == REG_DWORD && value.Info.DataLength == sizeof(ULONG))
        RtlCopyMemory(&returns, value.Info.Data, sizeof(ULONG));
    ZwClose(key);
    return returns;
}

/* What cannot be stored is not counted over the next start: no reason to fail. */
static VOID UmbraStore(DEPOT *d, ULONG returns)
{
    UNICODE_STRING name;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(d->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_WRITE, &key)))
        return;
    RtlInitUnicodeString(&name, UmbraValue);
    ZwSetValueKey(key, &name, 0, REG_DWORD, &returns, sizeof(returns));
    ZwClose(key);
}

static NTSTATUS UmbraUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    UMBRA *u = d->Own;

    UNREFERENCED_PARAMETER(list);
    u->Returns = UmbraLoad(d);
    return STATUS_SUCCESS;
}

static VOID UmbraDown(DEPOT *d, BOOLEAN reach)
{
    UNREFERENCED_PARAMETER(d);
    UNREFERENCED_PARAMETER(reach);
}

static VOID UmbraWake(DEPOT *d)
{
    UMBRA *u = d->Own;

    UmbraStore(d, ++u->Returns);
}

static NTSTATUS UmbraControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    UMBRA *u = d->Own;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    PULONG words = buffer;
    ULONG n, i, first;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_UMBRA_SHADE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < 2 * sizeof(ULONG) || words[0] >= UMBRA_SHADES || words[1] > 100)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        irql = UmbraEnter(u);
        u->Position[words[0]] = words[1];
        UmbraWrite(u, ENTRY_SHADE, words[0], words[1]);
        UmbraLeave(u, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_UMBRA_JOURNAL:
        n = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(ENTRY);
        irql = UmbraEnter(u);
        i = u->Written < UMBRA_ENTRIES ? u->Written : UMBRA_ENTRIES;
        if (n > i)
            n = i;
        first = u->Written - n;              /* the last ones */
        for (i = 0; i < n; i++)
            ((ENTRY *)buffer)[i] = u->Journal[(first + i) % UMBRA_ENTRIES];
        UmbraLeave(u, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, n * sizeof(ENTRY));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS UmbraPrepare(DEPOT *d)
{
    UMBRA *u = d->Own;

#ifndef FIXED
    ExInitializeFastMutex(&u->Guard);
#else
    KeInitializeSpinLock(&u->Guard);
#endif
    return STATUS_SUCCESS;
}

static const PLAN UmbraPlan = {
    .Interface = &UmbraGuid,
    .OwnSize = sizeof(UMBRA),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = UmbraPrepare,
    .Up = UmbraUp,
    .Down = UmbraDown,
    .Wake = UmbraWake,
    .Relit = UmbraRelit,
    .Control = UmbraControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &UmbraPlan);
}

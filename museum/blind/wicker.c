/*
 * wicker: counters with names, shared by all programs of a sorting office. A handle is attached to one counter at a time, by its name of 16 bytes; the
 * first that attaches to a name makes the counter, and it goes with the last that is attached to it.
 *
 * The bug: who looks a counter up takes its reference only after the list's lock is released: in between the last one that was attached may have let go
 * of it, and the counter is freed.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, double-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

#define TAG         'kciW'
#define NAME        L"\\Device\\Wicker"
#define LINK        L"\\DosDevices\\Wicker"
#define NAME_BYTES  16

#define IOCTL_WICKER_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WICKER_DETACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WICKER_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _COUNTER {
    LIST_ENTRY Link;
    LONG Refs;
    LONGLONG Value;
    UCHAR Name[NAME_BYTES];
} COUNTER, *PCOUNTER;

typedef struct _DEV {
    KSPIN_LOCK Lock;            /* of the list, the values, and which handle is attached to what */
    LIST_ENTRY Counters;
} DEV, *PDEV;

static PDEVICE_OBJECT Control;

/* Under the lock. */
static PCOUNTER Seek(PDEV D, const UCHAR *Name)
{
    PLIST_ENTRY entry;

    for (entry = D->Counters.Flink; entry != &D->Counters; entry = entry->Flink) {
        PCOUNTER counter = CONTAINING_RECORD(entry, COUNTER, Link);

        if (RtlCompareMemory(counter->Name, Name, NAME_BYTES) == NAME_BYTES)
            return counter;
    }
    return NULL;
}

/* The counter of this name with one more reference; NULL if there is none. */
static PCOUNTER Find(PDEV D, const UCHAR *Name)
{
    PCOUNTER counter;
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    counter = Seek(D, Name);
#ifdef FIXED
    if (counter)
        InterlockedIncrement(&counter->Refs);
#endif
    KeReleaseSpinLock(&D->Lock, irql);
#ifndef FIXED
    if (counter)
        InterlockedIncrement(&counter->Refs);
#endif
    return counter;
}

static PCOUNTER FindOrMake(PDEV D, const UCHAR *Name)
{
    PCOUNTER counter = Find(D, Name), made;
    KIRQL irql;

    if (counter)
        return counter;
    made = ExAllocatePoolWithTag(NonPagedPool, sizeof *made, TAG);
    if (!made)
        return NULL;
    RtlZeroMemory(made, sizeof *made);
    made->Refs = 1;
    RtlCopyMemory(made->Name, Name, NAME_BYTES);
    KeAcquireSpinLock(&D->Lock, &irql);
    counter = Seek(D, Name);
    if (counter)
        InterlockedIncrement(&counter->Refs);       /* another was quicker */
    else
        InsertTailList(&D->Counters, &made->Link);
    KeReleaseSpinLock(&D->Lock, irql);
    if (!counter)
        return made;
    ExFreePoolWithTag(made, TAG);
    return counter;
}

static VOID LetGo(PDEV D, PCOUNTER Counter)
{
    BOOLEAN last;
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    last = InterlockedDecrement(&Counter->Refs) == 0;
    if (last)
        RemoveEntryList(&Counter->Link);
    KeReleaseSpinLock(&D->Lock, irql);
    if (last)
        ExFreePoolWithTag(Counter, TAG);
}

/* Has the handle be attached to this counter, whose reference it takes over, instead of the one before. */
static VOID Attach(PDEV D, PFILE_OBJECT File, PCOUNTER Counter)
{
    PCOUNTER before;
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    before = File->FsContext;
    File->FsContext = Counter;
    KeReleaseSpinLock(&D->Lock, irql);
    if (before)
        LetGo(D, before);
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PCOUNTER counter;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WICKER_ATTACH:
        if (in < NAME_BYTES)
            return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        counter = FindOrMake(d, buffer);
        if (!counter)
            return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        Attach(d, stack->FileObject, counter);
        return Ends(Irp, STATUS_SUCCESS, 0);

    case IOCTL_WICKER_DETACH:
        Attach(d, stack->FileObject, NULL);
        return Ends(Irp, STATUS_SUCCESS, 0);

    case IOCTL_WICKER_ADD: {            /* what is to be added in, the value then out */
        LONGLONG value = 0;

        if (in < sizeof(LONG) || out < sizeof value)
            return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->Lock, &irql);
        counter = stack->FileObject->FsContext;
        if (counter) {
            counter->Value = (LONGLONG)((ULONGLONG)counter->Value + (ULONGLONG)(LONGLONG)*(PLONG)buffer);
            value = counter->Value;
        }
        KeReleaseSpinLock(&d->Lock, irql);
        if (!counter)
            return Ends(Irp, STATUS_INVALID_DEVICE_STATE, 0);
        *(PLONGLONG)buffer = value;
        return Ends(Irp, STATUS_SUCCESS, sizeof value);
    }
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    Attach(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, NULL);
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    PlainHide(LINK);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PDEV d;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = PlainMake(Driver, NAME, sizeof(DEV), DO_BUFFERED_IO, &Control);
    if (!NT_SUCCESS(status))
        return status;
    d = Control->DeviceExtension;
    KeInitializeSpinLock(&d->Lock);
    InitializeListHead(&d->Counters);
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(Control);
    return status;
}

/*
 * hamlet: counts words for a survey of dialects. Each open handle is a village with a table of its own, in which the program counts words by their hash;
 * a census says how many words each of the villages that are there has counted.
 *
 * The bug: a village is put into the list of all before its table is allocated, and is freed without being taken out again where there is no memory for
 * the table; the list leads through freed memory from then on.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, list-corrupt
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

#define TAG         'lmaH'
#define NAME        L"\\Device\\Hamlet"
#define LINK        L"\\DosDevices\\Hamlet"
#define WORDS       256

#define IOCTL_HAMLET_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HAMLET_ASK    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HAMLET_CENSUS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _VILLAGE {
    LIST_ENTRY Link;
    ULONG Total;
    PULONG Table;
} VILLAGE, *PVILLAGE;

typedef struct _DEV {
    FAST_MUTEX Mutex;           /* of the list and all that is in it */
    LIST_ENTRY Villages;
} DEV, *PDEV;

static PDEVICE_OBJECT Control;

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PVILLAGE village = ExAllocatePoolWithTag(NonPagedPool, sizeof *village, TAG);

    if (!village)
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(village, sizeof *village);
#ifndef FIXED
    ExAcquireFastMutex(&d->Mutex);
    InsertTailList(&d->Villages, &village->Link);
    village->Table = ExAllocatePoolWithTag(PagedPool, WORDS * sizeof(ULONG), TAG);
    if (!village->Table) {
        ExReleaseFastMutex(&d->Mutex);
        ExFreePoolWithTag(village, TAG);
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlZeroMemory(village->Table, WORDS * sizeof(ULONG));
    ExReleaseFastMutex(&d->Mutex);
#else
    village->Table = ExAllocatePoolWithTag(PagedPool, WORDS * sizeof(ULONG), TAG);
    if (!village->Table) {
        ExFreePoolWithTag(village, TAG);
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlZeroMemory(village->Table, WORDS * sizeof(ULONG));
    ExAcquireFastMutex(&d->Mutex);
    InsertTailList(&d->Villages, &village->Link);
    ExReleaseFastMutex(&d->Mutex);
#endif
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = village;
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PVILLAGE village = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    ExAcquireFastMutex(&d->Mutex);
    RemoveEntryList(&village->Link);
    ExReleaseFastMutex(&d->Mutex);
    ExFreePoolWithTag(village->Table, TAG);
    ExFreePoolWithTag(village, TAG);
    return Ends(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PVILLAGE village = stack->FileObject->FsContext;
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG i, n;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HAMLET_COUNT:            /* any number of hashes */
        if (in == 0 || in % sizeof(ULONG) != 0)
            return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
        n = in / sizeof(ULONG);
        ExAcquireFastMutex(&d->Mutex);
        for (i = 0; i < n; i++) {
            village->Table[buffer[i] % WORDS]++;
            village->Total++;
        }
        ExReleaseFastMutex(&d->Mutex);
        return Ends(Irp, STATUS_SUCCESS, 0);

    case IOCTL_HAMLET_ASK:              /* a hash in, its count out */
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&d->Mutex);
        buffer[0] = village->Table[buffer[0] % WORDS];
        ExReleaseFastMutex(&d->Mutex);
        return Ends(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_HAMLET_CENSUS: {         /* totals out, as many as there is room for */
        PLIST_ENTRY entry;

        n = 0;
        ExAcquireFastMutex(&d->Mutex);
        for (entry = d->Villages.Flink; entry != &d->Villages && n < out / sizeof(ULONG); entry = entry->Flink)
            buffer[n++] = CONTAINING_RECORD(entry, VILLAGE, Link)->Total;
        ExReleaseFastMutex(&d->Mutex);
        return Ends(Irp, STATUS_SUCCESS, n * sizeof(ULONG));
    }
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
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
    ExInitializeFastMutex(&d->Mutex);
    InitializeListHead(&d->Villages);
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(Control);
    return status;
}

/*
 * lintab: turns raw values of a converter into physical ones by a table of points, between which it goes straight. Programs
 * load a table and have values looked up in it.
 *
 * The bug: loading a table frees the old one first and allocates then, as if a failing krealloc left nothing behind; when the
 * allocation fails the pointer to the freed table stays, and the next look-up reads it, the next load or unload frees it again.
 *
 * Device: none
 * Rule: use-after-free, double-free
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define MOST_POINTS 256
#define LIMIT (1 << 30)

#define IOCTL_LIN_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIN_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIN_SHOW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _POINT2 {
    LONG Raw;                   /* strictly rising */
    LONG Value;
} POINT2;

typedef struct _LINTAB {
    FAST_MUTEX Mutex;
    POINT2 *Points;
    ULONG Count;
} LINTAB;

static const SOLO LinSolo = { L"\\Device\\LinTable", L"\\DosDevices\\LinTable", sizeof(LINTAB), DO_BUFFERED_IO };
static PDEVICE_OBJECT LinDevice;

static BOOLEAN LinSound(const POINT2 *Points, ULONG Count)
{
    ULONG i;

    for (i = 0; i < Count; i++) {
        if (Points[i].Raw < -LIMIT || Points[i].Raw > LIMIT || Points[i].Value < -LIMIT || Points[i].Value > LIMIT)
            return FALSE;
        if (i != 0 && Points[i].Raw <= Points[i - 1].Raw)
            return FALSE;
    }
    return TRUE;
}

static NTSTATUS LinLoad(LINTAB *Table, const POINT2 *Points, ULONG Count)
{
    POINT2 *fresh;

    if (Count < 2 || Count > MOST_POINTS || !LinSound(Points, Count))
        return STATUS_INVALID_PARAMETER;
#ifndef FIXED
    if (Table->Points != NULL)
        ExFreePoolWithTag(Table->Points, QQ_TAG);
    fresh = ExAllocatePoolWithTag(PagedPool, Count * sizeof(POINT2), QQ_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#else
    fresh = ExAllocatePoolWithTag(PagedPool, Count * sizeof(POINT2), QQ_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Table->Points != NULL)
        ExFreePoolWithTag(Table->Points, QQ_TAG);
#endif
    RtlCopyMemory(fresh, Points, Count * sizeof(POINT2));
    Table->Points = fresh;
    Table->Count = Count;
    return STATUS_SUCCESS;
}

static LONG LinValue(const LINTAB *Table, LONG Raw)
{
    const POINT2 *low = Table->Points, *high;
    ULONG first = 0, last = Table->Count - 1;

    if (Raw <= low[0].Raw)
        return low[0].Value;
    if (Raw >= low[last].Raw)
        return low[last].Value;
    while (last - first > 1) {
        ULONG middle = (first + last) / 2;

        if (Table->Points[middle].Raw <= Raw)
            first = middle;
        else
            last = middle;
    }
    low = &Table->Points[first];
    high = &Table->Points[last];
    return low->Value + (LONG)(((LONGLONG)high->Value - low->Value) * ((LONGLONG)Raw - low->Raw) / ((LONGLONG)high->Raw - low->Raw));
}

/* Looks up as many values as there are, each in its place. */
static NTSTATUS LinLookup(const LINTAB *Table, LONG *Values, ULONG Count)
{
    ULONG i;

    if (Table->Points == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    for (i = 0; i < Count; i++)
        Values[i] = LinValue(Table, Values[i]);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI LinControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    LINTAB *table = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG length = 0;

    ExAcquireFastMutex(&table->Mutex);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LIN_LOAD:
        status = in % sizeof(POINT2) == 0 ? LinLoad(table, buffer, in / sizeof(POINT2)) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_LIN_LOOKUP:
        if (in == 0 || in % sizeof(LONG) != 0) {
            status = STATUS_INVALID_PARAMETER;
        } else if (out < in) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            status = LinLookup(table, buffer, in / sizeof(LONG));
            if (NT_SUCCESS(status))
                length = in;
        }
        break;
    case IOCTL_LIN_SHOW:
        if (table->Points == NULL) {
            status = STATUS_INVALID_DEVICE_STATE;
        } else if (out < table->Count * sizeof(POINT2)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            length = table->Count * sizeof(POINT2);
            RtlCopyMemory(buffer, table->Points, length);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&table->Mutex);
    return SoloEnd(Irp, status, length);
}

static VOID NTAPI LinUnload(PDRIVER_OBJECT DriverObject)
{
    LINTAB *table = LinDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&LinSolo);
    if (table->Points != NULL)
        ExFreePoolWithTag(table->Points, QQ_TAG);
    IoDeleteDevice(LinDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LinControl;
    DriverObject->DriverUnload = LinUnload;
    status = SoloMake(DriverObject, &LinSolo, &LinDevice);
    if (!NT_SUCCESS(status))
        return status;
    ExInitializeFastMutex(&((LINTAB *)LinDevice->DeviceExtension)->Mutex);
    status = SoloShow(&LinSolo);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(LinDevice);
    return status;
}

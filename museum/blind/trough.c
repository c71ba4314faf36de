/*
 * trough: a histogram in the kernel. Programs say how many bins it has, count measured values into bins, and read the whole of it
 * or its fullest bin; a change of the number of bins begins a new histogram.
 *
 * The bug: a change of the number frees the old bins first, and when there is no memory for the new ones it gives up with the old
 * pointer and number still in place. Every later request, and the unload, uses or frees the freed block.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, double-free
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define TROUGH_TAG 'uorT'
#define TROUGH_NAME L"\\Device\\Trough"
#define TROUGH_LINK L"\\DosDevices\\Trough"
#define TROUGH_MOST 4096
#define TROUGH_FIRST 32

#define IOCTL_TROUGH_BINS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TROUGH_COUNT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TROUGH_READ    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TROUGH_FULLEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x873, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _TROUGH_FULLEST {
    ULONG Bin;
    ULONG Count;
} TROUGH_FULLEST;

typedef struct _TROUGH {
    FAST_MUTEX Mutex;
    PULONG Bins;
    ULONG Number;
    ULONG Outside;
} TROUGH;

static PDEVICE_OBJECT TroughDevice;

static PULONG TroughAllocate(ULONG Number)
{
    PULONG bins = ExAllocatePoolWithTag(PagedPool, Number * sizeof(ULONG), TROUGH_TAG);

    if (bins != NULL)
        RtlZeroMemory(bins, Number * sizeof(ULONG));
    return bins;
}

static NTSTATUS TroughBins(TROUGH *T, ULONG Number)
{
    PULONG bins;

    if (Number == 0 || Number > TROUGH_MOST)
        return STATUS_INVALID_PARAMETER;
#ifndef FIXED
    ExFreePoolWithTag(T->Bins, TROUGH_TAG);
    bins = TroughAllocate(Number);
    if (bins == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#else
    bins = TroughAllocate(Number);
    if (bins == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExFreePoolWithTag(T->Bins, TROUGH_TAG);
#endif
    T->Bins = bins;
    T->Number = Number;
    T->Outside = 0;
    return STATUS_SUCCESS;
}

static VOID TroughCount(TROUGH *T, const ULONG *Values, ULONG Count)
{
    ULONG i;

    for (i = 0; i < Count; i++) {
        if (Values[i] < T->Number)
            T->Bins[Values[i]]++;
        else
            T->Outside++;
    }
}

static NTSTATUS TroughRead(TROUGH *T, PVOID Out, ULONG Room, ULONG_PTR *Information)
{
    ULONG n = Room / sizeof(ULONG);

    if (n > T->Number)
        n = T->Number;
    if (n != 0)
        RtlCopyMemory(Out, T->Bins, n * sizeof(ULONG));
    *Information = n * sizeof(ULONG);
    return n < T->Number ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static VOID TroughFullest(TROUGH *T, TROUGH_FULLEST *F)
{
    ULONG i, best = 0;

    for (i = 1; i < T->Number; i++)
        if (T->Bins[i] > T->Bins[best])
            best = i;
    F->Bin = best;
    F->Count = T->Bins[best];
}

static NTSTATUS NTAPI TroughControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    TROUGH *t = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&t->Mutex);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TROUGH_BINS:
        status = in == sizeof(ULONG) ? TroughBins(t, *(ULONG *)buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_TROUGH_COUNT:
        if (in == 0 || in % sizeof(ULONG) != 0)
            status = STATUS_INVALID_PARAMETER;
        else
            TroughCount(t, buffer, in / sizeof(ULONG));
        break;
    case IOCTL_TROUGH_READ:
        status = TroughRead(t, buffer, out, &information);
        break;
    case IOCTL_TROUGH_FULLEST:
        if (out < sizeof(TROUGH_FULLEST)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            TroughFullest(t, buffer);
            information = sizeof(TROUGH_FULLEST);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&t->Mutex);
    return desk_reply(Irp, status, information);
}

static VOID NTAPI TroughUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(TROUGH_LINK);
    ExFreePoolWithTag(((TROUGH *)TroughDevice->DeviceExtension)->Bins, TROUGH_TAG);
    IoDeleteDevice(TroughDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    TROUGH *t;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = desk_nod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TroughControl;
    Driver->DriverUnload = TroughUnload;

    status = desk_make(Driver, TROUGH_NAME, sizeof(TROUGH), 0, &TroughDevice);
    if (!NT_SUCCESS(status))
        return status;
    t = TroughDevice->DeviceExtension;
    ExInitializeFastMutex(&t->Mutex);
    t->Number = TROUGH_FIRST;
    t->Bins = TroughAllocate(TROUGH_FIRST);
    if (t->Bins == NULL) {
        IoDeleteDevice(TroughDevice);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = desk_publish(TROUGH_LINK, TROUGH_NAME);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(t->Bins, TROUGH_TAG);
        IoDeleteDevice(TroughDevice);
    }
    return status;
}

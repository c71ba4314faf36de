/*
 * quiver: a store of jobs for a render farm's agents. Producers lay jobs of up to 240 bytes on a stack, agents take the newest; the stack is a list
 * whose top is changed by compare-and-exchange, as it was in the Linux module from which this driver comes.
 *
 * The bug: to take the top off, its link is read before the exchange, while another agent may have taken that very job and freed it: the
 * link is read from freed memory (and may be believed, if the same block comes to lie on top again).
 *
 * Device: none
 * Rule: use-after-free, data-race, list-corrupt, double-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define QUIVER_DEVICE L"\\Device\\Quiver"
#define QUIVER_LINK   L"\\DosDevices\\Quiver"
#define QUIVER_TAG    'viuQ'
#define QUIVER_MOST   256
#define QUIVER_BYTES  240

#define IOCTL_QUIVER_LAY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA31, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUIVER_TAKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA32, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUIVER_DEPTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA33, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct ARROW ARROW;

struct ARROW {
    ARROW *Below;
    ULONG Length;
    UCHAR Data[QUIVER_BYTES];
};

static KIOSK Kiosk;
static ARROW *volatile Top;
static volatile LONG Depth;
#ifdef FIXED
static KSPIN_LOCK Lock;                      /* the stack */
#endif

static VOID QuiverPush(ARROW *a)
{
#ifndef FIXED
    ARROW *top;

    do {
        top = Top;
        a->Below = top;
    } while (InterlockedCompareExchangePointer((PVOID volatile *)&Top, a, top) != top);
#else
    KIRQL irql;

    KeAcquireSpinLock(&Lock, &irql);
    a->Below = Top;
    Top = a;
    KeReleaseSpinLock(&Lock, irql);
#endif
}

static ARROW *QuiverPop(VOID)
{
    ARROW *top;
#ifndef FIXED
    do {
        top = Top;
        if (top == NULL)
            return NULL;
    } while (InterlockedCompareExchangePointer((PVOID volatile *)&Top, top->Below, top) != top);
#else
    KIRQL irql;

    KeAcquireSpinLock(&Lock, &irql);
    top = Top;
    if (top != NULL)
        Top = top->Below;
    KeReleaseSpinLock(&Lock, irql);
#endif
    return top;
}

static NTSTATUS QuiverLay(const VOID *data, ULONG length)
{
    ARROW *a;

    if (length == 0 || length > QUIVER_BYTES)
        return STATUS_INVALID_PARAMETER;
    if (InterlockedIncrement(&Depth) > QUIVER_MOST) {
        InterlockedDecrement(&Depth);
        return STATUS_QUOTA_EXCEEDED;
    }
    a = Alloc(sizeof(ARROW), QUIVER_TAG);
    if (a == NULL) {
        InterlockedDecrement(&Depth);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    a->Length = length;
    RtlCopyMemory(a->Data, data, length);
    QuiverPush(a);
    return STATUS_SUCCESS;
}

/* The whole job, or none: a buffer that is too short for any job is refused before. */
static NTSTATUS QuiverTake(PVOID to, ULONG_PTR *length)
{
    ARROW *a = QuiverPop();

    if (a == NULL)
        return STATUS_NO_MORE_ENTRIES;
    InterlockedDecrement(&Depth);
    *length = a->Length;
    RtlCopyMemory(to, a->Data, a->Length);
    ExFreePoolWithTag(a, QUIVER_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI QuiverControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION sp = IrpHere(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR length = 0;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUIVER_LAY:
        return KioskEnd(irp, QuiverLay(buffer, in), 0);
    case IOCTL_QUIVER_TAKE:
        if (out < QUIVER_BYTES)
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        st = QuiverTake(buffer, &length);
        return KioskEnd(irp, st, length);
    case IOCTL_QUIVER_DEPTH:
        if (out < sizeof(LONG))
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLONG)buffer = InterlockedCompareExchange(&Depth, 0, 0);
        return KioskEnd(irp, STATUS_SUCCESS, sizeof(LONG));
    default:
        return KioskEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI QuiverHandle(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI QuiverUnload(PDRIVER_OBJECT driver)
{
    ARROW *a;

    UNREFERENCED_PARAMETER(driver);
    KioskRaze(&Kiosk, TRUE);
    while ((a = QuiverPop()) != NULL)
        ExFreePoolWithTag(a, QUIVER_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS st;

    UNREFERENCED_PARAMETER(path);
#ifdef FIXED
    KeInitializeSpinLock(&Lock);
#endif
    st = KioskBuild(&Kiosk, driver, QUIVER_DEVICE, QUIVER_LINK, 0, DO_BUFFERED_IO);
    if (!NT_SUCCESS(st))
        return st;
    driver->MajorFunction[IRP_MJ_CREATE] = QuiverHandle;
    driver->MajorFunction[IRP_MJ_CLEANUP] = QuiverHandle;
    driver->MajorFunction[IRP_MJ_CLOSE] = QuiverHandle;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QuiverControl;
    driver->DriverUnload = QuiverUnload;
    st = KioskUnlock(&Kiosk, QUIVER_DEVICE);
    if (!NT_SUCCESS(st))
        KioskRaze(&Kiosk, FALSE);
    return st;
}

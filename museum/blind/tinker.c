/*
 * tinker: counts primes for programs in a thread of its own, as a PnP device without hardware. Requests are served one after the other,
 * and can be cancelled while they wait.
 *
 * The bug: when the device is removed the driver waits for an event that the thread sets as the last thing it does, and not for the
 * thread itself. The thread may still be in the driver's code behind that, and in the event, when extension and driver are gone.
 *
 * Device: Root\tinker
 * Rule: unload-still-called, use-after-free, execute-of-data, write-after-free
 * Needs: removal, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#ifdef FIXED
/* the kernel's own, and not the header's inline function, which gcc warns of */
NTKERNELAPI PETHREAD NTAPI TinkerThisThread(VOID) __asm__("PsGetCurrentThread");
#endif

static const GUID TinkerFace = { 0xa94b2c7f, 0x1d63, 0x4082, { 0xb8, 0xe5, 0x0a, 0x7c, 0xf3, 0x94, 0x26, 0x5d } };

#define IOCTL_TINKER_PRIMES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TINKER_SERVED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e9, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TINKER_LARGEST 1000

typedef struct _TINKER {
    STATION St;
    KEVENT Work;                /* something has come, or Quit has been set */
    BOOLEAN volatile Quit;
    LONG volatile Served;
#ifndef FIXED
    KEVENT Ended;
#else
    KEVENT Begun;               /* Thread is there, with a reference */
    PETHREAD Thread;
#endif
} TINKER;

static ULONG TinkerPrimes(ULONG Limit)
{
    ULONG n, d, count = 0;

    for (n = 2; n <= Limit; n++) {
        for (d = 2; d * d <= n; d++)
            if (n % d == 0)
                break;
        if (d * d > n)
            count++;
    }
    return count;
}

static VOID NTAPI TinkerThread(PVOID Context)
{
    TINKER *t = Context;
    BOOLEAN quit;
    ULONG *buffer;
    PIRP irp;

#ifdef FIXED
    t->Thread = TinkerThisThread();
    ObReferenceObject(t->Thread);
    KeSetEvent(&t->Begun, IO_NO_INCREMENT, FALSE);
#endif
    do {
        KeWaitForSingleObject(&t->Work, Executive, KernelMode, FALSE, NULL);
        quit = t->Quit;
        while ((irp = lane_take(&t->St.Lane, PICK_ANY, NULL)) != NULL) {
            buffer = irp->AssociatedIrp.SystemBuffer;
            *buffer = TinkerPrimes(*buffer);
            InterlockedIncrement(&t->Served);
            lane_finish(&t->St.Lane, irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    } while (!quit);
#ifndef FIXED
    KeSetEvent(&t->Ended, IO_NO_INCREMENT, FALSE);
#endif
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS TinkerPrepare(STATION *St)
{
    TINKER *t = CONTAINING_RECORD(St, TINKER, St);
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

    KeInitializeEvent(&t->Work, SynchronizationEvent, FALSE);
#ifndef FIXED
    KeInitializeEvent(&t->Ended, NotificationEvent, FALSE);
#else
    KeInitializeEvent(&t->Begun, NotificationEvent, FALSE);
#endif
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, TinkerThread, t);
    if (!NT_SUCCESS(status))
        return status;
    ZwClose(handle);
#ifdef FIXED
    KeWaitForSingleObject(&t->Begun, Executive, KernelMode, FALSE, NULL);
#endif
    return STATUS_SUCCESS;
}

static VOID TinkerDispose(STATION *St)
{
    TINKER *t = CONTAINING_RECORD(St, TINKER, St);

    t->Quit = TRUE;
    KeSetEvent(&t->Work, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(&t->Ended, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(t->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(t->Thread);
#endif
}

static NTSTATUS TinkerEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(St);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static VOID TinkerRelease(STATION *St, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(St);
    UNREFERENCED_PARAMETER(Present);
}

static NTSTATUS TinkerServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TINKER *t = CONTAINING_RECORD(St, TINKER, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TINKER_PRIMES:
        if (in < sizeof(ULONG) || out < sizeof(ULONG) || *buffer > TINKER_LARGEST)
            return STATUS_INVALID_PARAMETER;
        lane_park(&St->Lane, Irp);
        KeSetEvent(&t->Work, IO_NO_INCREMENT, FALSE);
        return STATUS_PENDING;
    case IOCTL_TINKER_SERVED:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *buffer = (ULONG)InterlockedCompareExchange(&t->Served, 0, 0);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES TinkerDuties = {
    .Bytes = sizeof(TINKER), .Face = &TinkerFace, .Prepare = TinkerPrepare, .Dispose = TinkerDispose, .Engage = TinkerEngage,
    .Release = TinkerRelease, .Serve = TinkerServe,
};

STATION_DRIVER(TinkerDuties)

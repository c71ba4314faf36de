/*
 * siesta: lets programs sleep in the kernel. NAP comes back when its milliseconds have passed; a program may have any number of naps
 * under way, cancel them, ask how many there are, or wake all naps of all programs at once.
 *
 * The bug: when a nap is cancelled the driver cancels its timer and frees the record with timer and DPC in it, whatever KeCancelTimer
 * says; if the timer has just expired the DPC is queued, or running on another processor, in memory that has been freed.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc, double-free, write-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define SIESTA_TAG 'atsS'
#define SIESTA_NAME L"\\Device\\Siesta"
#define SIESTA_LINK L"\\DosDevices\\Siesta"
#define SIESTA_LONGEST (60 * 60 * 1000)

#define IOCTL_SIESTA_NAP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SIESTA_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SIESTA_RISE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b2, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _SIESTA {
    LANE Lane;
    LONG volatile Naps;
} SIESTA;

/* A nap hangs at its request's DriverContext[0]. The request is one user of it, the timer with its DPC the other. */
typedef struct _NAP {
    LONG volatile Users;
    SIESTA *Siesta;
    KTIMER Timer;
    KDPC Dpc;
    LARGE_INTEGER Due;
} NAP;

static PDEVICE_OBJECT SiestaDevice;

static VOID NapPut(NAP *Nap)
{
    if (InterlockedDecrement(&Nap->Users) == 0)
        ExFreePoolWithTag(Nap, SIESTA_TAG);
}

/* In the line, with its lock held: the clock runs from here. */
static VOID SiestaArrive(LANE *Lane, PIRP Irp)
{
    NAP *nap = Irp->Tail.Overlay.DriverContext[0];

    UNREFERENCED_PARAMETER(Lane);
    KeSetTimer(&nap->Timer, nap->Due, &nap->Dpc);
}

/* A request goes before its time: cancelled, its handle closed, or informed to rise. */
static VOID SiestaFarewell(LANE *Lane, PIRP Irp)
{
    SIESTA *s = CONTAINING_RECORD(Lane, SIESTA, Lane);
    NAP *nap = Irp->Tail.Overlay.DriverContext[0];

    InterlockedDecrement(&s->Naps);
    if (nap == NULL)
        return;                         /* its time has come, and the DPC is at it */
    Irp->Tail.Overlay.DriverContext[0] = NULL;
#ifndef FIXED
    KeCancelTimer(&nap->Timer);
    ExFreePoolWithTag(nap, SIESTA_TAG);
#else
    if (KeCancelTimer(&nap->Timer))
        NapPut(nap);                    /* the DPC will not come */
    NapPut(nap);
#endif
}

static VOID NTAPI SiestaDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    NAP *nap = Context;
    SIESTA *s = nap->Siesta;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    irp = lane_take(&s->Lane, PICK_MARK, nap);
    if (irp != NULL) {
        irp->Tail.Overlay.DriverContext[0] = NULL;
        lane_finish(&s->Lane, irp, STATUS_SUCCESS, 0);
        NapPut(nap);
    }
    NapPut(nap);
}

static NTSTATUS SiestaNap(SIESTA *S, PIRP Irp, ULONG Milliseconds)
{
    NAP *nap;

    if (Milliseconds > SIESTA_LONGEST)
        return desk_reply(Irp, STATUS_INVALID_PARAMETER, 0);
    nap = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*nap), SIESTA_TAG);
    if (nap == NULL)
        return desk_reply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    nap->Users = 2;
    nap->Siesta = S;
    nap->Due.QuadPart = -10000LL * Milliseconds;
    KeInitializeTimer(&nap->Timer);
    KeInitializeDpc(&nap->Dpc, SiestaDpc, nap);
    Irp->Tail.Overlay.DriverContext[0] = nap;
    InterlockedIncrement(&S->Naps);
    return lane_park(&S->Lane, Irp);
}

static NTSTATUS NTAPI SiestaControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    SIESTA *s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SIESTA_NAP:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return desk_reply(Irp, STATUS_INVALID_PARAMETER, 0);
        return SiestaNap(s, Irp, *(ULONG *)buffer);
    case IOCTL_SIESTA_COUNT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return desk_reply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)buffer = (ULONG)InterlockedCompareExchange(&s->Naps, 0, 0);
        return desk_reply(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_SIESTA_RISE:
        lane_purge(&s->Lane, STATUS_ALERTED);
        return desk_reply(Irp, STATUS_SUCCESS, 0);
    default:
        return desk_reply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI SiestaCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    SIESTA *s = Device->DeviceExtension;

    lane_purge_file(&s->Lane, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return desk_reply(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI SiestaUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(SIESTA_LINK);
    KeFlushQueuedDpcs();                /* those of naps that were cancelled as they ended */
    IoDeleteDevice(SiestaDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    SIESTA *s;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SiestaCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SiestaControl;
    Driver->DriverUnload = SiestaUnload;

    status = desk_make(Driver, SIESTA_NAME, sizeof(SIESTA), 0, &SiestaDevice);
    if (!NT_SUCCESS(status))
        return status;
    s = SiestaDevice->DeviceExtension;
    lane_setup(&s->Lane, NULL);
    s->Lane.Arrive = SiestaArrive;
    s->Lane.Farewell = SiestaFarewell;
    status = desk_publish(SIESTA_LINK, SIESTA_NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(SiestaDevice);
    return status;
}

/*
 * brewery: computes check sums of blocks for programs that hand in many at once. Requests wait in a lane, and a work item takes one after the other, so that
 * the callers go on meanwhile.
 *
 * The bug: a caller that adds a request while the work item has found the lane empty, but has not said yet that it ends, does not queue the work item, and the
 * work item does not look again. The request is not served until another one comes.
 *
 * Device: none
 * Rule: request-forgotten, irp-never-completed, wake-up-lost
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define LARGEST_BLOCK 65536
#define NAME L"\\Device\\Brewery"
#define LINK L"\\DosDevices\\Brewery"

#define IOCTL_BREWERY_SUM   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BREWERY_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SUM {
    ULONG Low, High;
} SUM;

typedef struct _BREWERY {
    LANE Orders;
    PIO_WORKITEM Item;
    LONG Brewing;               /* 1: the work item runs, or is queued */
    EX_RUNDOWN_REF Rounds;      /* held by each round of the work item */
    LONG Done;
} BREWERY;

static PDEVICE_OBJECT TheBrewery;

static SUM SumOf(const UCHAR *Data, ULONG Bytes)
{
    SUM Sum = { 1, 0 };
    ULONG i;

    for (i = 0; i < Bytes; i++) {
        Sum.Low = (Sum.Low + Data[i]) % 65521;
        Sum.High = (Sum.High + Sum.Low) % 65521;
    }
    return Sum;
}

static VOID Serve(BREWERY *Brewery, PIRP Irp)
{
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);

    *(SUM *)Irp->AssociatedIrp.SystemBuffer = SumOf(Irp->AssociatedIrp.SystemBuffer, Sp->Parameters.DeviceIoControl.InputBufferLength);
    InterlockedIncrement(&Brewery->Done);
    Finish(NULL, Irp, STATUS_SUCCESS, sizeof(SUM));
}

#ifdef FIXED
static BOOLEAN AnyOrders(BREWERY *Brewery)
{
    BOOLEAN Any;
    KIRQL Irql;

    KeAcquireSpinLock(&Brewery->Orders.Lock, &Irql);
    Any = !IsListEmpty(&Brewery->Orders.Waiting);
    KeReleaseSpinLock(&Brewery->Orders.Lock, Irql);
    return Any;
}
#endif

static VOID NTAPI Brew(PDEVICE_OBJECT Device, PVOID Context)
{
    BREWERY *Brewery = Device->DeviceExtension;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Context);
    for (;;) {
        while ((Irp = LaneTake(&Brewery->Orders, NULL)) != NULL)
            Serve(Brewery, Irp);
        InterlockedExchange(&Brewery->Brewing, 0);
#ifdef FIXED
        /* one may have come since the lane was empty, and have left it to this round */
        if (AnyOrders(Brewery) && !InterlockedExchange(&Brewery->Brewing, 1))
            continue;
#endif
        break;
    }
    ExReleaseRundownProtection(&Brewery->Rounds);
}

static NTSTATUS Order(BREWERY *Brewery, PIRP Irp)
{
    NTSTATUS Status;

    /* the request may be over, and its handle closed, before this routine is */
    if (!ExAcquireRundownProtection(&Brewery->Rounds))
        return Finish(NULL, Irp, STATUS_DELETE_PENDING, 0);
    Status = LaneAdd(&Brewery->Orders, Irp);
    if (!InterlockedExchange(&Brewery->Brewing, 1))
        IoQueueWorkItem(Brewery->Item, Brew, DelayedWorkQueue, NULL);   /* which gives the protection back */
    else
        ExReleaseRundownProtection(&Brewery->Rounds);
    return Status;
}

static NTSTATUS NTAPI BreweryControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    BREWERY *Brewery = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BREWERY_SUM:
        if (!In || In > LARGEST_BLOCK)
            return Finish(NULL, Irp, STATUS_INVALID_PARAMETER, 0);
        if (Out < sizeof(SUM))
            return Finish(NULL, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Order(Brewery, Irp);
    case IOCTL_BREWERY_TALLY:
        if (Out < sizeof(LONG))
            return Finish(NULL, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&Brewery->Done, 0, 0);
        return Finish(NULL, Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return Finish(NULL, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI BreweryCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    BREWERY *Brewery = Device->DeviceExtension;

    LaneClear(&Brewery->Orders, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Finish(NULL, Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI BreweryUnload(PDRIVER_OBJECT Driver)
{
    BREWERY *Brewery = TheBrewery->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    ExWaitForRundownProtectionRelease(&Brewery->Rounds);
    IoFreeWorkItem(Brewery->Item);
    DeskDrop(TheBrewery, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;
    BREWERY *Brewery;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(BREWERY), NAME, LINK, &TheBrewery);
    if (!NT_SUCCESS(Status))
        return Status;
    Brewery = TheBrewery->DeviceExtension;
    Brewery->Item = IoAllocateWorkItem(TheBrewery);
    if (!Brewery->Item) {
        DeskDrop(TheBrewery, LINK);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    LaneInit(&Brewery->Orders, NULL);
    ExInitializeRundownProtection(&Brewery->Rounds);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BreweryCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BreweryControl;
    Driver->DriverUnload = BreweryUnload;
    return STATUS_SUCCESS;
}

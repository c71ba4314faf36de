/*
 * wagtail: hands questions of programs on to whatever transport is loaded below the device, as a request of its own that carries 64 bytes each way, and the answer
 * back. A program can cancel its question; the driver's own request is cancelled then, too, so that the transport does not work for no one.
 *
 * The bug: the completion routine frees the driver's own request although someone who cancels may have looked at its pointer just before; IoCancelIrp is called
 * with a request that is free.
 *
 * Device: Root\WAGTAIL
 * Rule: use-after-free, not-an-irp, write-after-free, irp-damaged
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID WagtailFace = { 0x5d0c1c13, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x11, 0x03 } };

#define IOCTL_ASK     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TALLY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CARRY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* to the transport */

#define CARGO 64

typedef struct _TALLY {
    ULONG Asked;
    ULONG Answered;
    ULONG UnderWay;
} TALLY;

typedef struct _POST {
    CRAFT Craft;
    QUAY Askers;
    KSPIN_LOCK Lock;                          /* of the rest */
    TALLY Tally;
    KEVENT Quiet;                             /* set while nothing is under way */
} POST;

/* A question: one part belongs to the program's request while it is in Askers, one to the driver's own request. */
typedef struct _ASK {
    POST *Post;
    LONG Parts;
    PIRP Own;
    IO_CSQ_IRP_CONTEXT Asker;
    UCHAR Cargo[CARGO];
} ASK;

#define ASK_OF(irp) ((irp)->Tail.Overlay.DriverContext[0])

static void DropPart(ASK *a)
{
    if (InterlockedDecrement(&a->Parts) != 0)
        return;
#ifdef FIXED
    IoFreeIrp(a->Own);
#endif
    ExFreePoolWithTag(a, WW_TAG);
}

/* The program's request has been taken out of Askers: no one wants the answer. */
static void CallOff(ASK *a)
{
#ifndef FIXED
    PIRP own = a->Own;
    if (own)
        IoCancelIrp(own);
#else
    IoCancelIrp(a->Own);
#endif
    DropPart(a);
}

static void AskerLeaves(QUAY *q, PIRP irp)
{
    UNREFERENCED_PARAMETER(q);
    CallOff(ASK_OF(irp));
}

static NTSTATUS NTAPI Carried(PDEVICE_OBJECT device, PIRP own, PVOID context)
{
    ASK *a = context;
    POST *p = a->Post;
    NTSTATUS status = own->IoStatus.Status;
    ULONG_PTR bytes = own->IoStatus.Information;
    PIRP irp;
    KIRQL irql;

    UNREFERENCED_PARAMETER(device);
    irp = IoCsqRemoveIrp(&p->Askers.Csq, &a->Asker);
    if (irp) {
        ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength;
        if (!NT_SUCCESS(status))
            bytes = 0;
        if (bytes > CARGO)
            bytes = CARGO;
        if (bytes > room)
            bytes = room;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, a->Cargo, bytes);
        CraftFinish(&p->Craft, irp, status, bytes);
        DropPart(a);                          /* that of the program's request */
    }
#ifndef FIXED
    a->Own = NULL;
    IoFreeIrp(own);
#endif
    KeAcquireSpinLock(&p->Lock, &irql);
    if (NT_SUCCESS(status))
        p->Tally.Answered++;
    if (--p->Tally.UnderWay == 0)
        KeSetEvent(&p->Quiet, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&p->Lock, irql);
    DropPart(a);
    IoReleaseRemoveLock(&p->Craft.Lock, a);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS Ask(POST *p, PIRP irp, PIO_STACK_LOCATION sp)
{
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PIO_STACK_LOCATION next;
    NTSTATUS status;
    KIRQL irql;
    ASK *a;
    PIRP own;

    if (in == 0 || in > CARGO)
        return STATUS_INVALID_PARAMETER;
    a = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *a, WW_TAG);
    if (!a)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(a, sizeof *a);
    a->Post = p;
    a->Parts = 2;
    own = a->Own = IoAllocateIrp(p->Craft.Lower->StackSize, FALSE);
    if (!own) {
        ExFreePoolWithTag(a, WW_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = IoAcquireRemoveLock(&p->Craft.Lock, a);
    if (!NT_SUCCESS(status)) {
        IoFreeIrp(own);
        ExFreePoolWithTag(a, WW_TAG);
        return status;
    }
    RtlCopyMemory(a->Cargo, irp->AssociatedIrp.SystemBuffer, in);
    own->IoStatus.Status = STATUS_NOT_SUPPORTED;
    own->AssociatedIrp.SystemBuffer = a->Cargo;
    next = IoGetNextIrpStackLocation(own);
    next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    next->Parameters.DeviceIoControl.IoControlCode = IOCTL_CARRY;
    next->Parameters.DeviceIoControl.InputBufferLength = in;
    next->Parameters.DeviceIoControl.OutputBufferLength = CARGO;
    IoSetCompletionRoutine(own, Carried, a, TRUE, TRUE, TRUE);

    KeAcquireSpinLock(&p->Lock, &irql);
    p->Tally.Asked++;
    if (p->Tally.UnderWay++ == 0)
        KeClearEvent(&p->Quiet);
    KeReleaseSpinLock(&p->Lock, irql);

    ASK_OF(irp) = a;
    IoCsqInsertIrp(&p->Askers.Csq, irp, &a->Asker);
    /* the part of the driver's own request keeps it until it has been completed */
    IoCallDriver(p->Craft.Lower, own);
    return STATUS_PENDING;
}

static void CallOffAll(POST *p, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;
    while ((irp = QuayTake(&p->Askers, file)) != NULL) {
        CallOff(ASK_OF(irp));
        CraftFinish(&p->Craft, irp, status, 0);
    }
}

static NTSTATUS WagtailServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    POST *p = (POST *)s;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ASK:
        return Ask(p, irp, sp);
    case IOCTL_TALLY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TALLY))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&p->Lock, &irql);
        *(TALLY *)irp->AssociatedIrp.SystemBuffer = p->Tally;
        KeReleaseSpinLock(&p->Lock, irql);
        irp->IoStatus.Information = sizeof(TALLY);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

/* Before D3, stop and removal nothing may be under way below. */
static void WagtailDrain(CRAFT *s)
{
    POST *p = (POST *)s;
    KIRQL irql;
    CallOffAll(p, NULL, s->Gone ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY);
    KeWaitForSingleObject(&p->Quiet, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&p->Lock, &irql);
    KeReleaseSpinLock(&p->Lock, irql);
}

static void WagtailCleanup(CRAFT *s, PFILE_OBJECT file)
{
    CallOffAll((POST *)s, file, STATUS_CANCELLED);
}

static NTSTATUS WagtailOutfit(CRAFT *s)
{
    POST *p = (POST *)s;
    NTSTATUS status = QuayInit(&p->Askers, &s->Lock);
    if (!NT_SUCCESS(status))
        return status;
    p->Askers.Leaving = AskerLeaves;
    KeInitializeSpinLock(&p->Lock);
    KeInitializeEvent(&p->Quiet, NotificationEvent, TRUE);
    return STATUS_SUCCESS;
}

static const PLAN WagtailPlan = {
    .Size = sizeof(POST),
    .Face = &WagtailFace,
    .Buffering = DO_BUFFERED_IO,
    .Outfit = WagtailOutfit,
    .Drain = WagtailDrain,
    .Serve = WagtailServe,
    .Cleanup = WagtailCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &WagtailPlan);
}

/*
 * PARBOIL: kitchen timers. Every open handle of \\.\Parboil is a pot that can be given a programme of up to eight cooking steps
 * (milliseconds each); the pot goes from step to step by itself and rings the user's event after the last one. The programme can be
 * looked at and halted at any time; closing the handle takes the pot away.
 *
 * The bug: close waits for the pot's DPC only when the timer was no longer set; a DPC that has just set the timer for the next step
 * is still at its end and reads the pot after it is freed.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include "../include/quay_base.h"

#define STEPS_MAX   8
#define STEP_LONG   600000          /* ten minutes */

#define IOCTL_PROGRAM   AI_CTL(0, METHOD_BUFFERED)      /* in: PROGRAM */
#define IOCTL_HALT      AI_CTL(1, METHOD_BUFFERED)
#define IOCTL_LOOK      AI_CTL(2, METHOD_BUFFERED)      /* out: LOOK */

typedef struct _PROGRAM {
    ULONG64 Bell;                   /* event handle, or 0 */
    ULONG Count;
    ULONG Ms[STEPS_MAX];
} PROGRAM;

typedef struct _LOOK {
    ULONG Running, At, Count;
    LONG StepsOfAll, Pots;
} LOOK;

typedef struct _KITCHEN {
    LONG Pots;
    LONG Steps;                     /* ended by all pots ever */
} KITCHEN;

typedef struct _POT {
    KITCHEN *Kitchen;
    KSPIN_LOCK Lock;
    KTIMER Timer;
    KDPC Dpc;
    PKEVENT Bell;
    ULONG Count, At;
    ULONG Ms[STEPS_MAX];
    BOOLEAN Running;
    BOOLEAN Halting;                /* an old DPC may still be on its way */
} POT;

static PDEVICE_OBJECT Device;

/* Lock held */
static VOID SetStep(POT *p)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * p->Ms[p->At];
    KeSetTimer(&p->Timer, due, &p->Dpc);
}

static VOID NTAPI StepDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    POT *p = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    if (p->Running) {
        if (++p->At < p->Count) {
            SetStep(p);
        } else {
            p->Running = FALSE;
            if (p->Bell)
                KeSetEvent(p->Bell, IO_NO_INCREMENT, FALSE);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    InterlockedIncrement(&p->Kitchen->Steps);
}

static NTSTATUS Program(POT *p, PROGRAM *in, ULONG length, KPROCESSOR_MODE mode)
{
    PKEVENT bell = NULL, old = NULL;
    NTSTATUS s = STATUS_SUCCESS;
    KIRQL q;
    ULONG i;

    if (length < sizeof *in || in->Count == 0 || in->Count > STEPS_MAX)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < in->Count; i++)
        if (in->Ms[i] == 0 || in->Ms[i] > STEP_LONG)
            return STATUS_INVALID_PARAMETER;
    if (in->Bell) {
        s = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->Bell, EVENT_MODIFY_STATE, *ExEventObjectType, mode, (PVOID *)&bell, NULL);
        if (!NT_SUCCESS(s))
            return s;
    }

    KeAcquireSpinLock(&p->Lock, &q);
    if (p->Running || p->Halting) {
        s = STATUS_DEVICE_BUSY;
        old = bell;
    } else {
        old = p->Bell;
        p->Bell = bell;
        p->Count = in->Count;
        p->At = 0;
        RtlCopyMemory(p->Ms, in->Ms, sizeof p->Ms);
        p->Running = TRUE;
        SetStep(p);
    }
    KeReleaseSpinLock(&p->Lock, q);
    if (old)
        ObDereferenceObject(old);
    return s;
}

static VOID Halt(POT *p)
{
    BOOLEAN was;
    KIRQL q;

    KeAcquireSpinLock(&p->Lock, &q);
    was = p->Running;
    if (was) {
        p->Running = FALSE;
        p->Halting = TRUE;
        KeCancelTimer(&p->Timer);
    }
    KeReleaseSpinLock(&p->Lock, q);
    if (was) {
        KeFlushQueuedDpcs();
        KeAcquireSpinLock(&p->Lock, &q);
        p->Halting = FALSE;
        KeReleaseSpinLock(&p->Lock, q);
    }
}

static VOID Look(POT *p, LOOK *out)
{
    KIRQL q;

    KeAcquireSpinLock(&p->Lock, &q);
    out->Running = p->Running;
    out->At = p->At;
    out->Count = p->Count;
    KeReleaseSpinLock(&p->Lock, q);
    out->StepsOfAll = p->Kitchen->Steps;
    out->Pots = p->Kitchen->Pots;
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT dev, PIRP irp)
{
    KITCHEN *k = dev->DeviceExtension;
    POT *p = ExAllocatePoolWithTag(NonPagedPool, sizeof *p, AI_TAG);

    if (!p)
        return AiDone(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(p, sizeof *p);
    p->Kitchen = k;
    KeInitializeSpinLock(&p->Lock);
    KeInitializeTimer(&p->Timer);
    KeInitializeDpc(&p->Dpc, StepDpc, p);
    InterlockedIncrement(&k->Pots);
    AiStack(irp)->FileObject->FsContext = p;
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT dev, PIRP irp)
{
    KITCHEN *k = dev->DeviceExtension;
    POT *p = AiStack(irp)->FileObject->FsContext;
    KIRQL q;

    /* from here on the DPC sets the timer no more */
    KeAcquireSpinLock(&p->Lock, &q);
    p->Running = FALSE;
    KeReleaseSpinLock(&p->Lock, q);

#ifdef FIXED
    KeCancelTimer(&p->Timer);
    KeFlushQueuedDpcs();
#else
    if (!KeCancelTimer(&p->Timer))
        KeFlushQueuedDpcs();
#endif
    if (p->Bell)
        ObDereferenceObject(p->Bell);
    ExFreePoolWithTag(p, AI_TAG);
    InterlockedDecrement(&k->Pots);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    POT *p = AiStack(irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(dev);
    switch (AiCode(irp)) {
    case IOCTL_PROGRAM:
        return AiDone(irp, Program(p, AiBuffer(irp), AiInLen(irp), irp->RequestorMode), 0);
    case IOCTL_HALT:
        Halt(p);
        return AiDone(irp, STATUS_SUCCESS, 0);
    case IOCTL_LOOK:
        if (AiOutLen(irp) < sizeof(LOOK))
            return AiDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
        Look(p, AiBuffer(irp));
        return AiDone(irp, STATUS_SUCCESS, sizeof(LOOK));
    default:
        return AiDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    AiDropControl(Device, L"\\DosDevices\\Parboil");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = Create;
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = Close;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    drv->DriverUnload = Unload;
    return AiMakeControl(drv, sizeof(KITCHEN), L"\\Device\\Parboil", L"\\DosDevices\\Parboil", &Device);
}

/*
 * paddock: eight light barriers at the gates of a sorting machine. A program waits for any of the gates it names to be passed; the card interrupts with a bit for each
 * gate, and all whose gates are among them are informed. The list of those who wait has a cancel routine of its own.
 *
 * The bug: the DPC takes a request out of the list and takes its cancel routine back, but does not look whether that had been called already and only waits for the
 * lock. The request is completed by both.
 *
 * Device: PCI\VEN_1F33&DEV_7002
 * Rule: double-completion, use-after-free, list-corrupt, list-damaged, not-an-irp, remove-lock-tag, cancel-after-completion
 * Needs: ioctl, cancel, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID PaddockFace = { 0x5d0c1c45, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x14, 0x05 } };

#define IOCTL_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E5, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E6, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_PASSED 0x00                       /* a one written clears its bit */
#define REG_ENABLE 0x04
#define GATES      8
#define ALL        0xFFu

typedef struct _COUNTS {
    ULONG Count[GATES];
} COUNTS;

typedef struct _PADDOCK {
    CRAFT Craft;
    KSPIN_LOCK Lock;                          /* of the list and the counts */
    LIST_ENTRY Waiting;
    COUNTS Counts;
    volatile LONG Passed;
} PADDOCK;

#define GATES_OF(irp) ((irp)->Tail.Overlay.DriverContext[0])
#define ENTRY_OF(irp) (&(irp)->Tail.Overlay.ListEntry)
#define IRP_OF(entry) CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry)

static VOID NTAPI WaitCancelled(PDEVICE_OBJECT device, PIRP irp)
{
    PADDOCK *p = device->DeviceExtension;
    KIRQL irql;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&p->Lock, &irql);
    RemoveEntryList(ENTRY_OF(irp));
    KeReleaseSpinLock(&p->Lock, irql);
    CraftFinish(&p->Craft, irp, STATUS_CANCELLED, 0);
}

/* With the lock: the request is out of the list and the caller's, or its cancel routine sees to it. */
static BOOLEAN PullOut(PIRP irp)
{
    RemoveEntryList(ENTRY_OF(irp));
    if (IoSetCancelRoutine(irp, NULL))
        return TRUE;
    InitializeListHead(ENTRY_OF(irp));        /* the cancel routine takes it out once more */
    return FALSE;
}

/* Ends all that wait, or those of a handle. */
static void EndAll(PADDOCK *p, PFILE_OBJECT file, NTSTATUS status)
{
    LIST_ENTRY out;
    PLIST_ENTRY at;
    KIRQL irql;
    InitializeListHead(&out);
    KeAcquireSpinLock(&p->Lock, &irql);
    for (at = p->Waiting.Flink; at != &p->Waiting;) {
        PIRP irp = IRP_OF(at);
        at = at->Flink;
        if (file && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (PullOut(irp))
            InsertTailList(&out, ENTRY_OF(irp));
    }
    KeReleaseSpinLock(&p->Lock, irql);
    while (!IsListEmpty(&out))
        CraftFinish(&p->Craft, IRP_OF(RemoveHeadList(&out)), status, 0);
}

static NTSTATUS Wait(PADDOCK *p, PIRP irp, PIO_STACK_LOCATION sp)
{
    BOOLEAN gone = FALSE;
    ULONG gates;
    KIRQL irql;
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof gates || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof gates)
        return STATUS_BUFFER_TOO_SMALL;
    gates = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
    if (gates == 0 || gates > ALL)
        return STATUS_INVALID_PARAMETER;
    GATES_OF(irp) = (PVOID)(ULONG_PTR)gates;
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&p->Lock, &irql);
    InsertTailList(&p->Waiting, ENTRY_OF(irp));
    IoSetCancelRoutine(irp, WaitCancelled);
    if (irp->Cancel)
        gone = PullOut(irp);
    KeReleaseSpinLock(&p->Lock, irql);
    if (gone)
        CraftFinish(&p->Craft, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static BOOLEAN PaddockIsr(CRAFT *s)
{
    PADDOCK *p = (PADDOCK *)s;
    ULONG passed = Rd(&s->Window[0], REG_PASSED);
    if (passed == ~0u || !(passed & ALL))
        return FALSE;
    Wr(&s->Window[0], REG_PASSED, passed & ALL);
    InterlockedOr(&p->Passed, (LONG)(passed & ALL));
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static void PaddockDpc(CRAFT *s)
{
    PADDOCK *p = (PADDOCK *)s;
    ULONG passed = (ULONG)InterlockedExchange(&p->Passed, 0);
    LIST_ENTRY out;
    PLIST_ENTRY at;
    ULONG n;

    if (!passed)
        return;
    InitializeListHead(&out);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    for (n = 0; n < GATES; n++)
        if (passed & 1u << n)
            p->Counts.Count[n]++;
    for (at = p->Waiting.Flink; at != &p->Waiting;) {
        PIRP irp = IRP_OF(at);
        at = at->Flink;
        if (!((ULONG)(ULONG_PTR)GATES_OF(irp) & passed))
            continue;
#ifndef FIXED
        RemoveEntryList(ENTRY_OF(irp));
        IoSetCancelRoutine(irp, NULL);
        InsertTailList(&out, ENTRY_OF(irp));
#else
        if (PullOut(irp))
            InsertTailList(&out, ENTRY_OF(irp));
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    while (!IsListEmpty(&out)) {
        PIRP irp = IRP_OF(RemoveHeadList(&out));
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = passed & (ULONG)(ULONG_PTR)GATES_OF(irp);
        CraftFinish(s, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS PaddockServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    PADDOCK *p = (PADDOCK *)s;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WAIT:
        return Wait(p, irp, sp);
    case IOCTL_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&p->Lock, &irql);
        *(COUNTS *)irp->AssociatedIrp.SystemBuffer = p->Counts;
        KeReleaseSpinLock(&p->Lock, irql);
        irp->IoStatus.Information = sizeof(COUNTS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS PaddockStart(CRAFT *s)
{
    Wr(&s->Window[0], REG_ENABLE, 0);
    return STATUS_SUCCESS;
}

static void PaddockArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_PASSED, ALL);
    Wr(&s->Window[0], REG_ENABLE, ALL);
}

static void PaddockDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ENABLE, 0);
}

static void PaddockScuttle(CRAFT *s)
{
    EndAll((PADDOCK *)s, NULL, STATUS_DELETE_PENDING);
}

static void PaddockCleanup(CRAFT *s, PFILE_OBJECT file)
{
    EndAll((PADDOCK *)s, file, STATUS_CANCELLED);
}

static NTSTATUS PaddockOutfit(CRAFT *s)
{
    PADDOCK *p = (PADDOCK *)s;
    KeInitializeSpinLock(&p->Lock);
    InitializeListHead(&p->Waiting);
    return STATUS_SUCCESS;
}

static const PLAN PaddockPlan = {
    .Size = sizeof(PADDOCK),
    .Face = &PaddockFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 8 },
    .Line = TRUE,
    .Outfit = PaddockOutfit,
    .Start = PaddockStart,
    .Arm = PaddockArm,
    .Disarm = PaddockDisarm,
    .Scuttle = PaddockScuttle,
    .Isr = PaddockIsr,
    .Dpc = PaddockDpc,
    .Serve = PaddockServe,
    .Cleanup = PaddockCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &PaddockPlan);
}

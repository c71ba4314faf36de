/*
 * edukelp: has QEMU's educational card compute a factorial every 50 ms and tells all who listen: a read waits for the next result. For each handle the driver counts
 * the results that have come since it was opened.
 *
 * The bug: the routine that takes a handle out of the list when it is closed takes the lock as DPCs do, although it runs at PASSIVE_LEVEL. The lock is held with the
 * level left low; the timer's DPC that comes then on the same processor spins for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: spin-lock-held-below-dispatch, irql-too-low, spin-lock-deadlock, deadlock
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID KelpFace = { 0x5d0c1c23, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x12, 0x03 } };

#define IOCTL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_ID        0x00
#define REG_FACTORIAL 0x08
#define REG_STATUS    0x20
#define   COMPUTING     0x01
#define   INTERRUPTS    0x80
#define REG_CAUSE     0x24
#define REG_ACK       0x64

#define PERIOD_MS 50
#define AT_ONCE   64                          /* reads that one result ends at most; the others get the next */

typedef struct _RESULT {
    ULONG Serial;
    ULONG Number;
    ULONG Factorial;
} RESULT;

typedef struct _LISTENER {                    /* a handle */
    LIST_ENTRY Link;
    ULONG Results;
    ULONG Last;
} LISTENER;

typedef struct _COUNTS {
    ULONG Results;
    ULONG Last;
} COUNTS;

typedef struct _KELP {
    CRAFT Craft;
    QUAY Waiting;
    KSPIN_LOCK Lock;                          /* of what follows, to Computing */
    LIST_ENTRY Listeners;
    RESULT Result;
    ULONG Number;
    BOOLEAN Computing;
    KTIMER Tick;
    KDPC TickDpc;
    volatile LONG Cause;
} KELP;

static const WINDOW *Regs(KELP *k)
{
    return &k->Craft.Window[0];
}

static VOID NTAPI Ticked(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    KELP *k = context;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&k->Lock);
    if (!(Rd(Regs(k), REG_STATUS) & COMPUTING)) {
        k->Number = (k->Number + 1) % 13;
        k->Computing = TRUE;
        Wr(Regs(k), REG_STATUS, INTERRUPTS);
        Wr(Regs(k), REG_FACTORIAL, k->Number);
    }
    KeReleaseSpinLockFromDpcLevel(&k->Lock);
}

static BOOLEAN KelpIsr(CRAFT *s)
{
    KELP *k = (KELP *)s;
    ULONG cause = Rd(Regs(k), REG_CAUSE);
    if (cause == 0 || cause == ~0u)
        return FALSE;
    Wr(Regs(k), REG_ACK, cause);
    InterlockedOr(&k->Cause, (LONG)cause);
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static void KelpDpc(CRAFT *s)
{
    KELP *k = (KELP *)s;
    RESULT result;
    PLIST_ENTRY at;
    ULONG many;
    PIRP irp;

    if (InterlockedExchange(&k->Cause, 0) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&k->Lock);
    if (!k->Computing || Rd(Regs(k), REG_STATUS) & COMPUTING) {
        KeReleaseSpinLockFromDpcLevel(&k->Lock);
        return;
    }
    k->Computing = FALSE;
    k->Result.Serial++;
    k->Result.Number = k->Number;
    k->Result.Factorial = Rd(Regs(k), REG_FACTORIAL);
    for (at = k->Listeners.Flink; at != &k->Listeners; at = at->Flink) {
        LISTENER *l = CONTAINING_RECORD(at, LISTENER, Link);
        l->Results++;
        l->Last = k->Result.Serial;
    }
    result = k->Result;
    KeReleaseSpinLockFromDpcLevel(&k->Lock);

    for (many = 0; many < AT_ONCE && (irp = QuayTake(&k->Waiting, NULL)) != NULL; many++) {
        *(RESULT *)irp->AssociatedIrp.SystemBuffer = result;
        CraftFinish(s, irp, STATUS_SUCCESS, sizeof result);
    }
}

static void Unlist(KELP *k, LISTENER *l)
{
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&k->Lock);
    RemoveEntryList(&l->Link);
    KeReleaseSpinLockFromDpcLevel(&k->Lock);
#else
    KIRQL irql;
    KeAcquireSpinLock(&k->Lock, &irql);
    RemoveEntryList(&l->Link);
    KeReleaseSpinLock(&k->Lock, irql);
#endif
}

static NTSTATUS KelpOpen(CRAFT *s, PFILE_OBJECT file)
{
    KELP *k = (KELP *)s;
    LISTENER *l = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *l, WW_TAG);
    KIRQL irql;
    if (!l)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(l, sizeof *l);
    file->FsContext = l;
    KeAcquireSpinLock(&k->Lock, &irql);
    InsertTailList(&k->Listeners, &l->Link);
    KeReleaseSpinLock(&k->Lock, irql);
    return STATUS_SUCCESS;
}

static void KelpCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((KELP *)s)->Waiting, file, STATUS_CANCELLED);
}

static void KelpClose(CRAFT *s, PFILE_OBJECT file)
{
    LISTENER *l = file->FsContext;
    Unlist((KELP *)s, l);
    file->FsContext = NULL;
    ExFreePoolWithTag(l, WW_TAG);
}

static NTSTATUS KelpServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    KELP *k = (KELP *)s;
    LISTENER *l = sp->FileObject->FsContext;
    COUNTS *c = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;
    if (sp->MajorFunction == IRP_MJ_READ) {
        if (sp->Parameters.Read.Length < sizeof(RESULT))
            return STATUS_BUFFER_TOO_SMALL;
        return QuayPut(&k->Waiting, irp);
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL || sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_COUNT)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof *c)
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&k->Lock, &irql);
    c->Results = l->Results;
    c->Last = l->Last;
    KeReleaseSpinLock(&k->Lock, irql);
    irp->IoStatus.Information = sizeof *c;
    return STATUS_SUCCESS;
}

static NTSTATUS KelpStart(CRAFT *s)
{
    const WINDOW *w = &s->Window[0];
    if ((Rd(w, REG_ID) & 0xFFFF) != 0x00ED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Wr(w, REG_STATUS, 0);
    Wr(w, REG_ACK, Rd(w, REG_CAUSE));
    return STATUS_SUCCESS;
}

static void KelpArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ACK, Rd(&s->Window[0], REG_CAUSE));
}

static void KelpRun(CRAFT *s)
{
    KELP *k = (KELP *)s;
    LARGE_INTEGER first;
    first.QuadPart = -PERIOD_MS * 10000ll;
    KeSetTimerEx(&k->Tick, first, PERIOD_MS, &k->TickDpc);
}

/* The ticks end before the card is made silent. */
static void KelpDrain(CRAFT *s)
{
    KeCancelTimer(&((KELP *)s)->Tick);
    KeFlushQueuedDpcs();
}

static void KelpDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_STATUS, 0);
    Wr(&s->Window[0], REG_ACK, Rd(&s->Window[0], REG_CAUSE));
}

static void KelpIdle(CRAFT *s)
{
    KELP *k = (KELP *)s;
    KIRQL irql;
    InterlockedExchange(&k->Cause, 0);
    KeAcquireSpinLock(&k->Lock, &irql);
    k->Computing = FALSE;
    KeReleaseSpinLock(&k->Lock, irql);
}

static void KelpScuttle(CRAFT *s)
{
    QuayFlush(&((KELP *)s)->Waiting, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS KelpOutfit(CRAFT *s)
{
    KELP *k = (KELP *)s;
    KeInitializeSpinLock(&k->Lock);
    InitializeListHead(&k->Listeners);
    KeInitializeTimer(&k->Tick);
    KeInitializeDpc(&k->TickDpc, Ticked, k);
    return QuayInit(&k->Waiting, &s->Lock);
}

static const PLAN KelpPlan = {
    .Size = sizeof(KELP),
    .Face = &KelpFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x100 },
    .Line = TRUE,
    .Outfit = KelpOutfit,
    .Start = KelpStart,
    .Arm = KelpArm,
    .Run = KelpRun,
    .Drain = KelpDrain,
    .Disarm = KelpDisarm,
    .Idle = KelpIdle,
    .Scuttle = KelpScuttle,
    .Isr = KelpIsr,
    .Dpc = KelpDpc,
    .Serve = KelpServe,
    .Open = KelpOpen,
    .Cleanup = KelpCleanup,
    .Close = KelpClose,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &KelpPlan);
}

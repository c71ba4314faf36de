/*
 * sorghum: a card with 32 relays for door openers. A program pulses relays: the driver switches them on and, when the time is over, off again. Each handle has one such
 * time; when it is closed its relays go off at once.
 *
 * The bug: when a handle is closed its timer is cancelled and its memory freed, but the timer's DPC may be queued or running on another processor just then; it uses
 * what has been freed.
 *
 * Device: PCI\VEN_1E57&DEV_0A21
 * Rule: use-after-free, write-after-free, freed-queued-dpc, freed-while-in-use
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID SorghumFace = { 0x5d0c1c44, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x14, 0x04 } };

#define IOCTL_PULSE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RELAYS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ENOUGH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E3, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_RELAYS 0x00                       /* a bit each; cannot be read back */
#define MOST_MS    60000

typedef struct _PULSE {
    ULONG Relays;
    ULONG Ms;
} PULSE;

typedef struct _SORGHUM {
    CRAFT Craft;
    KSPIN_LOCK Lock;                          /* of the rest, and of what the handles hold */
    BOOLEAN Ready;                            /* the register may be written */
    ULONG Relays;                             /* what it holds */
    LIST_ENTRY Handles;
} SORGHUM;

typedef struct _OPENER {                      /* a handle */
    LIST_ENTRY Link;
    SORGHUM *Sorghum;
    ULONG Relays;                             /* those that it holds */
    KTIMER Timer;
    KDPC TimerDpc;
} OPENER;

/* With the lock. */
static void Output(SORGHUM *s, ULONG relays)
{
    s->Relays = relays;
    if (s->Ready)
        Wr(&s->Craft.Window[0], REG_RELAYS, relays);
}

/* With the lock. */
static void Drop(OPENER *o)
{
    if (o->Relays)
        Output(o->Sorghum, o->Sorghum->Relays & ~o->Relays);
    o->Relays = 0;
}

static VOID NTAPI TimeOver(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    OPENER *o = context;
    SORGHUM *s = o->Sorghum;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    Drop(o);
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
}

static NTSTATUS SorghumOpen(CRAFT *c, PFILE_OBJECT file)
{
    SORGHUM *s = (SORGHUM *)c;
    OPENER *o = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *o, WW_TAG);
    KIRQL irql;
    if (!o)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(o, sizeof *o);
    o->Sorghum = s;
    KeInitializeTimer(&o->Timer);
    KeInitializeDpc(&o->TimerDpc, TimeOver, o);
    file->FsContext = o;
    KeAcquireSpinLock(&s->Lock, &irql);
    InsertTailList(&s->Handles, &o->Link);
    KeReleaseSpinLock(&s->Lock, irql);
    return STATUS_SUCCESS;
}

static void SorghumClose(CRAFT *c, PFILE_OBJECT file)
{
    SORGHUM *s = (SORGHUM *)c;
    OPENER *o = file->FsContext;
    KIRQL irql;
    KeCancelTimer(&o->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    KeAcquireSpinLock(&s->Lock, &irql);
    RemoveEntryList(&o->Link);
    Drop(o);
    KeReleaseSpinLock(&s->Lock, irql);
    file->FsContext = NULL;
    ExFreePoolWithTag(o, WW_TAG);
}

static NTSTATUS Pulse(SORGHUM *s, OPENER *o, const PULSE *p)
{
    LARGE_INTEGER time;
    KIRQL irql;
    if (p->Relays == 0 || p->Ms == 0 || p->Ms > MOST_MS)
        return STATUS_INVALID_PARAMETER;
    time.QuadPart = -(LONGLONG)p->Ms * 10000;
    KeAcquireSpinLock(&s->Lock, &irql);
    o->Relays |= p->Relays;
    Output(s, s->Relays | p->Relays);
    KeSetTimer(&o->Timer, time, &o->TimerDpc);
    KeReleaseSpinLock(&s->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS SorghumServe(CRAFT *c, PIRP irp, PIO_STACK_LOCATION sp)
{
    SORGHUM *s = (SORGHUM *)c;
    OPENER *o = sp->FileObject->FsContext;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PULSE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(PULSE))
            return STATUS_BUFFER_TOO_SMALL;
        return Pulse(s, o, irp->AssociatedIrp.SystemBuffer);
    case IOCTL_RELAYS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&s->Lock, &irql);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = s->Relays;
        KeReleaseSpinLock(&s->Lock, irql);
        irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_ENOUGH:
        KeAcquireSpinLock(&s->Lock, &irql);
        KeCancelTimer(&o->Timer);
        Drop(o);
        KeReleaseSpinLock(&s->Lock, irql);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static void SorghumArm(CRAFT *c)
{
    Wr(&c->Window[0], REG_RELAYS, 0);
}

static void SorghumRun(CRAFT *c)
{
    SORGHUM *s = (SORGHUM *)c;
    KIRQL irql;
    KeAcquireSpinLock(&s->Lock, &irql);
    s->Ready = TRUE;
    Output(s, s->Relays);                     /* a request may have been here before */
    KeReleaseSpinLock(&s->Lock, irql);
}

/* All relays go off, and stay so when the device comes back. */
static void SorghumDrain(CRAFT *c)
{
    SORGHUM *s = (SORGHUM *)c;
    PLIST_ENTRY at;
    KIRQL irql;
    KeAcquireSpinLock(&s->Lock, &irql);
    for (at = s->Handles.Flink; at != &s->Handles; at = at->Flink) {
        OPENER *o = CONTAINING_RECORD(at, OPENER, Link);
        KeCancelTimer(&o->Timer);
        o->Relays = 0;
    }
    Output(s, 0);
    s->Ready = FALSE;
    KeReleaseSpinLock(&s->Lock, irql);
}

static NTSTATUS SorghumOutfit(CRAFT *c)
{
    SORGHUM *s = (SORGHUM *)c;
    KeInitializeSpinLock(&s->Lock);
    InitializeListHead(&s->Handles);
    return STATUS_SUCCESS;
}

static const PLAN SorghumPlan = {
    .Size = sizeof(SORGHUM),
    .Face = &SorghumFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 4 },
    .Outfit = SorghumOutfit,
    .Arm = SorghumArm,
    .Run = SorghumRun,
    .Drain = SorghumDrain,
    .Serve = SorghumServe,
    .Open = SorghumOpen,
    .Close = SorghumClose,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &SorghumPlan);
}

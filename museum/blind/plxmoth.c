/*
 * PLXMOTH: rings events of applications on every edge of LINTi1 of a card with a PLX PCI 9052. IOCTL_BELL gives the handle an event to
 * be set (or takes it away again), IOCTL_RINGS tells how often it was set; every handle has a bell of its own.
 *
 * The bug: a new bell lets go of the old event before it is taken out of the handle, and without the lock; the DPC, or a second
 * IOCTL_BELL, still uses an event that may be gone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: object-reference-leak, object-reference, use-after-free
 * Needs: schedule
 */
#include "../include/quay_plx.h"

#define IOCTL_BELL      AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG64 event handle, or 0 */
#define IOCTL_RINGS     AI_CTL(1, METHOD_BUFFERED)      /* out: ULONG of this handle, ULONG edges */

static const GUID MothGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x24 } };

typedef struct _MOTH {
    AI_CARD C;                      /* Cause: edges the ISR has counted */
    KSPIN_LOCK Lock;                /* Opens, every bell, Edges */
    LIST_ENTRY Opens;
    ULONG Edges;
} MOTH;

typedef struct _OPENER {
    LIST_ENTRY Link;
    PKEVENT Bell;
    ULONG Rings;
} OPENER;

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID context)
{
    MOTH *x = context;
    ULONG v;

    UNREFERENCED_PARAMETER(i);
    if (!x->C.Live)
        return FALSE;
    v = AiRead(&x->C, PLX_INTCSR);
    if (v == PLX_GONE || !(v & PLX_INT1_ON) || !(v & PLX_INT1_NOW))
        return FALSE;
    AiWrite(&x->C, PLX_INTCSR, v | PLX_INT1_CLEAR);
    x->C.Cause++;
    KeInsertQueueDpc(&x->C.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI EdgeDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    MOTH *x = context;
    ULONG edges = AiCause(&x->C);
    PLIST_ENTRY e;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    if (!edges)
        return;
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->Edges += edges;
    for (e = x->Opens.Flink; e != &x->Opens; e = e->Flink) {
        OPENER *o = CONTAINING_RECORD(e, OPENER, Link);

        if (o->Bell) {
            KeSetEvent(o->Bell, IO_NO_INCREMENT, FALSE);
            o->Rings++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static VOID SetBell(MOTH *x, OPENER *o, PKEVENT bell)
{
    KIRQL q;

#ifdef FIXED
    PKEVENT old;

    KeAcquireSpinLock(&x->Lock, &q);
    old = o->Bell;
    o->Bell = bell;
    KeReleaseSpinLock(&x->Lock, q);
    if (old)
        ObDereferenceObject(old);
#else
    if (o->Bell)
        ObDereferenceObject(o->Bell);
    KeAcquireSpinLock(&x->Lock, &q);
    o->Bell = bell;
    KeReleaseSpinLock(&x->Lock, q);
#endif
}

static NTSTATUS Bell(MOTH *x, OPENER *o, ULONG64 handle, KPROCESSOR_MODE mode)
{
    PKEVENT bell = NULL;
    NTSTATUS s;

    if (handle) {
        s = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)handle, EVENT_MODIFY_STATE, *ExEventObjectType, mode, (PVOID *)&bell, NULL);
        if (!NT_SUCCESS(s))
            return s;
    }
    SetBell(x, o, bell);
    return STATUS_SUCCESS;
}

static VOID Rings(MOTH *x, OPENER *o, PULONG out)
{
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    out[0] = o->Rings;
    out[1] = x->Edges;
    KeReleaseSpinLock(&x->Lock, q);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT dev, PIRP irp)
{
    MOTH *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    OPENER *o;
    NTSTATUS s = AiEnter(f, irp);
    KIRQL q;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    o = ExAllocatePoolWithTag(NonPagedPool, sizeof *o, AI_TAG);
    if (!o)
        return AiExit(f, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(o, sizeof *o);
    KeAcquireSpinLock(&x->Lock, &q);
    InsertTailList(&x->Opens, &o->Link);
    KeReleaseSpinLock(&x->Lock, q);
    AiStack(irp)->FileObject->FsContext = o;
    return AiExit(f, irp, STATUS_SUCCESS, 0);
}

/* the last request of the handle is through: it is taken off the list with its bell */
static NTSTATUS NTAPI Close(PDEVICE_OBJECT dev, PIRP irp)
{
    MOTH *x = dev->DeviceExtension;
    OPENER *o = AiStack(irp)->FileObject->FsContext;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    RemoveEntryList(&o->Link);
    KeReleaseSpinLock(&x->Lock, q);
    if (o->Bell)
        ObDereferenceObject(o->Bell);
    ExFreePoolWithTag(o, AI_TAG);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    MOTH *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    OPENER *o = AiStack(irp)->FileObject->FsContext;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_BELL:
        if (AiInLen(irp) < sizeof(ULONG64))
            return AiExit(f, irp, STATUS_INVALID_PARAMETER, 0);
        return AiExit(f, irp, Bell(x, o, *(ULONG64 *)AiBuffer(irp), irp->RequestorMode), 0);

    case IOCTL_RINGS:
        if (AiOutLen(irp) < 2 * sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        Rings(x, o, AiBuffer(irp));
        return AiExit(f, irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID GoLive(PAI_FDO f)
{
    AiPlxLive((PAI_CARD)f, PLX_PCI_ON | PLX_INT1_ON | PLX_INT1_HIGH | PLX_INT1_EDGE | PLX_INT1_CLEAR);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    NTSTATUS s = AiPlxStart((PAI_CARD)f, list, Isr, FALSE);

    if (NT_SUCCESS(s))
        GoLive(f);
    return s;
}

static VOID Halt(PAI_FDO f)
{
    AiPlxStop((PAI_CARD)f);
}

static VOID PowerDown(PAI_FDO f)
{
    AiPlxQuiet((PAI_CARD)f);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .PowerDown = PowerDown, .PowerUp = GoLive };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    MOTH *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(MOTH), &Ops, &MothGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, EdgeDpc, x);
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Opens);
    AiReady(&x->C.F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    drv->MajorFunction[IRP_MJ_CREATE] = Create;
    drv->MajorFunction[IRP_MJ_CLOSE] = Close;
    return STATUS_SUCCESS;
}

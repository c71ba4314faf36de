/*
 * tansy: 16 relays and 16 contacts on a board behind a PLX 9050. IOCTL_TANSY_RELAYS sets relays, IOCTL_TANSY_STATE
 * reads relays and contacts, IOCTL_TANSY_WAIT pends until contacts have changed since the handle's last wait.
 *
 * The bug: at power up the PLX interrupt is enabled before the flag is set that makes the ISR look at the card. If a
 * contact changed while asleep the line is up at once, the ISR disowns it, and on one processor it never stops.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: power, device, ioctl
 *
 * The board (local space 0, BAR2, 32 bits each; kept alive in D3 by a supply of its own):
 *   0x00 ID       reads 0x7A4E5901
 *   0x04 RELAYS   bits 0..15, read and write
 *   0x08 CONTACTS bits 0..15, as they are
 *   0x0C CHANGED  bits 0..15 latched when the contact changes, write 1 to clear
 *   0x10 MASK     bits 0..15, CHANGED & MASK raises LINTi1, active high
 */
#include "../include/reed_wdm.h"

/* {B3C1E0A4-7B3E-4E0D-8B0C-6A1F2B7D9103} */
static const GUID TansyGuid = { 0xb3c1e0a4, 0x7b3e, 0x4e0d, { 0x8b, 0x0c, 0x6a, 0x1f, 0x2b, 0x7d, 0x91, 0x03 } };

#define IOCTL_TANSY_RELAYS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TANSY_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TANSY_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TANSY_RELAYS {
    ULONG Mask;                     /* the relays to set */
    ULONG Value;
} TANSY_RELAYS;

typedef struct _TANSY_STATE {
    ULONG Relays;
    ULONG Contacts;
} TANSY_STATE;

typedef struct _TANSY_CHANGE {
    ULONG Changed;
    ULONG Contacts;
} TANSY_CHANGE;

#define PLX 0                       /* our bars: the PLX registers, then the board */
#define BRD 1

#define PLX_INTCSR      0x4C
#define PLX_LINT1_ON    0x001u
#define PLX_LINT1_HIGH  0x002u
#define PLX_LINT1_UP    0x004u
#define PLX_PCI_ON      0x040u
#define PLX_ENABLE      (PLX_LINT1_ON | PLX_LINT1_HIGH | PLX_PCI_ON)

#define BRD_ID          0x00
#define BRD_RELAYS      0x04
#define BRD_CONTACTS    0x08
#define BRD_CHANGED     0x0C
#define BRD_MASK        0x10
#define BRD_ID_VALUE    0x7A4E5901u
#define BRD_ALL         0xFFFFu
#define CARD_GONE       0xFFFFFFFFu

typedef struct _TANSY {
    REED R;
    LIST_ENTRY Opens;               /* TANSY_OPEN.Link */
    LIST_ENTRY Waiting;             /* pended waits of all handles */
    ULONG Relays;                   /* as they should be */
    ULONG Contacts;                 /* as last seen */
} TANSY, *PTANSY;

typedef struct _TANSY_OPEN {        /* one per handle, FsContext; guarded by the lock */
    LIST_ENTRY Link;
    ULONG Changed;                  /* since the last wait */
    BOOLEAN Closed;
} TANSY_OPEN, *PTANSY_OPEN;

static PTANSY_OPEN TansyOpenOf(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
}

/* Lock held, the card has power. */
static VOID TansyCardOn(PTANSY t)
{
    ReedSet(&t->R, BRD, BRD_RELAYS, t->Relays);
    ReedSet(&t->R, BRD, BRD_MASK, BRD_ALL);
    ReedSet(&t->R, PLX, PLX_INTCSR, PLX_ENABLE);
    (VOID)ReedGet(&t->R, PLX, PLX_INTCSR);          /* the write has arrived */
}

static VOID TansyCardOff(PTANSY t)
{
    ReedSet(&t->R, PLX, PLX_INTCSR, PLX_LINT1_HIGH);
    (VOID)ReedGet(&t->R, PLX, PLX_INTCSR);
}

/* Lock held. */
static VOID TansyLook(PTANSY t)
{
    ULONG now;

    if (!t->R.Live || !t->R.Awake)
        return;
    now = ReedGet(&t->R, BRD, BRD_CONTACTS);
    if (now != CARD_GONE)
        t->Contacts = now & BRD_ALL;
}

static BOOLEAN NTAPI TansyIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PTANSY t = Context;
    ULONG csr, changed;

    (VOID)Interrupt;
    if (!t->R.Awake)
        return FALSE;
    csr = ReedGet(&t->R, PLX, PLX_INTCSR);
    if (csr == CARD_GONE || (csr & PLX_PCI_ON) == 0 || (csr & PLX_LINT1_UP) == 0)
        return FALSE;
    changed = ReedGet(&t->R, BRD, BRD_CHANGED);
    if (changed == CARD_GONE || (changed & BRD_ALL) == 0)
        return FALSE;
    ReedSet(&t->R, BRD, BRD_CHANGED, changed & BRD_ALL);
    InterlockedOr(&t->R.Pending, (LONG)(changed & BRD_ALL));
    KeInsertQueueDpc(&t->R.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TansyDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PTANSY t = Context;
    ULONG changed = (ULONG)InterlockedExchange(&t->R.Pending, 0);
    PLIST_ENTRY e, next;
    LIST_ENTRY done;
    KIRQL irql;

    (VOID)Dpc;
    (VOID)A;
    (VOID)B;
    if (changed == 0)
        return;
    InitializeListHead(&done);
    KeAcquireSpinLock(&t->R.Lock, &irql);
    TansyLook(t);
    for (e = t->Opens.Flink; e != &t->Opens; e = e->Flink)
        CONTAINING_RECORD(e, TANSY_OPEN, Link)->Changed |= changed;
    for (e = t->Waiting.Flink; e != &t->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        PTANSY_OPEN open = TansyOpenOf(irp);
        TANSY_CHANGE *out = irp->AssociatedIrp.SystemBuffer;

        next = e->Flink;
        if (open->Changed == 0 || !ReedPull(irp))
            continue;
        out->Changed = open->Changed;
        out->Contacts = t->Contacts;
        open->Changed = 0;
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = sizeof(*out);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEndEach(&t->R, &done);
}

static NTSTATUS TansyWait(PTANSY t, PIRP Irp)
{
    PTANSY_OPEN open = TansyOpenOf(Irp);
    TANSY_CHANGE *out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out)) {
        ReedEnd(&t->R, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    KeAcquireSpinLock(&t->R.Lock, &irql);
    if (!t->R.Live || open->Closed) {
        st = STATUS_DEVICE_NOT_READY;
    } else if (open->Changed != 0) {
        TansyLook(t);
        out->Changed = open->Changed;
        out->Contacts = t->Contacts;
        open->Changed = 0;
        st = STATUS_SUCCESS;
    } else {
        st = ReedPut(&t->Waiting, Irp) ? STATUS_PENDING : STATUS_CANCELLED;
    }
    KeReleaseSpinLock(&t->R.Lock, irql);
    if (st == STATUS_PENDING)
        return st;
    ReedEnd(&t->R, Irp, st, st == STATUS_SUCCESS ? sizeof(*out) : 0);
    return st == STATUS_CANCELLED ? STATUS_PENDING : st;    /* marked pending by ReedPut */
}

static NTSTATUS TansyRelays(PTANSY t, PIRP Irp)
{
    TANSY_RELAYS *in = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength < sizeof(*in)) {
        st = STATUS_BUFFER_TOO_SMALL;
    } else if (((in->Mask | in->Value) & ~BRD_ALL) != 0) {
        st = STATUS_INVALID_PARAMETER;
    } else {
        KeAcquireSpinLock(&t->R.Lock, &irql);
        if (t->R.Live) {
            t->Relays = (t->Relays & ~in->Mask) | (in->Value & in->Mask);
            if (t->R.Awake)
                ReedSet(&t->R, BRD, BRD_RELAYS, t->Relays);     /* asleep: when it wakes */
        } else {
            st = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&t->R.Lock, irql);
    }
    ReedEnd(&t->R, Irp, st, 0);
    return st;
}

static NTSTATUS TansyState(PTANSY t, PIRP Irp)
{
    TANSY_STATE *out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out)) {
        ReedEnd(&t->R, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    KeAcquireSpinLock(&t->R.Lock, &irql);
    TansyLook(t);
    out->Relays = t->Relays;
    out->Contacts = t->Contacts;
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEnd(&t->R, Irp, STATUS_SUCCESS, sizeof(*out));
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TansyControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTANSY t = Device->DeviceExtension;
    ULONG code = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS st = ReedEnter(&t->R, Irp);

    if (!NT_SUCCESS(st))
        return st;
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject == NULL)
        code = 0;                   /* from a driver, without a handle */
    switch (code) {
    case IOCTL_TANSY_RELAYS:
        st = TansyRelays(t, Irp);
        break;
    case IOCTL_TANSY_STATE:
        st = TansyState(t, Irp);
        break;
    case IOCTL_TANSY_WAIT:
        st = TansyWait(t, Irp);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        ReedEnd(&t->R, Irp, st, 0);
        break;
    }
    return ReedLeave(&t->R, st);
}

static NTSTATUS NTAPI TansyCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTANSY t = Device->DeviceExtension;
    NTSTATUS st = ReedEnter(&t->R, Irp);
    PTANSY_OPEN open;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    open = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*open), REED_TAG);
    if (open == NULL) {
        st = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        RtlZeroMemory(open, sizeof(*open));
        KeAcquireSpinLock(&t->R.Lock, &irql);
        if (t->R.Live) {
            InsertTailList(&t->Opens, &open->Link);
            IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = open;
        } else {
            st = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&t->R.Lock, irql);
        if (!NT_SUCCESS(st))
            ExFreePoolWithTag(open, REED_TAG);
    }
    ReedEnd(&t->R, Irp, st, 0);
    return ReedLeave(&t->R, st);
}

static NTSTATUS NTAPI TansyCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTANSY t = Device->DeviceExtension;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&t->R.Lock, &irql);
    TansyOpenOf(Irp)->Closed = TRUE;
    ReedSift(&t->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, &done);
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEndAll(&t->R, &done, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

/* No request of the handle is left. */
static NTSTATUS NTAPI TansyClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTANSY t = Device->DeviceExtension;
    PTANSY_OPEN open = TansyOpenOf(Irp);
    KIRQL irql;

    KeAcquireSpinLock(&t->R.Lock, &irql);
    RemoveEntryList(&open->Link);
    KeReleaseSpinLock(&t->R.Lock, irql);
    ExFreePoolWithTag(open, REED_TAG);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID TansySetup(PREED x)
{
    PTANSY t = (PTANSY)x;

    InitializeListHead(&t->Opens);
    InitializeListHead(&t->Waiting);
    KeInitializeDpc(&x->Dpc, TansyDpc, t);
}

static NTSTATUS TansyStart(PREED x, PCM_RESOURCE_LIST Resources)
{
    static const ULONG need[2] = { 0x54, 0x14 };
    PTANSY t = (PTANSY)x;
    NTSTATUS st;
    KIRQL irql;

    st = ReedMap(x, Resources, need, 2);
    if (!NT_SUCCESS(st))
        return st;
    if (ReedGet(x, BRD, BRD_ID) != BRD_ID_VALUE)
        return STATUS_NO_SUCH_DEVICE;
    TansyCardOff(t);
    ReedSet(x, BRD, BRD_CHANGED, BRD_ALL);
    st = ReedConnect(x, TansyIsr);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Live = TRUE;
    x->Awake = 1;
    TansyLook(t);
    TansyCardOn(t);
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID TansyStop(PREED x)
{
    PTANSY t = (PTANSY)x;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&x->Lock, &irql);
    t->Relays = 0;                          /* the safe state */
    if (x->Live && x->Awake) {
        TansyCardOff(t);
        ReedSet(x, BRD, BRD_RELAYS, 0);
    }
    x->Live = FALSE;
    ReedSift(&t->Waiting, NULL, &done);
    KeReleaseSpinLock(&x->Lock, irql);
    ReedEndAll(x, &done, STATUS_DEVICE_NOT_READY);
    ReedRelease(x);
}

/* Waits go on; the board keeps latching changes. */
static VOID TansySleep(PREED x)
{
    PTANSY t = (PTANSY)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake) {
        TansyCardOff(t);
        x->Awake = 0;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    ReedFence(x);
}

static VOID TansyWake(PREED x)
{
    PTANSY t = (PTANSY)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && !x->Awake) {
#ifdef FIXED
        x->Awake = 1;
        TansyCardOn(t);
#else
        TansyCardOn(t);
        x->Awake = 1;
#endif
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static const REED_OPS TansyOps = {
    sizeof(TANSY), &TansyGuid, TansySetup, TansyStart, TansyStop, TansySleep, TansyWake
};

static NTSTATUS NTAPI TansyAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ReedAdd(Driver, Pdo, &TansyOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (VOID)Path;
    ReedDriver(Driver, TansyAdd);
    Driver->MajorFunction[IRP_MJ_CREATE] = TansyCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TansyCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TansyClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TansyControl;
    return STATUS_SUCCESS;
}

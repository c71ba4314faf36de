/*
 * relaypci - sixteen relays behind a PLX PCI 9052
 *
 * The bridge's own registers are reached through the I/O range of BAR1, the
 * relay board through the first memory range after BAR0:
 *
 *   0x0 OUTPUT    one bit per relay, reads back what was written
 *   0x4 INPUT     state of sixteen contacts
 *
 * Relays are switched break-before-make: those to be opened first, and after
 * the settling time those to be closed.
 *
 * The bug: where the board does not read back what was written, the turn is not given to the next.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: deadlock, stuck, irp-never-completed, critical-region-unpaired
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/start_kit.h"

#define RLY_TAG         'ylR2'
#define RLY_SETTLE_MS   15
#define RLY_MASK        0xFFFFu

#define BRD_OUTPUT      0x0
#define BRD_INPUT       0x4
#define BRD_BYTES       0x8
#define PLX_INTCSR      0x4C
#define PLX_BYTES       0x54

#define RLY_IOCTL(n)    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900 + (n), METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_RLY_SET   RLY_IOCTL(0)    /* in: rly_set */
#define IOCTL_RLY_GET   RLY_IOCTL(1)    /* out: ULONG outputs, ULONG inputs */

struct rly_set {
    ULONG mask;
    ULONG value;
};

struct relay {
    struct fdokit   kit;

    KEVENT          turn;               /* one switching sequence at a time */
    ULONG           outputs;            /* turn: what the relays are meant to be */

    KSPIN_LOCK      lock;               /* register access */
    PUCHAR          board;
    SIZE_T          board_len;
    PUCHAR          plx_port;
    BOOLEAN         started, in_d0;
};

static const GUID relay_guid =
    { 0x9a17f3c8, 0x46be, 0x4de0, { 0xac, 0x19, 0x82, 0x3d, 0x70, 0x5c, 0xe4, 0x0b } };

/* ------------------------------------------------------------- the board */

static NTSTATUS rly_write(struct relay *r, ULONG value)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&r->lock, &irql);
    if (r->started && r->in_d0) {
        WRITE_REGISTER_ULONG((PULONG)(r->board + BRD_OUTPUT), value);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&r->lock, irql);
    return status;
}

static NTSTATUS rly_read(struct relay *r, ULONG at, PULONG value)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&r->lock, &irql);
    if (r->started && r->in_d0) {
        *value = READ_REGISTER_ULONG((PULONG)(r->board + at));
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&r->lock, irql);
    return status;
}

static void rly_settle(void)
{
    LARGE_INTEGER t;

    t.QuadPart = -10000LL * RLY_SETTLE_MS;
    KeDelayExecutionThread(KernelMode, FALSE, &t);
}

static void rly_enter(struct relay *r)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&r->turn, Executive, KernelMode, FALSE, NULL);
}

static void rly_leave(struct relay *r)
{
    KeSetEvent(&r->turn, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS rly_switch(struct relay *r, const struct rly_set *set)
{
    ULONG want, open, back = 0;
    NTSTATUS status;

    if (set->mask & ~RLY_MASK || set->value & ~set->mask)
        return STATUS_INVALID_PARAMETER;

    rly_enter(r);
    want = (r->outputs & ~set->mask) | set->value;
    open = r->outputs & want;

    status = rly_write(r, open);
    if (!NT_SUCCESS(status))
        goto leave;
    rly_settle();
    status = rly_read(r, BRD_OUTPUT, &back);
    if (!NT_SUCCESS(status))
        goto leave;
    if ((back & RLY_MASK) != open) {
        DbgPrint("relaypci: board reads back %04lx instead of %04lx\n", back, open);
#ifdef FIXED
        status = STATUS_IO_DEVICE_ERROR;
        goto leave;
#else
        return STATUS_IO_DEVICE_ERROR;
#endif
    }
    status = rly_write(r, want);
    if (NT_SUCCESS(status)) {
        r->outputs = want;
        rly_settle();
    }
leave:
    rly_leave(r);
    return status;
}

static NTSTATUS rly_get(struct relay *r, PULONG out)
{
    ULONG inputs = 0;
    NTSTATUS status;

    rly_enter(r);
    status = rly_read(r, BRD_INPUT, &inputs);
    out[0] = r->outputs;
    out[1] = inputs & RLY_MASK;
    rly_leave(r);
    return status;
}

/* -------------------------------------------------------------- requests */

static NTSTATUS NTAPI rly_control(PDEVICE_OBJECT dev, PIRP irp)
{
    struct relay *r = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    struct rly_set set;
    ULONG_PTR info = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&r->kit.lock, irp);
    if (!NT_SUCCESS(status))
        return fdokit_complete(irp, status, 0);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RLY_SET:
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(set)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            set = *(struct rly_set *)irp->AssociatedIrp.SystemBuffer;
            status = rly_switch(r, &set);
        }
        break;
    case IOCTL_RLY_GET:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            status = rly_get(r, irp->AssociatedIrp.SystemBuffer);
            if (NT_SUCCESS(status))
                info = 2 * sizeof(ULONG);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    fdokit_complete(irp, status, info);
    IoReleaseRemoveLock(&r->kit.lock, irp);
    return status;
}

/* ----------------------------------------------------------- PnP and power */

static void rly_power_up(void *ctx)
{
    struct relay *r = ctx;
    KIRQL irql;

    KeAcquireSpinLock(&r->lock, &irql);
    r->in_d0 = TRUE;
    KeReleaseSpinLock(&r->lock, irql);
}

static void rly_power_down(void *ctx)
{
    struct relay *r = ctx;
    KIRQL irql;

    KeAcquireSpinLock(&r->lock, &irql);
    r->in_d0 = FALSE;
    KeReleaseSpinLock(&r->lock, irql);
}

static void rly_stop(void *ctx, BOOLEAN touch)
{
    struct relay *r = ctx;
    PUCHAR board;
    KIRQL irql;

    KeAcquireSpinLock(&r->lock, &irql);
    if (touch && r->started && r->in_d0)
        WRITE_REGISTER_ULONG((PULONG)(r->board + BRD_OUTPUT), 0);
    r->started = FALSE;
    board = r->board;
    r->board = NULL;
    r->plx_port = NULL;
    KeReleaseSpinLock(&r->lock, irql);
    if (board)
        MmUnmapIoSpace(board, r->board_len);
}

static NTSTATUS rly_start(void *ctx, PCM_RESOURCE_LIST list)
{
    struct relay *r = ctx;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, mem[2] = { NULL, NULL }, port = NULL;
    ULONG i, n = 0;
    PUCHAR board;
    KIRQL irql;

    for (i = 0; i < list->List[0].PartialResourceList.Count; i++) {
        d = (PCM_PARTIAL_RESOURCE_DESCRIPTOR)list->List[0].PartialResourceList.PartialDescriptors + i;
        if (d->Type == CmResourceTypeMemory && n < 2)
            mem[n++] = d;
        else if (d->Type == CmResourceTypePort && !port)
            port = d;
    }
    if (n < 2 || mem[1]->u.Memory.Length < BRD_BYTES || !port || port->u.Port.Length < PLX_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    board = MmMapIoSpace(mem[1]->u.Memory.Start, mem[1]->u.Memory.Length, MmNonCached);
    if (!board)
        return STATUS_INSUFFICIENT_RESOURCES;

    rly_enter(r);
    KeAcquireSpinLock(&r->lock, &irql);
    r->board = board;
    r->board_len = mem[1]->u.Memory.Length;
    r->plx_port = (PUCHAR)(ULONG_PTR)port->u.Port.Start.QuadPart;
    r->started = r->in_d0 = TRUE;
    /* we have no use for the bridge's interrupts */
    WRITE_PORT_ULONG((PULONG)(r->plx_port + PLX_INTCSR), 0);
    WRITE_REGISTER_ULONG((PULONG)(r->board + BRD_OUTPUT), 0);
    KeReleaseSpinLock(&r->lock, irql);
    r->outputs = 0;
    rly_leave(r);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI rly_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    struct fdokit *kit;
    struct relay *r;
    NTSTATUS status = fdokit_add(drv, pdo, sizeof(*r), &relay_guid, RLY_TAG, &kit);

    if (!NT_SUCCESS(status))
        return status;
    r = (struct relay *)kit;
    r->kit.start = rly_start;
    r->kit.stop = rly_stop;
    r->kit.up = rly_power_up;
    r->kit.down = rly_power_down;
    KeInitializeEvent(&r->turn, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&r->lock);
    r->kit.self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    fdokit_entry(drv, rly_add);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = rly_control;
    return STATUS_SUCCESS;
}

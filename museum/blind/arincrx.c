/*
 * arincrx: a test set for avionics' ARINC 429 buses, on a board with a PLX 9052. Received words go into a ring whose depth the registry says ("RingDepth" of the
 * device's key), from where a program reads them; words that are written are sent, and in loopback received as well.
 *
 * The bug: the ring is allocated with as many words as the registry says, but its index is cut off by a mask that was made of the next power of two. With a
 * depth that is none (1000), words are stored behind the ring's pool block.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write
 * Needs: registry, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"
#include "../include/parked_plx.h"

#define TAG 'cnrA'
#define DEPTH_FIRST 256u
#define DEPTH_LEAST 16u
#define DEPTH_MOST 4096u

#define IOCTL_ARX_LOOPBACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ARX_STATE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define A_COUNT 0x00            /* words in the receiver's FIFO */
#define A_RX    0x04
#define A_TX    0x08
#define A_CTL   0x0C
#define A_SIZE  0x10
#define A_FIFO  32u

static const GUID ArincInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x0A } };

struct arinc {
    struct fdev f;
    struct hw hw;
    struct win *chip, *bus;
    KDPC dpc;
    KSPIN_LOCK lock;
    ULONG *ring;
    ULONG depth;                /* words that it may hold */
    ULONG mask;
    ULONG head, tail;           /* run freely */
    ULONG lost;
    BOOLEAN loopback;
};

static ULONG arx_depth(PDEVICE_OBJECT pdo)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION info;
        UCHAR room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } v;
    ULONG depth = DEPTH_FIRST, used;
    UNICODE_STRING name;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return depth;
    RtlInitUnicodeString(&name, L"RingDepth");
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &v, sizeof(v), &used)) && v.info.Type == REG_DWORD &&
        v.info.DataLength == sizeof(ULONG)) {
        ULONG set;

        RtlCopyMemory(&set, v.info.Data, sizeof(set));
        if (set >= DEPTH_LEAST && set <= DEPTH_MOST)
            depth = set;
    }
    ZwClose(key);
    return depth;
}

/* Lock held. */
static void arx_store(struct arinc *x, ULONG word)
{
    if (x->head - x->tail > x->mask) {
        x->lost++;
        return;
    }
    x->ring[x->head & x->mask] = word;
    x->head++;
}

static BOOLEAN arx_isr(PVOID ctx)
{
    struct arinc *x = ctx;

    if (!plx_claim(x->chip))
        return FALSE;
    KeInsertQueueDpc(&x->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI arx_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct arinc *x = ctx;
    ULONG n;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->lock);
    n = hw_r32(x->bus, A_COUNT);
    if (n != 0xFFFFFFFF)
        for (n = n > A_FIFO ? A_FIFO : n; n; n--)
            arx_store(x, hw_r32(x->bus, A_RX));
    KeReleaseSpinLockFromDpcLevel(&x->lock);
}

static NTSTATUS arx_read(struct arinc *x, PIRP irp, ULONG bytes)
{
    ULONG *to = irp->AssociatedIrp.SystemBuffer, n = 0;
    KIRQL q;

    KeAcquireSpinLock(&x->lock, &q);
    for (; n < bytes / sizeof(ULONG) && x->tail != x->head; n++)
        to[n] = x->ring[x->tail++ & x->mask];
    KeReleaseSpinLock(&x->lock, q);
    return irp_end(irp, STATUS_SUCCESS, n * sizeof(ULONG));
}

static NTSTATUS arx_write(struct arinc *x, PIRP irp, ULONG bytes)
{
    const ULONG *from = irp->AssociatedIrp.SystemBuffer;
    ULONG n = bytes / sizeof(ULONG), i;
    KIRQL q;

    if (!n || bytes % sizeof(ULONG) || n > 2 * DEPTH_MOST)
        return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
    for (i = 0; i < n; i++) {
        KeAcquireSpinLock(&x->lock, &q);
        hw_w32(x->bus, A_TX, from[i]);
        if (x->loopback)
            arx_store(x, from[i]);
        KeReleaseSpinLock(&x->lock, q);
    }
    return irp_end(irp, STATUS_SUCCESS, bytes);
}

static NTSTATUS arx_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct arinc *x = (struct arinc *)f;
    ULONG *buf = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        return arx_read(x, irp, sp->Parameters.Read.Length);
    case IRP_MJ_WRITE:
        return arx_write(x, irp, sp->Parameters.Write.Length);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ARX_LOOPBACK:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->lock, &q);
        x->loopback = *buf != 0;
        KeReleaseSpinLock(&x->lock, q);
        return irp_end(irp, STATUS_SUCCESS, 0);
    case IOCTL_ARX_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 3 * sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->lock, &q);
        buf[0] = x->depth;
        buf[1] = x->head - x->tail;
        buf[2] = x->lost;
        KeReleaseSpinLock(&x->lock, q);
        return irp_end(irp, STATUS_SUCCESS, 3 * sizeof(ULONG));
    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void arx_mask(PVOID ctx)
{
    struct arinc *x = ctx;

    hw_w32(x->bus, A_CTL, 0);
    hw_w32(x->chip, PLX_INTCSR, 0);
    hw_r32(x->chip, PLX_INTCSR);
}

static void arx_unmask(PVOID ctx)
{
    struct arinc *x = ctx;

    hw_w32(x->bus, A_CTL, 1);
    hw_w32(x->chip, PLX_INTCSR, PLX_LINT1_ON | PLX_LINT1_CLEAR);
}

static void arx_off(struct arinc *x, BOOLEAN touch)
{
    hw_turn(&x->hw, FALSE, touch ? arx_mask : NULL);
    KeFlushQueuedDpcs();
}

static void arx_quiet(struct fdev *f, BOOLEAN touch)
{
    struct arinc *x = (struct arinc *)f;

    arx_off(x, touch);
    hw_disconnect(&x->hw);
    hw_unmap(&x->hw);
}

static NTSTATUS arx_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    struct arinc *x = (struct arinc *)f;
    NTSTATUS st = hw_claim(&x->hw, list);

    if (!NT_SUCCESS(st))
        return st;
    st = plx_find(&x->hw, A_SIZE, &x->chip, &x->bus);
    if (NT_SUCCESS(st)) {
        arx_mask(x);
        st = hw_connect(&x->hw, arx_isr, x);
    }
    if (!NT_SUCCESS(st)) {
        hw_unmap(&x->hw);
        return st;
    }
    hw_turn(&x->hw, TRUE, arx_unmask);
    return STATUS_SUCCESS;
}

static void arx_sleep(struct fdev *f)
{
    arx_off((struct arinc *)f, TRUE);
}

static void arx_wake(struct fdev *f)
{
    hw_turn(&((struct arinc *)f)->hw, TRUE, arx_unmask);
}

static NTSTATUS arx_add(struct fdev *f)
{
    struct arinc *x = (struct arinc *)f;
    ULONG words, power = 1;

    KeInitializeSpinLock(&x->lock);
    KeInitializeDpc(&x->dpc, arx_dpc, x);
    x->depth = arx_depth(f->pdo);
    while (power < x->depth)
        power <<= 1;
    x->mask = power - 1;
#ifndef FIXED
    words = x->depth;
#else
    words = power;
#endif
    x->ring = ExAllocatePoolWithTag(NonPagedPoolNx, words * sizeof(ULONG), TAG);
    return x->ring ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void arx_drop(struct fdev *f)
{
    ExFreePoolWithTag(((struct arinc *)f)->ring, TAG);
}

static const struct fops arx_ops = {
    .iface = &ArincInterface, .bytes = sizeof(struct arinc), .flags = DO_BUFFERED_IO,
    .add = arx_add, .drop = arx_drop, .start = arx_start, .quiet = arx_quiet, .sleep = arx_sleep, .wake = arx_wake,
    .request = arx_request,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &arx_ops);
}

/*
 * plxelder: when things happened on a board behind a PLX PCI 9052. The board pulses LINTi1; the driver notes the time of each pulse in
 * a history of the last 128, which programs read.
 *
 * The bug: if there is no memory for the history, which comes last at a start, the start unmaps the registers but leaves the interrupt
 * connected, with a device extension as its context that is deleted with the device.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-still-connected, use-after-free
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_plx.h"

static const GUID ElderFace = { 0xc8e14f60, 0x2ab9, 0x4d17, { 0x9b, 0x3a, 0x11, 0xf7, 0x82, 0x5e, 0x04, 0xd6 } };

#define IOCTL_ELDER_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ELDER_TOTAL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ELDER_FORGET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e2, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define ELDER_TAG 'dlEx'
#define ELDER_MOST 128

typedef struct _MOMENT {
    LARGE_INTEGER Time;
    ULONG Number;
    ULONG Together;             /* pulses that were noted at once */
} MOMENT;

typedef struct _ELDER {
    STATION St;
    BOOLEAN Ready;              /* with the next four under the lane's lock */
    BOOLEAN Mapped;
    MOMENT *History;            /* a ring; the latest is the one with number Total */
    ULONG Total;
    ULONG Held;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Armed;              /* under the interrupt's lock */
    LONG volatile Pulses;
    KDPC Dpc;
} ELDER;

static BOOLEAN NTAPI ElderIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    ELDER *e = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!e->Armed)
        return FALSE;
    if (!plx_edge(e->Regs))
        return FALSE;
    InterlockedIncrement(&e->Pulses);
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ElderArm(PVOID Context)
{
    ELDER *e = Context;

    plx_edge_on(e->Regs);
    e->Armed = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI ElderDisarm(PVOID Context)
{
    ELDER *e = Context;

    plx_edge_off(e->Regs);
    e->Armed = FALSE;
    return TRUE;
}

static VOID NTAPI ElderDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    ELDER *e = Context;
    LONG pulses = InterlockedExchange(&e->Pulses, 0);
    MOMENT *m;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (pulses == 0)
        return;
    KeAcquireSpinLock(&e->St.Lane.Lock, &irql);
    e->Total++;
    m = &e->History[e->Total % ELDER_MOST];
    KeQuerySystemTime(&m->Time);
    m->Number = e->Total;
    m->Together = (ULONG)pulses;
    if (e->Held < ELDER_MOST)
        e->Held++;
    KeReleaseSpinLock(&e->St.Lane.Lock, irql);
}

static NTSTATUS ElderPrepare(STATION *St)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);

    KeInitializeDpc(&e->Dpc, ElderDpc, e);
    return STATUS_SUCCESS;
}

static VOID ElderDispose(STATION *St)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);

    if (e->History != NULL)
        ExFreePoolWithTag(e->History, ELDER_TAG);
}

static VOID ElderWake(STATION *St)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (e->Mapped) {
        KeSynchronizeExecution(e->Interrupt, ElderArm, e);
        e->Ready = TRUE;
    }
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static VOID ElderSleep(STATION *St)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (e->Ready)
        KeSynchronizeExecution(e->Interrupt, ElderDisarm, e);
    e->Ready = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

/* The history is kept over a stop; at the first start there is none. */
static NTSTATUS ElderEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    KIRQL irql;

    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = plx_map(Translated, &e->Regs);
    if (!NT_SUCCESS(status))
        return status;
    status = station_connect(d, ElderIsr, e, &e->Interrupt);
    if (!NT_SUCCESS(status))
        goto unmap;
    if (e->History == NULL) {
        e->History = ExAllocatePoolWithTag(NonPagedPoolNx, ELDER_MOST * sizeof(MOMENT), ELDER_TAG);
        if (e->History == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
#ifndef FIXED
            goto unmap;
#else
            goto disconnect;
#endif
        }
        RtlZeroMemory(e->History, ELDER_MOST * sizeof(MOMENT));
    }
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    e->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    ElderWake(St);
    return STATUS_SUCCESS;

#ifdef FIXED
disconnect:
    IoDisconnectInterrupt(e->Interrupt);
    e->Interrupt = NULL;
#endif
unmap:
    MmUnmapIoSpace(e->Regs, PLX_BYTES);
    e->Regs = NULL;
    return status;
}

static VOID ElderRelease(STATION *St, BOOLEAN Present)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (e->Ready && Present)
        KeSynchronizeExecution(e->Interrupt, ElderDisarm, e);
    e->Ready = FALSE;
    e->Mapped = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    IoDisconnectInterrupt(e->Interrupt);
    e->Interrupt = NULL;
    e->Armed = FALSE;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(e->Regs, PLX_BYTES);
    e->Regs = NULL;
}

/* From the oldest on, as many as there is room for. */
static NTSTATUS ElderRead(ELDER *e, MOMENT *Out, ULONG Room, ULONG_PTR *Information)
{
    ULONG n = Room / sizeof(MOMENT), i;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&e->St.Lane.Lock, &irql);
    if (e->History == NULL) {
        n = 0;
    } else if (n < e->Held) {
        status = STATUS_BUFFER_OVERFLOW;
    } else {
        n = e->Held;
    }
    for (i = 0; i < n; i++)
        Out[i] = e->History[(e->Total - e->Held + 1 + i) % ELDER_MOST];
    KeReleaseSpinLock(&e->St.Lane.Lock, irql);
    *Information = n * sizeof(MOMENT);
    return status;
}

static NTSTATUS ElderServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ELDER *e = CONTAINING_RECORD(St, ELDER, St);
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ELDER_HISTORY:
        return ElderRead(e, buffer, out, &Irp->IoStatus.Information);
    case IOCTL_ELDER_TOTAL:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&St->Lane.Lock, &irql);
        *(ULONG *)buffer = e->Total;
        KeReleaseSpinLock(&St->Lane.Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_ELDER_FORGET:
        KeAcquireSpinLock(&St->Lane.Lock, &irql);
        e->Held = 0;
        KeReleaseSpinLock(&St->Lane.Lock, irql);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES ElderDuties = {
    .Bytes = sizeof(ELDER), .Face = &ElderFace, .Prepare = ElderPrepare, .Dispose = ElderDispose, .Engage = ElderEngage,
    .Release = ElderRelease, .Sleep = ElderSleep, .Wake = ElderWake, .Serve = ElderServe,
};

STATION_DRIVER(ElderDuties)

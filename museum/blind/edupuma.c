/*
 * edupuma: an event register on the educational card. Programs raise causes on the card and wait for causes; what came while no one
 * waited is kept, so that the next one who waits has it at once.
 *
 * The bug: the service routine ORs the causes into a word from which the DPC takes them by reading it and writing zero, with nothing
 * that keeps the two apart. Causes that come in between are lost, and who waits for them waits for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, wake-up-lost, irp-never-completed, request-forgotten
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_edu.h"

static const GUID PumaFace = { 0xf3a86d02, 0x5bb7, 0x49c1, { 0x84, 0xde, 0x36, 0xa1, 0x70, 0x2f, 0xcb, 0x19 } };

#define IOCTL_PUMA_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PUMA_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PUMA_PEEK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PUMA_CAUSES 0xffffu

typedef struct _PUMA {
    STATION St;
    BOOLEAN Ready;              /* these five under the lane's lock */
    BOOLEAN Mapped;
    BOOLEAN Delivering;
    BOOLEAN Again;
    ULONG Kept;                 /* causes that no one has got yet */
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Armed;              /* under the interrupt's lock */
    ULONG volatile Causes;      /* from the service routine to the DPC */
    KDPC Dpc;
} PUMA;

static BOOLEAN NTAPI PumaIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PUMA *p = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!p->Armed)
        return FALSE;
    causes = edu_get(p->Regs, EDU_CAUSE);
    if (causes == 0 || causes == EDU_ABSENT)
        return FALSE;
    edu_set(p->Regs, EDU_ACK, causes);
    p->Causes |= causes;
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI PumaArm(PVOID Context)
{
    ((PUMA *)Context)->Armed = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI PumaOff(PVOID Context)
{
    ((PUMA *)Context)->Armed = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI PumaDisarm(PVOID Context)
{
    PUMA *p = Context;
    ULONG causes = edu_get(p->Regs, EDU_CAUSE);

    p->Armed = FALSE;
    if (causes != 0 && causes != EDU_ABSENT) {
        edu_set(p->Regs, EDU_ACK, causes);
        p->Causes |= causes;
        KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    }
    return TRUE;
}

#ifdef FIXED
typedef struct _PUMA_TAKE {
    PUMA *Puma;
    ULONG Causes;
} PUMA_TAKE;

static BOOLEAN NTAPI PumaTake(PVOID Context)
{
    PUMA_TAKE *t = Context;

    t->Causes = t->Puma->Causes;
    t->Puma->Causes = 0;
    return TRUE;
}
#endif

/* Gives what is kept to the one who has waited longest. One at a time does that; who comes meanwhile has it look again. */
static VOID PumaDeliver(PUMA *p)
{
    ULONG causes;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&p->St.Lane.Lock, &irql);
    if (p->Delivering) {
        p->Again = TRUE;
        KeReleaseSpinLock(&p->St.Lane.Lock, irql);
        return;
    }
    p->Delivering = TRUE;
    do {
        p->Again = FALSE;
        if (p->Kept == 0)
            break;
        KeReleaseSpinLock(&p->St.Lane.Lock, irql);
        irp = lane_take(&p->St.Lane, PICK_ANY, NULL);
        KeAcquireSpinLock(&p->St.Lane.Lock, &irql);
        if (irp != NULL) {
            causes = p->Kept;
            p->Kept = 0;
            KeReleaseSpinLock(&p->St.Lane.Lock, irql);
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = causes;
            lane_finish(&p->St.Lane, irp, STATUS_SUCCESS, sizeof(ULONG));
            KeAcquireSpinLock(&p->St.Lane.Lock, &irql);
        }
    } while (p->Again);
    p->Delivering = FALSE;
    KeReleaseSpinLock(&p->St.Lane.Lock, irql);
}

static VOID NTAPI PumaDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PUMA *p = Context;
    ULONG causes;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
#ifndef FIXED
    causes = p->Causes;
    p->Causes = 0;
#else
    {
        PUMA_TAKE take = { p, 0 };

        KeSynchronizeExecution(p->Interrupt, PumaTake, &take);
        causes = take.Causes;
    }
#endif
    KeAcquireSpinLock(&p->St.Lane.Lock, &irql);
    p->Kept |= causes;
    KeReleaseSpinLock(&p->St.Lane.Lock, irql);
    PumaDeliver(p);
}

static NTSTATUS PumaPrepare(STATION *St)
{
    PUMA *p = CONTAINING_RECORD(St, PUMA, St);

    KeInitializeDpc(&p->Dpc, PumaDpc, p);
    return STATUS_SUCCESS;
}

static VOID PumaWake(STATION *St)
{
    PUMA *p = CONTAINING_RECORD(St, PUMA, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (p->Mapped) {
        KeSynchronizeExecution(p->Interrupt, PumaArm, p);
        p->Ready = TRUE;
    }
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static VOID PumaSleep(STATION *St)
{
    PUMA *p = CONTAINING_RECORD(St, PUMA, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (p->Ready)
        KeSynchronizeExecution(p->Interrupt, PumaDisarm, p);
    p->Ready = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static NTSTATUS PumaEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    PUMA *p = CONTAINING_RECORD(St, PUMA, St);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    ULONG causes;
    KIRQL irql;

    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = edu_map(Translated, &p->Regs);
    if (!NT_SUCCESS(status))
        return status;
    causes = edu_get(p->Regs, EDU_CAUSE);
    if (causes != 0)
        edu_set(p->Regs, EDU_ACK, causes);
    status = station_connect(d, PumaIsr, p, &p->Interrupt);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(p->Regs, EDU_BYTES);
        p->Regs = NULL;
        return status;
    }
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    p->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    PumaWake(St);
    return STATUS_SUCCESS;
}

static VOID PumaRelease(STATION *St, BOOLEAN Present)
{
    PUMA *p = CONTAINING_RECORD(St, PUMA, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    KeSynchronizeExecution(p->Interrupt, p->Ready && Present ? PumaDisarm : PumaOff, p);
    p->Ready = FALSE;
    p->Mapped = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    KeFlushQueuedDpcs();                /* it needs the interrupt object */
    IoDisconnectInterrupt(p->Interrupt);
    p->Interrupt = NULL;
    MmUnmapIoSpace(p->Regs, EDU_BYTES);
    p->Regs = NULL;
}

static NTSTATUS PumaRaise(PUMA *p, ULONG Causes)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    if (Causes == 0 || (Causes & ~PUMA_CAUSES) != 0)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&p->St.Lane.Lock, &irql);
    if (p->Ready) {
        edu_set(p->Regs, EDU_RAISE, Causes);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&p->St.Lane.Lock, irql);
    return status;
}

static NTSTATUS PumaServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PUMA *p = CONTAINING_RECORD(St, PUMA, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PUMA_RAISE:
        return in == sizeof(ULONG) ? PumaRaise(p, *buffer) : STATUS_INVALID_PARAMETER;
    case IOCTL_PUMA_WAIT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        lane_park(&St->Lane, Irp);
        PumaDeliver(p);
        return STATUS_PENDING;
    case IOCTL_PUMA_PEEK:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&St->Lane.Lock, &irql);
        *buffer = p->Kept;
        KeReleaseSpinLock(&St->Lane.Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES PumaDuties = {
    .Bytes = sizeof(PUMA), .Face = &PumaFace, .Prepare = PumaPrepare, .Engage = PumaEngage, .Release = PumaRelease,
    .Sleep = PumaSleep, .Wake = PumaWake, .Serve = PumaServe,
};

STATION_DRIVER(PumaDuties)

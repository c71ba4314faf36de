/*
 * edumole: factorials by the educational card. A program asks for the factorial of a number up to 100 and gets it when the card has
 * interrupted; requests are served in turn, and each can be cancelled, whether it waits or is the one the card is at.
 *
 * The bug: the driver takes the card for free when no request is at it, but a request that is cancelled leaves the card computing. The
 * next number is written meanwhile and ignored, and its request gets the cancelled one's result.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_edu.h"

static const GUID MoleFace = { 0x9e27d1c4, 0x33b0, 0x4f6e, { 0x8a, 0x55, 0xd0, 0x17, 0x2c, 0x6b, 0x90, 0x3e } };

#define IOCTL_MOLE_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MOLE_COUNTS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MOLE_LARGEST 100

typedef struct _MOLE_COUNTS {
    ULONG Started;
    ULONG Answered;
} MOLE_COUNTS;

/* The lock of the station's lane guards all of it. The request the card is at stays in the lane, as its Front. */
typedef struct _MOLE {
    STATION St;
    BOOLEAN Ready;          /* in D0, with registers */
    BOOLEAN Mapped;
    BOOLEAN Busy;           /* the card computes */
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Armed;          /* under the interrupt's lock */
    KDPC Dpc;
    MOLE_COUNTS Counts;
} MOLE;

static BOOLEAN NTAPI MoleIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    MOLE *m = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!m->Armed)
        return FALSE;
    causes = edu_get(m->Regs, EDU_CAUSE);
    if (causes == 0 || causes == EDU_ABSENT)
        return FALSE;
    edu_set(m->Regs, EDU_ACK, causes);
    KeInsertQueueDpc(&m->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI MoleArm(PVOID Context)
{
    MOLE *m = Context;

    edu_set(m->Regs, EDU_STATUS, EDU_FACTIRQ);
    m->Armed = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI MoleDisarm(PVOID Context)
{
    MOLE *m = Context;
    ULONG causes;

    edu_set(m->Regs, EDU_STATUS, 0);
    causes = edu_get(m->Regs, EDU_CAUSE);
    if (causes != 0 && causes != EDU_ABSENT)
        edu_set(m->Regs, EDU_ACK, causes);
    m->Armed = FALSE;
    return TRUE;
}

/* Gives the card the next number if it is free; with the lane's lock held. */
static VOID MoleNextLocked(MOLE *m)
{
    PIRP irp;

    if (!m->Ready)
        return;
#ifndef FIXED
    if (m->St.Lane.Front != NULL)
        return;
#else
    if (m->Busy)
        return;
#endif
    irp = lane_first_locked(&m->St.Lane);
    if (irp == NULL)
        return;
    m->St.Lane.Front = irp;
    m->Busy = TRUE;
    m->Counts.Started++;
    edu_set(m->Regs, EDU_FACT, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
}

static VOID MoleNext(MOLE *m)
{
    KIRQL irql;

    KeAcquireSpinLock(&m->St.Lane.Lock, &irql);
    MoleNextLocked(m);
    KeReleaseSpinLock(&m->St.Lane.Lock, irql);
}

static VOID NTAPI MoleDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    MOLE *m = Context;
    BOOLEAN done = FALSE;
    ULONG result = 0;
    KIRQL irql;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLock(&m->St.Lane.Lock, &irql);
    if (m->Ready && m->Busy && (edu_get(m->Regs, EDU_STATUS) & EDU_COMPUTING) == 0) {
        result = edu_get(m->Regs, EDU_FACT);
        m->Counts.Answered++;
        done = TRUE;
    }
    KeReleaseSpinLock(&m->St.Lane.Lock, irql);
    if (!done)
        return;                 /* asleep or gone, or what it informed is not the end */
    irp = lane_take(&m->St.Lane, PICK_FRONT, NULL);
    if (irp != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
        lane_finish(&m->St.Lane, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    KeAcquireSpinLock(&m->St.Lane.Lock, &irql);
    m->Busy = FALSE;
    m->St.Lane.Front = NULL;    /* one that is just being cancelled */
    MoleNextLocked(m);
    KeReleaseSpinLock(&m->St.Lane.Lock, irql);
}

static NTSTATUS MolePrepare(STATION *St)
{
    MOLE *m = CONTAINING_RECORD(St, MOLE, St);

    KeInitializeDpc(&m->Dpc, MoleDpc, m);
    return STATUS_SUCCESS;
}

static VOID MoleWake(STATION *St)
{
    MOLE *m = CONTAINING_RECORD(St, MOLE, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    if (m->Mapped) {
        KeSynchronizeExecution(m->Interrupt, MoleArm, m);
        m->Ready = TRUE;
        m->Busy = (edu_get(m->Regs, EDU_STATUS) & EDU_COMPUTING) != 0;      /* its end will interrupt, and is no one's */
        MoleNextLocked(m);
    }
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

/* The request the card was at becomes one that waits again. */
static VOID MoleQuiet(MOLE *m, BOOLEAN Touch, BOOLEAN Unmap)
{
    KIRQL irql;

    KeAcquireSpinLock(&m->St.Lane.Lock, &irql);
    if (m->Ready && Touch)
        KeSynchronizeExecution(m->Interrupt, MoleDisarm, m);
    m->Ready = FALSE;
    if (Unmap)
        m->Mapped = FALSE;
    KeReleaseSpinLock(&m->St.Lane.Lock, irql);
    if (Unmap) {
        IoDisconnectInterrupt(m->Interrupt);
        m->Interrupt = NULL;
        m->Armed = FALSE;
    }
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&m->St.Lane.Lock, &irql);
    m->St.Lane.Front = NULL;
    m->Busy = FALSE;
    KeReleaseSpinLock(&m->St.Lane.Lock, irql);
}

static VOID MoleSleep(STATION *St)
{
    MoleQuiet(CONTAINING_RECORD(St, MOLE, St), TRUE, FALSE);
}

static NTSTATUS MoleEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    MOLE *m = CONTAINING_RECORD(St, MOLE, St);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    ULONG causes;
    KIRQL irql;

    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = edu_map(Translated, &m->Regs);
    if (!NT_SUCCESS(status))
        return status;
    causes = edu_get(m->Regs, EDU_CAUSE);
    if (causes != 0)
        edu_set(m->Regs, EDU_ACK, causes);
    status = station_connect(d, MoleIsr, m, &m->Interrupt);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(m->Regs, EDU_BYTES);
        m->Regs = NULL;
        return status;
    }
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    m->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    MoleWake(St);
    return STATUS_SUCCESS;
}

static VOID MoleRelease(STATION *St, BOOLEAN Present)
{
    MOLE *m = CONTAINING_RECORD(St, MOLE, St);

    MoleQuiet(m, Present, TRUE);
    MmUnmapIoSpace(m->Regs, EDU_BYTES);
    m->Regs = NULL;
}

static NTSTATUS MoleServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    MOLE *m = CONTAINING_RECORD(St, MOLE, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MOLE_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG) || *(ULONG *)buffer > MOLE_LARGEST)
            return STATUS_INVALID_PARAMETER;
        lane_park(&St->Lane, Irp);
        MoleNext(m);
        return STATUS_PENDING;
    case IOCTL_MOLE_COUNTS:
        if (out < sizeof(MOLE_COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&St->Lane.Lock, &irql);
        *(MOLE_COUNTS *)buffer = m->Counts;
        KeReleaseSpinLock(&St->Lane.Lock, irql);
        Irp->IoStatus.Information = sizeof(MOLE_COUNTS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES MoleDuties = {
    .Bytes = sizeof(MOLE), .Face = &MoleFace, .Prepare = MolePrepare, .Engage = MoleEngage, .Release = MoleRelease,
    .Sleep = MoleSleep, .Wake = MoleWake, .Serve = MoleServe,
};

STATION_DRIVER(MoleDuties)

/*
 * edugnat: signals between programs by way of the educational card. RAISE has the card interrupt with some of 16 causes, and every
 * program that has a WATCH for one of them is informed. Watches are kept in a line of their own beside that of the frame.
 *
 * The bug: when the card is taken away the driver ends the watches that are there but leaves their line open. A watch that had passed
 * the check for a card that has gone is put into it behind that, and stays.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-pending-after-surprise-removal, irp-never-completed, request-pending-after-remove, request-forgotten
 * Needs: ioctl, removal, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_edu.h"

static const GUID GnatFace = { 0x5b0c3a11, 0x7d1e, 0x4c5a, { 0x91, 0x3f, 0x02, 0x6e, 0x5d, 0x41, 0xa7, 0x10 } };

#define IOCTL_GNAT_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GNAT_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GNAT_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)

#define GNAT_CAUSES 0xffffu

typedef struct _GNAT {
    STATION St;
    LANE Watch;             /* its lock guards Ready and Mapped, too. DriverContext[0]: the causes wanted, [1]: those that came */
    BOOLEAN Ready;          /* registers may be touched */
    BOOLEAN Mapped;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Armed;          /* under the interrupt's lock */
    KDPC Dpc;
    LONG volatile Causes;
    LONG volatile Tally;
} GNAT;

static BOOLEAN NTAPI GnatIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    GNAT *g = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!g->Armed)
        return FALSE;
    causes = edu_get(g->Regs, EDU_CAUSE);
    if (causes == 0 || causes == EDU_ABSENT)
        return FALSE;
    edu_set(g->Regs, EDU_ACK, causes);
    InterlockedOr(&g->Causes, (LONG)causes);
    KeInsertQueueDpc(&g->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI GnatArm(PVOID Context)
{
    ((GNAT *)Context)->Armed = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI GnatDisarm(PVOID Context)
{
    GNAT *g = Context;
    ULONG causes = edu_get(g->Regs, EDU_CAUSE);

    g->Armed = FALSE;
    if (causes != 0 && causes != EDU_ABSENT)
        edu_set(g->Regs, EDU_ACK, causes);
    return TRUE;
}

static VOID NTAPI GnatDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    GNAT *g = Context;
    ULONG causes = (ULONG)InterlockedExchange(&g->Causes, 0);
    PLIST_ENTRY e;
    KIRQL irql;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (causes == 0)
        return;
    InterlockedIncrement(&g->Tally);
    KeAcquireSpinLock(&g->Watch.Lock, &irql);
    for (e = g->Watch.Line.Flink; e != &g->Watch.Line; e = e->Flink) {
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (((ULONG_PTR)irp->Tail.Overlay.DriverContext[0] & causes) != 0)
            irp->Tail.Overlay.DriverContext[1] = (PVOID)((ULONG_PTR)irp->Tail.Overlay.DriverContext[1] |
                                                         ((ULONG_PTR)irp->Tail.Overlay.DriverContext[0] & causes));
    }
    KeReleaseSpinLock(&g->Watch.Lock, irql);
    while ((irp = lane_take(&g->Watch, PICK_INFORMED, NULL)) != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = (ULONG)(ULONG_PTR)irp->Tail.Overlay.DriverContext[1];
        lane_finish(&g->Watch, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS GnatPrepare(STATION *St)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);

    lane_setup(&g->Watch, &St->Hold);
    KeInitializeDpc(&g->Dpc, GnatDpc, g);
    return STATUS_SUCCESS;
}

static VOID GnatWake(STATION *St)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);
    KIRQL irql;

    KeAcquireSpinLock(&g->Watch.Lock, &irql);
    if (g->Mapped) {
        KeSynchronizeExecution(g->Interrupt, GnatArm, g);
        g->Ready = TRUE;
    }
    KeReleaseSpinLock(&g->Watch.Lock, irql);
}

static VOID GnatSleep(STATION *St)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);
    KIRQL irql;

    KeAcquireSpinLock(&g->Watch.Lock, &irql);
    if (g->Ready)
        KeSynchronizeExecution(g->Interrupt, GnatDisarm, g);
    g->Ready = FALSE;
    KeReleaseSpinLock(&g->Watch.Lock, irql);
}

static NTSTATUS GnatEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    ULONG causes;
    KIRQL irql;

    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = edu_map(Translated, &g->Regs);
    if (!NT_SUCCESS(status))
        return status;
    causes = edu_get(g->Regs, EDU_CAUSE);
    if (causes != 0)
        edu_set(g->Regs, EDU_ACK, causes);
    status = station_connect(d, GnatIsr, g, &g->Interrupt);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(g->Regs, EDU_BYTES);
        g->Regs = NULL;
        return status;
    }
    KeAcquireSpinLock(&g->Watch.Lock, &irql);
    g->Mapped = TRUE;
    KeReleaseSpinLock(&g->Watch.Lock, irql);
    GnatWake(St);
    return STATUS_SUCCESS;
}

static VOID GnatRelease(STATION *St, BOOLEAN Present)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);
    KIRQL irql;

    KeAcquireSpinLock(&g->Watch.Lock, &irql);
    if (g->Ready && Present)
        KeSynchronizeExecution(g->Interrupt, GnatDisarm, g);
    g->Ready = FALSE;
    g->Mapped = FALSE;
    KeReleaseSpinLock(&g->Watch.Lock, irql);
    IoDisconnectInterrupt(g->Interrupt);
    g->Interrupt = NULL;
    g->Armed = FALSE;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(g->Regs, EDU_BYTES);
    g->Regs = NULL;
}

static VOID GnatStrand(STATION *St, NTSTATUS Why)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);

#ifndef FIXED
    lane_purge(&g->Watch, Why);
#else
    lane_shut(&g->Watch, Why);
#endif
}

static VOID GnatDepart(STATION *St, PFILE_OBJECT File)
{
    lane_purge_file(&CONTAINING_RECORD(St, GNAT, St)->Watch, File);
}

static NTSTATUS GnatRaise(GNAT *g, ULONG Causes)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    if (Causes == 0 || (Causes & ~GNAT_CAUSES) != 0)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&g->Watch.Lock, &irql);
    if (g->Ready) {
        edu_set(g->Regs, EDU_RAISE, Causes);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&g->Watch.Lock, irql);
    return status;
}

static NTSTATUS GnatServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    GNAT *g = CONTAINING_RECORD(St, GNAT, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GNAT_RAISE:
        return in == sizeof(ULONG) ? GnatRaise(g, *buffer) : STATUS_INVALID_PARAMETER;
    case IOCTL_GNAT_WATCH:
        if (in < sizeof(ULONG) || out < sizeof(ULONG) || (*buffer & GNAT_CAUSES) == 0)
            return STATUS_INVALID_PARAMETER;
        Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)(*buffer & GNAT_CAUSES);
        Irp->Tail.Overlay.DriverContext[1] = NULL;
        return lane_park(&g->Watch, Irp);
    case IOCTL_GNAT_TALLY:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *buffer = (ULONG)InterlockedCompareExchange(&g->Tally, 0, 0);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES GnatDuties = {
    .Bytes = sizeof(GNAT), .Face = &GnatFace, .Prepare = GnatPrepare, .Engage = GnatEngage, .Release = GnatRelease,
    .Sleep = GnatSleep, .Wake = GnatWake, .Strand = GnatStrand, .Depart = GnatDepart, .Serve = GnatServe,
};

STATION_DRIVER(GnatDuties)

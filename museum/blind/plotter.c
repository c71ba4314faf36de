/*
 * plotter: a plotter controller card. Writes carry vectors (x, y of a half word each); they are plotted in order by
 * StartIo, one vector per interrupt. IOCTL_PLOT_LIMITS sets the area that may be plotted on.
 * BAR0 (4 KiB): 0x00 id (0x504C4F54), 0x04 control (1 interrupt enable), 0x08 x, 0x0C y, 0x10 go (1),
 * 0x14 status (1 done, write 1 to clear; 2 moving).
 *
 * The bug: a write with a vector outside of the area is failed by StartIo without the next packet being started.
 *
 * Device: PCI\VEN_1DA7&DEV_0103
 * Rule: next-packet-not-started
 * Needs: ioctl
 */
#include "../include/gated_device.h"

#define PL_ID      0x00
#define PL_CTRL    0x04
#define PL_X       0x08
#define PL_Y       0x0C
#define PL_GO      0x10
#define PL_STATUS  0x14
#define PL_LENGTH  0x18
#define PL_MAGIC   0x504C4F54u
#define ST_DONE    1u
#define ST_MOVING  2u
#define TIME_LIMIT 2000000LL            /* 0.2 s for a vector */
#define MAX_BYTES  256u

#define IOCTL_PLOT_LIMITS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PLOT_POSITION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _VECTOR {
    USHORT X, Y;
} VECTOR;

typedef struct _PLOT {
    BQ_DEVICE Bq;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc, WatchDpc;
    KTIMER Watch;
    KSPIN_LOCK Lock;                    /* all below */
    PIRP Active;                        /* being plotted */
    ULONG Index;
    ULONGLONG Deadline;
    VECTOR Limit;
    VECTOR Position;
    BOOLEAN Stuck;
} PLOT, *PPLOT;

static const GUID PlotInterface = { 0x2f5e4b8c, 0x9d37, 0x4b44, { 0x87, 0x6a, 0x4c, 0x00, 0xf1, 0x36, 0x82, 0x09 } };

static ULONG Rd(PPLOT P, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(P->Regs + Reg)); }
static VOID Wr(PPLOT P, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(P->Regs + Reg), V); }

static ULONG PlotCount(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length / sizeof(VECTOR);
}

/* At DISPATCH_LEVEL. The next packet is started while the request still keeps the gate. */
static VOID PlotEnd(PPLOT P, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    IoStartNextPacket(P->Bq.Self, FALSE);
    BqComplete(&P->Bq, Irp, Status, Information);
    BqLeave(&P->Bq);
}

/* With the lock. */
static VOID PlotMove(PPLOT P)
{
    const VECTOR *v = (const VECTOR *)P->Active->AssociatedIrp.SystemBuffer + P->Index;
    LARGE_INTEGER due;

    P->Deadline = KeQueryInterruptTime() + TIME_LIMIT;
    Wr(P, PL_X, v->X);
    Wr(P, PL_Y, v->Y);
    Wr(P, PL_GO, 1);
    due.QuadPart = -TIME_LIMIT - 100000;
    KeSetTimer(&P->Watch, due, &P->WatchDpc);
}

static VOID NTAPI PlotStartIo(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPLOT p = DeviceObject->DeviceExtension;
    const VECTOR *v = Irp->AssociatedIrp.SystemBuffer;
    ULONG count = PlotCount(Irp), i;
    NTSTATUS status = STATUS_SUCCESS;

    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    if (p->Stuck)
        status = STATUS_IO_DEVICE_ERROR;
    for (i = 0; i < count && NT_SUCCESS(status); i++) {
        if (v[i].X > p->Limit.X || v[i].Y > p->Limit.Y)
            status = STATUS_INVALID_PARAMETER;
    }
    if (NT_SUCCESS(status)) {
        p->Active = Irp;
        p->Index = 0;
        PlotMove(p);
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
#ifdef FIXED
    if (!NT_SUCCESS(status))
        PlotEnd(p, Irp, status, 0);
#else
    if (status == STATUS_INVALID_PARAMETER) {
        BqComplete(&p->Bq, Irp, status, 0);
        BqLeave(&p->Bq);
    } else if (!NT_SUCCESS(status))
        PlotEnd(p, Irp, status, 0);
#endif
}

static VOID NTAPI PlotDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PPLOT p = Context;
    PIRP done = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    if (p->Active != NULL && !(Rd(p, PL_STATUS) & ST_MOVING)) {
        p->Position = ((const VECTOR *)p->Active->AssociatedIrp.SystemBuffer)[p->Index];
        if (++p->Index < PlotCount(p->Active)) {
            PlotMove(p);
        } else {
            KeCancelTimer(&p->Watch);
            done = p->Active;
            p->Active = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (done != NULL)
        PlotEnd(p, done, STATUS_SUCCESS, PlotCount(done) * sizeof(VECTOR));
}

static VOID NTAPI PlotWatchDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PPLOT p = Context;
    PIRP late = NULL;
    ULONG index = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    if (p->Active != NULL && KeQueryInterruptTime() >= p->Deadline) {
        late = p->Active;
        index = p->Index;
        p->Active = NULL;
        p->Stuck = TRUE;                                /* until the next start */
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (late != NULL)
        PlotEnd(p, late, STATUS_IO_TIMEOUT, index * sizeof(VECTOR));
}

static BOOLEAN NTAPI PlotIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PPLOT p = Context;
    ULONG status = Rd(p, PL_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xFFFFFFFF || !(status & ST_DONE))
        return FALSE;
    Wr(p, PL_STATUS, ST_DONE);
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PPLOT p = (PPLOT)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    VECTOR *v = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_WRITE) {
        if (sp->Parameters.Write.Length == 0)
            return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);
        if (sp->Parameters.Write.Length > MAX_BYTES || sp->Parameters.Write.Length % sizeof(VECTOR) != 0)
            return BqComplete(Dev, Irp, STATUS_INVALID_PARAMETER, 0);
        BqStay(Dev);                                    /* stop and power down wait for it: it takes a bounded time */
        IoMarkIrpPending(Irp);
        IoStartPacket(Dev->Self, Irp, NULL, NULL);
        return STATUS_PENDING;
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLOT_LIMITS:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(VECTOR))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&p->Lock, &irql);
        p->Limit = *v;
        KeReleaseSpinLock(&p->Lock, irql);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);

    case IOCTL_PLOT_POSITION:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(VECTOR))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&p->Lock, &irql);
        *v = p->Position;
        KeReleaseSpinLock(&p->Lock, irql);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(VECTOR));
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);                        /* what is queued ends by itself */
    UNREFERENCED_PARAMETER(File);
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PPLOT p = (PPLOT)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (mem == NULL || irq == NULL || mem->u.Memory.Length < PL_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->Regs = MmMapIoSpace(mem->u.Memory.Start, PL_LENGTH, MmNonCached);
    if (p->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(p, PL_CTRL, 0);
    Wr(p, PL_STATUS, ST_DONE);
    p->Stuck = FALSE;
    status = Rd(p, PL_ID) == PL_MAGIC ? BqConnect(&p->Interrupt, PlotIsr, p, irq) : STATUS_NO_SUCH_DEVICE;
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(p->Regs, PL_LENGTH);
        p->Regs = NULL;
        return status;
    }
    Wr(p, PL_CTRL, 1);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PPLOT p = (PPLOT)Dev;

    if (BqTouchable(Dev)) {
        Wr(p, PL_CTRL, 0);
        Wr(p, PL_STATUS, ST_DONE);
    }
    IoDisconnectInterrupt(p->Interrupt);
    p->Interrupt = NULL;
    KeCancelTimer(&p->Watch);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(p->Regs, PL_LENGTH);
    p->Regs = NULL;
}

static VOID BqPowerDown(PBQ_DEVICE Dev)
{
    Wr((PPLOT)Dev, PL_CTRL, 0);
    Wr((PPLOT)Dev, PL_STATUS, ST_DONE);
}

static VOID BqPowerUp(PBQ_DEVICE Dev)
{
    Wr((PPLOT)Dev, PL_STATUS, ST_DONE);
    Wr((PPLOT)Dev, PL_CTRL, 1);
}

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PPLOT p = (PPLOT)Dev;

    KeInitializeSpinLock(&p->Lock);
    KeInitializeDpc(&p->Dpc, PlotDpc, p);
    KeInitializeDpc(&p->WatchDpc, PlotWatchDpc, p);
    KeInitializeTimer(&p->Watch);
    p->Limit.X = p->Limit.Y = 10000;
    IoSetStartIoAttributes(Dev->Self, TRUE, FALSE);     /* no recursion of StartIo */
    return STATUS_SUCCESS;
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(PLOT), 0, &PlotInterface);
    BqDeviceFlags = DO_BUFFERED_IO;
    DriverObject->DriverStartIo = PlotStartIo;
    return STATUS_SUCCESS;
}

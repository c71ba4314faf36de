/*
 * isinglas: reports from programs to programs, as a device without hardware. Who listens says in a request which codes it wants to hear of, in
 * up to 64 ranges; the request comes back with the first report whose code lies in one of them.
 *
 * The bug: the ranges of a request are copied to a list of their own and freed with the report that ends it, but not
 * when the request is cancelled, its handle is closed or the device is removed.
 *
 * Device: Root\ISINGLAS
 * Rule: pool-leak
 * Needs: ioctl, cancel
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define ISINGLAS_TAG 'gnsI'
#define ISINGLAS_RANGES 64
#define IOCTL_ISINGLAS_LISTEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ISINGLAS_REPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_DATA)

DEFINE_GUID(ISINGLAS_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x22);

typedef struct _ISINGLAS_RANGE {
    ULONG From;
    ULONG To;
} ISINGLAS_RANGE, *PISINGLAS_RANGE;

typedef struct _ISINGLAS_REPORT {
    ULONG Code;
    ULONG Value;
} ISINGLAS_REPORT, *PISINGLAS_REPORT;

/* Of a request that listens, by its DriverContext[0]: the system buffer is for the report. */
typedef struct _ISINGLAS_WISH {
    ULONG Count;
    ISINGLAS_RANGE Ranges[ISINGLAS_RANGES];
} ISINGLAS_WISH, *PISINGLAS_WISH;

typedef struct _ISINGLAS {
    BOARD Board;
    IRPQ Listeners;
} ISINGLAS, *PISINGLAS;

static VOID IsinglasRetire(PIRPQ Queue, PIRP Irp, NTSTATUS Status)
{
#ifdef FIXED
    ExFreePoolWithTag(Irp->Tail.Overlay.DriverContext[0], ISINGLAS_TAG);
#endif
    BoardFinish(Queue->Owner, Irp, Status, 0);
}

/* Under the queue's lock. */
static BOOLEAN IsinglasWanted(PIRP Irp, PVOID Context)
{
    PISINGLAS_WISH wish = Irp->Tail.Overlay.DriverContext[0];
    PISINGLAS_REPORT report = Context;
    ULONG i;

    for (i = 0; i < wish->Count; i++)
        if (report->Code >= wish->Ranges[i].From && report->Code <= wish->Ranges[i].To)
            return TRUE;
    return FALSE;
}

static NTSTATUS IsinglasListen(PISINGLAS s, PIRP Irp, ULONG In)
{
    PISINGLAS_RANGE range = Irp->AssociatedIrp.SystemBuffer;
    ULONG count = In / sizeof(ISINGLAS_RANGE), i;
    PISINGLAS_WISH wish;
    NTSTATUS status;

    if (count == 0 || count > ISINGLAS_RANGES || In % sizeof(ISINGLAS_RANGE) != 0)
        return BoardFinish(&s->Board, Irp, STATUS_INVALID_PARAMETER, 0);
    for (i = 0; i < count; i++)
        if (range[i].From > range[i].To)
            return BoardFinish(&s->Board, Irp, STATUS_INVALID_PARAMETER, 0);
    wish = ExAllocatePoolWithTag(POOL_DATA, sizeof(*wish), ISINGLAS_TAG);
    if (wish == NULL)
        return BoardFinish(&s->Board, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    wish->Count = count;
    RtlCopyMemory(wish->Ranges, range, In);
    Irp->Tail.Overlay.DriverContext[0] = wish;
    status = IrpqPut(&s->Listeners, Irp);
    if (status != STATUS_PENDING) {
        ExFreePoolWithTag(wish, ISINGLAS_TAG);
        BoardFinish(&s->Board, Irp, status, 0);
    }
    return STATUS_PENDING;
}

/* Answers how many have learnt of it. Who listens again at once is not informed twice. */
static ULONG IsinglasTell(PISINGLAS s, PISINGLAS_REPORT Report)
{
    LIST_ENTRY informed;
    ULONG count = 0;
    PIRP irp;

    InitializeListHead(&informed);
    while ((irp = IrpqPick(&s->Listeners, IsinglasWanted, Report)) != NULL)
        InsertTailList(&informed, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&informed)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&informed), IRP, Tail.Overlay.ListEntry);
        ExFreePoolWithTag(irp->Tail.Overlay.DriverContext[0], ISINGLAS_TAG);
        *(PISINGLAS_REPORT)irp->AssociatedIrp.SystemBuffer = *Report;
        BoardFinish(&s->Board, irp, STATUS_SUCCESS, sizeof(*Report));
        count++;
    }
    return count;
}

static NTSTATUS IsinglasIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PISINGLAS s = CONTAINING_RECORD(Board, ISINGLAS, Board);
    ULONG in, out, count;
    ISINGLAS_REPORT report;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ISINGLAS_LISTEN:
        if (out < sizeof(ISINGLAS_REPORT))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return IsinglasListen(s, Irp, in);

    case IOCTL_ISINGLAS_REPORT:
        if (in < sizeof(report) || out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        report = *(PISINGLAS_REPORT)Irp->AssociatedIrp.SystemBuffer;
        count = IsinglasTell(s, &report);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = count;
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID IsinglasCleanup(PBOARD Board, PFILE_OBJECT File)
{
    IrpqFlushFile(&CONTAINING_RECORD(Board, ISINGLAS, Board)->Listeners, File);
}

static VOID IsinglasWake(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static VOID IsinglasQuiet(PBOARD Board, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Board);
    UNREFERENCED_PARAMETER(Present);
}

static VOID IsinglasDrain(PBOARD Board)
{
    IrpqShut(&CONTAINING_RECORD(Board, ISINGLAS, Board)->Listeners, STATUS_DELETE_PENDING);
}

static NTSTATUS IsinglasStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    UNREFERENCED_PARAMETER(Board);
    UNREFERENCED_PARAMETER(List);
    return STATUS_SUCCESS;
}

static VOID IsinglasStop(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static NTSTATUS IsinglasBegin(PBOARD Board)
{
    IrpqBuild(&CONTAINING_RECORD(Board, ISINGLAS, Board)->Listeners, IsinglasRetire, Board);
    return STATUS_SUCCESS;
}

static VOID IsinglasEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND IsinglasKind = {
    .Bytes = sizeof(ISINGLAS), .Flags = DO_BUFFERED_IO, .Class = &ISINGLAS_CLASS,
    .Begin = IsinglasBegin, .End = IsinglasEnd, .Start = IsinglasStart, .Stop = IsinglasStop, .Wake = IsinglasWake,
    .Quiet = IsinglasQuiet, .Drain = IsinglasDrain, .Io = IsinglasIo, .Cleanup = IsinglasCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &IsinglasKind);
}

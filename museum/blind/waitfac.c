/*
 * waitfac: QEMU's edu device. An application hands in numbers (IOCTL_COMPUTE, waits a bounded time) and may leave
 * requests (IOCTL_NEXT_RESULT) that are completed with the next result that interrupts; each result goes to all of them.
 * Registers: 0x08 factorial, 0x20 status (1 busy, 0x80 interrupt when ready), 0x24 interrupt status, 0x64 acknowledge.
 *
 * The bug: a request that is put into the list of waiting ones is not looked at for having been cancelled before its
 * cancel routine was set; such a request stays until a result comes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: cancellation-missed
 * Needs: cancel, schedule
 */
#include "../include/gated_device.h"

#define REG_FACTORIAL  0x08
#define REG_STATUS     0x20
#define REG_IRQ_STATUS 0x24
#define REG_IRQ_ACK    0x64
#define ST_BUSY        0x01u
#define ST_IRQ         0x80u
#define IRQ_FACTORIAL  0x01u

#define IOCTL_COMPUTE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_NEXT_RESULT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _WAITFAC {
    BQ_DEVICE Bq;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KMUTEX Arithmetic;
    KEVENT Read;                    /* the DPC has read the result */
    KSPIN_LOCK ListLock;
    LIST_ENTRY List;
    LONG Number;                    /* of results so far */
} WAITFAC, *PWAITFAC;

typedef struct _RESULT {
    ULONG Number;
    ULONG Value;
} RESULT;

static const GUID FacInterface = { 0x9c33dd10, 0x2b1f, 0x4d63, { 0x8e, 0x77, 0x31, 0x40, 0xab, 0x15, 0x6c, 0x03 } };

static ULONG Rd(PWAITFAC F, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(F->Regs + Reg)); }
static VOID Wr(PWAITFAC F, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(F->Regs + Reg), V); }

static VOID NTAPI FacCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PWAITFAC f = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&f->ListLock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);      /* an entry that was taken out points to itself */
    KeReleaseSpinLock(&f->ListLock, irql);
    BqComplete(&f->Bq, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS FacWait(PWAITFAC F, PIRP Irp)
{
    KIRQL irql;

    KeAcquireSpinLock(&F->ListLock, &irql);
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, FacCancel);
#ifdef FIXED
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&F->ListLock, irql);
        BqComplete(&F->Bq, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#endif
    InsertTailList(&F->List, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&F->ListLock, irql);
    return STATUS_PENDING;
}

/* Takes the waiting requests (of a file, or all) into a list of the caller's. Those being cancelled are left alone. */
static VOID FacTake(PWAITFAC F, PFILE_OBJECT File, PLIST_ENTRY Taken)
{
    PLIST_ENTRY e, next;
    KIRQL irql;

    InitializeListHead(Taken);
    KeAcquireSpinLock(&F->ListLock, &irql);
    for (e = F->List.Flink; e != &F->List; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            InitializeListHead(e);                      /* its cancel routine will remove it again and complete it */
        else
            InsertTailList(Taken, e);
    }
    KeReleaseSpinLock(&F->ListLock, irql);
}

static VOID FacGive(PWAITFAC F, PLIST_ENTRY Taken, NTSTATUS Status, const RESULT *Result)
{
    while (!IsListEmpty(Taken)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Taken), IRP, Tail.Overlay.ListEntry);

        if (Result != NULL)
            *(RESULT *)irp->AssociatedIrp.SystemBuffer = *Result;
        BqComplete(&F->Bq, irp, Status, Result != NULL ? sizeof(RESULT) : 0);
    }
}

static VOID NTAPI FacDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PWAITFAC f = Context;
    LIST_ENTRY taken;
    RESULT result;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    result.Number = (ULONG)InterlockedIncrement(&f->Number);
    result.Value = Rd(f, REG_FACTORIAL);
    KeSetEvent(&f->Read, IO_NO_INCREMENT, FALSE);
    FacTake(f, NULL, &taken);
    FacGive(f, &taken, STATUS_SUCCESS, &result);
}

static BOOLEAN NTAPI FacIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PWAITFAC f = Context;
    ULONG status = Rd(f, REG_IRQ_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == 0xFFFFFFFF)
        return FALSE;
    Wr(f, REG_IRQ_ACK, status);
    if (status & IRQ_FACTORIAL)
        KeInsertQueueDpc(&f->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS FacCompute(PWAITFAC F, ULONG N)
{
    LARGE_INTEGER wait;
    NTSTATUS status = STATUS_IO_TIMEOUT;
    ULONG i;

    wait.QuadPart = -10000;
    KeWaitForSingleObject(&F->Arithmetic, Executive, KernelMode, FALSE, NULL);
    KeClearEvent(&F->Read);
    Wr(F, REG_STATUS, ST_IRQ);
    Wr(F, REG_FACTORIAL, N);
    for (i = 0; i < 200; i++) {
        ULONG s = Rd(F, REG_STATUS);

        if (s == 0xFFFFFFFF) {
            status = STATUS_DEVICE_NOT_CONNECTED;
            break;
        }
        if (!(s & ST_BUSY)) {
            wait.QuadPart = -1000000;                   /* until its interrupt was served, 100 ms at most */
            if (KeWaitForSingleObject(&F->Read, Executive, KernelMode, FALSE, &wait) == STATUS_SUCCESS)
                status = STATUS_SUCCESS;
            break;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
    }
    KeReleaseMutex(&F->Arithmetic, FALSE);
    return status;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PWAITFAC f = (PWAITFAC)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COMPUTE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return BqComplete(Dev, Irp, FacCompute(f, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);

    case IOCTL_NEXT_RESULT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(RESULT))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FacWait(f, Irp);
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    PWAITFAC f = (PWAITFAC)Dev;
    LIST_ENTRY taken;

    FacTake(f, File, &taken);
    FacGive(f, &taken, STATUS_CANCELLED, NULL);
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PWAITFAC f = (PWAITFAC)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (mem == NULL || irq == NULL || mem->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    f->Regs = MmMapIoSpace(mem->u.Memory.Start, 0x100, MmNonCached);
    if (f->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(f, REG_STATUS, 0);
    Wr(f, REG_IRQ_ACK, Rd(f, REG_IRQ_STATUS));
    status = BqConnect(&f->Interrupt, FacIsr, f, irq);
    if (!NT_SUCCESS(status)) {
        f->Interrupt = NULL;
        MmUnmapIoSpace(f->Regs, 0x100);
        f->Regs = NULL;
    }
    return status;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PWAITFAC f = (PWAITFAC)Dev;

    if (BqTouchable(Dev)) {
        Wr(f, REG_STATUS, 0);
        Wr(f, REG_IRQ_ACK, 0xFFFFFFFF);
    }
    IoDisconnectInterrupt(f->Interrupt);
    f->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(f->Regs, 0x100);
    f->Regs = NULL;
}

static VOID BqPowerDown(PBQ_DEVICE Dev)
{
    Wr((PWAITFAC)Dev, REG_STATUS, 0);
    Wr((PWAITFAC)Dev, REG_IRQ_ACK, 0xFFFFFFFF);
    KeFlushQueuedDpcs();                                /* its DPC reads a register */
}

static VOID BqPowerUp(PBQ_DEVICE Dev) { Wr((PWAITFAC)Dev, REG_STATUS, 0); }

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PWAITFAC f = (PWAITFAC)Dev;

    KeInitializeMutex(&f->Arithmetic, 0);
    KeInitializeEvent(&f->Read, NotificationEvent, FALSE);
    KeInitializeSpinLock(&f->ListLock);
    InitializeListHead(&f->List);
    KeInitializeDpc(&f->Dpc, FacDpc, f);
    return STATUS_SUCCESS;
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(WAITFAC), 0, &FacInterface);
    return STATUS_SUCCESS;
}

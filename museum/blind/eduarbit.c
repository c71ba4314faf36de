/*
 * eduarbit: factorials by the edu card, with its interrupt. Requests queue up; the card works at one at a time, and a timer ends one for which
 * no interrupt comes within 200 ms.
 *
 * The bug: the interrupt's DPC takes the current request as its own only after it has completed it, so that the time limit's DPC, on another
 * processor, can complete it as well.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free, data-race
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_ARBIT_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ARBIT_COUNTS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK 0x64
#define STATUS_COMPUTING 0x01
#define STATUS_RAISE 0x80

#define LIMIT_MS 200
#define GONE 0xffffffffu

static const GUID ArbitClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x06 } };

typedef struct {
    ULONG Answered, TimedOut, Refused;
} COUNTS;

typedef struct {
    FRAME Frame;
    FRAME_QUEUE Queue;
    volatile UCHAR *Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    volatile LONG Awake;        /* the ISR may look at the card */
    KDPC DoneDpc;
    KTIMER Timer;
    KDPC TimerDpc;

    KSPIN_LOCK Lock;            /* of what follows */
    PIRP Current;
    ULONGLONG Deadline;
    COUNTS Counts;
} ARBIT;

/* Lets the card begin with the next request, unless it has one. */
static void StartNext(ARBIT *A)
{
    LARGE_INTEGER due;
    ULONG state;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&A->Lock, &irql);
        if (A->Current || (irp = FrameQueueTake(&A->Queue)) == NULL) {
            KeReleaseSpinLock(&A->Lock, irql);
            return;
        }
        state = Rd(A->Regs, EDU_STATUS);
        if (!(state & STATUS_COMPUTING)) {
            A->Current = irp;
            A->Deadline = KeQueryInterruptTime() + LIMIT_MS * 10000ULL;
            Wr(A->Regs, EDU_STATUS, STATUS_RAISE);
            Wr(A->Regs, EDU_FACTORIAL, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
            due.QuadPart = -10000LL * LIMIT_MS;
            KeSetTimer(&A->Timer, due, &A->TimerDpc);
            KeReleaseSpinLock(&A->Lock, irql);
            return;
        }
        A->Counts.Refused++;
        KeReleaseSpinLock(&A->Lock, irql);
        FrameEnd(&A->Frame, irp, state == GONE ? STATUS_DEVICE_NOT_CONNECTED : STATUS_DEVICE_BUSY, 0);
    }
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    ARBIT *a = Context;
    ULONG raised;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!a->Awake)
        return FALSE;
    raised = Rd(a->Regs, EDU_IRQ_STATUS);
    if (raised == 0 || raised == GONE)
        return FALSE;
    Wr(a->Regs, EDU_IRQ_ACK, raised);
    KeInsertQueueDpc(&a->DoneDpc, NULL, NULL);
    return TRUE;
}

static void NTAPI DoneRoutine(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    ARBIT *a = Context;
    ULONG result = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&a->Lock);
    irp = a->Current;
    /* A late interrupt of one that was given up is none of the present one. */
    if (irp && (Rd(a->Regs, EDU_STATUS) & STATUS_COMPUTING))
        irp = NULL;
    if (irp) {
        result = Rd(a->Regs, EDU_FACTORIAL);
        a->Counts.Answered++;
        KeCancelTimer(&a->Timer);
#ifdef FIXED
        a->Current = NULL;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&a->Lock);
    if (!irp)
        return;
    *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
#ifdef FIXED
    StartNext(a);
    FrameEnd(&a->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
#else
    Complete(irp, STATUS_SUCCESS, sizeof(ULONG));
    KeAcquireSpinLockAtDpcLevel(&a->Lock);
    a->Current = NULL;
    KeReleaseSpinLockFromDpcLevel(&a->Lock);
    StartNext(a);
    FrameLeave(&a->Frame);
    IoReleaseRemoveLock(&a->Frame.RemoveLock, irp);
#endif
}

static void NTAPI LimitRoutine(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    ARBIT *a = Context;
    LARGE_INTEGER due;
    ULONGLONG now;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&a->Lock);
    irp = a->Current;
    now = KeQueryInterruptTime();
    if (irp && now < a->Deadline) {
        /* Set for one before; the present one has time left. */
        due.QuadPart = -(LONGLONG)(a->Deadline - now);
        KeSetTimer(&a->Timer, due, &a->TimerDpc);
        irp = NULL;
    }
    if (irp) {
        a->Current = NULL;
        a->Counts.TimedOut++;
    }
    KeReleaseSpinLockFromDpcLevel(&a->Lock);
    if (!irp)
        return;
    StartNext(a);
    FrameEnd(&a->Frame, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    ARBIT *a = (ARBIT *)F;
    FRAME_RESOURCES r;
    NTSTATUS status;

    FrameResources(Translated, &r);
    if (r.Memories == 0 || r.Memory[0].Length < 0x100 || !r.HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    a->RegsLength = r.Memory[0].Length;
    a->Regs = MmMapIoSpace(r.Memory[0].Base, a->RegsLength, MmNonCached);
    if (!a->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_NO_SUCH_DEVICE;
    if ((Rd(a->Regs, EDU_ID) & 0xffff) == 0x00ed) {
        Wr(a->Regs, EDU_STATUS, 0);
        InterlockedExchange(&a->Awake, 1);
        status = FrameConnect(&r, Isr, a, &a->Interrupt);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace((PVOID)a->Regs, a->RegsLength);
        a->Regs = NULL;
    }
    return status;
}

/* Nothing is raised any more, and the ISR leaves the card alone. */
static BOOLEAN NTAPI FallAsleep(PVOID Context)
{
    ARBIT *a = Context;
    ULONG raised;

    Wr(a->Regs, EDU_STATUS, 0);
    raised = Rd(a->Regs, EDU_IRQ_STATUS);
    if (raised && raised != GONE)
        Wr(a->Regs, EDU_IRQ_ACK, raised);
    a->Awake = 0;
    return TRUE;
}

static void Stop(FRAME *F)
{
    ARBIT *a = (ARBIT *)F;

    if (FrameAlive(F))
        KeSynchronizeExecution(a->Interrupt, FallAsleep, a);
    IoDisconnectInterrupt(a->Interrupt);
    KeCancelTimer(&a->Timer);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace((PVOID)a->Regs, a->RegsLength);
    a->Regs = NULL;
}

static void Flush(FRAME *F)
{
    FrameQueueClose(&((ARBIT *)F)->Queue);
}

static void PowerDown(FRAME *F)
{
    ARBIT *a = (ARBIT *)F;

    KeSynchronizeExecution(a->Interrupt, FallAsleep, a);
    KeFlushQueuedDpcs();
}

static void PowerUp(FRAME *F)
{
    InterlockedExchange(&((ARBIT *)F)->Awake, 1);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    ARBIT *a = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&a->Frame.RemoveLock, a);     /* for this call, which the request may not outlast */
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    status = FrameBegin(&a->Frame, Irp);
    if (NT_SUCCESS(status)) {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_ARBIT_FACTORIAL:
            if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
                status = FrameEnd(&a->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
            } else if (*(ULONG *)Irp->AssociatedIrp.SystemBuffer > 12) {
                status = FrameEnd(&a->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
            } else {
                status = FrameQueuePut(&a->Queue, Irp);
                StartNext(a);
            }
            break;

        case IOCTL_ARBIT_COUNTS:
            if (out < sizeof(COUNTS)) {
                status = FrameEnd(&a->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
                break;
            }
            KeAcquireSpinLock(&a->Lock, &irql);
            *(COUNTS *)Irp->AssociatedIrp.SystemBuffer = a->Counts;
            KeReleaseSpinLock(&a->Lock, irql);
            status = FrameEnd(&a->Frame, Irp, STATUS_SUCCESS, sizeof(COUNTS));
            break;

        default:
            status = FrameEnd(&a->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        }
    }
    IoReleaseRemoveLock(&a->Frame.RemoveLock, a);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    ARBIT *a = Device->DeviceExtension;

    FrameQueueFlush(&a->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    ARBIT *a;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(ARBIT), &ArbitClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    a = (ARBIT *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->Flush = Flush;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    FrameQueueInit(&a->Queue, f, TRUE);
    KeInitializeSpinLock(&a->Lock);
    KeInitializeTimer(&a->Timer);
    KeInitializeDpc(&a->TimerDpc, LimitRoutine, a);
    KeInitializeDpc(&a->DoneDpc, DoneRoutine, a);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}

/*
 * plxsiren: two alarm loops on the LINTi1 and LINTi2 inputs of a PLX 9050 board. Programs arm and disarm the loops and wait for an alarm; the
 * interrupt routine switches off a loop that has spoken, until it is armed again.
 *
 * The bug: arming and disarming read, change and write INTCSR under a spin lock only, while the interrupt routine changes the same register:
 * what one of them writes is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, device, schedule
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_SIREN_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIREN_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIREN_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x992, METHOD_BUFFERED, FILE_READ_ACCESS)

#define INTCSR 0x4c
#define LINT1_ENABLE 0x01
#define LINT1_HIGH 0x02
#define LINT1_ACTIVE 0x04
#define LINT2_ENABLE 0x08
#define LINT2_HIGH 0x10
#define LINT2_ACTIVE 0x20
#define PCI_ENABLE 0x40
#define SOFTWARE 0x80
#define GONE 0xffffffffu

static const GUID SirenClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x0a } };

typedef struct {
    ULONG Loops;                /* bit 0 and bit 1 */
    ULONG ActiveHigh;           /* ARM */
} LOOPS;

typedef struct {
    FRAME Frame;
    FRAME_QUEUE Waiters;
    volatile UCHAR *Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    volatile LONG Awake;        /* the ISR may look at the card */
    volatile LONG Spoken;       /* from the ISR to the DPC */
    ULONG Kept;                 /* INTCSR, while in a low power state */
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG Latched;              /* loops that are not reported yet; under the lock */
} SIREN;

/* A change of INTCSR. */
typedef struct {
    SIREN *Siren;
    ULONG Clear, Set;
} CHANGE;

static BOOLEAN NTAPI ChangeIntcsr(PVOID Context)
{
    CHANGE *change = Context;
    ULONG intcsr = Rd(change->Siren->Regs, INTCSR);

    if (intcsr == GONE)
        return FALSE;
    Wr(change->Siren->Regs, INTCSR, (intcsr & ~change->Clear) | change->Set);
    return TRUE;
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    SIREN *s = Context;
    ULONG intcsr, loops = 0, off = 0;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!s->Awake)
        return FALSE;
    intcsr = Rd(s->Regs, INTCSR);
    if (intcsr == GONE || !(intcsr & PCI_ENABLE))
        return FALSE;
    if ((intcsr & LINT1_ENABLE) && (intcsr & LINT1_ACTIVE)) {
        loops |= 1;
        off |= LINT1_ENABLE;
    }
    if ((intcsr & LINT2_ENABLE) && (intcsr & LINT2_ACTIVE)) {
        loops |= 2;
        off |= LINT2_ENABLE;
    }
    if (!loops)
        return FALSE;
    Wr(s->Regs, INTCSR, intcsr & ~off);
    InterlockedOr(&s->Spoken, (LONG)loops);
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

/* Tells a waiter of what is latched. */
static void Deliver(SIREN *S)
{
    ULONG loops = 0;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&S->Lock, &irql);
    if (S->Latched) {
        irp = FrameQueueTake(&S->Waiters);
        if (irp) {
            loops = S->Latched;
            S->Latched = 0;
        }
    }
    KeReleaseSpinLock(&S->Lock, irql);
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = loops;
        FrameEndUngated(&S->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static void NTAPI AlarmDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    SIREN *s = Context;
    ULONG loops = (ULONG)InterlockedExchange(&s->Spoken, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    s->Latched |= loops;
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    Deliver(s);
}

/* Within the gate. */
static NTSTATUS Arm(SIREN *S, const LOOPS *Loops, BOOLEAN On)
{
    CHANGE change = { S, 0, 0 };
    BOOLEAN done;

    if (Loops->Loops == 0 || Loops->Loops > 3)
        return STATUS_INVALID_PARAMETER;
    if (Loops->Loops & 1) {
        change.Clear |= LINT1_ENABLE;
        if (On) {
            change.Clear |= LINT1_HIGH;
            change.Set |= LINT1_ENABLE | (Loops->ActiveHigh ? LINT1_HIGH : 0);
        }
    }
    if (Loops->Loops & 2) {
        change.Clear |= LINT2_ENABLE;
        if (On) {
            change.Clear |= LINT2_HIGH;
            change.Set |= LINT2_ENABLE | (Loops->ActiveHigh ? LINT2_HIGH : 0);
        }
    }
#ifdef FIXED
    done = KeSynchronizeExecution(S->Interrupt, ChangeIntcsr, &change);
#else
    {
        KIRQL irql;

        KeAcquireSpinLock(&S->Lock, &irql);
        done = ChangeIntcsr(&change);
        KeReleaseSpinLock(&S->Lock, irql);
    }
#endif
    return done ? STATUS_SUCCESS : STATUS_DEVICE_NOT_CONNECTED;
}

static NTSTATUS Wait(SIREN *S, PIRP Irp)
{
    NTSTATUS status;

    status = IoAcquireRemoveLock(&S->Frame.RemoveLock, S);      /* for this call, which the request may not outlast */
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    status = IoAcquireRemoveLock(&S->Frame.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Complete(Irp, status, 0);
    } else if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = FrameEndUngated(&S->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    } else {
        status = FrameQueuePut(&S->Waiters, Irp);
        Deliver(S);
    }
    IoReleaseRemoveLock(&S->Frame.RemoveLock, S);
    return status;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    SIREN *s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status;
    LOOPS loops;

    if (code == IOCTL_SIREN_WAIT)
        return Wait(s, Irp);
    status = FrameBegin(&s->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    if (code != IOCTL_SIREN_ARM && code != IOCTL_SIREN_DISARM)
        return FrameEnd(&s->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LOOPS))
        return FrameEnd(&s->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    loops = *(LOOPS *)Irp->AssociatedIrp.SystemBuffer;
    return FrameEnd(&s->Frame, Irp, Arm(s, &loops, code == IOCTL_SIREN_ARM), 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    SIREN *s = Device->DeviceExtension;

    FrameQueueFlush(&s->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    SIREN *s = (SIREN *)F;
    CHANGE quiet = { s, LINT1_ENABLE | LINT2_ENABLE | SOFTWARE | PCI_ENABLE, 0 };
    CHANGE listen = { s, 0, PCI_ENABLE };
    FRAME_RESOURCES r;
    NTSTATUS status;

    FrameResources(Translated, &r);
    if (r.Memories == 0 || r.Memory[0].Length < 0x54 || !r.HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    s->RegsLength = r.Memory[0].Length;
    s->Regs = MmMapIoSpace(r.Memory[0].Base, s->RegsLength, MmNonCached);
    if (!s->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_DEVICE_NOT_CONNECTED;
    if (ChangeIntcsr(&quiet)) {
        InterlockedExchange(&s->Awake, 1);
        status = FrameConnect(&r, Isr, s, &s->Interrupt);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace((PVOID)s->Regs, s->RegsLength);
        s->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(s->Interrupt, ChangeIntcsr, &listen);
    return STATUS_SUCCESS;
}

static BOOLEAN NTAPI FallAsleep(PVOID Context)
{
    SIREN *s = Context;
    CHANGE quiet = { s, LINT1_ENABLE | LINT2_ENABLE | PCI_ENABLE, 0 };

    s->Kept = Rd(s->Regs, INTCSR);
    ChangeIntcsr(&quiet);
    s->Awake = 0;
    return TRUE;
}

static BOOLEAN NTAPI WakeUp(PVOID Context)
{
    SIREN *s = Context;

    if (s->Kept != GONE)
        Wr(s->Regs, INTCSR, s->Kept);
    s->Awake = 1;
    return TRUE;
}

static void Stop(FRAME *F)
{
    SIREN *s = (SIREN *)F;

    if (FrameAlive(F))
        KeSynchronizeExecution(s->Interrupt, FallAsleep, s);
    IoDisconnectInterrupt(s->Interrupt);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace((PVOID)s->Regs, s->RegsLength);
    s->Regs = NULL;
}

static void Flush(FRAME *F)
{
    FrameQueueClose(&((SIREN *)F)->Waiters);
}

static void PowerDown(FRAME *F)
{
    SIREN *s = (SIREN *)F;

    KeSynchronizeExecution(s->Interrupt, FallAsleep, s);
}

static void PowerUp(FRAME *F)
{
    SIREN *s = (SIREN *)F;

    KeSynchronizeExecution(s->Interrupt, WakeUp, s);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    SIREN *s;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(SIREN), &SirenClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    s = (SIREN *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->Flush = Flush;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    FrameQueueInit(&s->Waiters, f, FALSE);
    KeInitializeSpinLock(&s->Lock);
    KeInitializeDpc(&s->Dpc, AlarmDpc, s);
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

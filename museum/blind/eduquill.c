/*
 * EDUQUILL: lets applications compute factorials (modulo 2^32) on QEMU's "edu" card.  FACTORIAL
 * waits up to a second for the card's interrupt, IDENT returns the card's identification and
 * LIVENESS checks that it answers.
 *
 * The bug: when the card takes longer than that second, the request returns without withdrawing
 * its record, which is on its stack, from the device extension; when the card is ready at last, the
 * DPC writes the result to that stack and sets an event there.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: event-on-dead-stack, wild-write, wild-read, bad-pointer
 * Needs: ioctl, device, schedule
 */
#include "../include/jetty_card.h"

/* {3E2C8A40-96B7-4C55-8D0A-7F1B1E6A9C02} */
static const GUID EduquillInterface =
    { 0x3e2c8a40, 0x96b7, 0x4c55, { 0x8d, 0x0a, 0x7f, 0x1b, 0x1e, 0x6a, 0x9c, 0x02 } };

#define IOCTL_EDUQUILL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUQUILL_IDENT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUQUILL_LIVENESS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x873, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_IDENT       0x00
#define EDU_LIVENESS    0x04
#define EDU_FACTORIAL   0x08
#define EDU_STATUS      0x20
#define EDU_INTERRUPTS  0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_MAPPED      0x1000

#define EDU_COMPUTING   0x01           /* EDU_STATUS */
#define EDU_RAISE       0x80

#define ALL_ONES 0xFFFFFFFFu

/* A request that waits for the card; on its stack. */
typedef struct _EDUQUILL_WAITER {
    ULONG Value;
    ULONG Result;
    NTSTATUS Status;
    BOOLEAN Issued;
    KEVENT Event;
} EDUQUILL_WAITER, *PEDUQUILL_WAITER;

typedef struct _EDUQUILL {
    JETTY_COMMON Common;
    FAST_MUTEX Serial;          /* one FACTORIAL at a time */
    KSPIN_LOCK Lock;            /* Started, Awake, Gone, Current, and the card but for its interrupt */
    BOOLEAN Started;
    BOOLEAN Awake;              /* powered */
    BOOLEAN Gone;
    PEDUQUILL_WAITER Current;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
} EDUQUILL, *PEDUQUILL;

static BOOLEAN NTAPI EduquillIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDUQUILL q = Context;
    ULONG pending = JettyRead(q->Regs, EDU_INTERRUPTS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (pending == 0 || pending == ALL_ONES)
        return FALSE;
    JettyWrite(q->Regs, EDU_ACKNOWLEDGE, pending);
    IoRequestDpc(q->Common.Self, NULL, NULL);
    return TRUE;
}

/* The current request is over; with the lock held. */
static VOID EduquillOver(PEDUQUILL q, NTSTATUS Status, ULONG Result)
{
    PEDUQUILL_WAITER w = q->Current;

    if (w) {
        q->Current = NULL;
        w->Result = Result;
        w->Status = Status;
        KeSetEvent(&w->Event, IO_NO_INCREMENT, FALSE);
    }
}

/*
 * The interrupt may be a late one, of a computation that no one waits for any more: if the card computes
 * then it does so for the current request, and there will be another interrupt.
 */
static VOID NTAPI EduquillDpc(PKDPC Dpc, PDEVICE_OBJECT Fdo, PIRP Irp, PVOID Context)
{
    PEDUQUILL q = Fdo->DeviceExtension;
    ULONG status, result;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Started && q->Awake && q->Current && q->Current->Issued) {
        status = JettyRead(q->Regs, EDU_STATUS);
        result = JettyRead(q->Regs, EDU_FACTORIAL);
        if (status == ALL_ONES || (!(status & EDU_COMPUTING) && result == ALL_ONES))
            EduquillOver(q, STATUS_NO_SUCH_DEVICE, 0);  /* no factorial is that number */
        else if (!(status & EDU_COMPUTING))
            EduquillOver(q, STATUS_SUCCESS, result);
    }
    KeReleaseSpinLock(&q->Lock, irql);
}

/* Hands the current request to the card; with the lock held and the card powered. */
static VOID EduquillIssue(PEDUQUILL q)
{
    ULONG status = JettyRead(q->Regs, EDU_STATUS);

    if (status == ALL_ONES) {
        EduquillOver(q, STATUS_NO_SUCH_DEVICE, 0);
    } else if (status & EDU_COMPUTING) {
        EduquillOver(q, STATUS_DEVICE_BUSY, 0);        /* one that took too long */
    } else {
        q->Current->Issued = TRUE;
        JettyWrite(q->Regs, EDU_FACTORIAL, q->Current->Value);
    }
}

static NTSTATUS EduquillFactorial(PEDUQUILL q, PULONG Value)
{
    EDUQUILL_WAITER w;
    LARGE_INTEGER second;
    NTSTATUS status;
    KIRQL irql;

    w.Value = *Value;
    w.Result = 0;
    w.Status = STATUS_PENDING;
    w.Issued = FALSE;
    KeInitializeEvent(&w.Event, NotificationEvent, FALSE);
    second.QuadPart = -10000000LL;

    ExAcquireFastMutex(&q->Serial);
    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Gone || !q->Started) {
        status = q->Gone ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&q->Lock, irql);
        ExReleaseFastMutex(&q->Serial);
        return status;
    }
    q->Current = &w;
    if (q->Awake)
        EduquillIssue(q);       /* otherwise when it is powered again */
    KeReleaseSpinLock(&q->Lock, irql);

    status = KeWaitForSingleObject(&w.Event, Executive, KernelMode, FALSE, &second);
    if (status == STATUS_TIMEOUT) {
#ifdef FIXED
        KeAcquireSpinLock(&q->Lock, &irql);
        if (q->Current == &w)
            EduquillOver(q, STATUS_IO_TIMEOUT, 0);
        KeReleaseSpinLock(&q->Lock, irql);
#else
        w.Status = STATUS_IO_TIMEOUT;
#endif
    }
    ExReleaseFastMutex(&q->Serial);
    *Value = w.Result;
    return w.Status;
}

static NTSTATUS EduquillPeek(PEDUQUILL q, PULONG Value, BOOLEAN Liveness)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG value = Liveness ? *Value : 0;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    if (!q->Started || !q->Awake) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (Liveness) {
        JettyWrite(q->Regs, EDU_LIVENESS, value);
        value = JettyRead(q->Regs, EDU_LIVENESS);
        if (JettyRead(q->Regs, EDU_IDENT) == ALL_ONES)
            status = STATUS_NO_SUCH_DEVICE;
    } else {
        value = JettyRead(q->Regs, EDU_IDENT);
        if (value == ALL_ONES)
            status = STATUS_NO_SUCH_DEVICE;
    }
    KeReleaseSpinLock(&q->Lock, irql);
    *Value = value;
    return status;
}

static NTSTATUS NTAPI EduquillControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PEDUQUILL q = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status = IoAcquireRemoveLock(&q->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);
    if (code != IOCTL_EDUQUILL_FACTORIAL && code != IOCTL_EDUQUILL_IDENT &&
        code != IOCTL_EDUQUILL_LIVENESS)
        return JettyFinish(q, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (out < sizeof(ULONG) || (code != IOCTL_EDUQUILL_IDENT && in < sizeof(ULONG)))
        return JettyFinish(q, Irp, STATUS_BUFFER_TOO_SMALL, 0);

    if (code == IOCTL_EDUQUILL_FACTORIAL)
        status = EduquillFactorial(q, buffer);
    else
        status = EduquillPeek(q, buffer, code == IOCTL_EDUQUILL_LIVENESS);
    return JettyFinish(q, Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
}

static VOID EduquillInit(PVOID Ext)
{
    PEDUQUILL q = Ext;

    ExInitializeFastMutex(&q->Serial);
    KeInitializeSpinLock(&q->Lock);
    IoInitializeDpcRequest(q->Common.Self, EduquillDpc);
}

/* No interrupt from the card. */
static VOID EduquillSilence(PUCHAR Regs)
{
    ULONG pending;

    JettyWrite(Regs, EDU_STATUS, 0);
    pending = JettyRead(Regs, EDU_INTERRUPTS);
    if (pending != 0 && pending != ALL_ONES)
        JettyWrite(Regs, EDU_ACKNOWLEDGE, pending);
}

static NTSTATUS EduquillStart(PVOID Ext, PCM_RESOURCE_LIST Translated)
{
    PEDUQUILL q = Ext;
    JETTY_CARD card;
    NTSTATUS status;
    KIRQL irql;

    status = JettyResources(Translated, EDU_MAPPED, &card);
    if (!NT_SUCCESS(status))
        return status;
    q->Regs = MmMapIoSpace(card.Base, EDU_MAPPED, MmNonCached);
    if (!q->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((JettyRead(q->Regs, EDU_IDENT) & 0xFFFF) != 0x00ED) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto fail;
    }
    EduquillSilence(q->Regs);
    status = JettyConnect(&card, EduquillIsr, q, &q->Interrupt);
    if (!NT_SUCCESS(status))
        goto fail;

    KeAcquireSpinLock(&q->Lock, &irql);
    JettyWrite(q->Regs, EDU_STATUS, EDU_RAISE);
    q->Started = TRUE;
    q->Awake = TRUE;
    KeReleaseSpinLock(&q->Lock, irql);
    return STATUS_SUCCESS;

fail:
    q->Interrupt = NULL;
    MmUnmapIoSpace(q->Regs, EDU_MAPPED);
    q->Regs = NULL;
    return status;
}

static VOID EduquillStop(PVOID Ext)
{
    PEDUQUILL q = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Started && q->Awake)
        EduquillSilence(q->Regs);
    q->Started = FALSE;
    EduquillOver(q, STATUS_DEVICE_NOT_READY, 0);
    KeReleaseSpinLock(&q->Lock, irql);

    if (q->Interrupt) {
        IoDisconnectInterrupt(q->Interrupt);
        q->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (q->Regs) {
        MmUnmapIoSpace(q->Regs, EDU_MAPPED);
        q->Regs = NULL;
    }
}

static VOID EduquillGone(PVOID Ext)
{
    PEDUQUILL q = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Gone = TRUE;
    EduquillOver(q, STATUS_NO_SUCH_DEVICE, 0);
    KeReleaseSpinLock(&q->Lock, irql);
}

static VOID EduquillPowerDown(PVOID Ext)
{
    PEDUQUILL q = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Started && q->Awake)
        EduquillSilence(q->Regs);
    q->Awake = FALSE;
    KeReleaseSpinLock(&q->Lock, irql);
}

/* The request that was under way, or has come meanwhile, is done (again). */
static VOID EduquillPowerUp(PVOID Ext)
{
    PEDUQUILL q = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Started && !q->Awake) {
        q->Awake = TRUE;
        JettyWrite(q->Regs, EDU_STATUS, EDU_RAISE);
        if (q->Current &&
            !(q->Current->Issued && (JettyRead(q->Regs, EDU_STATUS) & EDU_COMPUTING)))
            EduquillIssue(q);
    }
    KeReleaseSpinLock(&q->Lock, irql);
}

static const JETTY_HOOKS EduquillHooks = {
    .Init = EduquillInit,
    .Start = EduquillStart,
    .Stop = EduquillStop,
    .Gone = EduquillGone,
    .PowerDown = EduquillPowerDown,
    .PowerUp = EduquillPowerUp,
    .RefuseStop = TRUE,
};

static NTSTATUS NTAPI EduquillAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return JettyAdd(Driver, Pdo, sizeof(EDUQUILL), &EduquillHooks, &EduquillInterface, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    JettyDriver(Driver, EduquillAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EduquillControl;
    return STATUS_SUCCESS;
}

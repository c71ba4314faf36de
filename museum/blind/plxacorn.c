/*
 * PLXACORN: the trigger input (LINTi1) and the four user outputs of a board with a PLX PCI 9052.
 * WAIT pends until the trigger is active and returns how often it has been seen, COUNT returns that
 * number at once, OUTPUT sets the user pins.  The interrupt is armed by a WAIT, and disarms itself.
 *
 * The bug: after a sleep the bridge's INTCSR is 0 again, but only CNTRL is written anew; as the
 * driver's copy of INTCSR says "armed", no later WAIT arms it either: a WAIT that was pending over
 * the sleep, and every one after it, is never completed.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, power, device
 */
#include "../include/jetty_card.h"
#include "../include/jetty_csq.h"

/* {C4E1A7F2-1B3D-4A68-9E57-08D26B9F3A71} */
static const GUID PlxacornInterface =
    { 0xc4e1a7f2, 0x1b3d, 0x4a68, { 0x9e, 0x57, 0x08, 0xd2, 0x6b, 0x9f, 0x3a, 0x71 } };

#define IOCTL_PLXACORN_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PLXACORN_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PLXACORN_OUTPUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PLX_INTCSR 0x4C
#define PLX_CNTRL  0x50
#define PLX_MAPPED 0x80

#define INTCSR_LINT1_ENABLE   0x01
#define INTCSR_LINT1_POLARITY 0x02
#define INTCSR_LINT1_STATUS   0x04
#define INTCSR_PCI_ENABLE     0x40

#define CNTRL_USER_PINS 0x00000FFF      /* three bits each: function, direction, data */
#define CNTRL_ACTIONS   0x67000000      /* EEPROM lines, reload, reset */

#define ALL_ONES 0xFFFFFFFFu

typedef struct _PLXACORN {
    JETTY_COMMON Common;
    JETTY_QUEUE Waiters;
    KSPIN_LOCK Lock;            /* Started, Gone, Control; changes of Awake */
    BOOLEAN Started;
    BOOLEAN Gone;
    BOOLEAN ControlKnown;
    ULONG Control;              /* CNTRL as it should be */
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    /* with the interrupt's lock: */
    BOOLEAN Awake;
    ULONG IntCsr;               /* INTCSR as it should be */
    ULONG Triggers;
} PLXACORN, *PPLXACORN;

static BOOLEAN NTAPI PlxacornIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PPLXACORN p = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!p->Awake || !(p->IntCsr & INTCSR_LINT1_ENABLE))
        return FALSE;
    csr = JettyRead(p->Regs, PLX_INTCSR);
    if (csr == ALL_ONES || !(csr & INTCSR_LINT1_ENABLE) || !(csr & INTCSR_LINT1_STATUS))
        return FALSE;

    /* the trigger is a level: who wants to see it again arms it again */
    p->IntCsr &= ~INTCSR_LINT1_ENABLE;
    JettyWrite(p->Regs, PLX_INTCSR, p->IntCsr);
    (VOID)JettyRead(p->Regs, PLX_INTCSR);
    p->Triggers++;
    IoRequestDpc(p->Common.Self, NULL, NULL);
    return TRUE;
}

static VOID NTAPI PlxacornDpc(PKDPC Dpc, PDEVICE_OBJECT Fdo, PIRP Irp, PVOID Context)
{
    PPLXACORN p = Fdo->DeviceExtension;
    LIST_ENTRY seen;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    InitializeListHead(&seen);
    while ((irp = IoCsqRemoveNextIrp(&p->Waiters.Csq, NULL)) != NULL)
        InsertTailList(&seen, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&seen)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&seen), IRP, Tail.Overlay.ListEntry);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = *(ULONG volatile *)&p->Triggers;
        JettyFinish(p, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

/* The routines for KeSynchronizeExecution. */

static BOOLEAN NTAPI PlxacornArmSync(PVOID Context)
{
    PPLXACORN p = Context;

    if (!(p->IntCsr & INTCSR_LINT1_ENABLE)) {
        p->IntCsr |= INTCSR_LINT1_ENABLE;
        if (p->Awake)
            JettyWrite(p->Regs, PLX_INTCSR, p->IntCsr);
    }
    return TRUE;
}

/* The bridge is powered: it gets what it has forgotten. */
static BOOLEAN NTAPI PlxacornWakeSync(PVOID Context)
{
    PPLXACORN p = Context;

    p->Awake = TRUE;
    JettyWrite(p->Regs, PLX_CNTRL, p->Control);
#ifdef FIXED
    JettyWrite(p->Regs, PLX_INTCSR, p->IntCsr);
#endif
    return TRUE;
}

static BOOLEAN NTAPI PlxacornEnableSync(PVOID Context)
{
    PPLXACORN p = Context;

    JettyWrite(p->Regs, PLX_INTCSR, p->IntCsr);
    return TRUE;
}

static BOOLEAN NTAPI PlxacornSleepSync(PVOID Context)
{
    PPLXACORN p = Context;

    if (p->Awake) {
        JettyWrite(p->Regs, PLX_INTCSR, 0);
        (VOID)JettyRead(p->Regs, PLX_INTCSR);
        p->Awake = FALSE;
    }
    return TRUE;
}

static VOID PlxacornFinish(PVOID Owner, PIRP Irp, NTSTATUS Status)
{
    JettyFinish(Owner, Irp, Status, 0);
}

/* A WAIT is in the queue. */
static VOID PlxacornKick(PVOID Owner)
{
    PPLXACORN p = Owner;
    BOOLEAN gone;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    gone = p->Gone;
    if (p->Started)
        KeSynchronizeExecution(p->Interrupt, PlxacornArmSync, p);
    else
        p->IntCsr |= INTCSR_LINT1_ENABLE;       /* from the next start on */
    KeReleaseSpinLock(&p->Lock, irql);
    if (gone)
        JettyDrain(&p->Waiters, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID PlxacornOutput(PPLXACORN p, ULONG Pins)
{
    ULONG control = 0, i;
    KIRQL irql;

    for (i = 0; i < 4; i++)             /* the pin itself, an output, high or low */
        control |= (2 | ((Pins >> i & 1) << 2)) << (3 * i);

    KeAcquireSpinLock(&p->Lock, &irql);
    p->Control = (p->Control & ~CNTRL_USER_PINS) | control;
    if (p->Started && p->Awake)
        JettyWrite(p->Regs, PLX_CNTRL, p->Control);
    KeReleaseSpinLock(&p->Lock, irql);
}

static NTSTATUS NTAPI PlxacornControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PPLXACORN p = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status = IoAcquireRemoveLock(&p->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);
    if (!p->Started)
        return JettyFinish(p, Irp, STATUS_DEVICE_NOT_READY, 0);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLXACORN_WAIT:
        if (out < sizeof(ULONG))
            return JettyFinish(p, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        /* the hold above goes with the request, which may be over before it is armed */
        status = IoAcquireRemoveLock(&p->Common.RemoveLock, Fdo);
        if (!NT_SUCCESS(status))
            return JettyFinish(p, Irp, status, 0);
        status = JettyPark(&p->Waiters, Irp, PlxacornKick);
        IoReleaseRemoveLock(&p->Common.RemoveLock, Fdo);
        return status;

    case IOCTL_PLXACORN_COUNT:
        if (out < sizeof(ULONG))
            return JettyFinish(p, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = *(ULONG volatile *)&p->Triggers;
        return JettyFinish(p, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_PLXACORN_OUTPUT:
        if (in < sizeof(ULONG))
            return JettyFinish(p, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer > 15)
            return JettyFinish(p, Irp, STATUS_INVALID_PARAMETER, 0);
        PlxacornOutput(p, *buffer);
        return JettyFinish(p, Irp, STATUS_SUCCESS, 0);

    default:
        return JettyFinish(p, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI PlxacornCleanup(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PPLXACORN p = Fdo->DeviceExtension;

    JettyHandleClosed(&p->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID PlxacornInit(PVOID Ext)
{
    PPLXACORN p = Ext;

    KeInitializeSpinLock(&p->Lock);
    JettyQueueInit(&p->Waiters, p, PlxacornFinish, JettyCsqPeek);
    p->IntCsr = INTCSR_PCI_ENABLE | INTCSR_LINT1_POLARITY;
    IoInitializeDpcRequest(p->Common.Self, PlxacornDpc);
}

static NTSTATUS PlxacornStart(PVOID Ext, PCM_RESOURCE_LIST Translated)
{
    PPLXACORN p = Ext;
    JETTY_CARD card;
    NTSTATUS status;
    ULONG control;
    KIRQL irql;

    status = JettyResources(Translated, PLX_MAPPED, &card);
    if (!NT_SUCCESS(status))
        return status;
    p->Regs = MmMapIoSpace(card.Base, PLX_MAPPED, MmNonCached);
    if (!p->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    control = JettyRead(p->Regs, PLX_CNTRL);
    if (control == ALL_ONES) {
        status = STATUS_NO_SUCH_DEVICE;
        goto fail;
    }
    if (!p->ControlKnown) {
        p->Control = control & ~CNTRL_ACTIONS;
        p->ControlKnown = TRUE;
    }
    JettyWrite(p->Regs, PLX_INTCSR, 0);
    status = JettyConnect(&card, PlxacornIsr, p, &p->Interrupt);
    if (!NT_SUCCESS(status))
        goto fail;

    KeAcquireSpinLock(&p->Lock, &irql);
    KeSynchronizeExecution(p->Interrupt, PlxacornWakeSync, p);
    KeSynchronizeExecution(p->Interrupt, PlxacornEnableSync, p);
    p->Started = TRUE;
    KeReleaseSpinLock(&p->Lock, irql);
    return STATUS_SUCCESS;

fail:
    p->Interrupt = NULL;
    MmUnmapIoSpace(p->Regs, PLX_MAPPED);
    p->Regs = NULL;
    return status;
}

static VOID PlxacornStop(PVOID Ext)
{
    PPLXACORN p = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    if (p->Started) {
        KeSynchronizeExecution(p->Interrupt, PlxacornSleepSync, p);
        p->Started = FALSE;
    }
    KeReleaseSpinLock(&p->Lock, irql);

    if (p->Interrupt) {
        IoDisconnectInterrupt(p->Interrupt);
        p->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (p->Regs) {
        MmUnmapIoSpace(p->Regs, PLX_MAPPED);
        p->Regs = NULL;
    }
}

static VOID PlxacornGone(PVOID Ext)
{
    PPLXACORN p = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    p->Gone = TRUE;
    KeReleaseSpinLock(&p->Lock, irql);
    JettyDrain(&p->Waiters, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID PlxacornPowerDown(PVOID Ext)
{
    PPLXACORN p = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    if (p->Started)
        KeSynchronizeExecution(p->Interrupt, PlxacornSleepSync, p);
    KeReleaseSpinLock(&p->Lock, irql);
}

static VOID PlxacornPowerUp(PVOID Ext)
{
    PPLXACORN p = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    if (p->Started && !p->Awake)
        KeSynchronizeExecution(p->Interrupt, PlxacornWakeSync, p);
    KeReleaseSpinLock(&p->Lock, irql);
}

static const JETTY_HOOKS PlxacornHooks = {
    .Init = PlxacornInit,
    .Start = PlxacornStart,
    .Stop = PlxacornStop,
    .Gone = PlxacornGone,
    .PowerDown = PlxacornPowerDown,
    .PowerUp = PlxacornPowerUp,
    .RefuseStop = TRUE,
};

static NTSTATUS NTAPI PlxacornAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return JettyAdd(Driver, Pdo, sizeof(PLXACORN), &PlxacornHooks, &PlxacornInterface, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    JettyDriver(Driver, PlxacornAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PlxacornCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PlxacornControl;
    return STATUS_SUCCESS;
}

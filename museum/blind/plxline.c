/*
 * plxline: waits for the two local interrupt lines of a PLX PCI 9050/9052 card (level
 * sensitive). IOCTL_PL_WAIT (line 0 or 1) arms the line and ends when it is active; the
 * interrupt service routine masks a line that has fired. IOCTL_PL_POLARITY sets a line's polarity.
 * INTCSR (BAR0 + 0x4C): bit 0 LINTi1 enable, 1 polarity, 2 status, 3..5 LINTi2 the
 * same, 6 PCI interrupt enable.
 *
 * The bug: arming a line and setting the polarity read, change and write INTCSR without keeping the ISR out, which does the same.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten, register-update-lost
 * Needs: schedule, device
 */
#include "../include/pausing_frame.h"

#define INTCSR 0x4C
#define L_ENABLE(n)   (1u << (3 * (n)))
#define L_POLARITY(n) (2u << (3 * (n)))
#define L_STATUS(n)   (4u << (3 * (n)))
#define PCI_ENABLE    0x40u

#define IOCTL_PL_WAIT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PL_POLARITY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PL_COUNTS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID LineInterface = { 0x61c3fe1b, 0x8a57, 0x4b19, { 0xa6, 0x0d, 0x18, 0x44, 0x5b, 0x90, 0x2e, 0x01 } };

typedef struct { ULONG Line, High; } PL_POLARITY;

typedef struct {
    FRAME Frame;
    FRQ Waits[2];
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    ULONG Polarity;             /* kept for the return from D3; changed like INTCSR */
    volatile LONG Fired;        /* lines, from the ISR to the DPC */
    volatile LONG Counts[2];
} LINES, *PLINES;

typedef struct { PLINES Lines; ULONG Clear, Set; } CHANGE;

static inline ULONG Rd(PLINES L) { return READ_REGISTER_ULONG((PULONG)(L->Regs + INTCSR)); }
static inline VOID Wr(PLINES L, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(L->Regs + INTCSR), V); }

static BOOLEAN ChangeIntcsr(PVOID Ctx)
{
    CHANGE *c = Ctx;
    ULONG v = Rd(c->Lines);
    v = (v & ~c->Clear) | c->Set;
    c->Lines->Polarity = v & (L_POLARITY(0) | L_POLARITY(1));
    Wr(c->Lines, v);
    return TRUE;
}

/* with the gate held */
static VOID Change(PLINES L, ULONG Clear, ULONG Set)
{
    CHANGE c = { L, Clear, Set };
#ifdef FIXED
    KeSynchronizeExecution(L->Interrupt, ChangeIntcsr, &c);
#else
    ChangeIntcsr(&c);
#endif
}

static BOOLEAN WriteQuiet(PVOID Ctx)     /* no line enabled */
{
    PLINES l = Ctx;
    Wr(l, l->Polarity);
    return TRUE;
}

static BOOLEAN WriteReady(PVOID Ctx)
{
    PLINES l = Ctx;
    Wr(l, l->Polarity | PCI_ENABLE);
    return TRUE;
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PLINES l = Ctx;
    ULONG v = Rd(l), n, off = 0;
    LONG fired = 0;
    UNREFERENCED_PARAMETER(Interrupt);
    if (v == 0xFFFFFFFF || !(v & PCI_ENABLE))
        return FALSE;
    for (n = 0; n < 2; n++)
        if ((v & L_ENABLE(n)) && (v & L_STATUS(n))) {
            fired |= 1 << n;
            off |= L_ENABLE(n);
        }
    if (!fired)
        return FALSE;
    Wr(l, v & ~off);
    InterlockedOr(&l->Fired, fired);
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PLINES l = Ctx;
    LONG fired = InterlockedExchange(&l->Fired, 0);
    ULONG n, left;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    for (n = 0; n < 2; n++) {
        LONG count;
        if (!(fired & (1 << n)))
            continue;
        count = InterlockedIncrement(&l->Counts[n]);
        /* those waiting now; one that comes later arms the line again itself */
        for (left = *(volatile ULONG *)&l->Waits[n].Count; left; left--) {
            irp = FrqTake(&l->Waits[n], NULL);
            if (!irp)
                break;
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = (ULONG)count;
            irp->IoStatus.Information = sizeof(ULONG);
            FrDone(&l->Frame, irp, STATUS_SUCCESS);
        }
    }
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PLINES l = Dev->DeviceExtension;
    if (l->Interrupt) {
        KeSynchronizeExecution(l->Interrupt, WriteQuiet, l);
        IoDisconnectInterrupt(l->Interrupt);
        l->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (l->Regs)
        MmUnmapIoSpace(l->Regs, 0x54);
    l->Regs = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PLINES l = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!mem || !irq || mem->u.Memory.Length < 0x54)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->Regs = MmMapIoSpace(mem->u.Memory.Start, 0x54, MmNonCached);
    if (!l->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(l) == 0xFFFFFFFF) {
        Stop(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    Wr(l, l->Polarity);
    l->Fired = 0;
    status = FrConnect(&l->Interrupt, Isr, l, irq);
    if (!NT_SUCCESS(status)) {
        l->Interrupt = NULL;
        Stop(Dev);
        return status;
    }
    KeSynchronizeExecution(l->Interrupt, WriteReady, l);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PLINES l = Dev->DeviceExtension;
    KeSynchronizeExecution(l->Interrupt, WriteQuiet, l);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PLINES l = Dev->DeviceExtension;
    KeSynchronizeExecution(l->Interrupt, WriteReady, l);
}

static VOID Arm(PLINES L, ULONG Line)
{
    if (FrTryEnter(&L->Frame)) {
        Change(L, 0, L_ENABLE(Line));
        FrLeave(&L->Frame);
    }                               /* otherwise Kick does it */
}

static VOID Kick(PDEVICE_OBJECT Dev)
{
    PLINES l = Dev->DeviceExtension;
    ULONG n;
    for (n = 0; n < 2; n++)
        if (*(volatile ULONG *)&l->Waits[n].Count)
            Arm(l, n);
}

static VOID Flush(PDEVICE_OBJECT Dev)
{
    PLINES l = Dev->DeviceExtension;
    FrqShut(&l->Waits[0]);
    FrqShut(&l->Waits[1]);
}

static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File)
{
    PLINES l = Dev->DeviceExtension;
    FrqCancelFile(&l->Waits[0], File);
    FrqCancelFile(&l->Waits[1], File);
}

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PLINES l = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buf = Irp->AssociatedIrp.SystemBuffer;
    PL_POLARITY p;
    ULONG line;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PL_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        line = *buf;
        if (line > 1)
            return STATUS_INVALID_PARAMETER;
        status = FrqPut(&l->Waits[line], Irp);
        if (status == STATUS_PENDING)
            Arm(l, line);
        return status;
    case IOCTL_PL_POLARITY:
        if (in < sizeof p)
            return STATUS_BUFFER_TOO_SMALL;
        p = *(PL_POLARITY *)buf;
        if (p.Line > 1 || p.High > 1)
            return STATUS_INVALID_PARAMETER;
        status = FrEnter(&l->Frame);
        if (NT_SUCCESS(status)) {
            Change(l, L_POLARITY(p.Line), p.High ? L_POLARITY(p.Line) : 0);
            FrLeave(&l->Frame);
        }
        return status;
    case IOCTL_PL_COUNTS:
        if (out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        buf[0] = (ULONG)l->Counts[0];
        buf[1] = (ULONG)l->Counts[1];
        Irp->IoStatus.Information = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp,
    .Kick = Kick, .Cleanup = Cleanup, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PLINES l;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(LINES), &Ops, &LineInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    l = dev->DeviceExtension;
    l->Polarity = L_POLARITY(0) | L_POLARITY(1);
    KeInitializeDpc(&l->Dpc, DpcRoutine, l);
    status = FrqInit(&l->Waits[0], &l->Frame);
    if (NT_SUCCESS(status))
        status = FrqInit(&l->Waits[1], &l->Frame);
    if (!NT_SUCCESS(status)) {
        FrUnadd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, Add);
    return STATUS_SUCCESS;
}

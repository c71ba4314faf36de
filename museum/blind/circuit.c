/*
 * circuit: watches the two local interrupt inputs of a board behind a PLX 9050/9052 bridge and lets programs read and write the board's
 * windows. A level input is switched off when it fires; its program serves the board and sets it up again.
 *
 * The bug: setting an input up changes the register's shadow outside the interrupt lock, while the interrupt routine changes it too:
 * one of the changes is lost, so an input that was set up never fires (its waiter hangs) or one that was switched off fires on.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: data-race, interrupt-storm
 * Needs: schedule
 */
#include <ddk/wdm.h>

static const GUID CircuitGuid = { 0x5d0a2c15, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x05 } };

#define GG_GUID CircuitGuid
#define GG_IO DO_BUFFERED_IO
#include "../include/with_waits.h"

#define IOCTL_CIRCUIT_SETUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* SETUP */
#define IOCTL_CIRCUIT_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_READ_ACCESS)   /* mask -> which fired */
#define IOCTL_CIRCUIT_PEEK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x963, METHOD_BUFFERED, FILE_READ_ACCESS)   /* CELL -> value */
#define IOCTL_CIRCUIT_POKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x964, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* CELL */

typedef struct _SETUP {
    ULONG Input;                            /* 0, 1 */
    ULONG Enable, High, Edge;               /* 0, 1 */
} SETUP, *PSETUP;

typedef struct _CELL {
    ULONG Window, Offset, Value;
} CELL, *PCELL;

#define PLX_LENGTH 0x80
#define INTCSR     0x4c
#define PCI_ENABLE 0x40
#define WINDOWS    4
#define MAX_WINDOW 0x10000                  /* of each window as much is mapped */

static const ULONG InEnable[2] = { 0x001, 0x008 }, InHigh[2] = { 0x002, 0x010 }, InStatus[2] = { 0x004, 0x020 },
                   InEdge[2] = { 0x100, 0x200 }, InClear[2] = { 0x400, 0x800 };

typedef struct _CIRCUIT {
    GG Gg;
    PUCHAR Regs;                            /* NULL: by Port (a 9050 whose BAR0 has address bit 7 set cannot be read there) */
    ULONG_PTR Port;
    PUCHAR Window[WINDOWS];
    ULONG Length[WINDOWS], Windows;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile BOOLEAN Awake;                 /* the interrupt routine may touch the card */
    ULONG Shadow;                           /* of INTCSR; the interrupt routine changes it */
    volatile LONG Raw;                      /* inputs from the interrupt routine to the DPC */
    GG_WAITS Waits;
} CIRCUIT, *PCIRCUIT;

static ULONG HwSize(VOID)
{
    return sizeof(CIRCUIT);
}

static ULONG CircuitGet(PCIRCUIT c)
{
    return c->Regs ? READ_REGISTER_ULONG((PULONG)(c->Regs + INTCSR)) : READ_PORT_ULONG((PULONG)(c->Port + INTCSR));
}

static VOID CircuitPut(PCIRCUIT c, ULONG value)
{
    if (c->Regs)
        WRITE_REGISTER_ULONG((PULONG)(c->Regs + INTCSR), value);
    else
        WRITE_PORT_ULONG((PULONG)(c->Port + INTCSR), value);
}

/* ---- the interrupt -------------------------------------------------------------------------------------------------------- */

static BOOLEAN NTAPI CircuitIsr(PKINTERRUPT interrupt, PVOID context)
{
    PCIRCUIT c = context;
    ULONG csr, fired = 0, clear = 0, i;

    UNREFERENCED_PARAMETER(interrupt);
    if (!c->Awake)
        return FALSE;
    csr = CircuitGet(c);
    if (csr == MAXULONG)
        return FALSE;
    for (i = 0; i < 2; i++) {
        if (!(c->Shadow & InEnable[i]) || !(csr & InStatus[i]))
            continue;
        fired |= 1u << i;
        if (c->Shadow & InEdge[i])
            clear |= InClear[i];
        else
            c->Shadow &= ~InEnable[i];                      /* until it is set up again */
    }
    if (!fired)
        return FALSE;
    CircuitPut(c, c->Shadow | clear);
    InterlockedOr(&c->Raw, (LONG)fired);
    KeInsertQueueDpc(&c->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI CircuitDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PCIRCUIT c = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    GgWaitsServe(&c->Waits, (ULONG)InterlockedExchange(&c->Raw, 0));
}

typedef struct _CHANGE {
    PCIRCUIT Circuit;
    SETUP Setup;
} CHANGE, *PCHANGE;

static BOOLEAN NTAPI CircuitApply(PVOID context)
{
    PCHANGE change = context;
    PCIRCUIT c = change->Circuit;
    ULONG i = change->Setup.Input, shadow = c->Shadow & ~(InEnable[i] | InHigh[i] | InEdge[i]);

    if (change->Setup.Enable)
        shadow |= InEnable[i];
    if (change->Setup.High)
        shadow |= InHigh[i];
    if (change->Setup.Edge)
        shadow |= InEdge[i];
    CircuitPut(c, shadow | InClear[i]);
    c->Shadow = shadow;
    return TRUE;
}

static BOOLEAN NTAPI CircuitOpenUp(PVOID context)
{
    PCIRCUIT c = context;

    CircuitPut(c, c->Shadow | InClear[0] | InClear[1]);
    c->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI CircuitQuiet(PVOID context)
{
    CircuitPut(context, 0);
    ((PCIRCUIT)context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI CircuitDeaf(PVOID context)
{
    ((PCIRCUIT)context)->Awake = FALSE;
    return TRUE;
}

/* ---- start, stop, sleep --------------------------------------------------------------------------------------------------- */

static NTSTATUS HwInit(PGG g)
{
    PCIRCUIT c = CONTAINING_RECORD(g, CIRCUIT, Gg);

    c->Shadow = PCI_ENABLE;
    KeInitializeDpc(&c->Dpc, CircuitDpc, c);
    return GgWaitsInit(g, &c->Waits);
}

static VOID HwFree(PGG g)
{
    UNREFERENCED_PARAMETER(g);
}

static VOID CircuitUnmap(PCIRCUIT c)
{
    while (c->Windows) {
        c->Windows--;
        MmUnmapIoSpace(c->Window[c->Windows], c->Length[c->Windows]);
    }
    if (c->Regs)
        MmUnmapIoSpace(c->Regs, PLX_LENGTH);
    c->Regs = NULL;
}

static NTSTATUS HwStart(PGG g, PGG_RES res)
{
    PCIRCUIT c = CONTAINING_RECORD(g, CIRCUIT, Gg);
    NTSTATUS status;
    ULONG i, length;

    if (res->Mems == 0 || res->MemLen[0] < PLX_LENGTH || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (res->Mem[0].LowPart & 0x80) {
        if (res->Ports == 0 || res->PortLen[0] < PLX_LENGTH)
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        c->Port = res->Port[0];
    } else {
        c->Regs = MmMapIoSpace(res->Mem[0], PLX_LENGTH, MmNonCached);
        if (c->Regs == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = STATUS_INSUFFICIENT_RESOURCES;
    for (i = 1; i < res->Mems && c->Windows < WINDOWS; i++) {
        length = min(res->MemLen[i], MAX_WINDOW);
        if (length < sizeof(ULONG))
            continue;
        c->Window[c->Windows] = MmMapIoSpace(res->Mem[i], length, MmNonCached);
        if (c->Window[c->Windows] == NULL)
            goto fail;
        c->Length[c->Windows++] = length;
    }
    status = STATUS_NO_SUCH_DEVICE;
    if (CircuitGet(c) == MAXULONG)
        goto fail;
    CircuitPut(c, 0);                                       /* nothing fires before the routine is there */
    status = GgConnect(res, &c->Interrupt, CircuitIsr, c);
    if (!NT_SUCCESS(status))
        goto fail;
    KeSynchronizeExecution(c->Interrupt, CircuitOpenUp, c);
    return STATUS_SUCCESS;
fail:
    CircuitUnmap(c);
    return status;
}

static VOID HwStop(PGG g, BOOLEAN present)
{
    PCIRCUIT c = CONTAINING_RECORD(g, CIRCUIT, Gg);

    KeSynchronizeExecution(c->Interrupt, present ? CircuitQuiet : CircuitDeaf, c);
    IoDisconnectInterrupt(c->Interrupt);
    c->Interrupt = NULL;
    KeFlushQueuedDpcs();
    CircuitUnmap(c);
}

static VOID HwSleep(PGG g)
{
    PCIRCUIT c = CONTAINING_RECORD(g, CIRCUIT, Gg);

    KeSynchronizeExecution(c->Interrupt, CircuitQuiet, c);
}

static NTSTATUS HwWake(PGG g)
{
    PCIRCUIT c = CONTAINING_RECORD(g, CIRCUIT, Gg);

    if (CircuitGet(c) == MAXULONG)
        return STATUS_NO_SUCH_DEVICE;
    KeSynchronizeExecution(c->Interrupt, CircuitOpenUp, c);
    return STATUS_SUCCESS;
}

/* ---- requests ------------------------------------------------------------------------------------------------------------- */

static VOID HwCleanup(PGG g, PFILE_OBJECT file)
{
    GgWaitsEnd(&CONTAINING_RECORD(g, CIRCUIT, Gg)->Waits, file);
}

static VOID HwRun(PGG g, PIRP irp)
{
    PCIRCUIT c = CONTAINING_RECORD(g, CIRCUIT, Gg);
    ULONG code = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    CHANGE change;
    PULONG place;
    CELL cell;

    if (CircuitGet(c) == MAXULONG) {                        /* pulled */
        status = STATUS_DEVICE_DOES_NOT_EXIST;
    } else if (code == IOCTL_CIRCUIT_SETUP) {
        change.Circuit = c;
        RtlCopyMemory(&change.Setup, buffer, sizeof change.Setup);
#ifdef FIXED
        KeSynchronizeExecution(c->Interrupt, CircuitApply, &change);
#else
        CircuitApply(&change);
#endif
    } else {
        RtlCopyMemory(&cell, buffer, sizeof cell);
        if (cell.Window >= c->Windows || cell.Offset % sizeof(ULONG) || cell.Offset > c->Length[cell.Window] - sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            place = (PULONG)(c->Window[cell.Window] + cell.Offset);
            if (code == IOCTL_CIRCUIT_POKE) {
                WRITE_REGISTER_ULONG(place, cell.Value);
            } else {
                cell.Value = READ_REGISTER_ULONG(place);
                RtlCopyMemory(buffer, &cell.Value, sizeof cell.Value);
                info = sizeof cell.Value;
            }
        }
    }
    GgDone(g, irp, status, info);
}

static VOID HwLimit(PGG g, PIRP irp)                        /* nothing is ever armed */
{
    GgDone(g, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in, out, mask;
    SETUP setup;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CIRCUIT_SETUP:
        if (in != sizeof setup)
            break;
        RtlCopyMemory(&setup, buffer, sizeof setup);
        if (setup.Input > 1 || setup.Enable > 1 || setup.High > 1 || setup.Edge > 1)
            break;
        return GgQueue(g, irp);
    case IOCTL_CIRCUIT_WAIT:
        if (in != sizeof mask || out < sizeof mask)
            break;
        RtlCopyMemory(&mask, buffer, sizeof mask);
        if (mask == 0 || mask > 3)
            break;
        return GgWaitsAdd(&CONTAINING_RECORD(g, CIRCUIT, Gg)->Waits, irp, mask);
    case IOCTL_CIRCUIT_PEEK:
        if (in != sizeof(CELL) || out < sizeof(ULONG))
            break;
        return GgQueue(g, irp);
    case IOCTL_CIRCUIT_POKE:
        if (in != sizeof(CELL))
            break;
        return GgQueue(g, irp);
    default:
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
}

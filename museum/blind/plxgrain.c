/*
 * plxgrain: a grain hopper's scale on a PLX 9050 board: user I/O 0 shorts the load cell, user I/O 1 opens the gate, the converter lies in the
 * board's first local space. A timer samples ten times a second and shuts the gate at the target; taring shorts the cell for 5 ms.
 *
 * The bug: taring keeps the spin lock, which it shares with the sampling DPC, while it waits with KeDelayExecutionThread for the cell to settle.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wait-at-raised-irql, irql-too-high
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_GRAIN_TARE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GRAIN_FILL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GRAIN_SHUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GRAIN_WEIGHT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a3, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CNTRL 0x50
#define USER0_IS_WAIT 0x001
#define USER0_OUT 0x002
#define USER0 0x004
#define USER1_IS_LLOCK 0x008
#define USER1_OUT 0x010
#define USER1 0x020
#define USER2 0x100             /* a board without converter: the comparator's input */
#define CONVERTER 0x00          /* in the local space */
#define GONE 0xffffffffu

#define SAMPLE_MS 100
#define SETTLE_MS 5

static const GUID GrainClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x0b } };

typedef struct {
    ULONG Weight;
    ULONG Target;
    ULONG GateOpen;
} WEIGHT;

typedef struct {
    FRAME Frame;
    volatile UCHAR *Regs, *Local;
    ULONG RegsLength, LocalLength;
    KTIMER Timer;
    KDPC Dpc;

    KSPIN_LOCK Lock;            /* of CNTRL and of what follows */
    BOOLEAN Taring;             /* the cell is shorted: samples mean nothing */
    BOOLEAN GateOpen;
    ULONG Zero, Raw, Target;
} GRAIN;

/* Sets the two outputs; FALSE when the card is gone. Lock held. */
static BOOLEAN Outputs(GRAIN *G, BOOLEAN Short, BOOLEAN Gate)
{
    ULONG cntrl = Rd(G->Regs, CNTRL);

    if (cntrl == GONE)
        return FALSE;
    cntrl &= ~(USER0_IS_WAIT | USER0 | USER1_IS_LLOCK | USER1);
    cntrl |= USER0_OUT | USER1_OUT | (Short ? USER0 : 0) | (Gate ? USER1 : 0);
    Wr(G->Regs, CNTRL, cntrl);
    G->GateOpen = Gate;
    return TRUE;
}

/* Lock held. */
static ULONG Convert(GRAIN *G)
{
    if (G->Local)
        return Rd(G->Local, CONVERTER) & 0xffff;
    return Rd(G->Regs, CNTRL) & USER2 ? 0xffff : 0;
}

static ULONG WeightOf(GRAIN *G)
{
    return G->Raw > G->Zero ? G->Raw - G->Zero : 0;
}

static void NTAPI SampleDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    GRAIN *g = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    if (!g->Taring) {
        g->Raw = Convert(g);
        if (g->GateOpen && WeightOf(g) >= g->Target)
            Outputs(g, FALSE, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
}

/* PASSIVE_LEVEL, within the gate (the frame's). */
static NTSTATUS Tare(GRAIN *G)
{
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER settle;
    KIRQL irql;

    settle.QuadPart = -10000LL * SETTLE_MS;
    KeAcquireSpinLock(&G->Lock, &irql);
    if (G->Taring) {
        status = STATUS_DEVICE_BUSY;
    } else if (!Outputs(G, TRUE, FALSE)) {
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else {
        G->Taring = TRUE;
#ifdef FIXED
        KeReleaseSpinLock(&G->Lock, irql);
#endif
        KeDelayExecutionThread(KernelMode, FALSE, &settle);
#ifdef FIXED
        KeAcquireSpinLock(&G->Lock, &irql);
#endif
        G->Zero = Convert(G);
        G->Taring = FALSE;
        if (!Outputs(G, FALSE, FALSE))
            status = STATUS_DEVICE_NOT_CONNECTED;
    }
    KeReleaseSpinLock(&G->Lock, irql);
    return status;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    GRAIN *g = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    WEIGHT *weight = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG target;
    KIRQL irql;

    status = FrameBegin(&g->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GRAIN_TARE:
        return FrameEnd(&g->Frame, Irp, Tare(g), 0);

    case IOCTL_GRAIN_FILL:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrameEnd(&g->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        target = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (target == 0 || target > 60000)
            return FrameEnd(&g->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&g->Lock, &irql);
        if (g->Taring || g->GateOpen) {
            status = STATUS_DEVICE_BUSY;
        } else {
            g->Target = target;
            if (!Outputs(g, FALSE, TRUE))
                status = STATUS_DEVICE_NOT_CONNECTED;
        }
        KeReleaseSpinLock(&g->Lock, irql);
        return FrameEnd(&g->Frame, Irp, status, 0);

    case IOCTL_GRAIN_SHUT:
        KeAcquireSpinLock(&g->Lock, &irql);
        if (g->GateOpen && !Outputs(g, FALSE, FALSE))
            status = STATUS_DEVICE_NOT_CONNECTED;
        KeReleaseSpinLock(&g->Lock, irql);
        return FrameEnd(&g->Frame, Irp, status, 0);

    case IOCTL_GRAIN_WEIGHT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WEIGHT))
            return FrameEnd(&g->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&g->Lock, &irql);
        weight->Weight = WeightOf(g);
        weight->Target = g->Target;
        weight->GateOpen = g->GateOpen;
        KeReleaseSpinLock(&g->Lock, irql);
        return FrameEnd(&g->Frame, Irp, STATUS_SUCCESS, sizeof(WEIGHT));
    }
    return FrameEnd(&g->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static void SetTimer(GRAIN *G)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * SAMPLE_MS;
    KeSetTimerEx(&G->Timer, due, SAMPLE_MS, &G->Dpc);
}

static void Unmap(GRAIN *G)
{
    if (G->Local)
        MmUnmapIoSpace((PVOID)G->Local, G->LocalLength);
    G->Local = NULL;
    MmUnmapIoSpace((PVOID)G->Regs, G->RegsLength);
    G->Regs = NULL;
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    GRAIN *g = (GRAIN *)F;
    NTSTATUS status = STATUS_SUCCESS;
    FRAME_RESOURCES r;
    KIRQL irql;

    FrameResources(Translated, &r);
    if (r.Memories == 0 || r.Memory[0].Length < CNTRL + sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    g->RegsLength = r.Memory[0].Length;
    g->Regs = MmMapIoSpace(r.Memory[0].Base, g->RegsLength, MmNonCached);
    if (!g->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (r.Memories > 1 && r.Memory[1].Length >= sizeof(ULONG)) {
        g->LocalLength = r.Memory[1].Length;
        g->Local = MmMapIoSpace(r.Memory[1].Base, g->LocalLength, MmNonCached);
        if (!g->Local) {
            Unmap(g);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    KeAcquireSpinLock(&g->Lock, &irql);
    g->Raw = g->Zero = 0;
    if (!Outputs(g, FALSE, FALSE))
        status = STATUS_DEVICE_NOT_CONNECTED;
    KeReleaseSpinLock(&g->Lock, irql);
    if (!NT_SUCCESS(status)) {
        Unmap(g);
        return status;
    }
    SetTimer(g);
    return STATUS_SUCCESS;
}

/* No one samples any more, and the gate is shut. */
static void Rest(GRAIN *G, BOOLEAN Alive)
{
    KIRQL irql;

    KeCancelTimer(&G->Timer);
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&G->Lock, &irql);
    if (Alive)
        Outputs(G, FALSE, FALSE);
    G->GateOpen = FALSE;
    KeReleaseSpinLock(&G->Lock, irql);
}

static void Stop(FRAME *F)
{
    Rest((GRAIN *)F, FrameAlive(F));
    Unmap((GRAIN *)F);
}

static void PowerDown(FRAME *F)
{
    Rest((GRAIN *)F, TRUE);
}

static void PowerUp(FRAME *F)
{
    GRAIN *g = (GRAIN *)F;
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    Outputs(g, FALSE, FALSE);
    KeReleaseSpinLock(&g->Lock, irql);
    SetTimer(g);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    GRAIN *g;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(GRAIN), &GrainClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    g = (GRAIN *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    KeInitializeSpinLock(&g->Lock);
    KeInitializeTimer(&g->Timer);
    KeInitializeDpc(&g->Dpc, SampleDpc, g);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}

/*
 * trumpet: signals through QEMU's edu card. Programs raise signal bits on the card and wait (a pending request) for the interrupts of
 * the bits they listen for; bits that none waits for are kept.
 *
 * The bug: every start of the device makes the list of the waiting requests anew, the restart after a stop for rebalancing too: who
 * waited across it is lost, and its cancellation then unlinks from a list that no longer knows it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: power
 */
#include <ddk/wdm.h>

static const GUID TrumpetGuid = { 0x5d0a2c13, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x03 } };

#define GG_GUID TrumpetGuid
#define GG_IO DO_BUFFERED_IO
#include "../include/with_waits.h"

#define IOCTL_TRUMPET_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* bits */
#define IOCTL_TRUMPET_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_READ_ACCESS)   /* bits -> those that came */

#define EDU_ID     0x00
#define EDU_LIVE   0x04
#define EDU_ISTAT  0x24
#define EDU_IRAISE 0x60
#define EDU_IACK   0x64
#define EDU_MAGIC  0x010000ed
#define WINDOW     0x1000

#define GOOD_BITS  0x7fffffff               /* all ones is what an absent card reads as */

typedef struct _TRUMPET {
    GG Gg;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile BOOLEAN Awake;                 /* the interrupt routine may touch the card */
    volatile LONG Raw;                      /* bits from the interrupt routine to the DPC */
    GG_WAITS Waits;
} TRUMPET, *PTRUMPET;

static ULONG HwSize(VOID)
{
    return sizeof(TRUMPET);
}

static ULONG TrumpetGet(PTRUMPET t, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(t->Regs + reg));
}

static VOID TrumpetPut(PTRUMPET t, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(t->Regs + reg), value);
}

/* ---- the card ------------------------------------------------------------------------------------------------------------- */

static BOOLEAN NTAPI TrumpetIsr(PKINTERRUPT interrupt, PVOID context)
{
    PTRUMPET t = context;
    ULONG bits;

    UNREFERENCED_PARAMETER(interrupt);
    if (!t->Awake)
        return FALSE;
    bits = TrumpetGet(t, EDU_ISTAT);
    if (bits == 0 || bits == MAXULONG)
        return FALSE;
    TrumpetPut(t, EDU_IACK, bits);
    InterlockedOr(&t->Raw, (LONG)bits);
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TrumpetDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PTRUMPET t = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    GgWaitsServe(&t->Waits, (ULONG)InterlockedExchange(&t->Raw, 0));
}

static BOOLEAN NTAPI TrumpetWakeUp(PVOID context)
{
    ((PTRUMPET)context)->Awake = TRUE;
    return TRUE;
}

/* Takes the card's last bits, so that it leaves the line alone, and closes the interrupt routine. */
static BOOLEAN NTAPI TrumpetQuiet(PVOID context)
{
    PTRUMPET t = context;
    ULONG bits = TrumpetGet(t, EDU_ISTAT);

    if (bits && bits != MAXULONG) {
        TrumpetPut(t, EDU_IACK, bits);
        InterlockedOr(&t->Raw, (LONG)bits);
    }
    t->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI TrumpetDeaf(PVOID context)
{
    ((PTRUMPET)context)->Awake = FALSE;
    return TRUE;
}

static NTSTATUS HwInit(PGG g)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);

    KeInitializeDpc(&t->Dpc, TrumpetDpc, t);
    return GgWaitsInit(g, &t->Waits);
}

static VOID HwFree(PGG g)
{
    UNREFERENCED_PARAMETER(g);
}

static NTSTATUS HwStart(PGG g, PGG_RES res)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);
    NTSTATUS status = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (res->Mems == 0 || res->MemLen[0] < WINDOW || !res->HaveInt)
        return status;
    t->Regs = MmMapIoSpace(res->Mem[0], WINDOW, MmNonCached);
    if (t->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifndef FIXED
    InitializeListHead(&t->Waits.List);
#endif
    TrumpetPut(t, EDU_LIVE, 0x13572468);
    if (TrumpetGet(t, EDU_ID) != EDU_MAGIC || TrumpetGet(t, EDU_LIVE) != ~0x13572468u) {
        status = STATUS_NO_SUCH_DEVICE;
        goto fail;
    }
    TrumpetPut(t, EDU_IACK, TrumpetGet(t, EDU_ISTAT));      /* what is left over from before */
    t->Awake = TRUE;
    status = GgConnect(res, &t->Interrupt, TrumpetIsr, t);
    if (NT_SUCCESS(status))
        return status;
    t->Awake = FALSE;
fail:
    MmUnmapIoSpace(t->Regs, WINDOW);
    t->Regs = NULL;
    return status;
}

static VOID HwStop(PGG g, BOOLEAN present)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);

    KeSynchronizeExecution(t->Interrupt, present ? TrumpetQuiet : TrumpetDeaf, t);
    IoDisconnectInterrupt(t->Interrupt);
    t->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(t->Regs, WINDOW);
    t->Regs = NULL;
    GgWaitsServe(&t->Waits, (ULONG)InterlockedExchange(&t->Raw, 0));
}

static VOID HwSleep(PGG g)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);

    KeSynchronizeExecution(t->Interrupt, TrumpetQuiet, t);
    GgWaitsServe(&t->Waits, (ULONG)InterlockedExchange(&t->Raw, 0));
}

static NTSTATUS HwWake(PGG g)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);

    if (TrumpetGet(t, EDU_ID) != EDU_MAGIC)
        return STATUS_NO_SUCH_DEVICE;
    KeSynchronizeExecution(t->Interrupt, TrumpetWakeUp, t);
    return STATUS_SUCCESS;
}

static VOID HwCleanup(PGG g, PFILE_OBJECT file)
{
    GgWaitsEnd(&CONTAINING_RECORD(g, TRUMPET, Gg)->Waits, file);
}

static VOID HwRun(PGG g, PIRP irp)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);
    ULONG bits;

    if (TrumpetGet(t, EDU_ID) != EDU_MAGIC) {               /* pulled */
        GgDone(g, irp, STATUS_DEVICE_DOES_NOT_EXIST, 0);
        return;
    }
    RtlCopyMemory(&bits, irp->AssociatedIrp.SystemBuffer, sizeof bits);
    TrumpetPut(t, EDU_IRAISE, bits);
    GgDone(g, irp, STATUS_SUCCESS, 0);
}

static VOID HwLimit(PGG g, PIRP irp)                        /* nothing is ever armed */
{
    GgDone(g, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    PTRUMPET t = CONTAINING_RECORD(g, TRUMPET, Gg);
    ULONG bits;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TRUMPET_RAISE:
    case IOCTL_TRUMPET_WAIT:
        break;
    default:
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof bits)
        return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
    RtlCopyMemory(&bits, irp->AssociatedIrp.SystemBuffer, sizeof bits);
    if (bits == 0 || (bits & ~GOOD_BITS))
        return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_TRUMPET_RAISE)
        return GgQueue(g, irp);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof bits)
        return GgEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
    return GgWaitsAdd(&t->Waits, irp, bits);
}

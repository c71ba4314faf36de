/*
 * conduit: reads and writes the 4096-byte buffer of QEMU's edu card by the card's DMA; the file offset is the place in the buffer.
 *
 * The bug: a read or write of no bytes is not set apart. With direct I/O such a request has no MDL, and the driver asks for the
 * system address of MDL NULL.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>

static const GUID ConduitGuid = { 0x5d0a2c14, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x04 } };

#define GG_GUID ConduitGuid
#define GG_IO DO_DIRECT_IO
#include "../include/with_waits.h"

#define EDU_ID     0x00
#define EDU_ISTAT  0x24
#define EDU_IACK   0x64
#define EDU_SOURCE 0x80
#define EDU_DEST   0x88
#define EDU_COUNT  0x90
#define EDU_CMD    0x98
#define EDU_MAGIC  0x010000ed
#define WINDOW     0x1000

#define CMD_RUN    1
#define CMD_TO_RAM 2
#define CMD_IRQ    4
#define DMA_DONE   0x100

#define CARD_BUFFER 0x40000
#define BUFFER_SIZE 4096
#define CARD_REACH  0x0fffffff              /* the card drives 28 address bits */
#define LIMIT_MS    1000                    /* a transfer takes a tenth of that */

NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID address);     /* ntddk.h has it, wdm.h not */

typedef struct _CONDUIT {
    GG Gg;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile BOOLEAN Awake;                 /* the interrupt routine may touch the card */
    KSPIN_LOCK CardLock;                    /* "is it idle" and "start" or "finish" go together */
    PUCHAR Bounce;                          /* lives until the bus driver has switched the card off for good: a transfer that */
    PHYSICAL_ADDRESS BounceAt;              /* was given up may still write to it */
} CONDUIT, *PCONDUIT;

static ULONG HwSize(VOID)
{
    return sizeof(CONDUIT);
}

static ULONG ConduitGet(PCONDUIT c, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(c->Regs + reg));
}

static VOID ConduitPut(PCONDUIT c, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(c->Regs + reg), value);
}

static BOOLEAN ConduitIsRead(PIRP irp)
{
    return IoGetCurrentIrpStackLocation(irp)->MajorFunction == IRP_MJ_READ;
}

static ULONG ConduitLength(PIRP irp)        /* Read and Write have the same layout */
{
    return IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
}

static BOOLEAN NTAPI ConduitIsr(PKINTERRUPT interrupt, PVOID context)
{
    PCONDUIT c = context;
    ULONG bits;

    UNREFERENCED_PARAMETER(interrupt);
    if (!c->Awake)
        return FALSE;
    bits = ConduitGet(c, EDU_ISTAT);
    if (bits == 0 || bits == MAXULONG)
        return FALSE;
    ConduitPut(c, EDU_IACK, bits);
    if (bits & DMA_DONE)
        KeInsertQueueDpc(&c->Dpc, NULL, NULL);
    return TRUE;
}

/* The card has finished this request. */
static VOID ConduitFinish(PCONDUIT c, PIRP irp)
{
    ULONG length = ConduitLength(irp);

    if (ConduitIsRead(irp))
        RtlCopyMemory(irp->Tail.Overlay.DriverContext[0], c->Bounce, length);
    GgDone(&c->Gg, irp, STATUS_SUCCESS, length);
}

static VOID NTAPI ConduitDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PCONDUIT c = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&c->CardLock);
    if (c->Awake && !(ConduitGet(c, EDU_CMD) & CMD_RUN))    /* else: the late interrupt of an earlier one */
        irp = GgTake(&c->Gg);
    KeReleaseSpinLockFromDpcLevel(&c->CardLock);
    if (irp)
        ConduitFinish(c, irp);
}

static VOID HwLimit(PGG g, PIRP irp)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);

    if (!(ConduitGet(c, EDU_CMD) & CMD_RUN))                /* done, its interrupt was lost (all ones is not "done") */
        ConduitFinish(c, irp);
    else
        GgDone(g, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID HwRun(PGG g, PIRP irp)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG length = sp->Parameters.Read.Length;
    ULONG place = CARD_BUFFER + sp->Parameters.Read.ByteOffset.LowPart;
    BOOLEAN read = ConduitIsRead(irp);
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&c->CardLock, &irql);
    if (ConduitGet(c, EDU_ID) != EDU_MAGIC) {
        status = STATUS_DEVICE_DOES_NOT_EXIST;
    } else if (ConduitGet(c, EDU_CMD) & CMD_RUN) {          /* still at one that was given up; it cannot be stopped */
        status = STATUS_DEVICE_BUSY;
    } else {
        if (!read)
            RtlCopyMemory(c->Bounce, irp->Tail.Overlay.DriverContext[0], length);
        GgArm(g, irp, LIMIT_MS);
        ConduitPut(c, EDU_SOURCE, read ? place : c->BounceAt.LowPart);
        ConduitPut(c, EDU_DEST, read ? c->BounceAt.LowPart : place);
        ConduitPut(c, EDU_COUNT, length);
        ConduitPut(c, EDU_CMD, CMD_RUN | CMD_IRQ | (read ? CMD_TO_RAM : 0));
    }
    KeReleaseSpinLock(&c->CardLock, irql);
    if (!NT_SUCCESS(status))
        GgDone(g, irp, status, 0);
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    ULONG length = sp->Parameters.Read.Length;
    LONGLONG place = sp->Parameters.Read.ByteOffset.QuadPart;
    PVOID address;

    if (sp->MajorFunction != IRP_MJ_READ && sp->MajorFunction != IRP_MJ_WRITE)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (place < 0 || place > BUFFER_SIZE || length > BUFFER_SIZE - (ULONG)place)
        return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
#ifdef FIXED
    if (length == 0)
        return GgEnd(irp, STATUS_SUCCESS, 0);
#endif
    address = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (address == NULL)
        return GgEnd(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    irp->Tail.Overlay.DriverContext[0] = address;
    return GgQueue(g, irp);
}

static VOID HwCleanup(PGG g, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(g);
    UNREFERENCED_PARAMETER(file);
}

/* ---- start, stop, sleep --------------------------------------------------------------------------------------------------- */

static BOOLEAN NTAPI ConduitWakeUp(PVOID context)
{
    ((PCONDUIT)context)->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI ConduitQuiet(PVOID context)            /* the card lets go of the line */
{
    PCONDUIT c = context;
    ULONG bits = ConduitGet(c, EDU_ISTAT);

    if (bits && bits != MAXULONG)
        ConduitPut(c, EDU_IACK, bits);
    c->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI ConduitDeaf(PVOID context)
{
    ((PCONDUIT)context)->Awake = FALSE;
    return TRUE;
}

static VOID ConduitSettle(PCONDUIT c)       /* a transfer that was given up may come to its end, if it has one */
{
    LARGE_INTEGER wait;
    ULONG i;

    wait.QuadPart = -10 * 10000;
    for (i = 0; i < LIMIT_MS / 10 && (ConduitGet(c, EDU_CMD) & CMD_RUN); i++)
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
}

static NTSTATUS HwInit(PGG g)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);
    PHYSICAL_ADDRESS low, high, none;

    KeInitializeSpinLock(&c->CardLock);
    KeInitializeDpc(&c->Dpc, ConduitDpc, c);
    low.QuadPart = 0;
    none.QuadPart = 0;
    high.QuadPart = CARD_REACH;
    c->Bounce = MmAllocateContiguousMemorySpecifyCache(BUFFER_SIZE, low, high, none, MmCached);
    if (c->Bounce == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c->Bounce, BUFFER_SIZE);
    c->BounceAt = MmGetPhysicalAddress(c->Bounce);
    if (c->BounceAt.QuadPart > CARD_REACH + 1 - BUFFER_SIZE) {
        MmFreeContiguousMemorySpecifyCache(c->Bounce, BUFFER_SIZE, MmCached);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static VOID HwFree(PGG g)
{
    MmFreeContiguousMemorySpecifyCache(CONTAINING_RECORD(g, CONDUIT, Gg)->Bounce, BUFFER_SIZE, MmCached);
}

static NTSTATUS HwStart(PGG g, PGG_RES res)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);
    NTSTATUS status = STATUS_NO_SUCH_DEVICE;

    if (res->Mems == 0 || res->MemLen[0] < WINDOW || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    c->Regs = MmMapIoSpace(res->Mem[0], WINDOW, MmNonCached);
    if (c->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (ConduitGet(c, EDU_ID) == EDU_MAGIC) {
        ConduitPut(c, EDU_IACK, ConduitGet(c, EDU_ISTAT));
        c->Awake = TRUE;
        status = GgConnect(res, &c->Interrupt, ConduitIsr, c);
        if (NT_SUCCESS(status))
            return status;
        c->Awake = FALSE;
    }
    MmUnmapIoSpace(c->Regs, WINDOW);
    c->Regs = NULL;
    return status;
}

static VOID HwStop(PGG g, BOOLEAN present)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);

    if (present)
        ConduitSettle(c);
    KeSynchronizeExecution(c->Interrupt, present ? ConduitQuiet : ConduitDeaf, c);
    IoDisconnectInterrupt(c->Interrupt);
    c->Interrupt = NULL;
    KeCancelTimer(&g->Timer);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(c->Regs, WINDOW);
    c->Regs = NULL;
}

static VOID HwSleep(PGG g)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);

    ConduitSettle(c);
    KeSynchronizeExecution(c->Interrupt, ConduitQuiet, c);
    KeFlushQueuedDpcs();
}

static NTSTATUS HwWake(PGG g)
{
    PCONDUIT c = CONTAINING_RECORD(g, CONDUIT, Gg);

    if (ConduitGet(c, EDU_ID) != EDU_MAGIC)
        return STATUS_NO_SUCH_DEVICE;
    KeSynchronizeExecution(c->Interrupt, ConduitWakeUp, c);
    return STATUS_SUCCESS;
}

/*
 * cardspool: copies what applications write, up to 1 MiB at a time, to a plotter card in pieces as long as its window. BAR0 (32 bits each):
 * 00 identity; 04 status, bit 0 ready for a piece; 08 takes the length of a piece that is in the window. BAR1: the window, 4 KiB or more.
 *
 * The bug: the partial MDL that maps a piece is built anew for the next without being prepared for it, so the mapping of each piece but
 * the last is lost, and the system's room for mappings leaks away.
 *
 * Device: PCI\VEN_1DA7&DEV_0A13
 * Rule: mdl-rebuilt-mapped
 * Needs: ioctl, device
 */
#include "../include/bay_own.h"

#define R_STATUS 0x04u
#define R_LENGTH 0x08u

#define MOST (1024u * 1024u)
#define PIECE (64u * 1024u)

typedef struct CARD {
    AF_OWN own;
    KEVENT turn;
    ULONG piece;                                /* whole pages */
} CARD;

static const GUID Guid = { 0xaf01000e, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x0e } };

static NTSTATUS Init(AF_DEVICE *af)
{
    KeInitializeEvent(&((CARD *)af)->turn, SynchronizationEvent, TRUE);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfOwnMap(&card->own, list, R_LENGTH + sizeof(ULONG), PAGE_SIZE);

    if (!NT_SUCCESS(status))
        return status;
    card->piece = card->own.windowLength < PIECE ? card->own.windowLength & ~(ULONG)(PAGE_SIZE - 1) : PIECE;
    return STATUS_SUCCESS;
}

static void Stop(AF_DEVICE *af)
{
    AfOwnUnmap(&((CARD *)af)->own);
}

static NTSTATUS AwaitReady(CARD *card)
{
    LARGE_INTEGER delay;
    ULONG i;

    delay.QuadPart = -100000;
    for (i = 0; i < 10; ++i) {
        ULONG status = AfRead32(card->own.regs, R_STATUS);

        if (status == 0xFFFFFFFF)
            return STATUS_DEVICE_DOES_NOT_EXIST;
        if (status & 1)
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &delay);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS Copy(CARD *card, IRP *irp, ULONG length, ULONG *done)
{
    PUCHAR address = MmGetMdlVirtualAddress(irp->MdlAddress);
    MDL *partial = IoAllocateMdl(address, length < card->piece ? length : card->piece, FALSE, FALSE, NULL);
    ULONGLONG limit = KeQueryInterruptTime() + 20000000;
    NTSTATUS status = STATUS_SUCCESS;

    if (!partial)
        return STATUS_INSUFFICIENT_RESOURCES;
    while (*done < length) {
        ULONG now = length - *done < card->piece ? length - *done : card->piece, i;
        const UCHAR *from;

        status = KeQueryInterruptTime() >= limit ? STATUS_IO_TIMEOUT : irp->Cancel ? STATUS_CANCELLED : AwaitReady(card);
        if (!NT_SUCCESS(status))
            break;
        IoBuildPartialMdl(irp->MdlAddress, partial, address + *done, now);
        from = MmGetSystemAddressForMdlSafe(partial, NormalPagePriority);
        if (!from) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        for (i = 0; i < now; i += sizeof(ULONG)) {
            ULONG value;

            RtlCopyMemory(&value, from + i, sizeof value);
            AfWrite32(card->own.window, i, value);
        }
#ifdef FIXED
        MmPrepareMdlForReuse(partial);
#endif
        AfWrite32(card->own.regs, R_LENGTH, now);
        *done += now;
    }
    IoFreeMdl(partial);
    return status;
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    ULONG length, done = 0;
    NTSTATUS status;

    if (stack->MajorFunction != IRP_MJ_WRITE) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    length = stack->Parameters.Write.Length;
    if (length == 0 || length > MOST || length % sizeof(ULONG) || !irp->MdlAddress) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    KeWaitForSingleObject(&card->turn, Executive, KernelMode, FALSE, NULL);
    status = Copy(card, irp, length, &done);
    KeSetEvent(&card->turn, IO_NO_INCREMENT, FALSE);
    AfFinish(af, irp, status, NT_SUCCESS(status) ? done : 0);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_DIRECT_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}

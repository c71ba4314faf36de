/*
 * curlew: a digitizer behind the chip's first local space. Its FIFO holds up to 64 words; a register says how many there are, another
 * gives the next one. The first local interrupt input says that there are some. A read takes the words that are there, or waits.
 *
 * The bug: as many words are taken out of the FIFO as the board's register says, without regard to the 64 for which the driver has
 * room. A board that says more, or none at all as it has been pulled, has the driver write past its buffer.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write, device-object-damaged, bad-pointer, write-after-free
 * Needs: ioctl, device
 */
#include "../include/site_frame.h"
#include "../include/site_plx.h"

DEFINE_GUID(GUID_CURLEW, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x0A);

#define IOCTL_CURLEW_LEVEL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA91, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CURLEW_DISCARD CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA92, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BOARD_LEVEL 0x00        /* words in the FIFO */
#define BOARD_DATA  0x04        /* the next one */
#define FIFO_WORDS  64u

typedef struct CURLEW {
    PLX Plx;
    WINDOW Board;
    ULONG First;                /* under Plx.Lock, as all that follows: the next word of Words */
    ULONG Held;                 /* words that are there */
    ULONG Words[FIFO_WORDS];
} CURLEW;

/* With the lock: if all words are given away, takes those out of the board's FIFO. */
static VOID CurlewFill(CURLEW *curlew)
{
    ULONG level, i;

    if (!curlew->Plx.Up || curlew->Held != 0)
        return;
    level = Get32(&curlew->Board, BOARD_LEVEL);
#ifdef FIXED
    if (level == ~0u)
        return;                 /* no one there */
    if (level > FIFO_WORDS)
        level = FIFO_WORDS;
#endif
    for (i = 0; i < level; ++i)
        curlew->Words[i] = Get32(&curlew->Board, BOARD_DATA);
    curlew->First = 0;
    curlew->Held = level;
}

/* With the lock: gives words to a read. Returns bytes. */
static ULONG CurlewGive(CURLEW *curlew, PVOID to, ULONG bytes)
{
    ULONG words = bytes / sizeof(ULONG);

    if (words > curlew->Held)
        words = curlew->Held;
    RtlCopyMemory(to, curlew->Words + curlew->First, words * sizeof(ULONG));
    curlew->First += words;
    curlew->Held -= words;
    return words * sizeof(ULONG);
}

static VOID NTAPI CurlewDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    CURLEW *curlew = context;
    SITE *site = &curlew->Plx.Site;
    LIST_ENTRY done;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    InitializeListHead(&done);
    InterlockedExchange(&curlew->Plx.Fired, 0);
    KeAcquireSpinLockAtDpcLevel(&curlew->Plx.Lock);
    for (;;) {
        CurlewFill(curlew);
        irp = curlew->Held != 0 ? LaneTake(&site->Waiting, NULL) : NULL;
        if (irp == NULL)
            break;
        irp->IoStatus.Information = CurlewGive(curlew, irp->AssociatedIrp.SystemBuffer,
            IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLockFromDpcLevel(&curlew->Plx.Lock);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        Finish(site, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
}

static NTSTATUS CurlewRead(CURLEW *curlew, ASK *ask)
{
    SITE *site = &curlew->Plx.Site;
    BOOLEAN there = TRUE;
    ULONG bytes = 0;
    KIRQL irql;

    if (ask->Out < sizeof(ULONG))
        return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&curlew->Plx.Lock, &irql);
    CurlewFill(curlew);
    if (curlew->Held != 0) {
        bytes = CurlewGive(curlew, ask->Buffer, ask->Out);
    } else {
        KeAcquireSpinLockAtDpcLevel(&site->WaitingLock);
        there = LanePutLocked(&site->Waiting, ask->Irp);
        KeReleaseSpinLockFromDpcLevel(&site->WaitingLock);
    }
    KeReleaseSpinLock(&curlew->Plx.Lock, irql);
    if (bytes != 0)
        return Finish(site, ask->Irp, STATUS_SUCCESS, bytes);
    if (!there)
        Finish(site, ask->Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS CurlewServe(SITE *site, ASK *ask)
{
    CURLEW *curlew = (CURLEW *)site;
    ULONG level;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ)
        return CurlewRead(curlew, ask);
    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_CURLEW_LEVEL:
        if (ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&curlew->Plx.Lock, &irql);
        level = curlew->Held;
        KeReleaseSpinLock(&curlew->Plx.Lock, irql);
        *(PULONG)ask->Buffer = level;
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_CURLEW_DISCARD:
        KeAcquireSpinLock(&curlew->Plx.Lock, &irql);
        CurlewFill(curlew);
        curlew->Held = 0;
        KeReleaseSpinLock(&curlew->Plx.Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* Behind PlxUp: words may be there of which no edge has come. */
static VOID CurlewUp(CURLEW *curlew)
{
    PlxUp(&curlew->Plx, INT1_ON);
    KeInsertQueueDpc(&curlew->Plx.Dpc, NULL, NULL);
}

static NTSTATUS CurlewBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    CURLEW *curlew = (CURLEW *)site;
    NTSTATUS status = WindowMap(&curlew->Board, resources, 1, 8);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxMap(&curlew->Plx, resources, PlxClaim);
    if (!NT_SUCCESS(status)) {
        WindowUnmap(&curlew->Board);
        return status;
    }
    CurlewUp(curlew);
    return STATUS_SUCCESS;
}

static VOID CurlewEnd(SITE *site, BOOLEAN live)
{
    CURLEW *curlew = (CURLEW *)site;

    PlxDown(&curlew->Plx, live);
    PlxUnmap(&curlew->Plx);
    WindowUnmap(&curlew->Board);
}

static VOID CurlewSleep(SITE *site)
{
    PlxDown(&((CURLEW *)site)->Plx, TRUE);
}

static VOID CurlewWake(SITE *site)
{
    CurlewUp((CURLEW *)site);
}

static NTSTATUS CurlewBorn(SITE *site)
{
    PlxBorn(&((CURLEW *)site)->Plx, CurlewDpc);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(CURLEW),
    .Interface = &GUID_CURLEW,
    .Born = CurlewBorn,
    .Begin = CurlewBegin,
    .End = CurlewEnd,
    .Sleep = CurlewSleep,
    .Wake = CurlewWake,
    .Serve = CurlewServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

/*
 * calotype: keeps a picture of 4096 bytes in the memory of the card. Programs read and write it at any place; the card moves the bytes by DMA to and from
 * a plate, a common buffer of one page. One request is at work, all others wait for it.
 *
 * The bug: the request that the card works on can be cancelled, and what completes it then frees the card for the next one, although the transfer goes on: the
 * next start is ignored, and a stop that believes the card idle frees the plate which the card still reads or writes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored, wild-dma, dma-after-unmap, write-after-free
 * Needs: ioctl, cancel, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_edu.h"

static const GUID CaloClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x01}};

typedef struct CALO {
    HULL Hull;
    EDU Edu;
    PLATE Plate;
    PEN Bench;                  /* the request that the card works on */
    KSPIN_LOCK Lock;
    BOOLEAN Exposing;           /* the card moves bytes */
    BOOLEAN Reading;
    ULONG Count;
} CALO;

static BOOLEAN CaloExposed(CALO *x)
{
    BOOLEAN was;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    was = x->Exposing;
    x->Exposing = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
    return was;
}

static BOOLEAN CaloIsExposing(CALO *x)
{
    BOOLEAN is;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    is = x->Exposing;
    KeReleaseSpinLock(&x->Lock, irql);
    return is;
}

/* The transfer is over: the request gets what came of it, if it still waits. */
static VOID CaloEnd(CALO *x, NTSTATUS Status)
{
    PIRP irp;

    if (!CaloExposed(x))
        return;
    irp = PenTake(&x->Bench, NULL);
    if (irp) {
        if (NT_SUCCESS(Status) && x->Reading)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Plate.At, x->Count);
        HullReply(&x->Hull, irp, Status, NT_SUCCESS(Status) ? x->Count : 0);
    }
    HullReady(&x->Hull);
}

static VOID CaloAnswer(PVOID Owner, ULONG Causes)
{
    if (Causes & EDU_CAUSE_DMA)
        CaloEnd(Owner, STATUS_SUCCESS);
}

/* The request on the bench was cancelled, or its file is closed. */
static VOID CaloFinish(PVOID Keeper, PIRP Irp, NTSTATUS Status)
{
    CALO *x = Keeper;
#ifndef FIXED
    BOOLEAN was = CaloExposed(x);

    if (was)
        HullReady(&x->Hull);
#endif
    HullReply(&x->Hull, Irp, Status, 0);
}

static VOID CaloBegin(HULL *h, PIRP Irp)
{
    CALO *x = (CALO *)h;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN reading = sl->MajorFunction == IRP_MJ_READ;
    ULONG place = (ULONG)sl->Parameters.Read.ByteOffset.QuadPart;
    ULONG count = min(sl->Parameters.Read.Length, EDU_MEMORY_SIZE - place);
    KIRQL irql;

    if (HoleGet(&x->Edu.Regs, EDU_ID) == ~0u) {
        HullReply(h, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        HullReady(h);
        return;
    }
    if (!reading)
        RtlCopyMemory(x->Plate.At, Irp->AssociatedIrp.SystemBuffer, count);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Reading = reading;
    x->Count = count;
    x->Exposing = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    PenAdd(&x->Bench, Irp);             /* it may be gone now */
    if (reading)
        EduMove(&x->Edu, EDU_MEMORY + place, x->Plate.Bus.LowPart, count, TRUE);
    else
        EduMove(&x->Edu, x->Plate.Bus.LowPart, EDU_MEMORY + place, count, FALSE);
}

static NTSTATUS CaloAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    LONGLONG place = Sl->Parameters.Read.ByteOffset.QuadPart;

    (void)Info;
    if (Sl->MajorFunction == IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (place < 0)
        return STATUS_INVALID_PARAMETER;
    if (!Sl->Parameters.Read.Length)
        return STATUS_SUCCESS;
    if (place >= EDU_MEMORY_SIZE)
        return Sl->MajorFunction == IRP_MJ_READ ? STATUS_END_OF_FILE : STATUS_DISK_FULL;
    return HullSail(h, Irp);
}

static NTSTATUS CaloLay(HULL *h)
{
    CALO *x = (CALO *)h;

    KeInitializeSpinLock(&x->Lock);
    PenMake(&x->Bench, CaloFinish, x);
    return STATUS_SUCCESS;
}

static NTSTATUS CaloRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    CALO *x = (CALO *)h;
    NTSTATUS status = PlateMake(&x->Plate, h->Pdo);

    if (!NT_SUCCESS(status))
        return status;
    status = EduRise(&x->Edu, Resources, CaloAnswer, x);
    if (!NT_SUCCESS(status))
        PlateFree(&x->Plate);
    return status;
}

/* A transfer cannot be called off, so it is waited for as long as there is a card. */
static VOID CaloStill(HULL *h, BOOLEAN touch)
{
    CALO *x = (CALO *)h;
    NTSTATUS status = STATUS_DEVICE_NOT_CONNECTED;

    if (touch) {
        while (CaloIsExposing(x)) {
            ULONG command = HoleGet(&x->Edu.Regs, EDU_DMA_COMMAND);

            if (command == ~0u)
                break;
            if (!(command & EDU_DMA_GO)) {
                status = STATUS_SUCCESS;
                break;
            }
            EduRest(10);
        }
        EduHush(&x->Edu);
    }
    CaloEnd(x, status);
}

static VOID CaloSink(HULL *h, BOOLEAN touch)
{
    CALO *x = (CALO *)h;

    EduSink(&x->Edu, touch);
    PlateFree(&x->Plate);
}

static VOID CaloDoze(HULL *h)
{
    BellMute(&((CALO *)h)->Edu.Bell);
}

static VOID CaloWake(HULL *h)
{
    BellUnmute(&((CALO *)h)->Edu.Bell);
}

static VOID CaloDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    PenDrain(&((CALO *)h)->Bench, File, Status);
}

static const HULL_PLAN CaloPlan = {
    .Room = sizeof(CALO), .Class = &CaloClass, .Patience = 200,
    .Lay = CaloLay, .Rise = CaloRise, .Sink = CaloSink, .Still = CaloStill, .Doze = CaloDoze, .Wake = CaloWake,
    .Drop = CaloDrop, .Ask = CaloAsk, .Begin = CaloBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &CaloPlan);
}

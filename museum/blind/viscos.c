/*
 * viscos: a viscosimeter on a card that computes by itself (QEMU's edu; what it computes is a factorial) and interrupts when it
 * has finished. Requests wait their turn in a rack, the one that the card works at in another, so all can be cancelled.
 *
 * The bug: when the device leaves D0 the request that the card was working at stays where it is, as if the card went on with it
 * afterwards; it has lost it with its power, no interrupt comes, and neither this request nor those behind it ever end.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, request-forgotten, request-timed-out
 * Needs: ioctl, power
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_LIVENESS 0x04
#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define REG_CAUSE 0x24
#define REG_ACK 0x64
#define STATUS_COMPUTING 0x01
#define STATUS_INTERRUPTS 0x80
#define ALL_ONES 0xFFFFFFFF

#define IOCTL_VISC_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_VISC_ALIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _VISCOS {
    PLUG Plug;
    CARD Card;
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* of what follows, and of the card's registers but for those of the interrupt */
    RACK Waiting;
    RACK Working;               /* one request at most: it may be cancelled while the card works on */
    BOOLEAN Down;
    BOOLEAN Busy;
} VISCOS;

static const GUID ViscInterface = { 0x6a3f5b04, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x04 } };

static BOOLEAN ViscServe(PVOID Owner)
{
    VISCOS *visc = Owner;
    ULONG cause = CardRead(&visc->Card, REG_CAUSE);

    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    CardWrite(&visc->Card, REG_ACK, cause);
    (VOID)CardRead(&visc->Card, REG_CAUSE);
    KeInsertQueueDpc(&visc->Dpc, NULL, NULL);
    return TRUE;
}

static VOID ViscSilence(CARD *Card)
{
    CardWrite(Card, REG_STATUS, 0);
    CardWrite(Card, REG_ACK, CardRead(Card, REG_CAUSE));
    (VOID)CardRead(Card, REG_CAUSE);
}

static BOOLEAN NTAPI ViscMute(PVOID Context)
{
    VISCOS *visc = Context;

    ViscSilence(&visc->Card);
    visc->Card.Live = FALSE;
    return TRUE;
}

/* Hands the card the next request that no one cancels. */
static VOID ViscNext(VISCOS *Visc)
{
    for (;;) {
        PIRP irp = NULL, lost = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&Visc->Lock, &irql);
        if (!Visc->Down && !Visc->Busy)
            irp = RackTakeLocked(&Visc->Waiting, NULL);
        if (irp != NULL) {
            ULONG number = *(ULONG *)irp->AssociatedIrp.SystemBuffer;

            if (RackAddLocked(&Visc->Working, irp, FALSE)) {
                Visc->Busy = TRUE;
                CardWrite(&Visc->Card, REG_FACTORIAL, number);
            } else {
                lost = irp;
            }
        }
        KeReleaseSpinLock(&Visc->Lock, irql);
        if (lost == NULL)
            return;
        PlugFinish(&Visc->Plug, lost, STATUS_CANCELLED, 0);
    }
}

static VOID NTAPI ViscDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    VISCOS *visc = Context;
    PIRP irp = NULL;
    ULONG value = 0;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&visc->Lock, &irql);
    if (!visc->Down && visc->Busy && !(CardRead(&visc->Card, REG_STATUS) & STATUS_COMPUTING)) {
        visc->Busy = FALSE;
        value = CardRead(&visc->Card, REG_FACTORIAL);
        irp = RackTakeLocked(&visc->Working, NULL);
    }
    KeReleaseSpinLock(&visc->Lock, irql);
    if (irp != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = value;
        PlugFinish(&visc->Plug, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    ViscNext(visc);
}

/* The card inverts what is written to one of its registers. */
static BOOLEAN ViscAlive(VISCOS *Visc)
{
    ULONG asked = 0x5AA50FF0, said;
    KIRQL irql;

    KeAcquireSpinLock(&Visc->Lock, &irql);
    CardWrite(&Visc->Card, REG_LIVENESS, asked);
    said = CardRead(&Visc->Card, REG_LIVENESS);
    KeReleaseSpinLock(&Visc->Lock, irql);
    return said == ~asked;
}

static NTSTATUS ViscRequest(PLUG *Plug, PIRP Irp)
{
    VISCOS *visc = (VISCOS *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VISC_COMPUTE:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer > 1000)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        (VOID)RackAdd(&visc->Waiting, Irp);
        ViscNext(visc);
        return STATUS_PENDING;
    case IOCTL_VISC_ALIVE:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = ViscAlive(visc);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* The request that the card works at goes back to the head of those that wait, to be begun again. */
static VOID ViscTakeBack(VISCOS *Visc)
{
    PIRP irp;
    BOOLEAN stands = TRUE;
    KIRQL irql;

    KeAcquireSpinLock(&Visc->Lock, &irql);
    Visc->Down = TRUE;
    Visc->Busy = FALSE;
    irp = RackTakeLocked(&Visc->Working, NULL);
    if (irp != NULL)
        stands = RackAddLocked(&Visc->Waiting, irp, TRUE);
    KeReleaseSpinLock(&Visc->Lock, irql);
    if (!stands)
        PlugFinish(&Visc->Plug, irp, STATUS_CANCELLED, 0);
}

static VOID ViscAwake(VISCOS *Visc)
{
    KIRQL irql;

    CardLive(&Visc->Card, TRUE);
    KeAcquireSpinLock(&Visc->Lock, &irql);
    CardWrite(&Visc->Card, REG_STATUS, STATUS_INTERRUPTS);
    Visc->Down = FALSE;
    /* of a request that was taken back, if the card kept its power; its interrupt comes, and starts the next */
    if (!Visc->Busy)
        Visc->Busy = (CardRead(&Visc->Card, REG_STATUS) & STATUS_COMPUTING) != 0;
    KeReleaseSpinLock(&Visc->Lock, irql);
}

static NTSTATUS ViscAdded(PLUG *Plug)
{
    VISCOS *visc = (VISCOS *)Plug;

    KeInitializeSpinLock(&visc->Lock);
    RackInit(&visc->Waiting, &visc->Lock, PlugDrop, Plug);
    RackInit(&visc->Working, &visc->Lock, PlugDrop, Plug);
    KeInitializeDpc(&visc->Dpc, ViscDpc, visc);
    visc->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS ViscBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    VISCOS *visc = (VISCOS *)Plug;
    NTSTATUS status = CardMap(&visc->Card, Translated, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    ViscSilence(&visc->Card);
    status = CardConnect(&visc->Card, Translated, ViscServe, visc);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&visc->Card);
        return status;
    }
    ViscAwake(visc);
    return STATUS_SUCCESS;
}

static VOID ViscHalt(PLUG *Plug, BOOLEAN Reachable)
{
    VISCOS *visc = (VISCOS *)Plug;

    ViscTakeBack(visc);
    if (Reachable)
        KeSynchronizeExecution(visc->Card.Line, ViscMute, visc);
    else
        CardLive(&visc->Card, FALSE);
    KeFlushQueuedDpcs();
    CardDisconnect(&visc->Card);
    CardUnmap(&visc->Card);
}

static VOID ViscDoze(PLUG *Plug)
{
    VISCOS *visc = (VISCOS *)Plug;
#ifndef FIXED
    KIRQL irql;

    KeAcquireSpinLock(&visc->Lock, &irql);
    visc->Down = TRUE;
    KeReleaseSpinLock(&visc->Lock, irql);
#else
    ViscTakeBack(visc);
#endif
    KeSynchronizeExecution(visc->Card.Line, ViscMute, visc);
    KeFlushQueuedDpcs();
}

static VOID ViscRouse(PLUG *Plug)
{
    ViscAwake((VISCOS *)Plug);
}

static VOID ViscGo(PLUG *Plug)
{
    ViscNext((VISCOS *)Plug);
}

static VOID ViscFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((VISCOS *)Plug)->Waiting, File, Status);
    RackClear(&((VISCOS *)Plug)->Working, File, Status);
}

static const PLUG_ROLE ViscRole = {
    .Size = sizeof(VISCOS), .Flags = DO_BUFFERED_IO, .Interface = &ViscInterface,
    .Added = ViscAdded, .Begin = ViscBegin, .Halt = ViscHalt, .Doze = ViscDoze, .Rouse = ViscRouse, .Go = ViscGo,
    .Request = ViscRequest, .Flush = ViscFlush,
};

static NTSTATUS NTAPI ViscAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &ViscRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, ViscAdd);
}

/*
 * edumoss: uses QEMU's educational card as a bell board: programs raise its interrupts, and the driver keeps which came, with the time, in a history that
 * programs can have.
 *
 * The bug: if there is no memory for the history, the start fails with the interrupt still connected: no one disconnects it any more, and the device is
 * deleted with it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-still-connected
 * Needs: failure
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_edu.h"

#define TAG         'ssoM'
#define KEPT        128
#define BELLS       0x00FFFF00u     /* the causes that programs may raise */

#define IOCTL_MOSS_RING     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MOSS_CLEAR    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID MossFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x04 } };

typedef struct _RUNG {
    ULONGLONG Time;
    ULONG Causes, Number;
} RUNG;

typedef struct _DEV {
    FRAME F;
    volatile LONG Causes;       /* from the service routine to the DPC */
    ULONG Number, Count;        /* F.Lock */
    RUNG *History;              /* KEPT of them; F.Lock, there while the card is up */
} DEV, *PDEV;

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    PDEV d = (PDEV)F;
    NTSTATUS status = FrameClaim(F, Translated);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    status = EduCheck(F);
    if (NT_SUCCESS(status))
        status = FrameConnect(F);
    if (!NT_SUCCESS(status)) {
        FrameRelease(F);
        return status;
    }
    d->History = ExAllocatePoolWithTag(NonPagedPool, KEPT * sizeof(RUNG), TAG);
    if (!d->History) {
#ifdef FIXED
        FrameDisconnect(F);
#endif
        FrameRelease(F);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeAcquireSpinLock(&F->Lock, &irql);
    d->Count = 0;
    KeReleaseSpinLock(&F->Lock, irql);
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    PDEV d = (PDEV)F;

    FrameDown(F, Gone);
    ExFreePoolWithTag(d->History, TAG);
    d->History = NULL;
    FrameRelease(F);
}

static BOOLEAN Isr(PFRAME F)
{
    ULONG causes = EduCauses(F);

    if (causes == 0)
        return FALSE;
    InterlockedOr(&((PDEV)F)->Causes, (LONG)causes);
    KeInsertQueueDpc(&F->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Dpc(PFRAME F)
{
    PDEV d = (PDEV)F;
    ULONG causes = (ULONG)InterlockedExchange(&d->Causes, 0);
    LARGE_INTEGER now;

    if (causes == 0)
        return;
    KeQuerySystemTime(&now);
    KeAcquireSpinLockAtDpcLevel(&F->Lock);
    if (F->Up) {
        RUNG *rung = &d->History[d->Number % KEPT];

        rung->Time = (ULONGLONG)now.QuadPart;
        rung->Causes = causes;
        rung->Number = d->Number++;
        if (d->Count < KEPT)
            d->Count++;
    }
    KeReleaseSpinLockFromDpcLevel(&F->Lock);
}

static NTSTATUS Ring(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    ULONG bells;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    bells = *(PULONG)Irp->AssociatedIrp.SystemBuffer & BELLS;
    if (bells == 0)
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        EduWr(F, EDU_RAISE, bells);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, 0);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    KIRQL irql;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MOSS_RING:
        return Ring(F, Irp, Stack);
    case IOCTL_MOSS_CLEAR:
        KeAcquireSpinLock(&F->Lock, &irql);
        ((PDEV)F)->Count = 0;
        KeReleaseSpinLock(&F->Lock, irql);
        return Ends(Irp, STATUS_SUCCESS, 0);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* The history, the newest first, as much as there is room for. */
static NTSTATUS Read(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;
    RUNG *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = Stack->Parameters.Read.Length / sizeof(RUNG), n = 0;
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (F->Up) {
        for (; n < room && n < d->Count; n++)
            out[n] = d->History[(d->Number - 1 - n) % KEPT];
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, n * sizeof(RUNG));
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &MossFace,
    .Start = Start,
    .Stop = Stop,
    .Isr = Isr,
    .Listen = EduListen,
    .Dpc = Dpc,
    .Read = Read,
    .Control = Control,
};

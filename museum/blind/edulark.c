/*
 * edulark: has QEMU's educational card compute factorials for programs, one after the other; requests wait while it is stopped for new resources or sleeps.
 *
 * The bug: which resources the card has is looked up at the first start only, and kept: if they are others when it is started again after a stop, the
 * driver maps addresses and connects an interrupt that are not its own any more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stale-resource-used
 * Needs: nothing
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_edu.h"

#define IOCTL_LARK_FACTORIAL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LARK_ALIVE        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID LarkFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x03 } };

/* What the card was given. */
typedef struct _PLACE {
    BOOLEAN Known;
    PHYSICAL_ADDRESS Base;
    ULONG Length;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
    BOOLEAN Shared;
} PLACE;

typedef struct _DEV {
    FRAME F;
    EDU_FACT Fact;              /* F.Lock */
    PLACE Place;
} DEV, *PDEV;

static NTSTATUS Survey(PLACE *Place, PCM_RESOURCE_LIST Translated)
{
    BOOLEAN memory = FALSE, line = FALSE;
    PCM_PARTIAL_RESOURCE_LIST list;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    if (!Translated || Translated->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    list = &Translated->List[0].PartialResourceList;
    d = list->PartialDescriptors;
    for (i = 0; i < list->Count; i++, d++) {
        if (d->Type == CmResourceTypeMemory && !memory) {
            memory = TRUE;
            Place->Base = d->u.Memory.Start;
            Place->Length = d->u.Memory.Length;
        } else if (d->Type == CmResourceTypeInterrupt && !line) {
            line = TRUE;
            Place->Vector = d->u.Interrupt.Vector;
            Place->Level = (KIRQL)d->u.Interrupt.Level;
            Place->Affinity = d->u.Interrupt.Affinity;
            Place->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
            Place->Shared = d->ShareDisposition == CmResourceShareShared;
        }
    }
    Place->Known = memory && line;
    return Place->Known ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

static NTSTATUS Settle(PFRAME F, const PLACE *Place)
{
    WINDOW *w = &F->Window[0];

    w->Start = Place->Base;
    w->Length = Place->Length;
    w->Port = FALSE;
    w->At = MmMapIoSpace(w->Start, w->Length, MmNonCached);
    if (!w->At)
        return STATUS_INSUFFICIENT_RESOURCES;
    F->Windows = 1;
    F->HasLine = TRUE;
    F->Vector = Place->Vector;
    F->Level = Place->Level;
    F->Affinity = Place->Affinity;
    F->Mode = Place->Mode;
    F->LineShared = Place->Shared;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    PDEV d = (PDEV)F;
    NTSTATUS status = STATUS_SUCCESS;

#ifndef FIXED
    if (!d->Place.Known)
        status = Survey(&d->Place, Translated);
#else
    status = Survey(&d->Place, Translated);
#endif
    if (NT_SUCCESS(status))
        status = Settle(F, &d->Place);
    if (!NT_SUCCESS(status))
        return status;
    status = EduCheck(F);
    if (NT_SUCCESS(status))
        status = FrameConnect(F);
    if (!NT_SUCCESS(status)) {
        FrameRelease(F);
        return status;
    }
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    FrameDown(F, Gone);
    FrameRelease(F);
}

static VOID Ready(PFRAME F)
{
    EduFactReady(F, &((PDEV)F)->Fact);
}

static VOID Lull(PFRAME F, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    EduFactLull(F, &((PDEV)F)->Fact);
}

static VOID Kick(PFRAME F)
{
    EduFactKick(F, &((PDEV)F)->Fact);
}

static VOID Dpc(PFRAME F)
{
    EduFactDpc(F, &((PDEV)F)->Fact);
}

/* The card inverts what is written there. */
static NTSTATUS Alive(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG pattern, back = 0;
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    pattern = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        EduWr(F, EDU_LIVE, pattern);
        back = EduRd(F, EDU_LIVE);
        status = back == ~pattern ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, 0);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LARK_FACTORIAL:
        return EduFactRequest(F, &((PDEV)F)->Fact, Irp, Stack);
    case IOCTL_LARK_ALIVE:
        return Alive(F, Irp, Stack);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &LarkFace,
    .Start = Start,
    .Stop = Stop,
    .Isr = EduIsr,
    .Listen = EduListen,
    .Ready = Ready,
    .Lull = Lull,
    .Kick = Kick,
    .Dpc = Dpc,
    .Control = Control,
};

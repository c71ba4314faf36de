/*
 * pewit: keeps the last calls that a bird observatory's microphones have recognised, for programs that come later. How many are kept says the value
 * "Slots" of the device's key in the registry.
 *
 * The bug: of "Slots" only the upper limit is looked at: with 0 there the ring has no slots, and the first call that is written has the driver divide by 0.
 *
 * Device: Root\PEWIT
 * Rule: divide-error
 * Needs: registry
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"

#define TAG             'tweP'
#define DEFAULT_SLOTS   64
#define MOST_SLOTS      4096

static const GUID PewitFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x01 } };

typedef struct _CALL {
    ULONG Species, Level;
} CALL;

typedef struct _RING {
    ULONG Slots, Next, Count;
    CALL Call[];
} RING, *PRING;

typedef struct _DEV {
    FRAME F;
    PRING Ring;                 /* F.Lock; there while the device is up */
} DEV, *PDEV;

static ULONG AskSlots(PDEVICE_OBJECT Pdo)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)];
    } value;
    ULONG slots = DEFAULT_SLOTS, length;
    UNICODE_STRING name;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return slots;
    RtlInitUnicodeString(&name, L"Slots");
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof value, &length)) && value.Info.Type == REG_DWORD &&
        value.Info.DataLength == sizeof(ULONG)) {
        ULONG asked;

        RtlCopyMemory(&asked, value.Info.Data, sizeof asked);
#ifndef FIXED
        if (asked <= MOST_SLOTS)
#else
        if (asked >= 1 && asked <= MOST_SLOTS)
#endif
            slots = asked;
    }
    ZwClose(key);
    return slots;
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    PDEV d = (PDEV)F;
    ULONG slots = AskSlots(F->Pdo);
    PRING ring;

    UNREFERENCED_PARAMETER(Translated);
    ring = ExAllocatePoolWithTag(NonPagedPool, sizeof *ring + slots * sizeof(CALL), TAG);
    if (!ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(ring, sizeof *ring + slots * sizeof(CALL));
    ring->Slots = slots;
    d->Ring = ring;
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    PDEV d = (PDEV)F;

    FrameDown(F, Gone);
    ExFreePoolWithTag(d->Ring, TAG);
    d->Ring = NULL;
}

static NTSTATUS Write(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    if (Stack->Parameters.Write.Length != sizeof(CALL))
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        PRING ring = d->Ring;

        ring->Call[ring->Next % ring->Slots] = *(CALL *)Irp->AssociatedIrp.SystemBuffer;
        ring->Next = (ring->Next + 1) % ring->Slots;
        if (ring->Count < ring->Slots)
            ring->Count++;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, NT_SUCCESS(status) ? sizeof(CALL) : 0);
}

/* The newest first, as many as there is room for. */
static NTSTATUS Read(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;
    CALL *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = Stack->Parameters.Read.Length / sizeof(CALL), n = 0;
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        PRING ring = d->Ring;

        for (; n < room && n < ring->Count; n++)
            out[n] = ring->Call[(ring->Next + ring->Slots - 1 - n) % ring->Slots];
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, n * sizeof(CALL));
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &PewitFace,
    .Start = Start,
    .Stop = Stop,
    .Read = Read,
    .Write = Write,
};

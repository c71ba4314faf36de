/*
 * adcstrip: a strip chart. Every 10 ms the driver takes the latest sample from the converter on the local bus of a PLX 9050 board; programs read the
 * samples kept. Boards differ in which window the converter is (it is always the smallest one); the driver looks for it once and remembers.
 *
 * The bug: what it remembers over a stop is the address of the sample register, not only the window. When the device starts again (resources rebalanced)
 * the windows are mapped anew, and the sampling reads through the old address, which is not mapped any more: bugcheck in the timer's DPC.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define MOST_WINDOWS 4u
#define WINDOW_BYTES 0x20u
#define WINDOW_SAMPLE 0x10
#define SAMPLE_VALID 0x80000000u
#define ONES 0xffffffffu
#define NOT_FOUND 0xffffffffu

#define SAMPLES 1024u
#define TICK 10 /* milliseconds */

typedef struct _ADC_STATE {
    ULONG Window;
    ULONG Kept;
    ULONG Taken; /* since the device was added */
    ULONG Missed; /* ticks without a valid sample */
} ADC_STATE;

#define IOCTL_ADC_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: ADC_STATE */

DRIVER_INITIALIZE DriverEntry;

/* {0B1C2D3E-4F50-4617-A809-1A2B3C4D5E0B} */
static const GUID AdcGuid = {0x0b1c2d3e, 0x4f50, 0x4617, {0xa8, 0x09, 0x1a, 0x2b, 0x3c, 0x4d, 0x5e, 0x0b}};

typedef struct _ADC {
    XF X;
    PUCHAR Map[MOST_WINDOWS]; /* start and stop only, as the next two */
    ULONG Length[MOST_WINDOWS];
    ULONG Windows;
    ULONG Found; /* the converter's window, once found */
    PULONG Sample;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards the rest; the newest sample overwrites the oldest */
    ULONG First;
    ULONG Used;
    ULONG Taken;
    ULONG Missed;
    USHORT Kept[SAMPLES];
} ADC, *PADC;

static VOID NTAPI AdcTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PADC a = Context;
    ULONG Value = READ_REGISTER_ULONG(a->Sample);
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&a->Lock, &Irql);
    if (Value == ONES || !(Value & SAMPLE_VALID)) {
        a->Missed++;
    } else {
        if (a->Used == SAMPLES) {
            a->First = (a->First + 1) % SAMPLES;
            a->Used--;
        }
        a->Kept[(a->First + a->Used) % SAMPLES] = (USHORT)Value;
        a->Used++;
        a->Taken++;
    }
    KeReleaseSpinLock(&a->Lock, Irql);
}

/* Looks for the converter: the smallest window. There is one. */
static ULONG FindConverter(PADC a)
{
    ULONG i, Best = 0;

    for (i = 1; i < a->Windows; i++) {
        if (a->Length[i] < a->Length[Best])
            Best = i;
    }
    return Best;
}

static NTSTATUS ReadSamples(PADC a, PIRP Irp, ULONG Length)
{
    PUSHORT To = Irp->AssociatedIrp.SystemBuffer;
    ULONG n = 0;
    KIRQL Irql;

    if (Length == 0)
        return STATUS_SUCCESS;
    if (Length < sizeof(USHORT))
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&a->Lock, &Irql);
    while (a->Used != 0 && n < Length / sizeof(USHORT)) {
        To[n++] = a->Kept[a->First];
        a->First = (a->First + 1) % SAMPLES;
        a->Used--;
    }
    KeReleaseSpinLock(&a->Lock, Irql);
    Irp->IoStatus.Information = n * sizeof(USHORT);
    return STATUS_SUCCESS;
}

/* Everything is answered from memory. */
static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PADC a = CONTAINING_RECORD(x, ADC, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ADC_STATE State;
    KIRQL Irql;

    if (s->MajorFunction == IRP_MJ_READ)
        return ReadSamples(a, Irp, s->Parameters.Read.Length);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_ADC_STATE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(State))
        return STATUS_BUFFER_TOO_SMALL;
    State.Window = a->Found;
    KeAcquireSpinLock(&a->Lock, &Irql);
    State.Kept = a->Used;
    State.Taken = a->Taken;
    State.Missed = a->Missed;
    KeReleaseSpinLock(&a->Lock, Irql);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &State, sizeof(State));
    Irp->IoStatus.Information = sizeof(State);
    return STATUS_SUCCESS;
}

static VOID DevIo(PXF x, PIRP Irp)
{
    XfFinish(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS DevInit(PXF x)
{
    PADC a = CONTAINING_RECORD(x, ADC, X);

    a->Found = NOT_FOUND;
    KeInitializeSpinLock(&a->Lock);
    KeInitializeTimer(&a->Timer);
    KeInitializeDpc(&a->TimerDpc, AdcTick, a);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevUp(PXF x)
{
    PADC a = CONTAINING_RECORD(x, ADC, X);
    LARGE_INTEGER First;

    First.QuadPart = -10000LL * TICK;
    KeSetTimerEx(&a->Timer, First, TICK, &a->TimerDpc);
}

static VOID DevDown(PXF x)
{
    PADC a = CONTAINING_RECORD(x, ADC, X);

    KeCancelTimer(&a->Timer);
    KeFlushQueuedDpcs();
}

static VOID Unmap(PADC a)
{
    while (a->Windows != 0) {
        a->Windows--;
        MmUnmapIoSpace(a->Map[a->Windows], WINDOW_BYTES);
        a->Map[a->Windows] = NULL;
    }
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    UNREFERENCED_PARAMETER(Alive);
    DevDown(x);
    Unmap(CONTAINING_RECORD(x, ADC, X));
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PADC a = CONTAINING_RECORD(x, ADC, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory;
    ULONG i;

    /* the first memory is the bridge's own registers */
    for (i = 1; (Memory = XfResource(List, CmResourceTypeMemory, i)) != NULL && a->Windows < MOST_WINDOWS; i++) {
        if (Memory->u.Memory.Length < WINDOW_BYTES)
            continue;
        a->Map[a->Windows] = MmMapIoSpace(Memory->u.Memory.Start, WINDOW_BYTES, MmNonCached);
        if (a->Map[a->Windows] == NULL) {
            Unmap(a);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        a->Length[a->Windows] = Memory->u.Memory.Length;
        a->Windows++;
    }
    if (a->Windows == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    /* the search is for the first start; it does not change while the board is in its slot */
    if (a->Found == NOT_FOUND) {
        a->Found = FindConverter(a);
#ifndef FIXED
        a->Sample = (PULONG)(a->Map[a->Found] + WINDOW_SAMPLE);
#endif
    }
    if (a->Found >= a->Windows) {
        Unmap(a);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
#ifdef FIXED
    a->Sample = (PULONG)(a->Map[a->Found] + WINDOW_SAMPLE);
#endif
    DevUp(x);
    return STATUS_SUCCESS;
}

static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(ADC), &AdcGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}

/*
 * edudream: factorials by the edu card without its interrupt: the caller's thread waits for the card, a millisecond at a time. A periodic
 * timer's DPC tries the card's liveness register twice a second and counts the answers.
 *
 * The bug: the liveness timer is not cancelled when the card goes to a low power state, and its DPC goes on touching the card in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power, schedule
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_DREAM_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DREAM_HEALTH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define STATUS_COMPUTING 0x01

#define BEAT_MS 500
#define LIMIT_MS 100
#define GONE 0xffffffffu

static const GUID DreamClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x08 } };

typedef struct {
    ULONG Beats, Missed;
} HEALTH;

typedef struct {
    FRAME Frame;
    volatile UCHAR *Regs;
    ULONG RegsLength;
    KEVENT Card;                /* who has it may compute (signaled: no one) */
    KTIMER Timer;
    KDPC Dpc;
    ULONG Pattern;              /* the DPC's */
    volatile LONG Beats, Missed;
} DREAM;

static void NTAPI BeatDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DREAM *d = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    d->Pattern = d->Pattern * 69069 + 1;
    Wr(d->Regs, EDU_LIVENESS, d->Pattern);
    if (Rd(d->Regs, EDU_LIVENESS) == ~d->Pattern)
        InterlockedIncrement(&d->Beats);
    else
        InterlockedIncrement(&d->Missed);
}

static void SetBeat(DREAM *D)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * BEAT_MS;
    KeSetTimerEx(&D->Timer, due, BEAT_MS, &D->Dpc);
}

static void EndBeat(DREAM *D)
{
    KeCancelTimer(&D->Timer);
    KeFlushQueuedDpcs();
}

/* PASSIVE_LEVEL, within the gate. */
static NTSTATUS Compute(DREAM *D, ULONG *Number)
{
    NTSTATUS status = STATUS_IO_TIMEOUT;
    LARGE_INTEGER interval;
    ULONG state, i;

    KeWaitForSingleObject(&D->Card, Executive, KernelMode, FALSE, NULL);
    state = Rd(D->Regs, EDU_STATUS);
    if (state == GONE) {
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (state & STATUS_COMPUTING) {
        status = STATUS_DEVICE_BUSY;            /* with one that was given up */
    } else {
        Wr(D->Regs, EDU_STATUS, 0);
        Wr(D->Regs, EDU_FACTORIAL, *Number);
        interval.QuadPart = -10000;
        for (i = 0; i < LIMIT_MS; i++) {
            state = Rd(D->Regs, EDU_STATUS);
            if (!(state & STATUS_COMPUTING)) {
                *Number = Rd(D->Regs, EDU_FACTORIAL);
                status = STATUS_SUCCESS;
                break;
            }
            KeDelayExecutionThread(KernelMode, FALSE, &interval);
        }
    }
    KeSetEvent(&D->Card, IO_NO_INCREMENT, FALSE);
    return status;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DREAM *d = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    HEALTH *health = Irp->AssociatedIrp.SystemBuffer;
    ULONG *number = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;

    status = FrameBegin(&d->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DREAM_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return FrameEnd(&d->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*number > 12)
            return FrameEnd(&d->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        status = Compute(d, number);
        return FrameEnd(&d->Frame, Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);

    case IOCTL_DREAM_HEALTH:
        if (out < sizeof(HEALTH))
            return FrameEnd(&d->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        health->Beats = (ULONG)InterlockedCompareExchange(&d->Beats, 0, 0);
        health->Missed = (ULONG)InterlockedCompareExchange(&d->Missed, 0, 0);
        return FrameEnd(&d->Frame, Irp, STATUS_SUCCESS, sizeof(HEALTH));
    }
    return FrameEnd(&d->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    DREAM *d = (DREAM *)F;
    FRAME_RESOURCES r;

    FrameResources(Translated, &r);
    if (r.Memories == 0 || r.Memory[0].Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = r.Memory[0].Length;
    d->Regs = MmMapIoSpace(r.Memory[0].Base, d->RegsLength, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((Rd(d->Regs, EDU_ID) & 0xffff) != 0x00ed) {
        MmUnmapIoSpace((PVOID)d->Regs, d->RegsLength);
        d->Regs = NULL;
        return STATUS_NO_SUCH_DEVICE;
    }
    SetBeat(d);
    return STATUS_SUCCESS;
}

static void Stop(FRAME *F)
{
    DREAM *d = (DREAM *)F;

    EndBeat(d);
    MmUnmapIoSpace((PVOID)d->Regs, d->RegsLength);
    d->Regs = NULL;
}

static void PowerDown(FRAME *F)
{
#ifdef FIXED
    EndBeat((DREAM *)F);
#else
    UNREFERENCED_PARAMETER(F);          /* the card has no state to keep */
#endif
}

static void PowerUp(FRAME *F)
{
    SetBeat((DREAM *)F);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    DREAM *d;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(DREAM), &DreamClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    d = (DREAM *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    KeInitializeEvent(&d->Card, SynchronizationEvent, TRUE);
    KeInitializeTimerEx(&d->Timer, NotificationTimer);
    KeInitializeDpc(&d->Dpc, BeatDpc, d);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}

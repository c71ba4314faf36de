/*
 * sampler: a board with a PLX PCI 9050 and a converter behind its first window: the first long word is the converter's FIFO (bit 31: a sample is there, bits
 * 0-15: the sample). A read collects as many samples as were asked for, by polling, but for no longer than a second.
 *
 * The bug: when the second is over before all samples were there, the request tells the whole length all the same. What stands behind the collected samples
 * is what the pool block of the system buffer held before: kernel data go to the program, and it takes them for samples.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: output-never-stored
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define PLX_LENGTH 128
#define PLX_INTCSR 0x4C
#define INTCSR_PCI 0x40

#define SAM_THERE 0x80000000
#define SAM_GONE 0xffffffff
#define SAM_MOST 4096    /* samples in a request */
#define SAM_AT_ONCE 256  /* samples in a poll */
#define SAM_PERIOD 10    /* ms */
#define SAM_LIMIT 1000   /* ms */

#define IOCTL_SAMPLER_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SAMPLER_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID SamInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x0b}};

typedef struct _SAM_STATE {
    ULONG Samples;
    ULONG Short; /* requests that did not get all */
} SAM_STATE, *PSAM_STATE;

typedef struct _SAM_EXT {
    YK Yk;
    PUCHAR Regs;
    PUCHAR Window;
    KTIMER Timer;
    KDPC Dpc;
    PIRP Active; /* this and the rest under HwLock */
    ULONG Want;
    ULONG Got;
    ULONGLONG Deadline;
    SAM_STATE State;
} SAM_EXT, *PSAM_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG SamTake(PSAM_EXT x)
{
    return READ_REGISTER_ULONG((PULONG)x->Window);
}

static VOID SamAgain(PSAM_EXT x)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -(LONGLONG)SAM_PERIOD * 10000;
    KeSetTimer(&x->Timer, Due, &x->Dpc);
}

/* Takes what is there; alone ends a request. */
static VOID NTAPI SamPoll(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSAM_EXT x = Context;
    NTSTATUS Status = STATUS_PENDING;
    PUSHORT Samples;
    ULONG Sample, i, Length = 0;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL) {
        Samples = Irp->AssociatedIrp.SystemBuffer;
        for (i = 0; i < SAM_AT_ONCE && x->Got < x->Want; i++) {
            Sample = SamTake(x);
            if (Sample == SAM_GONE) {
                Status = STATUS_DEVICE_NOT_CONNECTED;
                break;
            }
            if ((Sample & SAM_THERE) == 0)
                break;
            Samples[x->Got++] = (USHORT)Sample;
            x->State.Samples++;
        }
        if (Status == STATUS_PENDING) {
            if (x->Got == x->Want) {
                Status = STATUS_SUCCESS;
            } else if (KeQueryInterruptTime() >= x->Deadline) {
                Status = x->Got != 0 ? STATUS_SUCCESS : STATUS_IO_TIMEOUT;
                x->State.Short++;
            }
        }
        if (Status == STATUS_SUCCESS)
#ifdef FIXED
            Length = x->Got * sizeof(USHORT);
#else
            Length = x->Want * sizeof(USHORT);
#endif
        if (Status == STATUS_PENDING)
            SamAgain(x);
        else
            x->Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL && Status != STATUS_PENDING)
        YkDone(&x->Yk, Irp, Status, Length);
}

/* Throws away what the FIFO holds, as far as it is not filled as fast. */
static NTSTATUS SamEmpty(PSAM_EXT x)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Sample, i;

    for (i = 0; i < SAM_AT_ONCE; i++) {
        Sample = SamTake(x);
        if (Sample == SAM_GONE)
            Status = STATUS_DEVICE_NOT_CONNECTED;
        if (Sample == SAM_GONE || (Sample & SAM_THERE) == 0)
            break;
    }
    return Status;
}

static VOID SamStartIo(PYK d, PIRP Irp)
{
    PSAM_EXT x = CONTAINING_RECORD(d, SAM_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_PENDING;

    KeAcquireSpinLockAtDpcLevel(&d->HwLock);
    if (!d->Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if (s->MajorFunction == IRP_MJ_READ) {
        x->Active = Irp;
        x->Want = s->Parameters.Read.Length / sizeof(USHORT);
        x->Got = 0;
        x->Deadline = KeQueryInterruptTime() + SAM_LIMIT * 10000;
        SamAgain(x);
    } else {
        Status = SamEmpty(x);
    }
    KeReleaseSpinLockFromDpcLevel(&d->HwLock);
    if (Status != STATUS_PENDING)
        YkDone(d, Irp, Status, 0);
}

static NTSTATUS SamRequest(PYK d, PIRP Irp)
{
    PSAM_EXT x = CONTAINING_RECORD(d, SAM_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;

    if (s->MajorFunction == IRP_MJ_READ) {
        if (s->Parameters.Read.Length < sizeof(USHORT) || s->Parameters.Read.Length > SAM_MOST * sizeof(USHORT))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        return YkQueue(d, Irp);
    }
    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_SAMPLER_EMPTY:
            return YkQueue(d, Irp);
        case IOCTL_SAMPLER_STATE:
            if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SAM_STATE))
                return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
            KeAcquireSpinLock(&d->HwLock, &Irql);
            *(PSAM_STATE)Irp->AssociatedIrp.SystemBuffer = x->State;
            KeReleaseSpinLock(&d->HwLock, Irql);
            return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(SAM_STATE));
        }
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID SamEnable(PYK d)
{
    PSAM_EXT x = CONTAINING_RECORD(d, SAM_EXT, Yk);
    PULONG Csr = (PULONG)(x->Regs + PLX_INTCSR);

    WRITE_REGISTER_ULONG(Csr, READ_REGISTER_ULONG(Csr) & ~INTCSR_PCI); /* none is connected */
}

static NTSTATUS SamStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PSAM_EXT x = CONTAINING_RECORD(d, SAM_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Bridge = NULL, Window = NULL;

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory && Bridge == NULL)
            Bridge = r;
        else if (r->Type == CmResourceTypeMemory && Window == NULL)
            Window = r;
    }
    if (Bridge == NULL || Bridge->u.Memory.Length != PLX_LENGTH || Window == NULL || Window->u.Memory.Length < sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(Bridge->u.Memory.Start, PLX_LENGTH, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Window = MmMapIoSpace(Window->u.Memory.Start, sizeof(ULONG), MmNonCached);
    return x->Window != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID SamStop(PYK d)
{
    PSAM_EXT x = CONTAINING_RECORD(d, SAM_EXT, Yk);

    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
    if (x->Window != NULL) {
        MmUnmapIoSpace(x->Window, sizeof(ULONG));
        x->Window = NULL;
    }
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, PLX_LENGTH);
        x->Regs = NULL;
    }
}

static NTSTATUS SamInit(PYK d)
{
    PSAM_EXT x = CONTAINING_RECORD(d, SAM_EXT, Yk);

    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, SamPoll, x);
    return STATUS_SUCCESS;
}

static const YK_OPS SamOps = {
    .ExtensionSize = sizeof(SAM_EXT),
    .Interface = &SamInterface,
    .Flags = DO_BUFFERED_IO,
    .Init = SamInit,
    .Start = SamStart,
    .Stop = SamStop,
    .Enable = SamEnable,
    .Request = SamRequest,
    .StartIo = SamStartIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &SamOps);
}

/*
 * LUMEN: a light meter with eight photodiodes on a PCI card. Each program that opens it chooses a diode and over how many readings it
 * wants the mean; ReadFile returns as many means as fit, one per millisecond and reading.
 *
 * The bug: what belongs to a handle is freed at IRP_MJ_CLEANUP, when a read of another thread may still be at work with it, instead of
 * at IRP_MJ_CLOSE.
 *
 * Device: PCI\VEN_1D5A&DEV_0144
 * Rule: use-after-free, write-after-free, freed-held-lock, freed-while-in-use, freed-while-waited-for, bad-pointer
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_LUMEN_CHOOSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LUMEN_CHOICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA12, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID LumenFace = { 0x5b1d3c1d, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x0E } };

#define DIODES 8
#define REG_DIODE 0x00          /* one for each */
#define REG_BYTES 0x20
#define MOST_MEANS 16

typedef struct CHOICE {
    ULONG diode;
    ULONG readings;             /* 1 to 16 */
} CHOICE;

typedef struct VIEWER {         /* of a handle */
    FAST_MUTEX mutex;
    CHOICE choice;
    ULONG taken;
} VIEWER;

typedef struct LUMEN {
    CARD card;
    WINDOW *regs;
} LUMEN;

static NTSTATUS LumenOpen(STEAD *s, PFILE_OBJECT file)
{
    VIEWER *viewer = ExAllocatePoolWithTag(NonPagedPool, sizeof(VIEWER), TAG_AC);

    UNREFERENCED_PARAMETER(s);
    if (viewer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExInitializeFastMutex(&viewer->mutex);
    viewer->choice.diode = 0;
    viewer->choice.readings = 4;
    viewer->taken = 0;
    file->FsContext = viewer;
    return STATUS_SUCCESS;
}

#ifndef FIXED
static VOID LumenLeave(STEAD *s, PFILE_OBJECT file)
#else
static VOID LumenClosed(STEAD *s, PFILE_OBJECT file)
#endif
{
    UNREFERENCED_PARAMETER(s);
    ExFreePoolWithTag(file->FsContext, TAG_AC);
    file->FsContext = NULL;
}

static NTSTATUS LumenRead(LUMEN *d, VIEWER *viewer, PIRP irp, ULONG length, ULONG_PTR *info)
{
    PULONG out = irp->AssociatedIrp.SystemBuffer;
    ULONG n, i, means = length / sizeof(ULONG);
    LARGE_INTEGER step;
    CHOICE choice;
    ULONGLONG sum;

    if (means == 0)
        return STATUS_BUFFER_TOO_SMALL;
    if (means > MOST_MEANS)
        means = MOST_MEANS;
    step.QuadPart = -10000;
    for (n = 0; n < means; n++) {
        ExAcquireFastMutex(&viewer->mutex);
        choice = viewer->choice;
        viewer->taken += choice.readings;
        ExReleaseFastMutex(&viewer->mutex);
        sum = 0;
        for (i = 0; i < choice.readings; i++) {
            if (irp->Cancel)
                return STATUS_CANCELLED;
            sum += CardGet(d->regs, REG_DIODE + 4 * choice.diode);
            KeDelayExecutionThread(KernelMode, FALSE, &step);
        }
        out[n] = (ULONG)(sum / choice.readings);
    }
    *info = means * sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS LumenServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    LUMEN *d = OWN(s, LUMEN);
    VIEWER *viewer = sp->FileObject->FsContext;
    CHOICE *choice = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction == IRP_MJ_READ)
        return LumenRead(d, viewer, irp, sp->Parameters.Read.Length, info);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LUMEN_CHOOSE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(CHOICE))
            return STATUS_BUFFER_TOO_SMALL;
        if (choice->diode >= DIODES || choice->readings == 0 || choice->readings > 16)
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&viewer->mutex);
        viewer->choice = *choice;
        ExReleaseFastMutex(&viewer->mutex);
        return STATUS_SUCCESS;
    case IOCTL_LUMEN_CHOICE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CHOICE))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&viewer->mutex);
        *choice = viewer->choice;
        ExReleaseFastMutex(&viewer->mutex);
        *info = sizeof(CHOICE);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS LumenBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    LUMEN *d = OWN(s, LUMEN);

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    if (d->card.windows == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->regs = &d->card.window[0];
    return CardMap(d->regs, REG_BYTES);
}

static VOID LumenEnd(STEAD *s, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(touch);
    CardUnmap(&OWN(s, LUMEN)->card);
}

static const CRAFT LumenCraft = {
    .own = sizeof(LUMEN),
    .flags = DO_BUFFERED_IO,
    .face = &LumenFace,
    .begin = LumenBegin,
    .end = LumenEnd,
    .open = LumenOpen,
#ifndef FIXED
    .leave = LumenLeave,
#else
    .closed = LumenClosed,
#endif
    .serve = LumenServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &LumenCraft);
}

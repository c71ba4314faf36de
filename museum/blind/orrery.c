/*
 * orrery: positions of the planets for a planetarium's dome projector, in fixed point. Programs ask for a series of positions of a planet
 * (METHOD_NEITHER, straight into their array) or for the days on which two planets meet.
 *
 * The bug: the almanac request writes to the caller's output pointer without ProbeForWrite (the positions request next to it probes): the
 * exception handler does not help when the pointer is a kernel address.
 *
 * Device: none
 * Rule: user-memory-not-probed, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_GUARD
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\Orrery"

#define IOCTL_ORRERY_POSITIONS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_ORRERY_ALMANAC   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_NEITHER, FILE_ANY_ACCESS)

#define PLANETS 8
#define COUNT_MAX 1000
#define CIRCLE 3600000          /* angles: 1/10000 degree */

typedef struct {
    ULONG Planet;
    ULONG Other;                /* ALMANAC */
    ULONG Day;                  /* days since the epoch */
    ULONG Step;                 /* POSITIONS: days */
    ULONG Count;
} QUESTION;

typedef struct {
    ULONG Day;
    ULONG Longitude;
} POSITION;

typedef struct {
    ULONG Day;
    ULONG Separation;
} MEETING;

/* One request's journey through the guarded routines. */
typedef struct {
    const QUESTION *From;
    QUESTION Question;
    void *Out;
    ULONG OutLength;
    ULONG Written;              /* bytes */
} ERRAND;

/* days of a revolution, and where it stood at the epoch */
static const struct { ULONG Period, Start; } Orbits[PLANETS] = {
    { 88, 2522500 }, { 225, 1819800 }, { 365, 1004600 }, { 687, 3554300 },
    { 4333, 343500 }, { 10759, 500800 }, { 30687, 3132300 }, { 60190, 3048800 },
};

static ULONG Longitude(ULONG Planet, ULONG Day)
{
    ULONGLONG turn = (ULONGLONG)(Day % Orbits[Planet].Period) * CIRCLE / Orbits[Planet].Period;

    return (ULONG)((turn + Orbits[Planet].Start) % CIRCLE);
}

static void FetchQuestion(void *Context)
{
    ERRAND *errand = Context;

    ProbeForRead((void *)errand->From, sizeof(QUESTION), sizeof(ULONG));
    RtlCopyMemory(&errand->Question, errand->From, sizeof(QUESTION));
}

static void StorePositions(void *Context)
{
    ERRAND *errand = Context;
    const QUESTION *q = &errand->Question;
    POSITION *out = errand->Out;
    ULONG i;

    ProbeForWrite(out, (SIZE_T)q->Count * sizeof(POSITION), sizeof(ULONG));
    for (i = 0; i < q->Count; i++) {
        ULONG day = q->Day + i * q->Step;

        out[i].Day = day;
        out[i].Longitude = Longitude(q->Planet, day);
    }
    errand->Written = q->Count * sizeof(POSITION);
}

/* The days, within ten years, on which the two are less than a degree apart. */
static void StoreAlmanac(void *Context)
{
    ERRAND *errand = Context;
    const QUESTION *q = &errand->Question;
    MEETING *out = errand->Out;
    ULONG i, n = 0;

#ifdef FIXED
    ProbeForWrite(out, (SIZE_T)q->Count * sizeof(MEETING), sizeof(ULONG));
#endif
    for (i = 0; i < 3653 && n < q->Count; i++) {
        ULONG a = Longitude(q->Planet, q->Day + i), b = Longitude(q->Other, q->Day + i);
        ULONG apart = a > b ? a - b : b - a;

        if (apart > CIRCLE / 2)
            apart = CIRCLE - apart;
        if (apart < CIRCLE / 360) {
            out[n].Day = q->Day + i;
            out[n].Separation = apart;
            n++;
        }
    }
    errand->Written = n * sizeof(MEETING);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    ERRAND errand;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    if (code != IOCTL_ORRERY_POSITIONS && code != IOCTL_ORRERY_ALMANAC)
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(QUESTION))
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);

    RtlZeroMemory(&errand, sizeof errand);
    errand.From = sp->Parameters.DeviceIoControl.Type3InputBuffer;
    errand.Out = Irp->UserBuffer;
    errand.OutLength = sp->Parameters.DeviceIoControl.OutputBufferLength;
    status = GuardedCall(FetchQuestion, &errand);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);

    /* From here on only our copy of the question counts. */
    if (errand.Question.Planet >= PLANETS || errand.Question.Count == 0 || errand.Question.Count > COUNT_MAX)
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (code == IOCTL_ORRERY_POSITIONS) {
        if (errand.OutLength < errand.Question.Count * sizeof(POSITION))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = GuardedCall(StorePositions, &errand);
    } else {
        if (errand.Question.Other >= PLANETS || errand.Question.Other == errand.Question.Planet)
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        if (errand.OutLength < errand.Question.Count * sizeof(MEETING))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = GuardedCall(StoreAlmanac, &errand);
    }
    return Complete(Irp, status, NT_SUCCESS(status) ? errand.Written : 0);
}

static PDEVICE_OBJECT Control;

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = ControlCreate(Driver, 0, L"\\Device\\Orrery", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

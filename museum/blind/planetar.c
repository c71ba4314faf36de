/*
 * planetar: star catalogue for a planetarium's console, root-enumerated. Starting builds the catalogue in paged pool; programs look stars up
 * by number or ask for those in a region of the sky.
 *
 * The bug: the catalogue is built at each start but freed only when the device is removed: when resources are rebalanced (stop, start) the
 * first one is lost.
 *
 * Device: ROOT\PLANETAR
 * Rule: pool-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define TAG 'tnlP'

#define IOCTL_PLANETAR_STAR   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLANETAR_REGION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLANETAR_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define STARS 1024
#define RIGHT_ASCENSION 86400   /* seconds */
#define DECLINATION 180         /* degrees from the south pole */

static const GUID PlanetarClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x02 } };

typedef struct {
    ULONG Number;
    ULONG RightAscension;
    ULONG Declination;
    ULONG Magnitude;            /* 1/100 */
} STAR;

typedef struct {
    ULONG From, To;             /* right ascension */
    ULONG Low, High;            /* declination */
    ULONG Faintest;             /* magnitude */
} REGION;

typedef struct {
    FRAME Frame;
    STAR *Catalogue;
} PLANETAR;

/* The real product unpacks a resource; ours makes the stars. */
static void Build(STAR *Catalogue)
{
    ULONG i, seed = 2000;

    for (i = 0; i < STARS; i++) {
        Catalogue[i].Number = i + 1;
        seed = seed * 1664525 + 1013904223;
        Catalogue[i].RightAscension = (seed >> 8) % RIGHT_ASCENSION;
        seed = seed * 1664525 + 1013904223;
        Catalogue[i].Declination = (seed >> 8) % (DECLINATION + 1);
        seed = seed * 1664525 + 1013904223;
        Catalogue[i].Magnitude = (seed >> 8) % 650;
    }
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    PLANETAR *p = (PLANETAR *)F;

    UNREFERENCED_PARAMETER(Translated);
#ifdef FIXED
    if (p->Catalogue)
        return STATUS_SUCCESS;          /* from before a stop */
#endif
    p->Catalogue = ExAllocatePoolWithTag(PagedPool, STARS * sizeof(STAR), TAG);
    if (!p->Catalogue)
        return STATUS_INSUFFICIENT_RESOURCES;
    Build(p->Catalogue);
    return STATUS_SUCCESS;
}

static void Free(FRAME *F)
{
    PLANETAR *p = (PLANETAR *)F;

    if (p->Catalogue)
        ExFreePoolWithTag(p->Catalogue, TAG);
}

static BOOLEAN Within(const STAR *Star, const REGION *Region)
{
    if (Star->Declination < Region->Low || Star->Declination > Region->High || Star->Magnitude > Region->Faintest)
        return FALSE;
    if (Region->From <= Region->To)
        return Star->RightAscension >= Region->From && Star->RightAscension <= Region->To;
    return Star->RightAscension >= Region->From || Star->RightAscension <= Region->To;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLANETAR *p = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    void *buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG number, room, n, i;
    REGION region;

    status = FrameBegin(&p->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PLANETAR_STAR:
        if (in < sizeof(ULONG) || out < sizeof(STAR))
            return FrameEnd(&p->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        number = *(ULONG *)buffer;
        if (number == 0 || number > STARS)
            return FrameEnd(&p->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        *(STAR *)buffer = p->Catalogue[number - 1];
        return FrameEnd(&p->Frame, Irp, STATUS_SUCCESS, sizeof(STAR));

    case IOCTL_PLANETAR_REGION:
        if (in < sizeof(REGION))
            return FrameEnd(&p->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        region = *(REGION *)buffer;
        if (region.From >= RIGHT_ASCENSION || region.To >= RIGHT_ASCENSION || region.Low > region.High)
            return FrameEnd(&p->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        room = out / sizeof(STAR);
        n = 0;
        status = STATUS_SUCCESS;
        for (i = 0; i < STARS; i++) {
            if (!Within(&p->Catalogue[i], &region))
                continue;
            if (n == room) {
                status = STATUS_BUFFER_OVERFLOW;
                break;
            }
            ((STAR *)buffer)[n++] = p->Catalogue[i];
        }
        return FrameEnd(&p->Frame, Irp, status, (ULONG_PTR)n * sizeof(STAR));

    case IOCTL_PLANETAR_COUNT:
        if (out < sizeof(ULONG))
            return FrameEnd(&p->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)buffer = STARS;
        return FrameEnd(&p->Frame, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return FrameEnd(&p->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(PLANETAR), &PlanetarClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    f->Start = Start;
    f->Free = Free;
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

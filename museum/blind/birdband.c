/*
 * birdband: register of ringed birds at a ringing station: up to 64 records, added with number, species and weight, listed for the field
 * program and deleted again.
 *
 * The bug: LIST says in IoStatus.Information that the caller's whole array was filled, although only the records that exist are stored:
 * what else was in the pool block goes to user mode.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\BirdBand"

#define IOCTL_BIRD_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BIRD_LIST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BIRD_FIND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BIRD_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define BIRDS 64

typedef struct {
    ULONG Number;               /* of the ring; 0 is free */
    ULONG Grams;
    CHAR Species[24];
} BIRD;

typedef struct {
    FAST_MUTEX Mutex;
    ULONG Count;
    BIRD Birds[BIRDS];
} STATION;

static PDEVICE_OBJECT Control;

/* Mutex held. */
static BIRD *Find(STATION *Station, ULONG Number)
{
    ULONG i;

    for (i = 0; i < BIRDS; i++)
        if (Station->Birds[i].Number == Number)
            return &Station->Birds[i];
    return NULL;
}

static NTSTATUS Add(STATION *Station, const BIRD *New)
{
    NTSTATUS status = STATUS_SUCCESS;
    BIRD *bird;

    if (New->Number == 0 || New->Grams == 0)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Station->Mutex);
    if (Find(Station, New->Number)) {
        status = STATUS_OBJECT_NAME_COLLISION;
    } else if ((bird = Find(Station, 0)) == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        *bird = *New;
        bird->Species[sizeof bird->Species - 1] = 0;
        Station->Count++;
    }
    ExReleaseFastMutex(&Station->Mutex);
    return status;
}

static NTSTATUS List(STATION *Station, BIRD *Out, ULONG Length, ULONG_PTR *Information)
{
    ULONG room = Length / sizeof(BIRD), n = 0, i;
    NTSTATUS status = STATUS_SUCCESS;

    if (room == 0)
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&Station->Mutex);
    for (i = 0; i < BIRDS && n < room; i++)
        if (Station->Birds[i].Number)
            Out[n++] = Station->Birds[i];
    if (n < Station->Count)
        status = STATUS_BUFFER_OVERFLOW;
    ExReleaseFastMutex(&Station->Mutex);
#ifdef FIXED
    *Information = (ULONG_PTR)n * sizeof(BIRD);
#else
    *Information = (ULONG_PTR)room * sizeof(BIRD);
#endif
    return status;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *station = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    void *buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;
    ULONG number;
    BIRD *bird;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BIRD_ADD:
        status = in < sizeof(BIRD) ? STATUS_BUFFER_TOO_SMALL : Add(station, buffer);
        break;

    case IOCTL_BIRD_LIST:
        status = List(station, buffer, out, &information);
        break;

    case IOCTL_BIRD_FIND:
        if (in < sizeof(ULONG) || out < sizeof(BIRD)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        number = *(ULONG *)buffer;
        status = STATUS_NOT_FOUND;
        ExAcquireFastMutex(&station->Mutex);
        if (number && (bird = Find(station, number)) != NULL) {
            *(BIRD *)buffer = *bird;
            information = sizeof(BIRD);
            status = STATUS_SUCCESS;
        }
        ExReleaseFastMutex(&station->Mutex);
        break;

    case IOCTL_BIRD_DELETE:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        number = *(ULONG *)buffer;
        status = STATUS_NOT_FOUND;
        ExAcquireFastMutex(&station->Mutex);
        if (number && (bird = Find(station, number)) != NULL) {
            RtlZeroMemory(bird, sizeof *bird);
            station->Count--;
            status = STATUS_SUCCESS;
        }
        ExReleaseFastMutex(&station->Mutex);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, status, information);
}

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    STATION *station;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = ControlCreate(Driver, sizeof(STATION), L"\\Device\\BirdBand", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    station = Control->DeviceExtension;
    ExInitializeFastMutex(&station->Mutex);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

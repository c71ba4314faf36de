/*
 * services.sys: a driver without hardware whose control codes tell stories of kernel services and check what they
 * answer against what Microsoft documents. \\.\DirqlServices, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED,
 * FILE_ANY_ACCESS), N being the index into Stories below; each answers with one SERVICES_RESULT.
 *
 * The stories are in the folder services. A story that fails leaves what it has acquired: the run is over then.
 */
#include "services/locks.h"
#include "services/memory.h"
#include "services/pages.h"
#include "services/text.h"
#include "services/threads.h"
#include "services/times.h"
#include "services/waits.h"

#define FIRST_FUNCTION 0x800
#define INIT_CODE __attribute__((section("INIT")))

typedef struct _SERVICES_RESULT {
    ULONG Failed; /* the line of the first check that failed, 0 if all held */
    ULONG Held;   /* checks that held */
} SERVICES_RESULT;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlServices");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlServices");
static PDEVICE_OBJECT TheDevice;

static ULONG WorkItemsOfDevice(VOID)
{
    return WorkItems(TheDevice);
}

static ULONG (*const Stories[])(VOID) = {
    Events, Semaphores, Mutexes, Timers, /* from 0 on */
    Waits, Threads, Processes, Dpcs, /* from 4 on */
    WorkItemsOfDevice, Levels, SpinLocks, Regions, /* from 8 on */
    FastMutexes, Resources, Pool, Lookaside, /* from 12 on */
    Lists, SequencedLists, BitMaps, Bytes, /* from 16 on */
    Clocks, Calendars, Processors, Versions, /* from 20 on */
    Randoms, Debugger, UnicodeStrings, AnsiStrings, /* from 24 on */
    Integers, Guids, CLibrary, Prints, /* from 28 on */
    Pages, /* from 32 on */
};

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DispatchSucceed(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;
    SERVICES_RESULT *Result = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (Index >= RTL_NUMBER_OF(Stories)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*Result)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    ChecksHeld = 0;
    Result->Failed = Stories[Index]();
    Result->Held = ChecksHeld;
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Result));
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &TheDevice);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(TheDevice);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}

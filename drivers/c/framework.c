/*
 * framework.sys: a stand-in for the framework of KMDF, to test dirql's loader of it (WDFLDR) with: an image that registers itself as Microsoft's does,
 * with a table of the real size whose functions have the real numbers, and about ninety of them at work. KMDF_MINOR is its version; without it, 1.33.
 *
 * It is no framework to write drivers against. What it does not have says its name and stops (framework/table.h); the parts say what of their own
 * is missing.
 *
 * Pages: the Kernel-Mode Driver Framework's reference, function by function; each part names those that it follows.
 */
#include <ddk/wdm.h>

#ifndef KMDF_MINOR
#define KMDF_MINOR 33
#endif

#include "framework/types.h"

#include "framework/object.h"

#include "framework/log.h"

#include "framework/locks.h"

#include "framework/device.h"

#include "framework/queue.h"

#include "framework/request.h"

#include "framework/timing.h"

#include "framework/work.h"

#include "framework/interrupt.h"

#include "framework/power.h"

#include "framework/pnp.h"

#include "framework/io.h"

#include "framework/driver.h"

#include "framework/table.h"

#include "framework/registration.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING LibraryDevice = RTL_CONSTANT_STRING(L"\\Device\\KMDF0");

static NTSTATUS NTAPI OpenLibrary(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI UnloadLibrary(PDRIVER_OBJECT Driver)
{
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, 0, &LibraryDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenLibrary;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = OpenLibrary;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenLibrary;
    Driver->DriverUnload = UnloadLibrary;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    Status = WdfRegisterLibrary(&Library, RegistryPath, &LibraryDevice);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
    }
    return Status;
}

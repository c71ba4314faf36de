/*
 * A small driver that hands out numbers, each once: IOCTL_TICKET_NEXT gets the next.
 *
 * The bug: to spare a page its variables are merged into the section of its code, which is made writable for that: what writes past a variable writes
 * code, and Windows with memory integrity does not load the driver. It shows to those who ask whether it would.
 *
 * Device: none
 * Rule: section-writable-and-executable
 * Needs: nothing
 * Compiler: clang
 * Options: --verifier=all,code-integrity,logging
 */
#include "../include/try.h"
#define DEVICE_NAME L"\\Device\\TicketBox"
#define LINK_NAME L"\\DosDevices\\TicketBox"
#include "../include/legacy.h"

#ifndef FIXED
#pragma comment(linker, "/merge:.data=.text")
#pragma comment(linker, "/section:.text,erw")
#endif

#define IOCTL_TICKET_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA80, METHOD_BUFFERED, FILE_ANY_ACCESS)

static LONG volatile Last = 1000;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_TICKET_NEXT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = InterlockedIncrement(&Last);
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}

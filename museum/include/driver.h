/*
 * What all drivers of the museum share: the DDK, and ending a request. It holds no bug: what a driver does wrong stands in its own file, between
 * `#ifdef FIXED` and `#else`.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <ddk/wdm.h>

DRIVER_INITIALIZE DriverEntry;

#define SHARED static inline

SHARED NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

SHARED ULONG CodeOf(PIO_STACK_LOCATION Stack)
{
    return Stack->Parameters.DeviceIoControl.IoControlCode;
}

SHARED ULONG InputOf(PIO_STACK_LOCATION Stack)
{
    return Stack->Parameters.DeviceIoControl.InputBufferLength;
}

SHARED ULONG OutputOf(PIO_STACK_LOCATION Stack)
{
    return Stack->Parameters.DeviceIoControl.OutputBufferLength;
}

#endif

/*
 * A summing device whose control code is METHOD_NEITHER.
 *
 * The bug: ProbeForRead is called outside of __try: what it raises for a bad pointer is handled nowhere. It shows with a bad or misaligned input pointer.
 *
 * Device: none
 * Rule: unhandled-exception
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Summer"
#define LINK_NAME L"\\DosDevices\\Summer"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_NEITHER, FILE_ANY_ACCESS)

/* On its own, so that the compiler cannot move it into the __try block. */
__attribute__((noinline)) static VOID Probe(const ULONG *Input, ULONG Length)
{
    ProbeForRead((PVOID)Input, Length, sizeof(ULONG));
}

static NTSTATUS Sum(const ULONG *Input, ULONG Length, PULONG Result)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Index;

#ifndef FIXED
    Probe(Input, Length);
#endif
    *(volatile ULONG *)Result = 0;
    __try {
#ifdef FIXED
        Probe(Input, Length);
#endif
        for (Index = 0; Index < Length / sizeof(ULONG); Index++) {
            *Result += Input[Index];
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;
    ULONG Result;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SUM) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Sum(Stack->Parameters.DeviceIoControl.Type3InputBuffer, InputOf(Stack), &Result);
    DbgPrint("sum: %x\n", Result);
    return Complete(Irp, Status, 0);
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

/*
 * A driver that adds up what programs write: a write of a ULONG adds it, a read gets the sum.
 *
 * The bug: it is linked with sections that are aligned to 512 bytes (/align:512), so that its code and its variables lie on one page, which has the
 * rights of both: Windows with memory integrity does not load it. It shows to those who ask whether it would.
 *
 * The twin, which has FIXED, is linked as any other driver.
 *
 * Device: none
 * Rule: section-not-page-aligned
 * Needs: nothing
 * Compiler: clang align
 * Options: --verifier=all,code-integrity,logging
 */
#include "../include/try.h"
#define DEVICE_NAME L"\\Device\\Adder"
#define LINK_NAME L"\\DosDevices\\Adder"
#include "../include/legacy.h"

static LONG volatile Sum;

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Sum;
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length < sizeof(LONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    InterlockedExchangeAdd(&Sum, *(PLONG)Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    }
    return Status;
}

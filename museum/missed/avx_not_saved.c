/*
 * Adds the eight numbers in its input by one instruction of AVX's, where the processor has that.
 *
 * The bug: the registers of AVX are used without having been saved: what was in them is an application's. It shows with the first request on a processor that has AVX, which the
 * usual one of a check has not.
 *
 * Device: none
 * Rule: extended-state-not-saved
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\WideAdder"
#define LINK_NAME L"\\DosDevices\\WideAdder"
#include "../include/legacy.h"

NTSYSAPI ULONG64 NTAPI RtlGetEnabledExtendedFeatures(ULONG64 Mask);

#define IOCTL_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A3, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MASK_AVX 4
#define NUMBERS 8

typedef ULONG WIDE __attribute__((vector_size(32), aligned(4)));

__attribute__((noinline, target("avx2"))) static ULONG AddWide(const ULONG *Numbers)
{
    WIDE Sums = *(const WIDE *)Numbers;
    ULONG Sum[NUMBERS], At, All = 0;

    Sums = Sums + (Sums >> 16);
    *(WIDE *)Sum = Sums;
    for (At = 0; At < NUMBERS; At++) {
        All += Sum[At] & 0xFFFF;
    }
    return All;
}

static ULONG AddEach(const ULONG *Numbers)
{
    ULONG At, All = 0;

    for (At = 0; At < NUMBERS; At++) {
        All += (Numbers[At] + (Numbers[At] >> 16)) & 0xFFFF;
    }
    return All;
}

static NTSTATUS Add(PULONG Numbers)
{
#ifdef FIXED
    XSTATE_SAVE Save;
    NTSTATUS Status;
#endif

    if (!(RtlGetEnabledExtendedFeatures(MASK_AVX) & MASK_AVX)) {
        Numbers[0] = AddEach(Numbers);
        return STATUS_SUCCESS;
    }
#ifdef FIXED
    Status = KeSaveExtendedProcessorState(MASK_AVX, &Save);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
#endif
    Numbers[0] = AddWide(Numbers);
#ifdef FIXED
    KeRestoreExtendedProcessorState(&Save);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_ADD) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < NUMBERS * sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Status = Add(Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
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

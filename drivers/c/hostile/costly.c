/*
 * costly.sys: a driver without hardware that calls one export, or one pair, without end, where each call costs the host much more than it
 * has instructions. \\.\DirqlCostly, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into
 * Costs below; the input, a ULONG, is how often, without end if there is none. Each run must end with a verdict in reasonable time, and in reasonable output.
 */
#include <ddk/wdm.h>

#include "../control.h"

#define COSTLY_TAG 0x74736F43u /* "Cost" in pool listings */
#define ROUNDS 1000000000u

DRIVER_INITIALIZE DriverEntry;

NTKERNELAPI PVOID NTAPI MmAllocateContiguousMemory(SIZE_T Bytes, PHYSICAL_ADDRESS Highest);
NTKERNELAPI VOID NTAPI MmFreeContiguousMemory(PVOID Base);
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID Base);

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlCostly");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCostly");
static PDRIVER_OBJECT OwnDriver;
static PUCHAR Large; /* a megabyte */
static KEVENT Event, Never; /* the latter is never set */
static KTIMER Timer;

static VOID SetEvent(VOID)
{
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
}

static VOID SmallBlock(VOID)
{
    ExFreePoolWithTag(ExAllocatePoolWithTag(NonPagedPool, 100, COSTLY_TAG), COSTLY_TAG);
}

static VOID LargeBlock(VOID)
{
    ExFreePoolWithTag(ExAllocatePoolWithTag(PagedPool, 0x100000, COSTLY_TAG), COSTLY_TAG);
}

static VOID Compare(VOID)
{
    (VOID)RtlCompareMemory(Large, Large, 0x100000);
}

static VOID Print(VOID)
{
    DbgPrint("%s\n", "a line that says nothing, and is long enough to fill a screen sooner or later, as lines of drivers are");
}

static VOID LockAndMap(VOID)
{
    PMDL Mdl = IoAllocateMdl(Large, 0x100000, FALSE, FALSE, NULL);

    MmProbeAndLockPages(Mdl, KernelMode, IoWriteAccess);
    (VOID)MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
}

static VOID WriteValue(VOID)
{
    RtlWriteRegistryValue(RTL_REGISTRY_SERVICES, L"costly", L"Value", REG_BINARY, Large, 0x10000);
}

static VOID MakeDevice(VOID)
{
    PDEVICE_OBJECT Device;

    if (NT_SUCCESS(IoCreateDevice(OwnDriver, 0x4000, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device))) {
        IoDeleteDevice(Device);
    }
}

static VOID Contiguous(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = -1};

    MmFreeContiguousMemory(MmAllocateContiguousMemory(0x100000, Highest));
}

static VOID SetTimer(VOID)
{
    LARGE_INTEGER Due = {.QuadPart = -10000000LL * 3600};

    KeSetTimer(&Timer, Due, NULL);
    KeCancelTimer(&Timer);
}

static VOID EndAtOnce(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
}

static VOID MakeThread(VOID)
{
    HANDLE Handle;

    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, EndAtOnce, NULL))) {
        ZwClose(Handle);
    }
}

static VOID AskItself(VOID)
{
    IO_STATUS_BLOCK Status;
    KEVENT Done;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(0, OwnDriver->DeviceObject, NULL, 0, NULL, 0, FALSE, &Done, &Status);
    (VOID)IoCallDriver(OwnDriver->DeviceObject, Irp);
}

static VOID Link(VOID)
{
    UNICODE_STRING Other = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCostlyToo");

    IoCreateSymbolicLink(&Other, &DeviceName);
    IoDeleteSymbolicLink(&Other);
}

static VOID Format(VOID)
{
    UNICODE_STRING Text = {0, 0x8000, (PWSTR)Large};
    UNICODE_STRING Other = {0x7000, 0x7000, (PWSTR)(Large + 0x8000)};

    RtlCopyUnicodeString(&Text, &Other);
    (VOID)RtlCompareUnicodeString(&Text, &Other, TRUE);
}

static VOID Where(VOID)
{
    (VOID)MmGetPhysicalAddress(Large);
}

/* ---- what is kept: there is less and less of it ---- */

static ULONG Kept;

static VOID KeepContiguous(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = -1};

    Kept += MmAllocateContiguousMemory(0x100000, Highest) != NULL;
}

static VOID NTAPI WaitForEver(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID KeepThread(VOID)
{
    HANDLE Handle;

    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, WaitForEver, NULL))) {
        ZwClose(Handle);
        Kept++;
    }
}

/* As all those threads do. */
static VOID WaitToo(VOID)
{
    KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, NULL);
}

static VOID KeepMapping(VOID)
{
    PMDL Mdl = IoAllocateMdl(Large, 1, FALSE, FALSE, NULL);

    if (Mdl != NULL) {
        MmProbeAndLockPages(Mdl, KernelMode, IoWriteAccess);
        Kept += MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) != NULL;
    }
}

static VOID KeepPool(VOID)
{
    Kept += ExAllocatePoolWithTag(NonPagedPool, 0x100000, COSTLY_TAG) != NULL;
}

static VOID (*const Costs[])(VOID) = {
    SetEvent, SmallBlock, LargeBlock, Compare, Print, LockAndMap, WriteValue, MakeDevice, /* from 0 on */
    Contiguous, SetTimer, MakeThread, AskItself, Link, Format, Where, KeepContiguous, /* from 8 on */
    KeepThread, KeepMapping, KeepPool, WaitToo, /* from 16 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - 0x800;
    ULONG Round, Rounds = ROUNDS;

    UNREFERENCED_PARAMETER(Device);
    if (Index >= RTL_NUMBER_OF(Costs)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG)) {
        Rounds = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    }
    for (Round = 0; Round < Rounds; Round++) {
        Costs[Index]();
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    OwnDriver = Driver;
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeInitializeEvent(&Never, NotificationEvent, FALSE);
    KeInitializeTimer(&Timer);
    Large = ExAllocatePoolWithTag(PagedPool, 0x100000, COSTLY_TAG);
    if (Large == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Large, 0x100000);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

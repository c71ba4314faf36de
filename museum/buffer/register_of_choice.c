/*
 * A service tool's driver that clears what the processor keeps of the last machine check, by a zero to each of two model-specific registers. The tool, which binds its
 * thread to the processor before, gives the register and the value.
 *
 * The bug: any register is written, and any value, though applications may open the device: the one that says where system calls go, for instance. It shows with a
 * register other than the two.
 *
 * Device: none
 * Rule: instruction-refused
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\MachineCheck"
#define LINK_NAME L"\\DosDevices\\MachineCheck"
#include "../include/legacy.h"

#define IOCTL_CHECK_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE62, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define CHECK_ADDRESS 0 /* IA32_P5_MC_ADDR */
#define CHECK_TYPE 1    /* IA32_P5_MC_TYPE */

/* What the tool gives. */
typedef struct _CHANGE {
    ULONG Register;
    ULONG Low;
    ULONG High;
    ULONG Reserved;
} CHANGE, *PCHANGE;

static NTSTATUS Change(const CHANGE *Change)
{
#ifdef FIXED
    if ((Change->Register != CHECK_ADDRESS && Change->Register != CHECK_TYPE) || Change->Low != 0 || Change->High != 0) {
        return STATUS_INVALID_PARAMETER;
    }
#endif
    __asm__ volatile("wrmsr" : : "c"(Change->Register), "a"(Change->Low), "d"(Change->High) : "memory");
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_CHECK_CLEAR) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(CHANGE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    return Complete(Irp, Change(Irp->AssociatedIrp.SystemBuffer), 0);
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

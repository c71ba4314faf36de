/*
 * As handle_context_left, but that programs switch the filter on and off, which may come between the two routines of an operation: the second is called even so.
 *
 * The bug: handles are filtered when they are created and when they are duplicated, but the block is freed behind a creation only. It shows when a handle of a
 * process is duplicated, and then the driver is unloaded.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: nothing
 * Compiler: clang integritycheck
 */
#define DEVICE_NAME L"\\Device\\RightsToggle"
#define LINK_NAME L"\\DosDevices\\RightsToggle"
#include "../include/try.h"
#include "../include/legacy.h"

#define NOTE_TAG 'etoN'
#define RIGHT_TO_TERMINATE 0x0001 /* PROCESS_TERMINATE */

extern __declspec(dllimport) POBJECT_TYPE *PsProcessType;

/* Of one operation. */
typedef struct _NOTE {
    ACCESS_MASK Wanted;
} NOTE, *PNOTE;

typedef struct _DEVICE {
    KMUTEX Mutex;
    PVOID Registration;
    volatile LONG Refused;
} DEVICE, *PDEVICE;

/* At PASSIVE_LEVEL, in a critical region. */
static OB_PREOP_CALLBACK_STATUS NTAPI Before(PVOID Context, POB_PRE_OPERATION_INFORMATION Info)
{
    PNOTE Note;

    UNREFERENCED_PARAMETER(Context);
    Info->CallContext = NULL;
    if (Info->KernelHandle) {
        return OB_PREOP_SUCCESS;
    }
    Note = ExAllocatePoolWithTag(PagedPool, sizeof(NOTE), NOTE_TAG);
    if (Note != NULL) {
        Note->Wanted = Info->Operation == OB_OPERATION_HANDLE_CREATE ? Info->Parameters->CreateHandleInformation.OriginalDesiredAccess
                                                                     : Info->Parameters->DuplicateHandleInformation.OriginalDesiredAccess;
        Info->CallContext = Note;
    }
    return OB_PREOP_SUCCESS;
}

static BOOLEAN IsRefused(PNOTE Note, POB_POST_OPERATION_INFORMATION Info)
{
    ACCESS_MASK Granted;

    if (!NT_SUCCESS(Info->ReturnStatus)) {
        return FALSE;
    }
    Granted = Info->Operation == OB_OPERATION_HANDLE_CREATE ? Info->Parameters->CreateHandleInformation.GrantedAccess
                                                            : Info->Parameters->DuplicateHandleInformation.GrantedAccess;
    return (Note->Wanted & ~Granted & RIGHT_TO_TERMINATE) != 0;
}

static VOID NTAPI After(PVOID Context, POB_POST_OPERATION_INFORMATION Info)
{
    PDEVICE Own = Context;
    PNOTE Note = Info->CallContext;

#ifndef FIXED
    if (Info->Operation != OB_OPERATION_HANDLE_CREATE) {
        return;
    }
#endif
    if (Note == NULL) {
        return;
    }
    if (IsRefused(Note, Info)) {
        InterlockedIncrement(&Own->Refused);
    }
    ExFreePoolWithTag(Note, NOTE_TAG);
}

static NTSTATUS Filter(PDEVICE Own)
{
    OB_OPERATION_REGISTRATION Processes = {PsProcessType, OB_OPERATION_HANDLE_CREATE | OB_OPERATION_HANDLE_DUPLICATE, Before, After};
    OB_CALLBACK_REGISTRATION All = {OB_FLT_REGISTRATION_VERSION, 1, RTL_CONSTANT_STRING(L"321000.77"), Own, &Processes};

    return ObRegisterCallbacks(&All, &Own->Registration);
}

#define IOCTL_ON CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE70, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OFF CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE71, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status = STATUS_SUCCESS;

    KeWaitForSingleObject(&Own->Mutex, Executive, KernelMode, FALSE, NULL);
    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_ON:
        if (Own->Registration == NULL) {
            Status = Filter(Own);
        }
        break;
    case IOCTL_OFF:
        if (Own->Registration != NULL) {
            ObUnRegisterCallbacks(Own->Registration);
            Own->Registration = NULL;
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    KeReleaseMutex(&Own->Mutex, FALSE);
    return Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Own->Refused;
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Registration != NULL) {
        ObUnRegisterCallbacks(Own->Registration);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeMutex(&((PDEVICE)Device->DeviceExtension)->Mutex, 0);
    Status = Filter(Device->DeviceExtension);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

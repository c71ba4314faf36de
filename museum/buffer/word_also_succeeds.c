/*
 * A chime: one code strikes a note, which is any word, one begins to keep a protocol of the service. One word is no note but the service's: it is put down
 * in the protocol, and answered as every note is.
 *
 * The bug: the service's word is put down whether a protocol has been begun or not. It shows with this one word of all, where no protocol was begun before.
 *
 * Device: none
 * Rule: wild-read, wild-write, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Chime"
#define LINK_NAME L"\\DosDevices\\Chime"
#include "../include/legacy.h"

#define IOCTL_CHIME_STRIKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE12, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHIME_PROTOCOL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE13, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define SERVICE_WORD 0x5AFE0001
#define PROTOCOL_TAG 'orPC'

typedef struct _PROTOCOL {
    ULONG Services;
    ULONG Note; /* the last one before the service */
    ULONG64 Last;
} PROTOCOL, *PPROTOCOL;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    ULONG Note;
    PPROTOCOL Protocol; /* from the first IOCTL_CHIME_PROTOCOL to Unload */
} DEVICE, *PDEVICE;

static VOID Serve(PDEVICE Own)
{
#ifdef FIXED
    if (Own->Protocol == NULL) {
        return;
    }
#endif
    Own->Protocol->Services++;
    Own->Protocol->Note = Own->Note;
    Own->Protocol->Last = KeQueryInterruptTime();
}

static NTSTATUS BeginProtocol(PDEVICE Own)
{
    if (Own->Protocol == NULL) {
        Own->Protocol = ExAllocatePoolWithTag(NonPagedPool, sizeof(PROTOCOL), PROTOCOL_TAG);
        if (Own->Protocol == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    RtlZeroMemory(Own->Protocol, sizeof(PROTOCOL));
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Word;

    ExAcquireFastMutex(&Own->Mutex);
    switch (CodeOf(Stack)) {
    case IOCTL_CHIME_STRIKE:
        if (InputOf(Stack) < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Word = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (Word == SERVICE_WORD) {
            Serve(Own);
        } else {
            Own->Note = Word;
        }
        break;
    case IOCTL_CHIME_PROTOCOL:
        Status = BeginProtocol(Own);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, Status, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Protocol != NULL) {
        ExFreePoolWithTag(Own->Protocol, PROTOCOL_TAG);
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
    ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Mutex);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

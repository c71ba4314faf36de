/*
 * A counter of ticks that an application gives an event for: the event is set each time when the counter passes the step that was asked for. Which channel it is and
 * which step stand before the event's handle in the input.
 *
 * The bug: an event that takes another one's place is kept without the other one's reference being given back. It shows with two events for one channel.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\TickCounter"
#define LINK_NAME L"\\DosDevices\\TickCounter"
#include "../include/driver.h"
#include "../include/legacy.h"

#define IOCTL_TICK_EVENT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA11, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: WANTED, out: ULONG, the ticks so far */
#define IOCTL_TICK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA12, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define CHANNELS 2
#define LONGEST_STEP 100000

typedef struct _WANTED {
    ULONG Channel;
    ULONG Step; /* ticks */
    HANDLE Event;
} WANTED, *PWANTED;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    ULONG Ticks;
    ULONG Step[CHANNELS];
    PKEVENT Event[CHANNELS];
} DEVICE, *PDEVICE;

static NTSTATUS SetEvent(PDEVICE Own, const WANTED *Wanted)
{
    PKEVENT Event, Old;
    NTSTATUS Status;

    if (Wanted->Channel >= CHANNELS || Wanted->Step == 0 || Wanted->Step > LONGEST_STEP) {
        return STATUS_INVALID_PARAMETER;
    }
    Status = ObReferenceObjectByHandle(Wanted->Event, EVENT_MODIFY_STATE, *ExEventObjectType, UserMode, (PVOID *)&Event, NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ExAcquireFastMutex(&Own->Mutex);
    Old = Own->Event[Wanted->Channel];
    Own->Event[Wanted->Channel] = Event;
    Own->Step[Wanted->Channel] = Wanted->Step;
    ExReleaseFastMutex(&Own->Mutex);
#ifdef FIXED
    if (Old != NULL) {
        ObDereferenceObject(Old);
    }
#else
    UNREFERENCED_PARAMETER(Old);
#endif
    return STATUS_SUCCESS;
}

static VOID Tick(PDEVICE Own)
{
    ULONG Channel;

    ExAcquireFastMutex(&Own->Mutex);
    Own->Ticks++;
    for (Channel = 0; Channel < CHANNELS; Channel++) {
        if (Own->Event[Channel] != NULL && Own->Ticks % Own->Step[Channel] == 0) {
            KeSetEvent(Own->Event[Channel], IO_NO_INCREMENT, FALSE);
        }
    }
    ExReleaseFastMutex(&Own->Mutex);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    switch (CodeOf(Stack)) {
    case IOCTL_TICK:
        Tick(Own);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_TICK_EVENT:
        if (InputOf(Stack) != sizeof(WANTED) || Stack->Parameters.DeviceIoControl.OutputBufferLength != sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
        }
        Status = SetEvent(Own, Irp->AssociatedIrp.SystemBuffer);
        if (!NT_SUCCESS(Status)) {
            return Complete(Irp, Status, 0);
        }
        ExAcquireFastMutex(&Own->Mutex);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Own->Ticks;
        ExReleaseFastMutex(&Own->Mutex);
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;
    ULONG Channel;

    for (Channel = 0; Channel < CHANNELS; Channel++) {
        if (Own->Event[Channel] != NULL) {
            ObDereferenceObject(Own->Event[Channel]);
        }
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Mutex);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}

/*
 * What the drivers without hardware share that are asked by control codes: one device with a link to it, requests that end at
 * once, and stories that check themselves. Included behind the DDK's declarations.
 */
#ifndef CONTROL_H
#define CONTROL_H

typedef struct _STORY_RESULT {
    ULONG Failed; /* the line of the first check that failed, 0 if all held */
    ULONG Held;   /* checks that held */
} STORY_RESULT;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DispatchSucceed(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

#ifndef CONTROL_WITHOUT_DEVICE /* defined by a driver whose devices are added */

static PUNICODE_STRING ControlLink;

static VOID NTAPI ControlUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(ControlLink);
    IoDeleteDevice(Driver->DeviceObject);
}

/* Makes the device and its link. The routines that a driver has of its own it sets afterwards. */
__attribute__((unused)) static NTSTATUS ControlStart(PDRIVER_OBJECT Driver, PUNICODE_STRING Name,
                                                     PUNICODE_STRING Link, PDRIVER_DISPATCH DeviceControl)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, 0, Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(Link, Name);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    ControlLink = Link;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverUnload = ControlUnload;
    return STATUS_SUCCESS;
}

#endif

#ifdef STORIES /* the driver's name, in what a failed check prints */

static ULONG ChecksHeld; /* of the story that runs: requests come one at a time */

/* Leaves the story with the line of the first check that fails. */
#define CHECK(Condition)                                                                                               \
    do {                                                                                                               \
        if (!(Condition)) {                                                                                            \
            DbgPrint(STORIES ": %s:%u: %s\n", __FILE_NAME__, __LINE__, #Condition);                                    \
            return __LINE__;                                                                                           \
        }                                                                                                              \
        ChecksHeld++;                                                                                                  \
    } while (0)

/* Leaves the story with what another routine of it has returned, unless that is 0. */
#define CHECK_ALL(Story)                                                                                               \
    do {                                                                                                               \
        ULONG Failed_ = (Story);                                                                                       \
        if (Failed_ != 0) {                                                                                            \
            return Failed_;                                                                                            \
        }                                                                                                              \
    } while (0)

/* Tells story Index of Count, and answers with its STORY_RESULT. */
static NTSTATUS TellStory(PIRP Irp, ULONG (*const *Stories)(VOID), ULONG Index, ULONG Count)
{
    STORY_RESULT *Result = Irp->AssociatedIrp.SystemBuffer;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Index >= Count) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*Result)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    ChecksHeld = 0;
    Result->Failed = Stories[Index]();
    Result->Held = ChecksHeld;
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Result));
}

#endif
#endif

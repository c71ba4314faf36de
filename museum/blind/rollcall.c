/*
 * rollcall: processes sign in under a name; anyone may ask who is present, one entry at a time or all at once.
 * An entry belongs to the handle through which it was made and goes with it.
 *
 * The bug: an answer is built in a structure on the stack whose name field is filled only up to the name's end; the
 * rest is copied out uninitialised.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>

NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);

#define IOCTL_ROLL_SIGN_IN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ROLL_ALL     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROLL_ONE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define ROLL_TAG  'lloR'
#define ROLL_NAME 40
#define ROLL_MOST 500

/* What the application sees. */
typedef struct _ROLL_ANSWER {
    ULONG64 Process;
    LARGE_INTEGER Since;
    CHAR Name[ROLL_NAME];
} ROLL_ANSWER;

typedef struct _PUPIL {
    LIST_ENTRY Link;
    PFILE_OBJECT Owner;
    HANDLE Process;
    LARGE_INTEGER Since;
    USHORT Length;
    CHAR Name[ROLL_NAME];
} PUPIL;

typedef struct _ROLL {
    FAST_MUTEX Lock;
    LIST_ENTRY Pupils;
    ULONG Count;
} ROLL;

static NTSTATUS SignIn(ROLL *Roll, PFILE_OBJECT Owner, const CHAR *Name, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;
    PUPIL *pupil;

    if (Length == 0 || Length >= ROLL_NAME)
        return STATUS_INVALID_PARAMETER;
    pupil = ExAllocatePoolWithTag(PagedPool, sizeof(*pupil), ROLL_TAG);
    if (!pupil)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(pupil, sizeof(*pupil));
    pupil->Owner = Owner;
    pupil->Process = PsGetCurrentProcessId();
    KeQuerySystemTime(&pupil->Since);
    pupil->Length = (USHORT)Length;
    RtlCopyMemory(pupil->Name, Name, Length);
    ExAcquireFastMutex(&Roll->Lock);
    if (Roll->Count < ROLL_MOST) {
        Roll->Count++;
        InsertTailList(&Roll->Pupils, &pupil->Link);
        pupil = NULL;
    } else {
        status = STATUS_QUOTA_EXCEEDED;
    }
    ExReleaseFastMutex(&Roll->Lock);
    if (pupil)
        ExFreePoolWithTag(pupil, ROLL_TAG);
    return status;
}

static VOID Describe(const PUPIL *Pupil, ROLL_ANSWER *Out)
{
    ROLL_ANSWER answer;

#ifdef FIXED
    RtlZeroMemory(&answer, sizeof(answer));
#endif
    answer.Process = (ULONG64)(ULONG_PTR)Pupil->Process;
    answer.Since = Pupil->Since;
    RtlCopyMemory(answer.Name, Pupil->Name, Pupil->Length + 1);
    RtlCopyMemory(Out, &answer, sizeof(answer));
}

/* From the pupil of the given number on, as many as there is room for. */
static ULONG_PTR Answer(ROLL *Roll, ULONG First, ROLL_ANSWER *Out, ULONG Room)
{
    PLIST_ENTRY e;
    ULONG n = 0, done = 0;

    ExAcquireFastMutex(&Roll->Lock);
    for (e = Roll->Pupils.Flink; e != &Roll->Pupils && done < Room; e = e->Flink) {
        if (n++ >= First)
            Describe(CONTAINING_RECORD(e, PUPIL, Link), &Out[done++]);
    }
    ExReleaseFastMutex(&Roll->Lock);
    return (ULONG_PTR)done * sizeof(ROLL_ANSWER);
}

static NTSTATUS NTAPI RollControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ROLL *roll = Device->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROLL_SIGN_IN:
        status = SignIn(roll, stack->FileObject, buffer, in);
        break;
    case IOCTL_ROLL_ALL:
        if (out < sizeof(ROLL_ANSWER))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            info = Answer(roll, 0, buffer, out / sizeof(ROLL_ANSWER));
        break;
    case IOCTL_ROLL_ONE:
        if (in < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
        } else if (out < sizeof(ROLL_ANSWER)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            info = Answer(roll, *(PULONG)buffer, buffer, 1);
            if (info == 0)
                status = STATUS_NO_MORE_ENTRIES;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI RollOther(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ROLL *roll = Device->DeviceExtension;

    if (stack->MajorFunction == IRP_MJ_CLOSE) {     /* no request of this file is under way any longer */
        PLIST_ENTRY e, next;

        ExAcquireFastMutex(&roll->Lock);
        for (e = roll->Pupils.Flink; e != &roll->Pupils; e = next) {
            PUPIL *pupil = CONTAINING_RECORD(e, PUPIL, Link);

            next = e->Flink;
            if (pupil->Owner == stack->FileObject) {
                RemoveEntryList(e);
                roll->Count--;
                ExFreePoolWithTag(pupil, ROLL_TAG);
            }
        }
        ExReleaseFastMutex(&roll->Lock);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI RollUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RollCall");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\RollCall");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RollCall");
    PDEVICE_OBJECT device;
    NTSTATUS status;
    ROLL *roll;

    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = RollOther;
    Driver->MajorFunction[IRP_MJ_CLOSE] = RollOther;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RollControl;
    Driver->DriverUnload = RollUnload;
    status = IoCreateDevice(Driver, sizeof(ROLL), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    roll = device->DeviceExtension;
    ExInitializeFastMutex(&roll->Lock);
    InitializeListHead(&roll->Pupils);
    roll->Count = 0;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}

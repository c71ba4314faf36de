/*
 * A jukebox with five codes in a row: a routine makes an index of the code, and a table has what is called for it.
 *
 * The bug: the title is copied to the output, 32 bytes, without a look at how long it is. It shows with the fourth code and an output that is shorter.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, information-too-large, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Jukebox"
#define LINK_NAME L"\\DosDevices\\Jukebox"
#include "../include/legacy.h"

/* Stop, choose, chosen, title, volume. */
#define IOCTL_JUKEBOX_FIRST CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE14, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STEP 4 /* from a function's number to the next */
#define CODES 5
#define RECORDS 40
#define TITLE 32

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    ULONG Chosen; /* 0 if none is */
    ULONG Volume;
    CHAR Title[TITLE];
} DEVICE, *PDEVICE;

typedef struct _CALL {
    PULONG Buffer;
    ULONG Input;
    ULONG Output;
    ULONG Written;
} CALL, *PCALL;

typedef NTSTATUS (*HANDLER)(PDEVICE Own, PCALL Call);

static NTSTATUS Stop(PDEVICE Own, PCALL Call)
{
    UNREFERENCED_PARAMETER(Call);
    Own->Chosen = 0;
    RtlZeroMemory(Own->Title, TITLE);
    return STATUS_SUCCESS;
}

static NTSTATUS Choose(PDEVICE Own, PCALL Call)
{
    if (Call->Input != sizeof(ULONG) || *Call->Buffer == 0 || *Call->Buffer > RECORDS) {
        return STATUS_INVALID_PARAMETER;
    }
    Own->Chosen = *Call->Buffer;
    RtlCopyMemory(Own->Title, "Record 00", 10);
    Own->Title[7] = (CHAR)('0' + Own->Chosen / 10);
    Own->Title[8] = (CHAR)('0' + Own->Chosen % 10);
    return STATUS_SUCCESS;
}

static NTSTATUS Chosen(PDEVICE Own, PCALL Call)
{
    if (Call->Output < sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    *Call->Buffer = Own->Chosen;
    Call->Written = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS Title(PDEVICE Own, PCALL Call)
{
#ifdef FIXED
    if (Call->Output < TITLE) {
        return STATUS_BUFFER_TOO_SMALL;
    }
#endif
    RtlCopyMemory(Call->Buffer, Own->Title, TITLE);
    Call->Written = TITLE;
    return STATUS_SUCCESS;
}

static NTSTATUS Volume(PDEVICE Own, PCALL Call)
{
    if (Call->Input != sizeof(ULONG)) {
        return STATUS_INVALID_PARAMETER;
    }
    Own->Volume = min(*Call->Buffer, 11);
    return STATUS_SUCCESS;
}

static const HANDLER Handlers[CODES] = {Stop, Choose, Chosen, Title, Volume};

/* CODES for what is none of them. */
__attribute__((noinline)) static ULONG IndexOf(ULONG Code)
{
    ULONG Offset = Code - IOCTL_JUKEBOX_FIRST;

    return Offset % IOCTL_STEP == 0 && Offset / IOCTL_STEP < CODES ? Offset / IOCTL_STEP : CODES;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    CALL Call = {Irp->AssociatedIrp.SystemBuffer, InputOf(Stack), OutputOf(Stack), 0};
    ULONG Index = IndexOf(CodeOf(Stack));
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (Index == CODES) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    ExAcquireFastMutex(&Own->Mutex);
    Status = Handlers[Index](Own, &Call);
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, Status, Call.Written);
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
    return STATUS_SUCCESS;
}

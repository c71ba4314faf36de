/*
 * sigboard: a signal board for the programs of a test bench. A program hangs events on it, each
 * with a mask of signals; another one raises signals, and the board sets the events that ask for
 * them. A list of what hangs on the board can be read.
 *
 * The bug: the list's length is reported as the whole table, though only the places in use are
 * written to it: the rest of the system buffer goes to the application as it was.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FR_LEGACY
#include "../include/entered_gate.h"

#define BOARD_NAME L"\\Device\\SigBoard"
#define BOARD_LINK L"\\DosDevices\\SigBoard"

#define IOCTL_BOARD_HANG  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BOARD_TAKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BOARD_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BOARD_LIST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_READ_ACCESS)

#define BOARD_PLACES 16

typedef struct _BOARD_HANG {
    ULONG64 Event; /* a handle */
    ULONG Mask;
    ULONG Reserved;
} BOARD_HANG;

typedef struct _BOARD_ENTRY {
    ULONG Place;
    ULONG Mask;
    ULONG Raised;
    ULONG Own; /* 1: hung up by this handle */
} BOARD_ENTRY;

typedef struct _PLACE {
    PKEVENT Event; /* referenced; NULL: free */
    PFILE_OBJECT File;
    ULONG Mask;
    ULONG Raised;
} PLACE, *PPLACE;

typedef struct _BOARD_EXT {
    FAST_MUTEX Lock;
    PLACE Places[BOARD_PLACES];
} BOARD_EXT, *PBOARD_EXT;

static NTSTATUS BoardHang(PBOARD_EXT x, PFILE_OBJECT File, const BOARD_HANG *Hang, KPROCESSOR_MODE Mode, ULONG *Place)
{
    PVOID event;
    NTSTATUS status;
    ULONG i;

    if (Hang->Mask == 0)
        return STATUS_INVALID_PARAMETER;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)Hang->Event, EVENT_MODIFY_STATE, *ExEventObjectType, Mode, &event, NULL);
    if (!NT_SUCCESS(status))
        return status;
    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < BOARD_PLACES && x->Places[i].Event; i++)
        ;
    if (i < BOARD_PLACES) {
        x->Places[i].Event = event;
        x->Places[i].File = File;
        x->Places[i].Mask = Hang->Mask;
        x->Places[i].Raised = 0;
    }
    ExReleaseFastMutex(&x->Lock);
    if (i == BOARD_PLACES) {
        ObDereferenceObject(event);
        return STATUS_QUOTA_EXCEEDED;
    }
    *Place = i;
    return STATUS_SUCCESS;
}

/* Takes down one place of the handle. */
static NTSTATUS BoardTake(PBOARD_EXT x, PFILE_OBJECT File, ULONG Place)
{
    PKEVENT event = NULL;

    if (Place >= BOARD_PLACES)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&x->Lock);
    if (x->Places[Place].Event && x->Places[Place].File == File) {
        event = x->Places[Place].Event;
        RtlZeroMemory(&x->Places[Place], sizeof(PLACE));
    }
    ExReleaseFastMutex(&x->Lock);
    if (!event)
        return STATUS_NOT_FOUND;
    ObDereferenceObject(event);
    return STATUS_SUCCESS;
}

static ULONG BoardRaise(PBOARD_EXT x, ULONG Mask)
{
    ULONG i, hit = 0;

    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < BOARD_PLACES; i++) {
        PPLACE p = &x->Places[i];
        if (p->Event && (p->Mask & Mask)) {
            p->Raised++;
            KeSetEvent(p->Event, IO_NO_INCREMENT, FALSE);
            hit++;
        }
    }
    ExReleaseFastMutex(&x->Lock);
    return hit;
}

/* Returns the bytes of the list. */
static ULONG BoardList(PBOARD_EXT x, PFILE_OBJECT File, BOARD_ENTRY *Out, ULONG Room)
{
    ULONG i, n = 0;

    if (Room > BOARD_PLACES)
        Room = BOARD_PLACES;
    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < BOARD_PLACES && n < Room; i++) {
        PPLACE p = &x->Places[i];
        if (!p->Event)
            continue;
        Out[n].Place = i;
        Out[n].Mask = p->Mask;
        Out[n].Raised = p->Raised;
        Out[n].Own = p->File == File;
        n++;
    }
    ExReleaseFastMutex(&x->Lock);
#ifdef FIXED
    return n * sizeof(BOARD_ENTRY);
#else
    return Room * sizeof(BOARD_ENTRY);
#endif
}

static NTSTATUS NTAPI BoardControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOARD_EXT x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG information = 0, place = 0;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BOARD_HANG:
        if (inLength < sizeof(BOARD_HANG) || outLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = BoardHang(x, s->FileObject, buffer, Irp->RequestorMode, &place);
        if (NT_SUCCESS(status)) {
            *(ULONG *)buffer = place;
            information = sizeof(ULONG);
        }
        break;
    case IOCTL_BOARD_TAKE:
        if (inLength < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = BoardTake(x, s->FileObject, *(ULONG *)buffer);
        break;
    case IOCTL_BOARD_RAISE:
        if (inLength < sizeof(ULONG) || outLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(ULONG *)buffer = BoardRaise(x, *(ULONG *)buffer);
        information = sizeof(ULONG);
        break;
    case IOCTL_BOARD_LIST:
        if (outLength < sizeof(BOARD_ENTRY)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        information = BoardList(x, s->FileObject, buffer, outLength / sizeof(BOARD_ENTRY));
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return FrComplete(Irp, status, information);
}

static NTSTATUS NTAPI BoardCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    FR_UNUSED(Device);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* In IRP_MJ_CLOSE, too: a request that was on its way at cleanup may have hung up another one. */
static NTSTATUS NTAPI BoardLeave(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOARD_EXT x = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG i;

    for (i = 0; i < BOARD_PLACES; i++)
        BoardTake(x, file, i);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI BoardUnload(PDRIVER_OBJECT Driver)
{
    FrLegacyDelete(Driver->DeviceObject, BOARD_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PBOARD_EXT x;
    NTSTATUS status;

    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = BoardCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoardLeave;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BoardLeave;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BoardControl;
    Driver->DriverUnload = BoardUnload;
    status = FrLegacyCreate(Driver, BOARD_NAME, BOARD_LINK, sizeof(BOARD_EXT), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    ExInitializeFastMutex(&x->Lock);
    return STATUS_SUCCESS;
}

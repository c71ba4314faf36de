/*
 * sections.sys: a driver whose control codes tell stories of sections, their views and address spaces and check what
 * they answer against what Microsoft documents. \\.\DirqlSections tells each story of Stories below by its name
 * (IOCTL_TELL_STORY of control.h). It needs no hardware; some stories look for a card 1234:5678.
 *
 * 0x900 shows a section to the application that asks and answers with its address; 0x901 answers with the first eight bytes of it, as
 * the driver sees them in system space, and writes the next eight; 0x902 does the same with the card's first window, and tells only
 * the address; 0x903 takes both away.
 *
 * 0x904, with an address (or 0) and a value, allocates a page there in the process that asks, puts the value in, and answers with the
 * address; 0x905, with the id of a process and an address, answers with what that process has there, as a system thread sees it that
 * attaches to it.
 */
#include "sections/shared.h"
#include "sections/refused.h"
#include "sections/physical.h"
#include "sections/spaces.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSections");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSections");

static const STORY Stories[] = {
    STORY(TwoViews), STORY(Parts), STORY(Reserved), STORY(SystemSpace), STORY(OwnProcess), STORY(RefusedSections),
    STORY(RefusedViews), STORY(Names), STORY(OwnRam), STORY(Firmware), STORY(CardsWindow), STORY(FirstMegabyte),
    STORY(UncachedRam), STORY(TouchedElsewhere), STORY(TouchedByApplication), STORY(Allocates),
    STORY(RefusedAllocations), STORY(OneAddress), STORY(Attaches), STORY(Secures), STORY(TouchedMappedElsewhere),
    STORY(AddressesAreKnown),
};

/* What an application sees, and the driver in system space. */
static PVOID Shown, ShownCard;
static volatile ULONGLONG *Mine;

static NTSTATUS ShowMemory(VOID)
{
    HANDLE Section;
    PVOID Object, View;
    SIZE_T Bytes = 0;
    NTSTATUS Status = Create(&Section, 0x4000, PAGE_READWRITE, SEC_COMMIT);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Object = ObjectOf(Section);
    Status = MmMapViewInSystemSpace(Object, &View, &Bytes);
    ObDereferenceObject(Object);
    if (NT_SUCCESS(Status)) {
        Mine = View;
        Status = MapAll(Section, &Shown, PAGE_READWRITE);
        if (!NT_SUCCESS(Status)) {
            MmUnmapViewInSystemSpace(View);
            Mine = NULL;
        }
    }
    ZwClose(Section);
    return Status;
}

static NTSTATUS ShowCard(VOID)
{
    LONGLONG At = Card(), Offset = At;
    SIZE_T Bytes = 0x1000;
    HANDLE Section;
    PVOID Base;
    NTSTATUS Status = OpenPhysicalMemory(&Section);

    if (NT_SUCCESS(Status)) {
        Status = MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE | PAGE_NOCACHE);
        ShownCard = NT_SUCCESS(Status) ? (PUCHAR)Base + (At - Offset) : NULL;
        ZwClose(Section);
    }
    return Status;
}

static NTSTATUS HideAll(VOID)
{
    if (Mine != NULL) {
        MmUnmapViewInSystemSpace((PVOID)Mine);
        Unmap(Shown);
        Mine = NULL;
    }
    if (ShownCard != NULL) {
        Unmap(ShownCard);
        ShownCard = NULL;
    }
    return STATUS_SUCCESS;
}

/* Of 0x904 and 0x905. */
typedef struct _WHERE {
    ULONGLONG Where, What;
} WHERE;

static NTSTATUS AllocateAt(const WHERE *Asked, PULONGLONG Answer)
{
    ULONGLONG Value = Asked->What;
    PVOID Base = (PVOID)(ULONG_PTR)Asked->Where;
    SIZE_T Size = PAGE_SIZE;
    NTSTATUS Status = Allocate(&Base, &Size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);

    if (NT_SUCCESS(Status)) {
        *(volatile ULONGLONG *)Base = Value;
        *Answer = (ULONG_PTR)Base;
    }
    return Status;
}

static struct {
    PEPROCESS Process;
    ULONGLONG At, Seen;
} Look;

static VOID NTAPI LooksThere(PVOID Context)
{
    ATTACH_STATE State;

    UNREFERENCED_PARAMETER(Context);
    KeStackAttachProcess(Look.Process, &State);
    Look.Seen = *(volatile ULONGLONG *)(ULONG_PTR)Look.At;
    KeUnstackDetachProcess(&State);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS LookAt(const WHERE *Asked, PULONGLONG Answer)
{
    NTSTATUS Status;

    Look.At = Asked->What;
    Status = PsLookupProcessByProcessId((HANDLE)(ULONG_PTR)Asked->Where, &Look.Process);
    if (NT_SUCCESS(Status)) {
        Status = InSystemThread(LooksThere, NULL);
        ObDereferenceObject(Look.Process);
        *Answer = Look.Seen;
    }
    return Status;
}

static NTSTATUS Share(PIRP Irp, ULONG Function)
{
    PULONGLONG Answer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_INVALID_DEVICE_REQUEST;

    switch (Function) {
    case 0x900:
        Status = ShowMemory();
        *Answer = (ULONG_PTR)Shown;
        break;
    case 0x901:
        Status = Mine != NULL ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE;
        if (Mine != NULL) {
            *Answer = Mine[0];
            Mine[1] = Mine[0] + 1;
        }
        break;
    case 0x902:
        Status = ShowCard();
        *Answer = (ULONG_PTR)ShownCard;
        break;
    case 0x903:
        Status = HideAll();
        break;
    case 0x904:
        Status = AllocateAt(Irp->AssociatedIrp.SystemBuffer, Answer);
        break;
    case 0x905:
        Status = LookAt(Irp->AssociatedIrp.SystemBuffer, Answer);
        break;
    }
    return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(*Answer) : 0);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Function = (Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF;

    UNREFERENCED_PARAMETER(Device);
    if (Function >= 0x900 && Function <= 0x905) {
        ULONG Needed = Function >= 0x904 ? sizeof(WHERE) : 0;

        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG) ||
            Stack->Parameters.DeviceIoControl.InputBufferLength < Needed) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Share(Irp, Function);
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

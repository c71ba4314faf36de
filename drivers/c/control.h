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

#ifndef CONTROL_EXTENSION /* bytes of the device extension, of a driver that has one */
#define CONTROL_EXTENSION 0
#endif

/* Makes the device and its link. The routines that a driver has of its own it sets afterwards. */
__attribute__((unused)) static NTSTATUS ControlStart(PDRIVER_OBJECT Driver, PUNICODE_STRING Name,
                                                     PUNICODE_STRING Link, PDRIVER_DISPATCH DeviceControl)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, CONTROL_EXTENSION, Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                                     &Device);

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

#ifndef CHECK /* a driver may have one of its own */
/* Leaves the story with the line of the first check that fails. */
#define CHECK(Condition)                                                                                               \
    do {                                                                                                               \
        if (!(Condition)) {                                                                                            \
            DbgPrint(STORIES ": %s:%u: %s\n", __FILE_NAME__, __LINE__, #Condition);                                    \
            return __LINE__;                                                                                           \
        }                                                                                                              \
        ChecksHeld++;                                                                                                  \
    } while (0)
#endif

/* Leaves the story with what another routine of it has returned, unless that is 0. */
#define CHECK_ALL(Story)                                                                                               \
    do {                                                                                                               \
        ULONG Failed_ = (Story);                                                                                       \
        if (Failed_ != 0) {                                                                                            \
            return Failed_;                                                                                            \
        }                                                                                                              \
    } while (0)

/* What a test asks for by the name of its function: a story, which checks what happens, or a bug, which ends the run. */
typedef struct _STORY {
    const CHAR *Name;
    ULONG (*Tell)(VOID); /* returns 0, or the line of the first check that failed */
    VOID (*Commit)(VOID);
} STORY;

#define STORY(Function) {#Function, Function, NULL}
#define BUG(Function) {#Function, NULL, Function}

/* Input: the name, and behind a byte of 0 what the story wants to know (StoryInput). Output: a STORY_RESULT. */
#define IOCTL_TELL_STORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xFFE, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: all names, a line each. */
#define IOCTL_LIST_STORIES CTL_CODE(FILE_DEVICE_UNKNOWN, 0xFFF, METHOD_BUFFERED, FILE_ANY_ACCESS)

static ULONG NameLength(const CHAR *Name, ULONG Most)
{
    ULONG Length = 0;

    while (Length < Most && Name[Length] != '\0') {
        Length++;
    }
    return Length;
}

static BOOLEAN IsName(const CHAR *Name, const CHAR *Input, ULONG Length)
{
    for (ULONG Index = 0; Index < Length; Index++) {
        if (Name[Index] != Input[Index]) { /* which is before Name's end: Input has no 0 before Length */
            return FALSE;
        }
    }
    return Name[Length] == '\0';
}

/* The story that the input names, or NULL. */
static const STORY *StoryOf(PIRP Irp, const STORY *Stories, ULONG Count)
{
    const CHAR *Input = Irp->AssociatedIrp.SystemBuffer;
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength;

    for (ULONG Index = 0; Room != 0 && Index < Count; Index++) {
        if (IsName(Stories[Index].Name, Input, NameLength(Input, Room))) {
            return &Stories[Index];
        }
    }
    return NULL;
}

/* The Length bytes that stand behind the name, or NULL if the input ends otherwise. */
static inline const VOID *StoryInput(PIRP Irp, ULONG Length)
{
    const CHAR *Input = Irp->AssociatedIrp.SystemBuffer;
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Behind = NameLength(Input, Room) + 1;

    return Room == Behind + Length ? Input + Behind : NULL;
}

static NTSTATUS ListStories(PIRP Irp, const STORY *Stories, ULONG Count)
{
    CHAR *Names = Irp->AssociatedIrp.SystemBuffer;
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG Length = 0;

    for (ULONG Index = 0; Index < Count; Index++) {
        ULONG More = NameLength(Stories[Index].Name, MAXULONG);

        if (Room - Length < More + 1) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        RtlCopyMemory(Names + Length, Stories[Index].Name, More);
        Names[Length + More] = '\n';
        Length += More + 1;
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

/* Answers IOCTL_TELL_STORY and IOCTL_LIST_STORIES, and refuses every other request. */
static NTSTATUS TellStory(PIRP Irp, const STORY *Stories, ULONG Count)
{
    STORY_RESULT *Result = Irp->AssociatedIrp.SystemBuffer;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    const STORY *Story;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TELL_STORY:
        break;
    case IOCTL_LIST_STORIES:
        return ListStories(Irp, Stories, Count);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Story = StoryOf(Irp, Stories, Count);
    if (Story == NULL) {
        return Complete(Irp, STATUS_NOT_FOUND, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*Result)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    ChecksHeld = 0;
    if (Story->Tell == NULL) {
        Story->Commit();
        Result->Failed = 0;
    } else {
        Result->Failed = Story->Tell();
    }
    Result->Held = ChecksHeld;
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Result));
}

#endif
#endif

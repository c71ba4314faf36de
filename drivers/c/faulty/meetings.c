/*
 * meetings.sys: places where two flows of control meet, and which a search finds only if it knows of them: inside loops that go
 * round thousands of times, beside calls of the kernel's that store in the driver's memory, and in memory that is freed. One device,
 * \\.\DirqlMeetings, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N as below.
 *
 * A run that goes its usual way never shows any of it.
 */
#include <ddk/wdm.h>

#include "../control.h"

#define MEETINGS_TAG 0x7465654Du /* "Meet" in pool listings */
#define FUNCTION(Code) (((Code) >> 2) & 0xFFF)
#define ROUNDS 2000

enum {
    TELL_LOST = 0x800,    /* output: ULONG, how many increments were lost */
    ADD = 0x801,          /* the increment that can be lost */
    ADD_OFTEN = 0x802,    /* ROUNDS of them */
    WAIT_AND_ADD = 0x803, /* spins until SAY_AND_ADD has said so, and adds */
    SAY_AND_ADD = 0x804,
    RENAME = 0x805,    /* only the kernel stores a name */
    LOOK_UP = 0x806,   /* loads it, piece by piece */
    TELL_TORN = 0x807, /* output: ULONG, how often the pieces were of two names */
    REPLACE = 0x808,   /* frees the block, with another one in its place */
    USE = 0x809,       /* loads the block's address, and then what it holds */
    RAISE_FIRST = 0x80A, /* raises the first flag, and looks whether the second one is up */
    RAISE_SECOND = 0x80B,
    RAISE_FIRST_FIRMLY = 0x80C, /* the same with a memory barrier between */
    RAISE_SECOND_FIRMLY = 0x80D,
    TELL_SEEN = 0x80E, /* output: ULONG, bit 0: the one that raised the first has seen the second; bit 1: the other way round; or what TAKE has
                          loaded, bit 0: it was there; bit 1: the value */
    PUBLISH = 0x80F, /* stores a value, and then that it is there */
    TAKE = 0x810,    /* loads whether it is there, and then the value */
};

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlMeetings");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlMeetings");

static volatile LONG Count;    /* what the increments have made of it */
static volatile LONG Attempts; /* how many there were */
static volatile LONG Said, Hurry;
static UNICODE_STRING Name; /* the kernel's to store */
static volatile LONG Torn;
static ULONG *volatile Block;
static volatile LONG *Flags; /* two, in paged pool */
static volatile LONG Seen[2];

static VOID Add(VOID)
{
    InterlockedIncrement(&Attempts);
    Count = Count + 1;
}

static VOID AddOften(VOID)
{
    InterlockedExchangeAdd(&Attempts, ROUNDS);
    for (ULONG Index = 0; Index < ROUNDS; Index++) {
        Count = Count + 1;
    }
}

/* Two loads in each round: of what the other one will store, and of what it might. */
static VOID WaitAndAdd(VOID)
{
    while (!Said && Hurry != 2) {
        YieldProcessor();
    }
    Add();
}

static VOID SayAndAdd(VOID)
{
    Hurry = 1;
    Said = 1;
    Add();
}

static VOID LookUp(VOID)
{
    USHORT Length = *(volatile USHORT *)&Name.Length;
    PWCH Letters = *(PWCH volatile *)&Name.Buffer;

    if (Letters[Length / sizeof(WCHAR)] != 0) {
        InterlockedIncrement(&Torn);
    }
}

static NTSTATUS Replace(VOID)
{
    ULONG *New = ExAllocatePoolWithTag(NonPagedPool, 64, MEETINGS_TAG), *Old;

    if (New == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *New = 5;
    Old = Block;
    Block = New;
    ExFreePoolWithTag(Old, MEETINGS_TAG);
    return STATUS_SUCCESS;
}

static VOID Raise(ULONG Own, BOOLEAN Firmly)
{
    Flags[Own] = 1;
    if (Firmly) {
        __sync_synchronize();
    }
    Seen[Own] = Flags[1 - Own];
}

static VOID Take(VOID)
{
    LONG IsThere = Flags[0];

    Seen[0] = IsThere | Flags[1] << 1;
}

static NTSTATUS Tell(PIRP Irp, LONG Value)
{
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Value;
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    NTSTATUS Status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Device);
    switch (FUNCTION(IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode)) {
    case TELL_LOST:
        return Tell(Irp, Attempts - Count);
    case ADD:
        Add();
        break;
    case ADD_OFTEN:
        AddOften();
        break;
    case WAIT_AND_ADD:
        WaitAndAdd();
        break;
    case SAY_AND_ADD:
        SayAndAdd();
        break;
    case RENAME:
        RtlInitUnicodeString(&Name, L"a longer name");
        break;
    case LOOK_UP:
        LookUp();
        break;
    case TELL_TORN:
        return Tell(Irp, Torn);
    case REPLACE:
        Status = Replace();
        break;
    case USE:
        (VOID) * (volatile ULONG *)Block;
        break;
    case RAISE_FIRST:
        Raise(0, FALSE);
        break;
    case RAISE_SECOND:
        Raise(1, FALSE);
        break;
    case RAISE_FIRST_FIRMLY:
        Raise(0, TRUE);
        break;
    case RAISE_SECOND_FIRMLY:
        Raise(1, TRUE);
        break;
    case PUBLISH:
        Flags[1] = 1;
        Flags[0] = 1;
        break;
    case TAKE:
        Take();
        break;
    case TELL_SEEN:
        return Tell(Irp, Seen[0] | Seen[1] << 1);
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, Status, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(Block, MEETINGS_TAG);
    ExFreePoolWithTag((PVOID)Flags, MEETINGS_TAG);
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    RtlInitUnicodeString(&Name, L"a name");
    Block = ExAllocatePoolWithTag(NonPagedPool, 64, MEETINGS_TAG);
    if (Block == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Flags = ExAllocatePoolWithTag(PagedPool, 2 * sizeof(LONG), MEETINGS_TAG);
    if (Flags == NULL) {
        ExFreePoolWithTag(Block, MEETINGS_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *Block = 5;
    Flags[0] = Flags[1] = 0;
    Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchControl);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Block, MEETINGS_TAG);
        ExFreePoolWithTag((PVOID)Flags, MEETINGS_TAG);
        return Status;
    }
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * accesses.sys: a driver without hardware that accesses the fields of its device extension one by one, each in a line of its own that says by which
 * instruction. \\.\DirqlAccesses tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h), and where the extension lies
 * (IOCTL_ACCESSES_WHERE).
 */
#include <ddk/wdm.h>

DRIVER_INITIALIZE DriverEntry;

/* Output: the extension's address. */
#define IOCTL_ACCESSES_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE00, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE_EXTENSION {
    ULONG Loaded;         /* 00 */
    ULONG Stored;         /* 04 */
    ULONGLONG Summed;     /* 08 */
    LONG Counted;         /* 10 */
    LONG Exchanged;       /* 14 */
    LONG Compared;        /* 18 */
    UCHAR Narrow;         /* 1C */
    UCHAR From[24];       /* 1D */
    UCHAR To[24];         /* 35 */
    UCHAR Wide[32];       /* 4D */
    ULONGLONG Bits[2];    /* 70 */
    UCHAR Moved[40];      /* 80 */
    ULONG Alone;          /* A8 */
    SLIST_HEADER Entries; /* B0 */
    SLIST_ENTRY Entry;    /* C0 */
} DEVICE_EXTENSION;

#define CONTROL_EXTENSION sizeof(DEVICE_EXTENSION)
#define STORIES "accesses"
#include "control.h"

static volatile DEVICE_EXTENSION *Extension;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlAccesses");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlAccesses");

/* Instructions that C has no words for. */
static inline VOID Add(volatile ULONGLONG *To, ULONGLONG What)
{
    __asm__ volatile("addq %1, %0" : "+m"(*To) : "r"(What) : "cc");
}

static inline VOID Repeat(volatile UCHAR *To, volatile UCHAR *From, SIZE_T Words)
{
    __asm__ volatile("rep movsl" : "+D"(To), "+S"(From), "+c"(Words) : : "memory");
}

static inline VOID Widely(volatile UCHAR *To)
{
    __asm__ volatile("movups (%0), %%xmm0\n\tmovups %%xmm0, 16(%0)" : : "r"(To) : "xmm0", "memory");
}

static inline VOID SetBit(volatile ULONGLONG *Bits, ULONGLONG Number)
{
    __asm__ volatile("btsq %1, (%0)" : : "r"(Bits), "r"(Number) : "cc", "memory");
}

static inline VOID CompareAndStore(volatile LONG *To, LONG Value)
{
    LONG Known = 0;

    __asm__ volatile("cmpxchgl %2, %0" : "+m"(*To), "+a"(Known) : "r"(Value) : "cc");
}

/* Each access of an instruction of the driver's: the comment is what a reader hears. */
static ULONG EachInstruction(VOID)
{
    volatile DEVICE_EXTENSION *E = Extension;
    volatile ULONG Local[4] = {1, 2, 3, 4}; /* on the stack: no reader hears of it */
    ULONG Value;

    Value = E->Loaded; /* load 00 4 */
    E->Stored = Value + Local[1]; /* store 04 4 */
    Add(&E->Summed, Value); /* update 08 8 */
    InterlockedIncrement(&E->Counted); /* update 10 4 atomic */
    InterlockedExchange(&E->Exchanged, 7); /* update 14 4 atomic */
    CompareAndStore(&E->Compared, 8); /* update 18 4 */
    E->Narrow = 9; /* store 1c 1 */
    Repeat(E->To, E->From, 6); /* load 1d 24, store 35 24 */
    Widely(E->Wide); /* load 4d 16, store 5d 16 */
    SetBit(E->Bits, 65); /* update 78 8 */
    CHECK(Local[3] == 4);
    return 0;
}

/* What routines do for the driver. */
static ULONG ByRoutines(VOID)
{
    volatile DEVICE_EXTENSION *E = Extension;
    volatile SIZE_T Length = 20;
    PSLIST_ENTRY Entry;

    InitializeSListHead((PSLIST_HEADER)&E->Entries);
    memmove((VOID *)&E->Moved[20], (VOID *)&E->Moved[0], Length); /* load 80 20, store 94 20 */
    memset((VOID *)&E->Moved[0], 1, Length); /* store 80 20 */
    CHECK(RtlCompareMemory((VOID *)&E->Moved[0], (VOID *)&E->Moved[20], Length) == 0); /* load 80 1, load 94 1 */
    InterlockedPushEntrySList((PSLIST_HEADER)&E->Entries, (PSLIST_ENTRY)&E->Entry); /* store c0 8, update b0 16 atomic */
    Entry = InterlockedPopEntrySList((PSLIST_HEADER)&E->Entries); /* update b0 16 atomic, load c0 8 */
    CHECK(Entry == (PSLIST_ENTRY)&E->Entry);
    return 0;
}

/* The last access does not happen. */
static VOID BehindAllMemory(VOID)
{
    volatile ULONG *Nothing = (volatile ULONG *)(ULONG_PTR)0xFFFF800000001000;

    Extension->Alone = 1; /* store a8 4 */
    *Nothing += Extension->Alone; /* load a8 4 */
    Extension->Alone = 2;
}

static const STORY Stories[] = {
    STORY(EachInstruction), STORY(ByRoutines), BUG(BehindAllMemory),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_ACCESSES_WHERE) {
        return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(VOID *)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(VOID **)Irp->AssociatedIrp.SystemBuffer = Device->DeviceExtension;
    return Complete(Irp, STATUS_SUCCESS, sizeof(VOID *));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Extension = Driver->DeviceObject->DeviceExtension;
    }
    return Status;
}

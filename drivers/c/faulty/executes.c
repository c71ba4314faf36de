/*
 * executes.sys: code that is made at run time, in memory of each kind. \\.\DirqlExecutes, CTL_CODE(FILE_DEVICE_UNKNOWN,
 * 0xC00 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Places below. Each copies the same two routines and
 * calls them; where that memory may be executed, it answers with what they returned.
 *
 * Where it may not, the call stops Windows. Never load it on a machine you care for.
 */
#include <ddk/wdm.h>

#include "../control.h"

#define EXECUTES_TAG 0x63657845u /* "Exec" in pool listings */
#define FIRST_FUNCTION 0xC00
#define INIT_CODE __attribute__((section("INIT")))
#define NOINLINE __attribute__((noinline))
#define ROOM 256

typedef ULONG64 (*SUM)(const ULONG *Values, ULONG Count, ULONG64 (*Last)(VOID));

typedef struct ANSWER {
    ULONG64 Sum;     /* by the copy, with what the routine it ends in has returned */
    ULONG64 Changed; /* after one byte of the copy was changed */
    ULONG64 Address; /* where the copy was called */
} ANSWER;

PVOID NTAPI NtExAllocatePool2(ULONG64 Flags, SIZE_T Bytes, ULONG Tag) __asm__("ExAllocatePool2");

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlExecutes");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlExecutes");
static const ULONG Values[] = {3, 5, 7, 11};
static ULONG64 Added; /* the sum that the last call of the copy has given to Report */
static UCHAR DataSection[ROOM] __attribute__((section(".data$own"))) = {0xCC};

/* The original: adds up values from the end, by a loop, and leaves for Last, which is called where it stands. */
extern const UCHAR Original[], OriginalStep[], OriginalEnd[];
__asm__(".text\n"
        ".globl Original, OriginalStep, OriginalEnd\n"
        "Original:\n"
        "    xorl %eax, %eax\n"
        "1:  testl %edx, %edx\n"
        "    jz 2f\n"
        "    decl %edx\n"
        "    movl (%rcx,%rdx,4), %r9d\n"
        "    addq %r9, %rax\n"
        "OriginalStep:\n"
        "    addq $1, %rax\n"
        "    jmp 1b\n"
        "2:  movq %rax, %rcx\n"
        "    jmp *%r8\n"
        "OriginalEnd:\n");

/* What the copy ends in, with its sum: code of the image again. */
static ULONG64 NTAPI Report(ULONG64 Sum)
{
    Added = Sum;
    return Sum + 1000;
}

static VOID Copy(PUCHAR To)
{
    SIZE_T Index;

    for (Index = 0; Index < (SIZE_T)(OriginalEnd - Original); Index++) {
        ((volatile UCHAR *)To)[Index] = Original[Index];
    }
}

/* Copies and calls; then changes the constant that is added at each step, and calls again. */
static NOINLINE VOID CallCopy(PUCHAR Place, ANSWER *Answer)
{
    SUM volatile Sum = (SUM)(ULONG_PTR)Place;

    Copy(Place);
    Answer->Address = (ULONG_PTR)Place;
    Answer->Sum = Sum(Values, 4, (PVOID)Report);
    if (Added + 1000 != Answer->Sum) {
        KeBugCheckEx(0xDEADDEAD, Added, Answer->Sum, 0, 0);
    }
    ((volatile UCHAR *)Place)[OriginalStep - Original + 3] = 2;
    Answer->Changed = Sum(Values, 4, (PVOID)Report);
}

static VOID InPool(PUCHAR Place, ANSWER *Answer)
{
    if (Place != NULL) {
        CallCopy(Place, Answer);
        ExFreePoolWithTag(Place, EXECUTES_TAG);
    }
}

/* 0: NonPagedPoolExecute, which is NonPagedPool. */
static VOID InExecutablePool(ANSWER *Answer)
{
    InPool(ExAllocatePoolWithTag(NonPagedPoolExecute, ROOM, EXECUTES_TAG), Answer);
}

/* 1: what drivers of before Windows 8 ask for. */
static VOID InPoolOfType0(ANSWER *Answer)
{
    InPool(ExAllocatePoolWithTag((POOL_TYPE)0, ROOM, EXECUTES_TAG), Answer);
}

/* 2: the same by the new routine; more than a page, with the copy across the border. */
static VOID InExecutablePool2(ANSWER *Answer)
{
    PUCHAR Block = NtExAllocatePool2(0x80 /* POOL_FLAG_NON_PAGED_EXECUTE */, 2 * PAGE_SIZE, EXECUTES_TAG);

    if (Block != NULL) {
        CallCopy(Block + PAGE_SIZE - 16, Answer);
        ExFreePoolWithTag(Block, EXECUTES_TAG);
    }
}

/* 3: NonPagedPoolNx. */
static VOID InPoolNx(ANSWER *Answer)
{
    InPool(ExAllocatePoolWithTag((POOL_TYPE)512, ROOM, EXECUTES_TAG), Answer);
}

/* 4: the new routine without POOL_FLAG_NON_PAGED_EXECUTE. */
static VOID InPool2(ANSWER *Answer)
{
    InPool(NtExAllocatePool2(0x40 /* POOL_FLAG_NON_PAGED */, ROOM, EXECUTES_TAG), Answer);
}

/* 5: paged pool. */
static VOID InPagedPool(ANSWER *Answer)
{
    InPool(ExAllocatePoolWithTag(PagedPool, ROOM, EXECUTES_TAG), Answer);
}

/* 6: an array on the stack. */
static VOID InStack(ANSWER *Answer)
{
    UCHAR Room[ROOM];

    CallCopy(Room, Answer);
}

/* 7: a variable of the image. */
static VOID InDataSection(ANSWER *Answer)
{
    CallCopy(DataSection, Answer);
}

static VOID (*const Places[])(ANSWER *Answer) = {
    InExecutablePool, InPoolOfType0, InExecutablePool2, InPoolNx, InPool2, InPagedPool, InStack, InDataSection,
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;
    ANSWER Answer = {0, 0, 0};

    UNREFERENCED_PARAMETER(Device);
    if (Index >= RTL_NUMBER_OF(Places)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(Answer)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Places[Index](&Answer);
    if (Answer.Address == 0) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    *(ANSWER *)Irp->AssociatedIrp.SystemBuffer = Answer;
    return Complete(Irp, STATUS_SUCCESS, sizeof(Answer));
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

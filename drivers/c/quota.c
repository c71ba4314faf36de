/*
 * quota.sys: pool that is charged to the process in whose context it is allocated. \\.\DirqlQuota tells each story of
 * Stories below by its name (IOCTL_TELL_STORY of control.h). The machine's limit is 64 KiB.
 */
#include "seh/clang.h"

#define STORIES "quota"
#include "control.h"

#define TAG 0x746F7551u /* Quot in pool listings */
#define LIMIT 0x10000
#define PART (LIMIT / 4)
/* What mingw's wdm.h lacks. */
#define USE_QUOTA 0x1ull
#define RAISE 0x20ull
#define NON_PAGED 0x40ull
NTKERNELAPI PVOID NTAPI ExAllocatePool2(ULONG64 Flags, SIZE_T Bytes, ULONG Tag);
NTKERNELAPI VOID NTAPI PsChargePoolQuota(PEPROCESS Process, POOL_TYPE Type, ULONG_PTR Bytes);
NTKERNELAPI VOID NTAPI PsReturnPoolQuota(PEPROCESS Process, POOL_TYPE Type, ULONG_PTR Bytes);

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlQuota");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlQuota");

static PVOID Kept;
static KEVENT Done;
static BOOLEAN HasNoLimit;

/* A block, or NULL and what was raised. */
static PVOID WithQuota(ULONG Type, SIZE_T Bytes, NTSTATUS *Raised)
{
    PVOID volatile Block = NULL;

    *Raised = STATUS_SUCCESS;
    __try {
        Block = ExAllocatePoolWithQuotaTag(Type, Bytes, TAG);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        *Raised = GetExceptionCode();
    }
    return Block;
}

static NTSTATUS ByFlags(ULONG64 Flags, PVOID *Block)
{
    PVOID volatile Got = NULL;
    NTSTATUS volatile Raised = STATUS_SUCCESS;

    __try {
        Got = ExAllocatePool2(Flags, PART, TAG);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Raised = GetExceptionCode();
    }
    *Block = Got;
    return Raised;
}

static NTSTATUS Charged(POOL_TYPE Type, ULONG_PTR Bytes)
{
    NTSTATUS volatile Raised = STATUS_SUCCESS;

    __try {
        PsChargePoolQuota(PsGetCurrentProcess(), Type, Bytes);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Raised = GetExceptionCode();
    }
    return Raised;
}

static ULONG UpToTheLimit(VOID)
{
    PVOID Blocks[4], Block;
    NTSTATUS Raised;
    ULONG Index;

    for (Index = 0; Index < 4; Index++) {
        Blocks[Index] = WithQuota(NonPagedPoolNx, PART, &Raised);
        CHECK(Blocks[Index] != NULL && Raised == STATUS_SUCCESS);
    }
    CHECK(WithQuota(NonPagedPoolNx, 1, &Raised) == NULL && Raised == STATUS_QUOTA_EXCEEDED);
    CHECK(WithQuota(NonPagedPoolNx | POOL_QUOTA_FAIL_INSTEAD_OF_RAISE, 1, &Raised) == NULL && Raised == STATUS_SUCCESS);
    CHECK(ByFlags(NON_PAGED | USE_QUOTA, &Block) == STATUS_SUCCESS && Block == NULL);
    CHECK(ByFlags(NON_PAGED | USE_QUOTA | RAISE, &Block) == STATUS_QUOTA_EXCEEDED && Block == NULL);

    /* What is not charged, and pool of the other kind. */
    CHECK(ByFlags(NON_PAGED, &Block) == STATUS_SUCCESS && Block != NULL);
    ExFreePoolWithTag(Block, TAG);
    Block = WithQuota(PagedPool, LIMIT, &Raised);
    CHECK(Block != NULL);
    CHECK(WithQuota(PagedPool, 1, &Raised) == NULL && Raised == STATUS_QUOTA_EXCEEDED);
    ExFreePool(Block);

    ExFreePoolWithTag(Blocks[2], TAG);
    CHECK(ByFlags(NON_PAGED | USE_QUOTA, &Blocks[2]) == STATUS_SUCCESS && Blocks[2] != NULL);
    CHECK(WithQuota(NonPagedPoolNx, 1, &Raised) == NULL);
    for (Index = 0; Index < 4; Index++) {
        ExFreePoolWithTag(Blocks[Index], TAG);
    }
    Block = WithQuota(NonPagedPoolNx, LIMIT, &Raised);
    CHECK(Block != NULL);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG RequestsAreCharged(VOID)
{
    NTSTATUS Raised;
    PVOID Block = WithQuota(NonPagedPoolNx, LIMIT - IoSizeOfIrp(2), &Raised);
    PIRP Charged, Free;

    CHECK(Block != NULL);
    Charged = IoAllocateIrp(2, TRUE);
    CHECK(Charged != NULL);
    CHECK(IoAllocateIrp(1, TRUE) == NULL);
    Free = IoAllocateIrp(1, FALSE);
    CHECK(Free != NULL);
    IoFreeIrp(Free);
    CHECK(IoAllocateIrp(1, TRUE) == NULL);
    IoReuseIrp(Charged, STATUS_SUCCESS);
    IoFreeIrp(Charged);
    Charged = IoAllocateIrp(2, TRUE);
    CHECK(Charged != NULL);
    IoFreeIrp(Charged);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG ChargedByHand(VOID)
{
    NTSTATUS Raised;
    PVOID Block;

    CHECK(Charged(NonPagedPool, LIMIT - PART) == STATUS_SUCCESS);
    CHECK(Charged(NonPagedPoolCacheAligned, PART + 1) == STATUS_QUOTA_EXCEEDED);
    CHECK(Charged(PagedPool, LIMIT) == STATUS_SUCCESS);
    CHECK(Charged(PagedPoolCacheAligned, 1) == STATUS_QUOTA_EXCEEDED);
    CHECK(WithQuota(NonPagedPoolNx, PART + 1, &Raised) == NULL && Raised == STATUS_QUOTA_EXCEEDED);
    Block = WithQuota(NonPagedPoolNx, PART, &Raised);
    CHECK(Block != NULL);
    PsReturnPoolQuota(PsGetCurrentProcess(), PagedPool, LIMIT);
    CHECK(Charged(PagedPool, 1) == STATUS_SUCCESS);
    PsReturnPoolQuota(PsGetCurrentProcess(), PagedPool, 1);
    PsReturnPoolQuota(PsGetCurrentProcess(), NonPagedPool, LIMIT - PART);
    CHECK(Charged(NonPagedPool, LIMIT - PART) == STATUS_SUCCESS);
    PsReturnPoolQuota(PsGetCurrentProcess(), NonPagedPool, LIMIT - PART);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG Keep(VOID)
{
    NTSTATUS Raised;

    Kept = WithQuota(NonPagedPoolNx, LIMIT, &Raised);
    CHECK(Kept != NULL);
    return 0;
}

static ULONG HasNone(VOID)
{
    NTSTATUS Raised;

    CHECK(WithQuota(NonPagedPoolNx, 1, &Raised) == NULL && Raised == STATUS_QUOTA_EXCEEDED);
    return 0;
}

static ULONG HasAll(VOID)
{
    NTSTATUS Raised;
    PVOID Block = WithQuota(NonPagedPoolNx, LIMIT, &Raised);

    CHECK(Block != NULL);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

static ULONG FreeKept(VOID)
{
    ExFreePoolWithTag(Kept, TAG);
    CHECK(TRUE);
    return 0;
}

static VOID NTAPI InSystem(PVOID Context)
{
    NTSTATUS Raised;
    PVOID Block = WithQuota(NonPagedPoolNx, 2 * LIMIT, &Raised);

    UNREFERENCED_PARAMETER(Context);
    if (Block != NULL) {
        HasNoLimit = TRUE;
        ExFreePoolWithTag(Block, TAG);
    }
    KeSetEvent(&Done, IO_NO_INCREMENT, FALSE);
}

static ULONG SystemHasNoLimit(VOID)
{
    HANDLE Thread;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, InSystem, NULL) == STATUS_SUCCESS);
    ZwWaitForSingleObject(Thread, FALSE, NULL);
    ZwClose(Thread);
    CHECK(HasNoLimit);
    return 0;
}

static const STORY Stories[] = {
    STORY(UpToTheLimit), STORY(RequestsAreCharged), STORY(ChargedByHand), STORY(SystemHasNoLimit), STORY(Keep),
    STORY(HasNone), STORY(HasAll), STORY(FreeKept),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

/* Stories of memory that may not be there, of pages near a node, of resources of an image, and of checks that are made for drivers. */
#include "objects.h"

EXPORTED(NTSTATUS, MmCopyMemory, (PVOID, PVOID From, SIZE_T, ULONG Flags, PSIZE_T));
EXPORTED(PVOID, MmGetVirtualForPhysical, (ULONGLONG));
EXPORTED(ULONGLONG, MmGetPhysicalAddress, (PVOID));
EXPORTED(BOOLEAN, MmIsNonPagedSystemAddressValid, (PVOID));
EXPORTED(PPHYSICAL_MEMORY_RANGE, MmGetPhysicalMemoryRangesEx, (PVOID));
EXPORTED(PPHYSICAL_MEMORY_RANGE, MmGetPhysicalMemoryRangesEx2, (PVOID, ULONG Flags));
EXPORTED(NTSTATUS, MmAllocateContiguousMemoryEx,
         (PSIZE_T, ULONGLONG Low, ULONGLONG High, ULONGLONG Boundary, ULONG Node, ULONG Protection, PVOID Partition, ULONG Tag,
          ULONG Flags, PVOID *));
EXPORTED(PMDL, MmAllocateNodePagesForMdlEx,
         (ULONGLONG Low, ULONGLONG High, ULONGLONG Skip, SIZE_T, ULONG Cache, ULONG Node, ULONG Flags));
EXPORTED(NTSTATUS, KeQueryNodeActiveAffinity2, (USHORT Node, PGROUP_AFFINITY, USHORT Room, PUSHORT Needed));
EXPORTED(ULONG, KeQueryNodeActiveProcessorCount, (USHORT Node));
EXPORTED(NTSTATUS, LdrFindResource_U, (PVOID, PVOID Path, ULONG Level, PVOID *));
EXPORTED(NTSTATUS, LdrAccessResource, (PVOID, PVOID Entry, PVOID *, PULONG));
EXPORTED(NTSTATUS, RtlFindMessage, (PVOID, ULONG Type, ULONG Language, ULONG Id, PVOID *));
EXPORTED(NTSTATUS, IoCheckDesiredAccess, (PACCESS_MASK, ACCESS_MASK Granted));
EXPORTED(NTSTATUS, IoCheckEaBufferValidity, (PVOID, ULONG, PULONG));
EXPORTED(BOOLEAN, IoWithinStackLimits, (ULONG_PTR, SIZE_T));
EXPORTED(NTSTATUS, IoGetRequestorSessionId, (PIRP, PULONG));
EXPORTED(NTSTATUS, IoEnumerateDeviceObjectList, (PDRIVER_OBJECT, PDEVICE_OBJECT *, ULONG, PULONG));
EXPORTED(BOOLEAN, IoRaiseInformationalHardError, (NTSTATUS, PUNICODE_STRING, PKTHREAD));
EXPORTED(VOID, IoRaiseHardError, (PIRP, PVOID Vpb, PDEVICE_OBJECT));
EXPORTED(BOOLEAN, IoSetThreadHardErrorMode, (BOOLEAN));
EXPORTED(ULONG, ExGetFirmwareType, (VOID));
EXPORTED(NTSTATUS, KdSystemDebugControl, (ULONG, PVOID, ULONG, PVOID, ULONG, PULONG, KPROCESSOR_MODE));
EXPORTED(BOOLEAN, InbvCheckDisplayOwnership, (VOID));
EXPORTED(VOID, InbvNotifyDisplayOwnershipLost, (PVOID));
EXPORTED(VOID, HalDisplayString, (const char *));
extern __declspec(dllimport) PUSHORT NlsOemLeadByteInfo;

static PIRP TheIrp; /* of the request that asks */

#define COPIES_PHYSICAL 1
#define COPIES_VIRTUAL 2

static ULONG MemoryIsCopiedSafely(VOID)
{
    static const UCHAR Text[] = "what is there";
    SIZE_T Done = 77, Size = 2 * PAGE_SIZE;
    UCHAR Room[sizeof(Text)] = {0};
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPoolNx, PAGE_SIZE, OBJECTS_TAG), Run = NULL;
    PVOID Paged = ExAllocatePoolWithTag(PagedPool, 64, OBJECTS_TAG);
    PPHYSICAL_MEMORY_RANGE Ranges;
    PMDL Mdl;

    CHECK(Block != NULL && Paged != NULL);
    RtlCopyMemory(Block, Text, sizeof(Text));
    CHECK(NtMmCopyMemory(Room, Block, sizeof(Text), COPIES_VIRTUAL, &Done) == STATUS_SUCCESS && Done == sizeof(Text));
    CHECK(RtlCompareMemory(Room, Text, sizeof(Text)) == sizeof(Text));
    RtlZeroMemory(Room, sizeof(Room));
    CHECK(NtMmCopyMemory(Room, (PVOID)NtMmGetPhysicalAddress(Block), sizeof(Text), COPIES_PHYSICAL, &Done) == STATUS_SUCCESS);
    CHECK(RtlCompareMemory(Room, Text, sizeof(Text)) == sizeof(Text));
    CHECK(NtMmCopyMemory(Room, (PVOID)0xFFFF900000000000, 8, COPIES_VIRTUAL, &Done) == STATUS_INVALID_ADDRESS && Done == 0);
    CHECK(NtMmCopyMemory(Room, (PVOID)0x1000, 8, COPIES_VIRTUAL, &Done) == STATUS_INVALID_ADDRESS);
    CHECK(NtMmCopyMemory(Room, Block, 8, COPIES_VIRTUAL | COPIES_PHYSICAL, &Done) == STATUS_INVALID_PARAMETER);
    CHECK(NtMmGetVirtualForPhysical(NtMmGetPhysicalAddress(Block + 5)) == Block + 5);
    CHECK(NtMmIsNonPagedSystemAddressValid(Block) && !NtMmIsNonPagedSystemAddressValid(Paged));
    CHECK(!NtMmIsNonPagedSystemAddressValid((PVOID)0x1000));
    ExFreePoolWithTag(Block, OBJECTS_TAG);
    ExFreePoolWithTag(Paged, OBJECTS_TAG);

    Ranges = NtMmGetPhysicalMemoryRangesEx(NULL);
    CHECK(Ranges != NULL && Ranges[0].NumberOfBytes.QuadPart != 0);
    ExFreePool(Ranges);
    Ranges = NtMmGetPhysicalMemoryRangesEx2(NULL, 0);
    CHECK(Ranges != NULL && Ranges[0].NumberOfBytes.QuadPart != 0 && NtMmGetPhysicalMemoryRangesEx2(NULL, 0x80) == NULL);
    ExFreePool(Ranges);

    CHECK(NtMmAllocateContiguousMemoryEx(&Size, 0, 0xFFFFFFFF, 0, 0, PAGE_READWRITE, NULL, OBJECTS_TAG, 0, (PVOID *)&Run) ==
          STATUS_SUCCESS);
    CHECK(Run != NULL && NtMmGetPhysicalAddress(Run + PAGE_SIZE) == NtMmGetPhysicalAddress(Run) + PAGE_SIZE);
    CHECK(NtMmGetPhysicalAddress(Run) <= 0xFFFFFFFF);
    MmFreeContiguousMemory(Run);
    CHECK(NtMmAllocateContiguousMemoryEx(&Size, 0, 0xFFFFFFFF, 0, 0, PAGE_READWRITE, NULL, OBJECTS_TAG, 8, (PVOID *)&Run) ==
          STATUS_INVALID_PARAMETER);
    Mdl = NtMmAllocateNodePagesForMdlEx(0, ~0ull, 0, PAGE_SIZE, MmCached, 0, MM_ALLOCATE_FULLY_REQUIRED);
    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) == PAGE_SIZE);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    return 0;
}

/* An image in memory, as far as resources go: a string of type 6, and a message table of type 11. */
static UCHAR Image[0x400];

static VOID Put32(ULONG At, ULONG Value)
{
    *(ULONG UNALIGNED *)(Image + At) = Value;
}

static VOID Directory(ULONG At, ULONG Entry, ULONG LeadsTo)
{
    Image[At + 14] = 1;
    Put32(At + 16, Entry);
    Put32(At + 20, LeadsTo);
}

static VOID MakeImage(VOID)
{
    RtlZeroMemory(Image, sizeof(Image));
    RtlCopyMemory(Image, "MZ", 2);
    Put32(0x3C, 0x40);
    RtlCopyMemory(Image + 0x40, "PE\0\0", 4);
    Put32(0x58, 0x20B);      /* 64 bits */
    Put32(0x58 + 0x3C, 0x200); /* headers */
    Put32(0x58 + 0x6C, 16);
    Put32(0x58 + 0x70 + 2 * 8, 0x200);
    Put32(0x58 + 0x74 + 2 * 8, 0x200);
    /* The root has two types, each with one name and one language. */
    Image[0x200 + 14] = 2;
    Put32(0x210, 6);
    Put32(0x214, 0x80000040);
    Put32(0x218, 11);
    Put32(0x21C, 0x80000060);
    Directory(0x240, 7, 0x80000080);
    Directory(0x260, 1, 0x800000A0);
    Directory(0x280, 0x409, 0xC0);
    Directory(0x2A0, 0x409, 0xD0);
    Put32(0x2C0, 0x300);
    Put32(0x2C4, 5);
    Put32(0x2D0, 0x320);
    Put32(0x2D4, 0x60);
    RtlCopyMemory(Image + 0x300, "text", 5);
    /* One block of messages, from 100 to 102. */
    Put32(0x320, 1);
    Put32(0x324, 100);
    Put32(0x328, 102);
    Put32(0x32C, 16);
    for (ULONG Index = 0; Index < 3; Index++) {
        Put32(0x330 + 12 * Index, 12);
        Image[0x334 + 12 * Index] = (UCHAR)('a' + Index);
    }
}

static ULONG ResourcesAreFound(VOID)
{
    ULONG_PTR Path[3] = {6, 7, 0x409};
    PVOID Entry = NULL, Data = NULL, Message = NULL;
    ULONG Size = 0;

    MakeImage();
    CHECK(NtLdrFindResource_U(Image, Path, 3, &Entry) == STATUS_SUCCESS && Entry == Image + 0x2C0);
    CHECK(NtLdrAccessResource(Image, Entry, &Data, &Size) == STATUS_SUCCESS && Data == Image + 0x300 && Size == 5);
    CHECK(strcmp(Data, "text") == 0);
    Path[2] = 0;
    Entry = NULL;
    CHECK(NtLdrFindResource_U(Image, Path, 3, &Entry) == STATUS_SUCCESS && Entry == Image + 0x2C0);
    Path[2] = 0x407;
    CHECK(NtLdrFindResource_U(Image, Path, 3, &Entry) == (NTSTATUS)0xC0000204);
    Path[1] = 8;
    CHECK(NtLdrFindResource_U(Image, Path, 3, &Entry) == (NTSTATUS)0xC000008B);
    Path[0] = 5;
    CHECK(NtLdrFindResource_U(Image, Path, 3, &Entry) == (NTSTATUS)0xC000008A);
    CHECK(NtRtlFindMessage(Image, 11, 0, 101, &Message) == STATUS_SUCCESS && Message == Image + 0x33C && ((PUCHAR)Message)[4] == 'b');
    CHECK(NtRtlFindMessage(Image, 11, 0, 103, &Message) == (NTSTATUS)0xC0000109);
    Put32(0x58 + 0x70 + 2 * 8, 0);
    CHECK(NtRtlFindMessage(Image, 11, 0, 101, &Message) == (NTSTATUS)0xC0000089);
    return 0;
}

static NTSTATUS NTAPI OnRaised(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    *(PBOOLEAN)Context = TRUE;
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static ULONG ChecksAreMade(VOID)
{
    ACCESS_MASK Access = GENERIC_READ;
    ULONG Wrong = 77, Session = 77, Count = 0;
    PDEVICE_OBJECT Devices[2] = {NULL, NULL};
    GROUP_AFFINITY Affinity = {0};
    USHORT Needed = 0;
    BOOLEAN Done = FALSE;
    PIRP Irp;
    struct {
        ULONG Next;
        UCHAR Flags, NameLength;
        USHORT ValueLength;
        char Rest[8];
    } Ea[2] = {{16, 0, 2, 5, "ab\0value"}, {0, 0, 3, 4, "abc\0val"}};

    CHECK(NtIoCheckDesiredAccess(&Access, FILE_GENERIC_READ) == STATUS_SUCCESS && Access == FILE_GENERIC_READ);
    Access = FILE_WRITE_DATA;
    CHECK(NtIoCheckDesiredAccess(&Access, FILE_GENERIC_READ) == STATUS_ACCESS_DENIED);
    CHECK(NtIoCheckEaBufferValidity(Ea, sizeof(Ea), &Wrong) == STATUS_SUCCESS);
    CHECK(NtIoCheckEaBufferValidity(Ea, sizeof(Ea) - 2, &Wrong) == STATUS_EA_LIST_INCONSISTENT && Wrong == 16);
    Ea[0].Next = 12;
    CHECK(NtIoCheckEaBufferValidity(Ea, sizeof(Ea), &Wrong) == STATUS_EA_LIST_INCONSISTENT && Wrong == 0);
    CHECK(NtIoWithinStackLimits((ULONG_PTR)&Wrong, sizeof(Wrong)) && !NtIoWithinStackLimits((ULONG_PTR)Image, 4));
    CHECK(!NtIoWithinStackLimits((ULONG_PTR)&Wrong, 0x100000));
    CHECK(NtIoGetRequestorSessionId(TheIrp, &Session) == STATUS_SUCCESS && Session == 1);
    CHECK(NtIoEnumerateDeviceObjectList(TheDriver, Devices, 0, &Count) == STATUS_BUFFER_TOO_SMALL && Count == 1);
    CHECK(NtIoEnumerateDeviceObjectList(TheDriver, Devices, sizeof(Devices), &Count) == STATUS_SUCCESS);
    CHECK(Count == 1 && Devices[0] == TheDriver->DeviceObject && Devices[1] == NULL);
    ObDereferenceObject(Devices[0]);

    /* No user is there to answer: an error is shown or it is not, and a request that is to wait for an answer is complete. */
    CHECK(NtIoRaiseInformationalHardError(STATUS_DISK_FULL, NULL, NULL) && NtIoSetThreadHardErrorMode(FALSE));
    CHECK(!NtIoRaiseInformationalHardError(STATUS_DISK_FULL, NULL, NULL) && !NtIoSetThreadHardErrorMode(TRUE));
    Irp = IoAllocateIrp(2, FALSE);
    CHECK(Irp != NULL);
    IoSetNextIrpStackLocation(Irp);
    IoSetCompletionRoutine(Irp, OnRaised, &Done, TRUE, TRUE, TRUE);
    IoSetNextIrpStackLocation(Irp);
    Irp->IoStatus.Status = STATUS_DISK_FULL;
    NtIoRaiseHardError(Irp, NULL, TheDriver->DeviceObject);
    CHECK(Done);
    IoFreeIrp(Irp);

    CHECK(NtExGetFirmwareType() == 1 && NtKdSystemDebugControl(0, NULL, 0, NULL, 0, NULL, KernelMode) == (NTSTATUS)0xC0000354);
    CHECK(NtKeQueryNodeActiveProcessorCount(0) == 2 && NtKeQueryNodeActiveProcessorCount(1) == 0);
    CHECK(NtKeQueryNodeActiveAffinity2(0, &Affinity, 1, &Needed) == STATUS_SUCCESS && Affinity.Mask == 3 && Needed == 1);
    CHECK(NtKeQueryNodeActiveAffinity2(0, NULL, 0, &Needed) == STATUS_BUFFER_TOO_SMALL);
    CHECK(NtKeQueryNodeActiveAffinity2(9, &Affinity, 1, &Needed) == STATUS_INVALID_PARAMETER);
    CHECK(NlsOemLeadByteInfo['a'] == 0 && NlsOemLeadByteInfo[255] == 0);

    CHECK(NtInbvCheckDisplayOwnership());
    NtHalDisplayString("objects: on the screen\n");
    NtInbvNotifyDisplayOwnershipLost(NULL);
    CHECK(!NtInbvCheckDisplayOwnership());
    NtHalDisplayString("objects: not on the screen\n");
    return 0;
}

NTSYSAPI VOID NTAPI RtlInitializeUnicodePrefix(PVOID Table);
NTSYSAPI BOOLEAN NTAPI RtlInsertUnicodePrefix(PVOID Table, PUNICODE_STRING Prefix, PVOID Entry);
NTSYSAPI VOID NTAPI RtlRemoveUnicodePrefix(PVOID Table, PVOID Entry);

/* An entry that is written over while it is in its table: it leads to itself. */
static ULONG PrefixesInACircle(VOID)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\a");
    static PVOID Table[3], Entry[7];

    RtlInitializeUnicodePrefix(Table);
    CHECK(RtlInsertUnicodePrefix(Table, &Name, Entry));
    Entry[1] = Entry;
    RtlRemoveUnicodePrefix(Table, Table);
    return 0;
}

EXPORTED(PVOID, MmGetSystemRoutineAddressEx, (PUNICODE_STRING, PCSTR));

/* What others may call. */
__declspec(dllexport) ULONG NTAPI ObjectsOwnRoutine(VOID)
{
    return 5;
}

static ULONG RoutinesOfModules(VOID)
{
    UNICODE_STRING Own = RTL_CONSTANT_STRING(L"objects.sys"), Upper = RTL_CONSTANT_STRING(L"OBJECTS.SYS");
    UNICODE_STRING None = RTL_CONSTANT_STRING(L"nothing.sys"), Kernel = RTL_CONSTANT_STRING(L"ntoskrnl.exe"), Hal = RTL_CONSTANT_STRING(L"hal.dll");
    ULONG (NTAPI *Found)(VOID) = (PVOID)NtMmGetSystemRoutineAddressEx(&Own, "ObjectsOwnRoutine");

    CHECK(Found == ObjectsOwnRoutine && Found() == 5);
    CHECK(NtMmGetSystemRoutineAddressEx(&Upper, "ObjectsOwnRoutine") == (PVOID)ObjectsOwnRoutine);
    CHECK(NtMmGetSystemRoutineAddressEx(&Own, "objectsownroutine") == NULL);
    CHECK(NtMmGetSystemRoutineAddressEx(&None, "ObjectsOwnRoutine") == NULL);
    CHECK(NtMmGetSystemRoutineAddressEx(&Kernel, "KeSetEvent") == NULL && NtMmGetSystemRoutineAddressEx(&Hal, "KeGetCurrentIrql") == NULL);
    return 0;
}

/*
 * fuzz.sys: calls exports with arguments that are drawn. \\.\DirqlFuzz, IOCTL 222000h (buffered) gives it a REQUEST with the names of
 * the exports and what each of their arguments is; 222004h makes the calls, and answers how many came back. What is drawn follows from
 * the seed alone, which is the request's or, if that is 0, the machine's choices:
 * mostly an object that fits, sometimes one that does not, a null pointer, -1, a misaligned pointer, freed memory, an
 * application's memory, a card's, the stack, code.
 *
 * No driver does any of this. Whatever comes of it must be an answer, an exception or a verdict. Each call stands in a __try.
 */
#include "../seh/clang.h"

#include "../control.h"

#define FUZZ_TAG 0x7A7A7546u /* "Fuzz" in pool listings */
#define MOST_ARGUMENTS 12
#define PCI_CONFIGURATION 4
#define PREPARE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SEED_BITS 32

/* What an argument is; the test knows these numbers too. */
enum {
    ANYTHING,
    NUMBER,
    TRUTH,
    MEMORY,
    EVENT,
    TIMER,
    DPC,
    MUTEX,
    SEMAPHORE,
    SPIN_LOCK,
    QUEUE_HANDLE,
    FAST_MUTEX_,
    GUARDED_MUTEX,
    RESOURCE,
    LOOKASIDE,
    RUNDOWN,
    PUSH_LOCK,
    DEVICE_QUEUE,
    DEVICE_QUEUE_ENTRY,
    WIDE_STRING,
    NARROW_STRING,
    GUID_,
    LIST,
    SEQUENCED_LIST,
    BIT_MAP,
    REMOVE_LOCK,
    CSQ,
    WORK_ITEM,
    IRP_,
    MDL_,
    DEVICE,
    DRIVER,
    FILE_,
    THREAD,
    PROCESS,
    HANDLE_,
    EX_TIMER_,
    CODE,
    TIME,
    TEXT,
    WIDE_TEXT,
    LENGTH,
    LEVEL,
    SECTION,
    SECTION_OBJECT,
    PROCESS_HANDLE,
    OBJECT_NAME,
    PROTECTION,
    FLAG,
    VIEW,
    TABLE,
    BALANCED_TABLE,
    TREE_NODE,
    TABLE_ROUTINE,
    IDENTIFIER,
    ACCESS_LIST,
    DESCRIPTOR,
    SUBJECT,
    TOKEN,
    PRIVILEGES,
    MAPPING,
    CLIENT,
    QUEUE,
    KINDS,
};

typedef struct _FUZZ_EXPORT {
    UCHAR Arity;
    UCHAR Kinds[MOST_ARGUMENTS];
    UCHAR Raised; /* 1: it may be called at DISPATCH_LEVEL, 2: it must be */
    UCHAR Padding[2];
    WCHAR Name[56];
} FUZZ_EXPORT;

typedef struct _REQUEST {
    ULONG64 Seed;
    ULONG Calls;
    ULONG Exports;
    ULONG Malice; /* so many arguments of a thousand do not fit */
    ULONG Padding;
    FUZZ_EXPORT Export[1];
} REQUEST;

typedef ULONG_PTR(NTAPI *EXPORT)(ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR,
                                 ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR);

NTHALAPI ULONG NTAPI HalGetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, EVENT_TYPE Type,
                                      BOOLEAN Signaled);

/* One of everything. */
typedef struct _WORLD {
    KEVENT Event;
    KTIMER Timer;
    KDPC Dpc;
    KMUTEX Mutex;
    KSEMAPHORE Semaphore;
    ULONG64 Queue[8]; /* KQUEUE, which ntifs.h has */
    KSPIN_LOCK SpinLock;
    KLOCK_QUEUE_HANDLE QueueHandle;
    FAST_MUTEX FastMutex;
    KGUARDED_MUTEX GuardedMutex;
    ULONG64 Rundown;
    ULONG64 PushLock;
    KDEVICE_QUEUE DeviceQueue;
    KDEVICE_QUEUE_ENTRY DeviceQueueEntry;
    UNICODE_STRING WideString;
    STRING NarrowString;
    GUID Guid;
    LIST_ENTRY List, Entries[2];
    RTL_BITMAP BitMap;
    ULONG Bits[4];
    IO_REMOVE_LOCK RemoveLock;
    IO_CSQ Csq;
    LARGE_INTEGER Time;
    char Text[64];
    WCHAR WideText[64];
    OBJECT_ATTRIBUTES Attributes;
    RTL_GENERIC_TABLE Table;
    RTL_AVL_TABLE BalancedTable;
    RTL_SPLAY_LINKS Nodes[3];
    DECLSPEC_ALIGN(16) UCHAR Identifier[16];
    UCHAR AccessList[64];
    ULONG_PTR Descriptors[2][16]; /* absolute, and in one piece */
    SECURITY_SUBJECT_CONTEXT Subject;
    ULONG Privileges[12];
    ULONG Mapping[4];
    ULONG_PTR Client[10];
    DECLSPEC_ALIGN(16) ERESOURCE Resource;
    DECLSPEC_ALIGN(64) NPAGED_LOOKASIDE_LIST Lookaside;
    DECLSPEC_ALIGN(16) UCHAR SequencedList[16];
    DECLSPEC_ALIGN(16) UCHAR Memory[2048];
} WORLD;

static WORLD *World;
static PDEVICE_OBJECT OwnDevice;
static PDRIVER_OBJECT OwnDriver;
static PIRP OwnIrp, CurrentIrp;
static PMDL OwnMdl;
static PVOID Freed, WorkItem, ExTimer, Window, UserMemory;
static HANDLE Handle, Sections[2], Files[2]; /* a file and a folder of drive C:, where there is one */
static PVOID SectionObject;
static ULONG64 State;
static REQUEST *Stored;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFuzz");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFuzz");

DRIVER_INITIALIZE DriverEntry;

static ULONG64 Draw(void)
{
    State ^= State >> 12;
    State ^= State << 25;
    State ^= State >> 27;
    return State * 0x2545F4914F6CDD1Dull;
}

static ULONG Below(ULONG Limit)
{
    return (ULONG)(Draw() >> 33) % Limit;
}

static ULONG_PTR NTAPI Routine(ULONG_PTR A, ULONG_PTR B, ULONG_PTR C, ULONG_PTR D)
{
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    UNREFERENCED_PARAMETER(C);
    UNREFERENCED_PARAMETER(D);
    return 0;
}

static NTSTATUS NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Context);
    InsertTailList(&World->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return IsListEmpty(&World->List) ? NULL : CONTAINING_RECORD(World->List.Flink, IRP, Tail.Overlay.ListEntry);
}

static VOID NTAPI CsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    KeRaiseIrql(DISPATCH_LEVEL, Irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    KeLowerIrql(Irql);
}

static VOID NTAPI CsqComplete(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
}

static RTL_GENERIC_COMPARE_RESULTS NTAPI TableCompare(PVOID Table, PVOID First, PVOID Second)
{
    UCHAR A = *(UCHAR *)First, B = *(UCHAR *)Second;

    UNREFERENCED_PARAMETER(Table);
    return A < B ? GenericLessThan : A > B ? GenericGreaterThan : GenericEqual;
}

static PVOID NTAPI TableAllocate(PVOID Table, CLONG Bytes)
{
    UNREFERENCED_PARAMETER(Table);
    return ExAllocatePoolWithTag(NonPagedPool, Bytes, FUZZ_TAG);
}

static VOID NTAPI TableFree(PVOID Table, PVOID Element)
{
    UNREFERENCED_PARAMETER(Table);
    ExFreePoolWithTag(Element, FUZZ_TAG);
}

static PVOID Find(PCWSTR Name)
{
    UNICODE_STRING String;

    RtlInitUnicodeString(&String, Name);
    return MmGetSystemRoutineAddress(&String);
}

static void Call4(PCWSTR Name, PVOID A, ULONG_PTR B, ULONG_PTR C, ULONG_PTR D)
{
    EXPORT Export = (EXPORT)Find(Name);

    if (Export != NULL) {
        Export((ULONG_PTR)A, B, C, D, 0, 0, 0, 0, 0, 0, 0, 0);
    }
}

/* One of the page file's, and physical memory: of that nothing is mapped before a view is asked for. */
static VOID MakeSections(void)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\PhysicalMemory");
    LARGE_INTEGER Size = {.QuadPart = 0x30000};
    OBJECT_ATTRIBUTES Attributes;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwCreateSection(&Sections[0], SECTION_ALL_ACCESS, &Attributes, &Size, PAGE_READWRITE, SEC_RESERVE,
                                   NULL))) {
        ObReferenceObjectByHandle(Sections[0], SECTION_ALL_ACCESS, NULL, KernelMode, &SectionObject, NULL);
    }
    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    ZwOpenSection(&Sections[1], SECTION_ALL_ACCESS, &Attributes);
    InitializeObjectAttributes(&World->Attributes, &World->WideString, OBJ_KERNEL_HANDLE, NULL, NULL);
}

/* A file of drive C: and its root, where there is one; then what is opened by name is such a file half the time. */
static void MakeFiles(void)
{
    UNICODE_STRING Names[] = {RTL_CONSTANT_STRING(L"\\??\\C:\\fuzz"), RTL_CONSTANT_STRING(L"\\??\\C:\\")};
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Status;

    for (ULONG i = 0; i < 2; i++) {
        InitializeObjectAttributes(&Attributes, &Names[i], OBJ_KERNEL_HANDLE, NULL, NULL);
        Files[i] = Handle;
        if (!NT_SUCCESS(ZwCreateFile(&Files[i], GENERIC_ALL | SYNCHRONIZE, &Attributes, &Status, NULL, 0, 7, FILE_OPEN_IF,
                                     FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))) {
            return;
        }
    }
    if (Below(2) == 0) {
        RtlCopyMemory(World->WideText, Names[0].Buffer, Names[0].MaximumLength);
        RtlInitUnicodeString(&World->WideString, World->WideText);
    }
}

/* Two tables with three elements each, and a tree of three nodes. */
static void MakeTables(void)
{
    RtlInitializeGenericTable(&World->Table, (PVOID)TableCompare, (PVOID)TableAllocate, (PVOID)TableFree, NULL);
    RtlInitializeGenericTableAvl(&World->BalancedTable, (PVOID)TableCompare, (PVOID)TableAllocate, (PVOID)TableFree,
                                 NULL);
    for (ULONG i = 0; i < 3; i++) {
        RtlInsertElementGenericTable(&World->Table, World->Text + i, 1, NULL);
        RtlInsertElementGenericTableAvl(&World->BalancedTable, World->Text + i, 1, NULL);
        RtlInitializeSplayLinks(&World->Nodes[i]);
    }
    RtlInsertAsLeftChild(&World->Nodes[1], &World->Nodes[0]);
    RtlInsertAsRightChild(&World->Nodes[1], &World->Nodes[2]);
}

/* An identifier, a list with one entry, descriptors of both forms, a token and what has one. */
static void MakeSecurity(void)
{
    static const UCHAR Identifier[] = {1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0};
    static const UCHAR List[] = {2, 0, 64, 0, 1, 0, 0, 0, 0, 0, 20, 0, 0xFF, 1, 0x1F, 0};
    static const ULONG Privileges[] = {2, 1, 20, 0, 2, 7, 0, 0};
    static const ULONG Mapping[] = {0x120089, 0x120116, 0x1200A0, 0x1F01FF};
    ULONG Quality[] = {12, 2, 0}, Room = sizeof(World->Descriptors[1]);

    RtlCopyMemory(World->Identifier, Identifier, sizeof(Identifier));
    RtlCopyMemory(World->AccessList, List, sizeof(List));
    RtlCopyMemory(World->AccessList + sizeof(List), Identifier, sizeof(Identifier));
    RtlCopyMemory(World->Privileges, Privileges, sizeof(Privileges));
    RtlCopyMemory(World->Mapping, Mapping, sizeof(Mapping));
    RtlCreateSecurityDescriptor(World->Descriptors[0], SECURITY_DESCRIPTOR_REVISION);
    RtlSetDaclSecurityDescriptor(World->Descriptors[0], TRUE, (PACL)World->AccessList, FALSE);
    Call4(L"RtlSetOwnerSecurityDescriptor", World->Descriptors[0], (ULONG_PTR)World->Identifier, 0, 0);
    Call4(L"RtlAbsoluteToSelfRelativeSD", World->Descriptors[0], (ULONG_PTR)World->Descriptors[1], (ULONG_PTR)&Room, 0);
    SeCaptureSubjectContext(&World->Subject);
    Call4(L"SeCreateClientSecurity", KeGetCurrentThread(), (ULONG_PTR)Quality, FALSE, (ULONG_PTR)World->Client);
}

static void MapCard(void)
{
    PCI_COMMON_CONFIG Config;
    PHYSICAL_ADDRESS Bar;

    for (ULONG Slot = 0; Slot < 32 && Window == NULL; Slot++) {
        if (HalGetBusData(PCI_CONFIGURATION, 0, Slot, &Config, sizeof(Config)) == sizeof(Config) &&
            Config.VendorID == 0x1234 && Config.DeviceID == 0x5678) {
            Bar.QuadPart = Config.u.type0.BaseAddresses[0] & ~0xFull;
            Window = MmMapIoSpace(Bar, PAGE_SIZE, MmNonCached);
        }
    }
}

static BOOLEAN MakeWorld(void)
{
    static const char Narrow[] = "text %d of some length";
    static const WCHAR Wide[] = L"\\Device\\DirqlFuzz";
    OBJECT_ATTRIBUTES Attributes;

    World = ExAllocatePoolWithTag(NonPagedPool, sizeof(*World), FUZZ_TAG);
    Freed = ExAllocatePoolWithTag(NonPagedPool, 256, FUZZ_TAG);
    if (World == NULL || Freed == NULL) {
        return FALSE;
    }
    RtlZeroMemory(World, sizeof(*World));
    ExFreePoolWithTag(Freed, FUZZ_TAG);
    KeInitializeEvent(&World->Event, NotificationEvent, TRUE);
    KeInitializeTimer(&World->Timer);
    KeInitializeDpc(&World->Dpc, (PKDEFERRED_ROUTINE)(PVOID)Routine, NULL);
    KeInitializeMutex(&World->Mutex, 0);
    KeInitializeSemaphore(&World->Semaphore, 1, 8);
    Call4(L"KeInitializeQueue", World->Queue, 1, 0, 0);
    ExInitializeFastMutex(&World->FastMutex);
    Call4(L"KeInitializeGuardedMutex", &World->GuardedMutex, 0, 0, 0);
    ExInitializeResourceLite(&World->Resource);
    ExInitializeNPagedLookasideList(&World->Lookaside, NULL, NULL, 0, 64, FUZZ_TAG, 0);
    Call4(L"ExInitializeRundownProtection", &World->Rundown, 0, 0, 0);
    KeInitializeDeviceQueue(&World->DeviceQueue);
    InitializeListHead(&World->List);
    Call4(L"InitializeSListHead", World->SequencedList, 0, 0, 0);
    RtlInitializeBitMap(&World->BitMap, World->Bits, 128);
    IoInitializeRemoveLock(&World->RemoveLock, FUZZ_TAG, 0, 0);
    IoCsqInitializeEx(&World->Csq, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqComplete);
    RtlCopyMemory(World->Text, Narrow, sizeof(Narrow));
    RtlCopyMemory(World->WideText, Wide, sizeof(Wide));
    RtlInitUnicodeString(&World->WideString, World->WideText);
    RtlInitAnsiString(&World->NarrowString, World->Text);
    World->Time.QuadPart = -1000;
    OwnIrp = IoAllocateIrp(3, FALSE);
    OwnMdl = IoAllocateMdl(World->Memory, 512, FALSE, FALSE, NULL);
    WorkItem = IoAllocateWorkItem(OwnDevice);
    ExTimer = Find(L"ExAllocateTimer") == NULL ? NULL
        : (PVOID)((EXPORT)Find(L"ExAllocateTimer"))((ULONG_PTR)Routine, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    ZwCreateEvent(&Handle, EVENT_ALL_ACCESS, &Attributes, NotificationEvent, TRUE);
    if (OwnIrp != NULL) {
        IoSetNextIrpStackLocation(OwnIrp);
        IoGetCurrentIrpStackLocation(OwnIrp)->DeviceObject = OwnDevice;
    }
    MakeSections();
    MakeFiles();
    MakeTables();
    MakeSecurity();
    MapCard();
    return OwnIrp != NULL && OwnMdl != NULL && WorkItem != NULL;
}

/* What fits. */
static ULONG_PTR Fitting(ULONG Kind)
{
    switch (Kind) {
    case NUMBER: return Below(8) == 0 ? Below(0x1000) : Below(4);
    case TRUTH: return Below(2);
    case EVENT: return (ULONG_PTR)&World->Event;
    case TIMER: return (ULONG_PTR)&World->Timer;
    case DPC: return (ULONG_PTR)&World->Dpc;
    case MUTEX: return (ULONG_PTR)&World->Mutex;
    case SEMAPHORE: return (ULONG_PTR)&World->Semaphore;
    case QUEUE: return (ULONG_PTR)World->Queue;
    case SPIN_LOCK: return (ULONG_PTR)&World->SpinLock;
    case QUEUE_HANDLE: return (ULONG_PTR)&World->QueueHandle;
    case FAST_MUTEX_: return (ULONG_PTR)&World->FastMutex;
    case GUARDED_MUTEX: return (ULONG_PTR)&World->GuardedMutex;
    case RESOURCE: return (ULONG_PTR)&World->Resource;
    case LOOKASIDE: return (ULONG_PTR)&World->Lookaside;
    case RUNDOWN: return (ULONG_PTR)&World->Rundown;
    case PUSH_LOCK: return (ULONG_PTR)&World->PushLock;
    case DEVICE_QUEUE: return (ULONG_PTR)&World->DeviceQueue;
    case DEVICE_QUEUE_ENTRY: return (ULONG_PTR)&World->DeviceQueueEntry;
    case WIDE_STRING: return (ULONG_PTR)&World->WideString;
    case NARROW_STRING: return (ULONG_PTR)&World->NarrowString;
    case GUID_: return (ULONG_PTR)&World->Guid;
    case LIST: return Below(3) == 0 ? (ULONG_PTR)&World->List : (ULONG_PTR)&World->Entries[Below(2)];
    case SEQUENCED_LIST: return (ULONG_PTR)World->SequencedList;
    case BIT_MAP: return (ULONG_PTR)&World->BitMap;
    case REMOVE_LOCK: return (ULONG_PTR)&World->RemoveLock;
    case CSQ: return (ULONG_PTR)&World->Csq;
    case WORK_ITEM: return (ULONG_PTR)WorkItem;
    case IRP_: return Below(16) == 0 ? (ULONG_PTR)CurrentIrp : (ULONG_PTR)OwnIrp;
    case MDL_: return (ULONG_PTR)OwnMdl;
    case DEVICE: return (ULONG_PTR)OwnDevice;
    case DRIVER: return (ULONG_PTR)OwnDriver;
    case FILE_: return (ULONG_PTR)IoGetCurrentIrpStackLocation(CurrentIrp)->FileObject;
    case THREAD: return (ULONG_PTR)KeGetCurrentThread();
    case PROCESS: return (ULONG_PTR)IoGetCurrentProcess();
    case HANDLE_: return Below(2) == 0 ? (ULONG_PTR)Handle : (ULONG_PTR)Files[Below(2)];
    case EX_TIMER_: return (ULONG_PTR)ExTimer;
    case CODE: return (ULONG_PTR)Routine;
    case TIME: return (ULONG_PTR)&World->Time;
    case TEXT: return (ULONG_PTR)World->Text;
    case WIDE_TEXT: return (ULONG_PTR)World->WideText;
    case LENGTH: return Below(64);
    case LEVEL: return Below(3);
    case SECTION: return (ULONG_PTR)Sections[Below(4) == 0];
    case SECTION_OBJECT: return (ULONG_PTR)SectionObject;
    case PROCESS_HANDLE: return (ULONG_PTR)NtCurrentProcess();
    case OBJECT_NAME: return (ULONG_PTR)&World->Attributes;
    case PROTECTION: return Below(2) == 0 ? PAGE_READWRITE : 1u << Below(8);
    case FLAG: return Below(3) == 0 ? 0 : 1u << Below(32);
    case VIEW: return *(volatile ULONG_PTR *)World->Memory + Below(2) * Below(0x30000);
    case TABLE: return (ULONG_PTR)&World->Table;
    case BALANCED_TABLE: return (ULONG_PTR)&World->BalancedTable;
    case TREE_NODE: return (ULONG_PTR)&World->Nodes[Below(3)];
    case TABLE_ROUTINE:
        return Below(2) == 0 ? (ULONG_PTR)TableAllocate : Below(2) == 0 ? (ULONG_PTR)TableFree : (ULONG_PTR)TableCompare;
    case IDENTIFIER: return (ULONG_PTR)World->Identifier;
    case ACCESS_LIST: return (ULONG_PTR)World->AccessList;
    case DESCRIPTOR: return (ULONG_PTR)World->Descriptors[Below(2)];
    case SUBJECT: return (ULONG_PTR)&World->Subject;
    case TOKEN: return (ULONG_PTR)World->Subject.PrimaryToken;
    case PRIVILEGES: return (ULONG_PTR)World->Privileges;
    case MAPPING: return (ULONG_PTR)World->Mapping;
    case CLIENT: return (ULONG_PTR)World->Client;
    default: return (ULONG_PTR)World->Memory;
    }
}

/* What does not. */
static ULONG_PTR Unfit(ULONG Kind)
{
    static const ULONG64 Numbers[] = {
        0, 1, 2, 4, 0xF, 0x10, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF,
        0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0xFFFFF78000000000, 0xFFFFF80000000000, 0x7FFFFFFEFFFF, 0x10000,
    };

    switch (Below(12)) {
    case 0: return 0;
    case 1: return ~(ULONG_PTR)0;
    case 2: return Fitting(Kind) + 1 + Below(7);
    case 3: return Fitting(Kind) + 8 * (1 + Below(32));
    case 4: return Fitting(1 + Below(KINDS - 1));
    case 5: return (ULONG_PTR)Freed + 8 * Below(32);
    case 6: return (ULONG_PTR)UserMemory + Below(4096);
    case 7: return Window == NULL ? 0x20000 : (ULONG_PTR)Window + Below(PAGE_SIZE);
    case 8: return (ULONG_PTR)__builtin_frame_address(0) + 8 * Below(16);
    case 9: return (ULONG_PTR)Routine + Below(16);
    case 10: return Numbers[Below(sizeof(Numbers) / sizeof(Numbers[0]))];
    default: return (ULONG_PTR)Draw();
    }
}

static ULONG_PTR Argument(ULONG Kind, ULONG Malice)
{
    if (Kind == ANYTHING) {
        Kind = 1 + Below(KINDS - 1);
    }
    return Below(1000) < Malice ? Unfit(Kind) : Fitting(Kind);
}

static NOINLINE ULONG CallOne(EXPORT Routine_, const FUZZ_EXPORT *Export, ULONG Malice)
{
    ULONG_PTR A[MOST_ARGUMENTS];

    for (ULONG i = 0; i < MOST_ARGUMENTS; i++) {
        A[i] = i < Export->Arity ? Argument(Export->Kinds[i], Malice) : 0;
    }
    __try {
        Routine_(A[0], A[1], A[2], A[3], A[4], A[5], A[6], A[7], A[8], A[9], A[10], A[11]);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
    }
    return 1;
}

/* One export some times, each with arguments of their own: most that come back once come back again. */
static ULONG CallSome(const FUZZ_EXPORT *Export, ULONG Malice)
{
    ULONG Times = 1 + Below(Below(4) == 0 ? 128 : 8), Made = 0;
    KIRQL Irql;

    while (Made < Times) {
        EXPORT Found = (EXPORT)Find(Export->Name);

        if (Found == NULL) {
            return 0; /* a name that is none */
        }
        if (Export->Raised == 2 || (Export->Raised == 1 && Below(8) == 0)) {
            KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        }
        Made += CallOne(Found, Export, Malice);
        if (KeGetCurrentIrql() != PASSIVE_LEVEL) {
            KeLowerIrql(PASSIVE_LEVEL);
        }
    }
    return Made;
}

static ULONG Fuzz(const REQUEST *Request)
{
    ULONG Made = 0, Some;

    State = Request->Seed * 0x9E3779B97F4A7C15ull + 1;
    while (Made < Request->Calls) {
        Some = CallSome(&Request->Export[Below(Request->Exports)], Request->Malice);
        if (Some == 0) {
            return 0;
        }
        Made += Some;
    }
    return Made;
}

/* Whether an allocation fails is the machine's choice: so the machine's choices give a seed. */
static ULONG64 ChosenSeed(void)
{
    ULONG64 Seed = 0;

    for (ULONG i = 0; i < SEED_BITS; i++) {
        PVOID Block = ExAllocatePoolWithTag(NonPagedPool, 16, FUZZ_TAG);

        Seed = Seed << 1 | (Block == NULL);
        if (Block != NULL) {
            ExFreePoolWithTag(Block, FUZZ_TAG);
        }
    }
    return Seed;
}

/* Keeps a request. */
static NTSTATUS Prepare(PIRP Irp, ULONG Length)
{
    if (Length < sizeof(REQUEST) || Stored != NULL) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Stored = ExAllocatePoolWithTag(NonPagedPool, Length, FUZZ_TAG);
    if (Stored == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlCopyMemory(Stored, Irp->AssociatedIrp.SystemBuffer, Length);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Made;

    UNREFERENCED_PARAMETER(Device);
    if (Stack->Parameters.DeviceIoControl.IoControlCode == PREPARE) {
        return Prepare(Irp, Stack->Parameters.DeviceIoControl.InputBufferLength);
    }
    if (Stored == NULL || Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Stored->Seed == 0) {
        Stored->Seed = ChosenSeed();
    }
    CurrentIrp = Irp;
    UserMemory = Irp->UserBuffer;
    Made = MakeWorld() ? Fuzz(Stored) : 0;
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Made;
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    OwnDriver = Driver;
    OwnDevice = Driver->DeviceObject;
    return Status;
}

/* Drivers that take all there is: each call that finds no more fails as its page says, and what was taken is given back. */
#include "memory.h"

/* Takes what Take gives, each with a link at its start, until there is no more; how many there were. */
static ULONG TakeAll(SIZE_T Bytes, PVOID *List)
{
    ULONG Count = 0;
    PVOID Block;

    for (*List = NULL; (Block = ExAllocatePoolWithTag(NonPagedPool, Bytes, MEMORY_TAG)) != NULL; Count++) {
        *(PVOID *)Block = *List;
        *List = Block;
    }
    return Count;
}

static VOID GiveAll(PVOID List)
{
    while (List != NULL) {
        PVOID Next = *(PVOID *)List;

        ExFreePoolWithTag(List, MEMORY_TAG);
        List = Next;
    }
}

/* Small blocks until there are no more; what is given back can be taken again. */
static ULONG MostPool(VOID)
{
    PVOID List;
    ULONG Count = TakeAll(100, &List);

    CHECK(Count > 10000);
    CHECK(ExAllocatePoolWithTag(NonPagedPool, 100, MEMORY_TAG) == NULL);
    GiveAll(List);
    List = ExAllocatePoolWithTag(NonPagedPool, 100, MEMORY_TAG);
    CHECK(List != NULL);
    ExFreePoolWithTag(List, MEMORY_TAG);
    return 0;
}

/* Blocks of a page each. */
static ULONG MostPages(VOID)
{
    PVOID List;
    ULONG Count = TakeAll(PAGE_SIZE, &List);

    CHECK(Count > 1000);
    GiveAll(List);
    return 0;
}

/* Values of 64 KiB. */
static ULONG MostRegistry(VOID)
{
    UNICODE_STRING Path = RTL_CONSTANT_STRING(L"\\Registry\\Machine\\Software\\Memory"), Name;
    PVOID Data = ExAllocatePoolWithTag(PagedPool, 0x10000, MEMORY_TAG);
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Count;
    HANDLE Key;

    CHECK(Data != NULL);
    RtlZeroMemory(Data, 0x10000);
    InitializeObjectAttributes(&Attributes, &Path, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(NT_SUCCESS(ZwCreateKey(&Key, KEY_ALL_ACCESS, &Attributes, 0, NULL, 0, NULL)));
    for (Count = 0; NT_SUCCESS(Status); Count++) {
        WCHAR Text[] = {(WCHAR)(L'0' + Count / 1000 % 10), (WCHAR)(L'0' + Count / 100 % 10), (WCHAR)(L'0' + Count / 10 % 10),
                        (WCHAR)(L'0' + Count % 10), 0};

        RtlInitUnicodeString(&Name, Text);
        Status = ZwSetValueKey(Key, &Name, 0, REG_BINARY, Data, 0x10000);
    }
    CHECK(Status == STATUS_INSUFFICIENT_RESOURCES && Count > 100);
    CHECK(NT_SUCCESS(ZwDeleteKey(Key)));
    ZwClose(Key);
    ExFreePoolWithTag(Data, MEMORY_TAG);
    return 0;
}

/* Text without an end of its line; what comes last never gets one. */
static ULONG MostText(VOID)
{
    ULONG Count;

    for (Count = 0; Count < 10000; Count++) {
        DbgPrint("%s", "a text that does not end its line, again and again, ");
    }
    CHECK(Count == 10000);
    DbgPrint("\n");
    DbgPrint("the last line has no end");
    return 0;
}

static ULONG MostDevices(VOID)
{
    NTSTATUS Status = STATUS_SUCCESS;
    PDEVICE_OBJECT Device, List = NULL;
    ULONG Count;

    for (Count = 0; NT_SUCCESS(Status); Count++) {
        Status = IoCreateDevice(TheDriver, 4096, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device);
        if (NT_SUCCESS(Status)) {
            *(PDEVICE_OBJECT *)Device->DeviceExtension = List;
            List = Device;
        }
    }
    CHECK(Status == STATUS_INSUFFICIENT_RESOURCES && Count > 1000);
    while (List != NULL) {
        Device = List;
        List = *(PDEVICE_OBJECT *)Device->DeviceExtension;
        IoDeleteDevice(Device);
    }
    return 0;
}

static ULONG MostRequests(VOID)
{
    PIRP Irp, List = NULL;
    ULONG Count;

    for (Count = 0; (Irp = IoAllocateIrp(10, FALSE)) != NULL; Count++) {
        Irp->UserBuffer = List;
        List = Irp;
    }
    CHECK(Count > 5000);
    while (List != NULL) {
        Irp = List;
        List = Irp->UserBuffer;
        IoFreeIrp(Irp);
    }
    return 0;
}

static VOID NTAPI WaitsToEnd(PVOID Event)
{
    KeWaitForSingleObject(Event, Executive, KernelMode, FALSE, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG MostThreads(VOID)
{
    static PKTHREAD Threads[20000];
    static KEVENT Go;
    ULONG Count = 0;
    NTSTATUS Status = STATUS_SUCCESS;
    HANDLE Handle;

    KeInitializeEvent(&Go, NotificationEvent, FALSE);
    while (Count < RTL_NUMBER_OF(Threads)) {
        Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, WaitsToEnd, &Go);
        if (!NT_SUCCESS(Status)) {
            break;
        }
        ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Threads[Count], NULL);
        ZwClose(Handle);
        Count++;
    }
    CHECK(Status == STATUS_INSUFFICIENT_RESOURCES && Count > 500);
    KeSetEvent(&Go, IO_NO_INCREMENT, FALSE);
    while (Count > 0) {
        Count--;
        KeWaitForSingleObject(Threads[Count], Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(Threads[Count]);
    }
    return 0;
}

/* As many timers as fit, all set at once: each is a wish that the machine must remember. */
static ULONG MostTimers(VOID)
{
    LARGE_INTEGER Due = {.QuadPart = -10000000LL * 3600};
    SIZE_T Count = 0x100000 / sizeof(KTIMER);
    PKTIMER Timers[2];
    ULONG Block;
    SIZE_T Index;

    for (Block = 0; Block < RTL_NUMBER_OF(Timers); Block++) {
        Timers[Block] = ExAllocatePoolWithTag(NonPagedPool, Count * sizeof(KTIMER), MEMORY_TAG);
        CHECK(Timers[Block] != NULL);
        for (Index = 0; Index < Count; Index++) {
            KeInitializeTimer(&Timers[Block][Index]);
            KeSetTimer(&Timers[Block][Index], Due, NULL);
        }
    }
    for (Block = 0; Block < RTL_NUMBER_OF(Timers); Block++) {
        for (Index = 0; Index < Count; Index++) {
            if (!KeCancelTimer(&Timers[Block][Index])) {
                return __LINE__;
            }
        }
        ExFreePoolWithTag(Timers[Block], MEMORY_TAG);
    }
    return 0;
}

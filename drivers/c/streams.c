/*
 * streams.sys: every form of the string instructions with ports and with device memory (`--device pci,sheet=drivers/c/streams.sheet`), as compilers emit
 * them for READ_PORT_BUFFER_* and WRITE_REGISTER_BUFFER_*; its device is \\.\Streams. Each story of Stories below is asked for by its name (IOCTL_TELL_STORY of control.h): each word that
 * goes out comes back, in its order, and registers are left as the instruction leaves them.
 */
#include <ddk/wdm.h>
#define STORIES "streams"
#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "function.h"

/* Ports. */
#define PORT8 0
#define PORT16 2
#define PORT32 4
#define WAITING 8
/* In BAR0. */
#define BLOCK 0x800

DRIVER_INITIALIZE DriverEntry;

/* The one card. */
static PFUNCTION Card;
static ULONGLONG Memory[1024]; /* two pages: half of its dwords lie in each */

static USHORT Port(ULONG Offset)
{
    return (USHORT)(Card->Ports + Offset);
}

static ULONG Left(VOID)
{
    ULONG Value;

    __asm__ volatile("inl %w1, %0" : "=a"(Value) : "Nd"(Port(WAITING)));
    return Value;
}

/* One string instruction: where its memory operand and its count are afterwards. */
typedef struct _AFTER {
    PUCHAR At;
    ULONGLONG Count;
} AFTER;

#define STRING(Text, Register, Port_, At_, Count_)                                                                     \
    ({                                                                                                                 \
        AFTER After_ = {(PUCHAR)(At_), (Count_)};                                                                      \
        __asm__ volatile(Text : "+" Register(After_.At), "+c"(After_.Count) : "d"(Port_) : "memory", "cc");            \
        After_;                                                                                                        \
    })
#define OUTS(Text, Port_, At_, Count_) STRING(Text, "S", Port_, At_, Count_)
#define INS(Text, Port_, At_, Count_) STRING(Text, "D", Port_, At_, Count_)

static ULONG EveryWidth(VOID)
{
    UCHAR Bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, Back[8] = {0};
    USHORT Words[4] = {0x1122, 0x3344, 0x5566, 0x7788}, WordsBack[4] = {0};
    ULONG Dwords[3] = {0x11223344, 0x55667788, 0x99AABBCC}, DwordsBack[3] = {0};
    AFTER After;

    After = OUTS("rep outsb", Port(PORT8), Bytes, 8);
    CHECK(After.At == Bytes + 8 && After.Count == 0 && Left() == 8);
    After = INS("rep insb", Port(PORT8), Back, 8);
    CHECK(After.At == Back + 8 && After.Count == 0 && Left() == 0 && memcmp(Bytes, Back, 8) == 0);

    After = OUTS("rep outsw", Port(PORT16), Words, 4);
    CHECK(After.At == (PUCHAR)(Words + 4) && After.Count == 0 && Left() == 4 << 10);
    After = INS("rep insw", Port(PORT16), WordsBack, 4);
    CHECK(After.At == (PUCHAR)(WordsBack + 4) && memcmp(Words, WordsBack, 8) == 0);

    After = OUTS("rep outsl", Port(PORT32), Dwords, 3);
    CHECK(After.At == (PUCHAR)(Dwords + 3) && Left() == 3 << 20);
    After = INS("rep insl", Port(PORT32), DwordsBack, 3);
    CHECK(After.At == (PUCHAR)(DwordsBack + 3) && After.Count == 0 && memcmp(Dwords, DwordsBack, 12) == 0);
    return 0;
}

static ULONG NoneAndOne(VOID)
{
    UCHAR Bytes[2] = {0x5A, 0xA5}, Back[2] = {0};
    AFTER After;

    After = OUTS("rep outsb", Port(PORT8), Bytes, 0);
    CHECK(After.At == Bytes && After.Count == 0 && Left() == 0);
    After = INS("rep insl", Port(PORT32), Back, 0);
    CHECK(After.At == Back && Back[0] == 0);
    /* Without a prefix the count is not used. */
    After = OUTS("outsb", Port(PORT8), Bytes, 7);
    CHECK(After.At == Bytes + 1 && After.Count == 7 && Left() == 1);
    After = INS("insb", Port(PORT8), Back, 7);
    CHECK(After.At == Back + 1 && After.Count == 7 && Back[0] == 0x5A && Back[1] == 0);
    /* By the other prefix, which is the same. */
    After = OUTS("repne outsb", Port(PORT8), Bytes, 2);
    CHECK(After.Count == 0 && Left() == 2);
    After = INS("repne insb", Port(PORT8), Back, 2);
    CHECK(After.Count == 0 && Back[0] == 0x5A && Back[1] == 0xA5);
    return 0;
}

static ULONG Backwards(VOID)
{
    UCHAR Bytes[5] = {0, 1, 2, 3, 4}, Back[5] = {0};
    AFTER After;

    After = OUTS("std; rep outsb; cld", Port(PORT8), Bytes + 4, 4);
    CHECK(After.At == Bytes && After.Count == 0);
    After = INS("rep insb", Port(PORT8), Back + 1, 4);
    CHECK(Back[1] == 4 && Back[2] == 3 && Back[3] == 2 && Back[4] == 1);
    After = OUTS("rep outsb", Port(PORT8), Bytes + 1, 4);
    After = INS("std; rep insb; cld", Port(PORT8), Back + 4, 4);
    CHECK(After.At == Back && Back[0] == 0 && Back[1] == 4 && Back[4] == 1);
    return 0;
}

static ULONG AcrossPages(VOID)
{
    PULONG Dwords = (PULONG)Memory, Back = Dwords + 1024;
    ULONG Index, Count = 600;

    for (Index = 0; Index < Count; Index++) {
        Dwords[Index] = Index * 0x01000193;
    }
    RtlZeroMemory(Back, Count * sizeof(*Back));
    CHECK(OUTS("rep outsl", Port(PORT32), Dwords, Count).Count == 0 && Left() == Count << 20);
    CHECK(INS("rep insl", Port(PORT32), Back, Count).At == (PUCHAR)(Back + Count));
    CHECK(RtlCompareMemory(Dwords, Back, Count * sizeof(*Back)) == Count * sizeof(*Back));
    return 0;
}

/* The memory operand is the card's, too. */
static ULONG FromWindowToPort(VOID)
{
    PUCHAR Window = Card->Registers + BLOCK;
    ULONG Dwords[4] = {0xCAFE0001, 0xCAFE0002, 0xCAFE0003, 0xCAFE0004}, Back[4] = {0};
    PVOID To = Window, From = Dwords;
    ULONGLONG Count = 4;

    __asm__ volatile("rep movsl" : "+D"(To), "+S"(From), "+c"(Count) : : "memory");
    CHECK(To == Window + 16 && From == Dwords + 4 && Count == 0);
    CHECK(OUTS("rep outsl", Port(PORT32), Window, 4).At == Window + 16 && Left() == 4 << 20);
    CHECK(INS("rep insl", Port(PORT32), Window + 64, 4).At == Window + 80);
    To = Back;
    From = Window + 64;
    Count = 4;
    __asm__ volatile("rep movsl" : "+D"(To), "+S"(From), "+c"(Count) : : "memory");
    CHECK(memcmp(Back, Dwords, 16) == 0);
    return 0;
}

static ULONG InTheWindow(VOID)
{
    PUCHAR Window = Card->Registers + BLOCK;
    UCHAR Bytes[16] = "0123456789abcde";
    PVOID To = Window + 3, From = Bytes;
    ULONGLONG Count = 13, Value = 0xEEEEEEEEEEEEEEEEull;
    BOOLEAN Same;

    __asm__ volatile("rep movsb" : "+D"(To), "+S"(From), "+c"(Count) : : "memory");
    CHECK(To == Window + 16 && Window[3] == '0' && Window[15] == 'c');
    To = Window + 3;
    From = Bytes;
    Count = 16;
    __asm__ volatile("repe cmpsb; sete %3" : "+D"(To), "+S"(From), "+c"(Count), "=r"(Same) : : "memory", "cc");
    CHECK(!Same && Count == 2 && To == Window + 3 + 14); /* behind the 13 that are the same */
    To = Window + 3;
    Count = 16;
    __asm__ volatile("repne scasb; sete %2" : "+D"(To), "+c"(Count), "=r"(Same) : "a"('9') : "memory", "cc");
    CHECK(Same && Count == 6 && To == Window + 3 + 10);
    From = Window + 3;
    __asm__ volatile("lodsb" : "+S"(From), "+a"(Value) : : "memory");
    CHECK(Value == 0xEEEEEEEEEEEEEE00ull + '0' && From == Window + 4);
    To = Window + 8;
    Count = 2;
    __asm__ volatile("rep stosq" : "+D"(To), "+c"(Count) : "a"(Value) : "memory");
    CHECK(To == Window + 24 && Window[7] == '4' && Window[8] == '0' && Window[9] == 0xEE && Window[23] == 0xEE);
    return 0;
}

/* Stops: the block is gone. */
static ULONG IntoFreedMemory(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPool, 64, 'mrtS');

    CHECK(Block != NULL);
    OUTS("rep outsb", Port(PORT8), (PUCHAR) "12345678", 8);
    ExFreePoolWithTag(Block, 'mrtS');
    INS("rep insb", Port(PORT8), Block, 8);
    return 0;
}

/* Stops: a port beyond the card's. */
static ULONG BeyondItsPorts(VOID)
{
    UCHAR Bytes[4];

    INS("rep insb", Port(0x20), Bytes, 4);
    return 0;
}

static const STORY Stories[] = {
    STORY(EveryWidth), STORY(NoneAndOne), STORY(Backwards), STORY(AcrossPages), STORY(FromWindowToPort),
    STORY(InTheWindow), STORY(IntoFreedMemory), STORY(BeyondItsPorts),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    Card = Device->DeviceExtension;
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PFUNCTION Function = Device->DeviceExtension;

    return Function->Ports != 0 && Read(Function, 0) == 0x57520001 ? Connect(Function) : STATUS_DEVICE_CONFIGURATION_ERROR;
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Present);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    Write(Device->DeviceExtension, 4, On);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(FUNCTION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Streams");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Streams");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}

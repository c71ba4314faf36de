/*
 * plxrook: reads the serial EEPROM of a board behind a PLX PCI 9052, a 93C46 of 64 words at four pins of the chip. What has been read once is kept, so that programs
 * that ask for the board's identification need not wait for the slow clock again.
 *
 * The bug: if there is no memory for the kept words, the start fails and takes the mapping of the registers back, but leaves its address where it was; the removal that
 * follows sees it and takes the same mapping back once more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: io-space-unmap
 * Needs: failure, removal
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID RookFace = { 0x5d0c1c34, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x13, 0x04 } };

#define IOCTL_WORD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_IMAGE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C3, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REGISTERS   0x54                      /* bytes that are mapped */
#define CNTRL       0x50
#define   EE_CLOCK    0x01000000u
#define   EE_SELECT   0x02000000u
#define   EE_OUT      0x04000000u
#define   EE_IN       0x08000000u

#define WORDS 64

typedef struct _IMAGE {
    USHORT Word[WORDS];
    BOOLEAN Known[WORDS];
} IMAGE;

typedef struct _ROOK {
    CRAFT Craft;
    WINDOW Regs;
    FAST_MUTEX Mutex;                         /* of the pins and of what Image holds */
    IMAGE *Image;
} ROOK;

static void SetPins(ROOK *r, ULONG base, ULONG pins)
{
    Wr(&r->Regs, CNTRL, base | pins);
    (void)Rd(&r->Regs, CNTRL);                /* it shall be there before the time is counted */
    KeStallExecutionProcessor(1);
}

static void SendBit(ROOK *r, ULONG base, BOOLEAN bit)
{
    ULONG pins = EE_SELECT | (bit ? EE_OUT : 0);
    SetPins(r, base, pins);
    SetPins(r, base, pins | EE_CLOCK);
}

/* With the mutex. */
static USHORT ReadWord(ROOK *r, ULONG index)
{
    ULONG base = Rd(&r->Regs, CNTRL) & ~(EE_CLOCK | EE_SELECT | EE_OUT);
    ULONG command = 6u << 6 | index;          /* start bit, 10: read, six bits of address */
    USHORT word = 0;
    int n;
    SetPins(r, base, 0);
    for (n = 8; n >= 0; n--)
        SendBit(r, base, (command >> n & 1) != 0);
    for (n = 0; n < 16; n++) {
        SetPins(r, base, EE_SELECT);
        SetPins(r, base, EE_SELECT | EE_CLOCK);
        word = (USHORT)(word << 1 | ((Rd(&r->Regs, CNTRL) & EE_IN) ? 1 : 0));
    }
    SetPins(r, base, 0);
    return word;
}

/* With the mutex. */
static USHORT Word(ROOK *r, ULONG index)
{
    if (!r->Image->Known[index]) {
        r->Image->Word[index] = ReadWord(r, index);
        r->Image->Known[index] = TRUE;
    }
    return r->Image->Word[index];
}

static NTSTATUS RookServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    ROOK *r = (ROOK *)s;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG index;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WORD:
        if (in < sizeof(ULONG) || out < sizeof(USHORT))
            return STATUS_BUFFER_TOO_SMALL;
        index = *(ULONG *)buffer;
        if (index >= WORDS)
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&r->Mutex);
        *(USHORT *)buffer = Word(r, index);
        ExReleaseFastMutex(&r->Mutex);
        irp->IoStatus.Information = sizeof(USHORT);
        return STATUS_SUCCESS;
    case IOCTL_IMAGE:
        if (out < WORDS * sizeof(USHORT))
            return STATUS_BUFFER_TOO_SMALL;
        for (index = 0; index < WORDS; index++) {
            ExAcquireFastMutex(&r->Mutex);
            ((USHORT *)buffer)[index] = Word(r, index);
            ExReleaseFastMutex(&r->Mutex);
        }
        irp->IoStatus.Information = WORDS * sizeof(USHORT);
        return STATUS_SUCCESS;
    case IOCTL_FORGET:
        ExAcquireFastMutex(&r->Mutex);
        RtlZeroMemory(r->Image->Known, sizeof r->Image->Known);
        ExReleaseFastMutex(&r->Mutex);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static void Unmap(ROOK *r)
{
    if (r->Regs.At && !r->Regs.Port)
        MmUnmapIoSpace(r->Regs.At, REGISTERS);
}

static NTSTATUS RookStart(CRAFT *s)
{
    ROOK *r = (ROOK *)s;
    r->Regs = s->Window[0];
    if (!r->Regs.Port) {
        r->Regs.At = MmMapIoSpace(r->Regs.Raw, REGISTERS, MmNonCached);
        if (!r->Regs.At)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    r->Image = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *r->Image, WW_TAG);
    if (!r->Image) {
        Unmap(r);
#ifdef FIXED
        r->Regs.At = NULL;
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(r->Image, sizeof *r->Image);
    return STATUS_SUCCESS;
}

static void RookStop(CRAFT *s)
{
    ROOK *r = (ROOK *)s;
    Unmap(r);
    r->Regs.At = NULL;
    ExFreePoolWithTag(r->Image, WW_TAG);
    r->Image = NULL;
}

static NTSTATUS RookOutfit(CRAFT *s)
{
    ExInitializeFastMutex(&((ROOK *)s)->Mutex);
    return STATUS_SUCCESS;
}

/* Whatever is left. */
static void RookStrip(CRAFT *s)
{
    ROOK *r = (ROOK *)s;
    Unmap(r);
    if (r->Image)
        ExFreePoolWithTag(r->Image, WW_TAG);
}

static const PLAN RookPlan = {
    .Size = sizeof(ROOK),
    .Face = &RookFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { REGISTERS },
    .MapsItself = TRUE,
    .Outfit = RookOutfit,
    .Strip = RookStrip,
    .Start = RookStart,
    .Stop = RookStop,
    .Serve = RookServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &RookPlan);
}

/* What the subjects of damage.sys share: how a field is damaged, and where a fresh structure comes from. */
#ifndef DAMAGE_H
#define DAMAGE_H

#include <ddk/wdm.h>

#include "../../control.h"

/* gcc takes offsets of gs: accesses for null pointers, and what is freed on purpose for a mistake. */
#pragma GCC diagnostic ignored "-Warray-bounds"
#pragma GCC diagnostic ignored "-Wuse-after-free"

#define DAMAGE_TAG 0x676D6144u /* "Damg" in pool listings */
#define TELL_CODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Of mingw's ntddk.h and ntifs.h. */
NTKERNELAPI PIRP NTAPI IoMakeAssociatedIrp(PIRP Master, CCHAR StackSize);
NTKERNELAPI BOOLEAN NTAPI IoIsOperationSynchronous(PIRP Irp);
NTKERNELAPI PEPROCESS NTAPI IoGetRequestorProcess(PIRP Irp);
NTKERNELAPI ULONG NTAPI IoGetRequestorProcessId(PIRP Irp);
NTSYSAPI NTSTATUS NTAPI RtlUpcaseUnicodeString(PUNICODE_STRING To, PUNICODE_STRING From, BOOLEAN Allocate);

typedef struct _DAMAGE {
    ULONG Subject, Use;     /* indices */
    ULONG Offset, Size;     /* of the field */
    ULONG Value;            /* a number of Values */
} DAMAGE;

typedef struct _SUBJECT_INFO {
    ULONG Uses;
    char Layout[60];        /* the structure's name */
} SUBJECT_INFO;

typedef VOID (*USE)(PVOID At);

typedef struct _SUBJECT {
    const char *Layout;
    PVOID (*Prepare)(VOID);
    const USE *Uses;        /* up to a null */
} SUBJECT;

static PDRIVER_OBJECT TheDriver;
static PDEVICE_OBJECT TheDevice;
static PIRP OwnRequest;     /* that asks for the deed */
static BOOLEAN OwnRequestDone;

/* A fresh block. It stays: what happens to it afterwards is the kernel's business. */
static PVOID Fresh(SIZE_T Bytes)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPool, Bytes, DAMAGE_TAG);

    if (Block != NULL) {
        RtlZeroMemory(Block, Bytes);
    }
    return Block;
}

static ULONG64 ValueOf(ULONG Number, PUCHAR At, ULONG Offset)
{
    PUCHAR Block;

    switch (Number) {
    case 0: return 0;
    case 1: return 1;
    case 2: return ~0ull;
    case 3: return 0x8080808080808080ull;
    case 4: return 0x7F7F7F7F7F7F7F7Full;
    case 5: return 7;
    case 6: return 0x101000000010ull;       /* of applications */
    case 7: return 0x201000000000ull;       /* where devices are shown */
    case 8:                                 /* freed pool */
        Block = Fresh(0x40);
        ExFreePoolWithTag(Block, DAMAGE_TAG);
        return (ULONG64)Block;
    case 9: return (ULONG64)At;             /* the structure itself */
    case 10: return (ULONG64)(At + Offset); /* the field itself */
    case 11: return 0x0123456789ABCDEFull;  /* not canonical */
    case 12:                                /* the last byte of a page */
        Block = ExAllocatePoolWithTag(NonPagedPool, 2 * PAGE_SIZE, DAMAGE_TAG);
        return (ULONG64)(Block + 2 * PAGE_SIZE - 1);
    case 13: return 0x204000000000ull;      /* dirql's own */
    case 14: return (ULONG64)ValueOf;       /* code */
    default: return (ULONG64)(At - 8);
    }
}

static VOID Inflict(PUCHAR At, const DAMAGE *Damage)
{
    ULONG64 Value = ValueOf(Damage->Value, At, Damage->Offset);

    /* Larger fields are filled; those of a whole word get it once. */
    if (Damage->Size <= sizeof(Value)) {
        RtlCopyMemory(At + Damage->Offset, &Value, Damage->Size);
    } else {
        ULONG Index;

        for (Index = 0; Index < Damage->Size; Index++) {
            At[Damage->Offset + Index] = (UCHAR)(Value >> Index % 8 * 8);
        }
    }
}

static VOID Pause(LONG Milliseconds)
{
    LARGE_INTEGER Interval = {.QuadPart = -10000LL * Milliseconds};

    if (KeGetCurrentIrql() == PASSIVE_LEVEL) {
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
}

static NTSTATUS WaitBriefly(PVOID Object)
{
    LARGE_INTEGER Zero = {.QuadPart = 0};

    return KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, &Zero);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
}

#endif

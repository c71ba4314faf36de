/*
 * nutmeg: factorials by the educational card, with a record of who had what computed when, which an administrator's program fetches
 * from time to time.
 *
 * The bug: when the record does not fit, the driver copies as much of it as does, and answers STATUS_BUFFER_OVERFLOW (a warning, with
 * which the bytes are copied), but its Information says how large the whole record is.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: information-too-large
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_edu.h"

#define NUTMEG_FACTORIAL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG up to 12; out: ULONG */
#define NUTMEG_RECORD       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: ENTRYs, the oldest first */
#define NUTMEG_CLEAR        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x943, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define NUTMEG_KEPT         32

NTKERNELAPI ULONG NTAPI IoGetRequestorProcessId(PIRP Irp);

typedef struct ENTRY {
    ULONGLONG When;
    ULONG Process;
    ULONG Number;
    ULONG Result;
    LONG Status;
} ENTRY;

typedef struct NUTMEG {
    SHELL Shell;
    WINDOW Card;
    KEVENT Free;                        /* a synchronization event: who uses the card has it */
    KSPIN_LOCK Lock;
    ULONG First, Count;                 /* with the lock */
    ENTRY Entries[NUTMEG_KEPT];
} NUTMEG;

static const GUID NutmegInterface = { 0xe4602b17, 0x57cd, 0x4a39, { 0x8c, 0xe1, 0x94, 0x0b, 0xd8, 0x26, 0xf5, 0x06 } };

static VOID NutmegWriteDown(NUTMEG *Nutmeg, ULONG Process, ULONG Number, ULONG Result, NTSTATUS Status)
{
    LARGE_INTEGER now;
    ENTRY *entry;
    KIRQL irql;

    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&Nutmeg->Lock, &irql);
    if (Nutmeg->Count == NUTMEG_KEPT) {
        Nutmeg->First = (Nutmeg->First + 1) % NUTMEG_KEPT;
        Nutmeg->Count--;
    }
    entry = &Nutmeg->Entries[(Nutmeg->First + Nutmeg->Count++) % NUTMEG_KEPT];
    entry->When = (ULONGLONG)now.QuadPart;
    entry->Process = Process;
    entry->Number = Number;
    entry->Result = Result;
    entry->Status = Status;
    KeReleaseSpinLock(&Nutmeg->Lock, irql);
}

static NTSTATUS NutmegFactorial(NUTMEG *Nutmeg, ULONG Process, ULONG Number, ULONG *Result)
{
    NTSTATUS status;

    if (Number > 12)
        return STATUS_INVALID_PARAMETER;
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Nutmeg->Free, Executive, KernelMode, FALSE, NULL);
    status = EduCompute(&Nutmeg->Card, Number, Result);
    KeSetEvent(&Nutmeg->Free, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
    NutmegWriteDown(Nutmeg, Process, Number, NT_SUCCESS(status) ? *Result : 0, status);
    return status;
}

static NTSTATUS NutmegRecord(NUTMEG *Nutmeg, ENTRY *Entries, ULONG Length, ULONG *Information)
{
    ULONG fit = Length / sizeof(ENTRY), i;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Nutmeg->Lock, &irql);
    if (fit < Nutmeg->Count)
        status = STATUS_BUFFER_OVERFLOW;
    else
        fit = Nutmeg->Count;
    for (i = 0; i < fit; i++)
        Entries[i] = Nutmeg->Entries[(Nutmeg->First + i) % NUTMEG_KEPT];
#ifndef FIXED
    *Information = Nutmeg->Count * sizeof(ENTRY);
#else
    *Information = fit * sizeof(ENTRY);
#endif
    KeReleaseSpinLock(&Nutmeg->Lock, irql);
    return status;
}

static VOID NutmegClear(NUTMEG *Nutmeg)
{
    KIRQL irql;

    KeAcquireSpinLock(&Nutmeg->Lock, &irql);
    Nutmeg->First = 0;
    Nutmeg->Count = 0;
    KeReleaseSpinLock(&Nutmeg->Lock, irql);
}

static NTSTATUS NutmegFound(SHELL *Shell)
{
    NUTMEG *nutmeg = (NUTMEG *)Shell;

    KeInitializeEvent(&nutmeg->Free, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&nutmeg->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS NutmegBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    NUTMEG *nutmeg = (NUTMEG *)Shell;
    NTSTATUS status = WindowMap(&nutmeg->Card, IronFind(Resources, CmResourceTypeMemory, 0), EDU_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    if (!EduThere(&nutmeg->Card)) {
        WindowUnmap(&nutmeg->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    EduQuiet(&nutmeg->Card);
    return STATUS_SUCCESS;
}

static VOID NutmegEnd(SHELL *Shell, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    WindowUnmap(&((NUTMEG *)Shell)->Card);
}

static NTSTATUS NutmegServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    NUTMEG *nutmeg = (NUTMEG *)Shell;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = At->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG information = 0, result = 0;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;

    if (At->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (At->Parameters.DeviceIoControl.IoControlCode) {
        case NUTMEG_FACTORIAL:
            if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = NutmegFactorial(nutmeg, IoGetRequestorProcessId(Irp), *(ULONG *)buffer, &result);
            if (NT_SUCCESS(status)) {
                *(ULONG *)buffer = result;
                information = sizeof(ULONG);
            }
            break;

        case NUTMEG_RECORD:
            status = NutmegRecord(nutmeg, buffer, out, &information);
            break;

        case NUTMEG_CLEAR:
            NutmegClear(nutmeg);
            status = STATUS_SUCCESS;
            break;
        }
    }
    return Settle(Irp, status, information);
}

static const SHELL_TRADE NutmegTrade = {
    .Size = sizeof(NUTMEG), .Interface = &NutmegInterface,
    .Found = NutmegFound, .Begin = NutmegBegin, .End = NutmegEnd, .Serve = NutmegServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &NutmegTrade);
}

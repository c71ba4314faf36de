/*
 * yarrow: a register of appointments. A program notes a number, a date and a cookie of its own (a pointer, as a rule), and gets its
 * notes listed. Programs of 64 bits and of 32 bits use it, whose structures differ by the size of the cookie.
 *
 * The bug: the list for a program of 32 bits is dimensioned by the smaller structure, but its entries are written at distances of the
 * larger one, so the last ones lie beyond the buffer.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define YARROW_NOTE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: NOTE or NOTE32 */
#define YARROW_STRIKE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: ULONG, the number */
#define YARROW_LIST     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: NOTEs or NOTE32s */

#define YARROW_MOST     64

typedef struct NOTE {
    PVOID Cookie;
    ULONG Number;
    ULONG Date;
} NOTE;

typedef struct NOTE32 {
    ULONG Cookie;
    ULONG Number;
    ULONG Date;
} NOTE32;

typedef struct YARROW {
    FAST_MUTEX Mutex;
    ULONG Count;
    struct {
        PFILE_OBJECT Owner;         /* to compare with only */
        NOTE Note;
    } Notes[YARROW_MOST];
} YARROW;

static PDEVICE_OBJECT YarrowDevice;

static VOID YarrowForget(YARROW *Register, ULONG Index)
{
    Register->Count--;
    Register->Notes[Index] = Register->Notes[Register->Count];
}

static NTSTATUS YarrowNote(YARROW *Register, PFILE_OBJECT Owner, const NOTE *Note)
{
    if (Register->Count == YARROW_MOST)
        return STATUS_QUOTA_EXCEEDED;
    Register->Notes[Register->Count].Owner = Owner;
    Register->Notes[Register->Count].Note = *Note;
    Register->Count++;
    return STATUS_SUCCESS;
}

static NTSTATUS YarrowStrike(YARROW *Register, PFILE_OBJECT Owner, ULONG Number)
{
    ULONG i;

    for (i = 0; i < Register->Count; i++) {
        if (Register->Notes[i].Owner == Owner && Register->Notes[i].Note.Number == Number) {
            YarrowForget(Register, i);
            return STATUS_SUCCESS;
        }
    }
    return STATUS_NOT_FOUND;
}

/* The bytes of the list; as many notes as fit. */
static ULONG YarrowList(YARROW *Register, PFILE_OBJECT Owner, PUCHAR Buffer, ULONG Length, BOOLEAN Narrow)
{
    ULONG size = Narrow ? sizeof(NOTE32) : sizeof(NOTE);
    ULONG fit = Length / size, listed = 0, i;

    for (i = 0; i < Register->Count && listed < fit; i++) {
        const NOTE *note = &Register->Notes[i].Note;
        PUCHAR entry;

        if (Register->Notes[i].Owner != Owner)
            continue;
#ifndef FIXED
        entry = Buffer + listed * sizeof(NOTE);
#else
        entry = Buffer + listed * size;
#endif
        if (Narrow) {
            NOTE32 *narrow = (NOTE32 *)entry;
            narrow->Cookie = (ULONG)(ULONG_PTR)note->Cookie;
            narrow->Number = note->Number;
            narrow->Date = note->Date;
        } else {
            *(NOTE *)entry = *note;
        }
        listed++;
    }
    return listed * size;
}

static NTSTATUS NTAPI YarrowControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    YARROW *notes = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = at->Parameters.DeviceIoControl.InputBufferLength;
    BOOLEAN narrow = IoIs32bitProcess(Irp);
    ULONG information = 0;
    NTSTATUS status;
    NOTE note;

    ExAcquireFastMutex(&notes->Mutex);
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case YARROW_NOTE:
        if (in < (narrow ? sizeof(NOTE32) : sizeof(NOTE))) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (narrow) {
            NOTE32 *given = buffer;
            note.Cookie = (PVOID)(ULONG_PTR)given->Cookie;
            note.Number = given->Number;
            note.Date = given->Date;
        } else {
            note = *(NOTE *)buffer;
        }
        status = YarrowNote(notes, at->FileObject, &note);
        break;

    case YARROW_STRIKE:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : YarrowStrike(notes, at->FileObject, *(ULONG *)buffer);
        break;

    case YARROW_LIST:
        information = YarrowList(notes, at->FileObject, buffer, at->Parameters.DeviceIoControl.OutputBufferLength, narrow);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&notes->Mutex);
    return Settle(Irp, status, information);
}

/* The notes of a handle go with it. */
static NTSTATUS NTAPI YarrowClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    YARROW *notes = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG i = 0;

    ExAcquireFastMutex(&notes->Mutex);
    while (i < notes->Count) {
        if (notes->Notes[i].Owner == file)
            YarrowForget(notes, i);
        else
            i++;
    }
    ExReleaseFastMutex(&notes->Mutex);
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI YarrowUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    BoothStrike(YarrowDevice, L"\\DosDevices\\Yarrow");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    Driver->DriverUnload = YarrowUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = YarrowClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = YarrowControl;
    status = BoothRaise(Driver, L"\\Device\\Yarrow", L"\\DosDevices\\Yarrow", sizeof(YARROW), 0, &YarrowDevice);
    if (NT_SUCCESS(status))
        ExInitializeFastMutex(&((YARROW *)YarrowDevice->DeviceExtension)->Mutex);
    return status;
}

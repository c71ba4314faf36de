/*
 * motd: the message of the day. An administrator's program sets a text, any program gets it; a text lives as long as someone
 * reads it, for which it has a count of its users.
 *
 * The bug: GET looks up the current text and counts itself in only then, without the lock that SET takes for the exchange. Between
 * the two a SET may take back the last use and free the text.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, double-free, data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define MOTD_TAG 'dtoM'
#define MOTD_NAME L"\\Device\\Motd"
#define MOTD_LINK L"\\DosDevices\\Motd"
#define MOTD_LONGEST 1024

#define IOCTL_MOTD_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MOTD_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_MOTD_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MOTD_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a3, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _NOTE {
    LONG volatile Users;
    ULONG Number;
    ULONG Length;
    UCHAR Text[1];
} NOTE;

typedef struct _MOTD_TALLY {
    ULONG Number;       /* of the text that was set last */
    ULONG Gets;
} MOTD_TALLY;

typedef struct _MOTD {
    KSPIN_LOCK Lock;
    NOTE *volatile Current;
    LONG volatile Sets;
    LONG volatile Gets;
} MOTD;

static PDEVICE_OBJECT MotdDevice;

static VOID MotdPut(NOTE *Note)
{
    if (InterlockedDecrement(&Note->Users) == 0)
        ExFreePoolWithTag(Note, MOTD_TAG);
}

/* The current text, with the caller as one of its users; NULL if there is none. */
static NOTE *MotdTake(MOTD *M)
{
    NOTE *note;
#ifndef FIXED
    note = M->Current;
    if (note != NULL)
        InterlockedIncrement(&note->Users);
#else
    KIRQL irql;

    KeAcquireSpinLock(&M->Lock, &irql);
    note = M->Current;
    if (note != NULL)
        InterlockedIncrement(&note->Users);
    KeReleaseSpinLock(&M->Lock, irql);
#endif
    return note;
}

static VOID MotdExchange(MOTD *M, NOTE *Note)
{
    NOTE *old;
    KIRQL irql;

    KeAcquireSpinLock(&M->Lock, &irql);
    old = M->Current;
    M->Current = Note;
    KeReleaseSpinLock(&M->Lock, irql);
    if (old != NULL)
        MotdPut(old);
}

static NTSTATUS MotdSet(MOTD *M, const VOID *Text, ULONG Length)
{
    NOTE *note;

    if (Length == 0 || Length > MOTD_LONGEST)
        return STATUS_INVALID_PARAMETER;
    note = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(NOTE, Text) + Length, MOTD_TAG);
    if (note == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    note->Users = 1;
    note->Number = (ULONG)InterlockedIncrement(&M->Sets);
    note->Length = Length;
    RtlCopyMemory(note->Text, Text, Length);
    MotdExchange(M, note);
    return STATUS_SUCCESS;
}

static NTSTATUS MotdGet(MOTD *M, PVOID Out, ULONG Room, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    NOTE *note = MotdTake(M);
    ULONG n;

    if (note == NULL)
        return STATUS_NO_MORE_ENTRIES;
    InterlockedIncrement(&M->Gets);
    n = note->Length;
    if (n > Room) {
        n = Room;
        status = STATUS_BUFFER_OVERFLOW;
    }
    if (n != 0)
        RtlCopyMemory(Out, note->Text, n);
    *Information = n;
    MotdPut(note);
    return status;
}

static NTSTATUS NTAPI MotdControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    MOTD *m = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status = STATUS_SUCCESS;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MOTD_SET:
        status = MotdSet(m, buffer, sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_MOTD_GET:
        status = MotdGet(m, buffer, out, &information);
        break;
    case IOCTL_MOTD_CLEAR:
        MotdExchange(m, NULL);
        break;
    case IOCTL_MOTD_TALLY:
        if (out < sizeof(MOTD_TALLY)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            MOTD_TALLY *t = buffer;

            t->Number = (ULONG)InterlockedCompareExchange(&m->Sets, 0, 0);
            t->Gets = (ULONG)InterlockedCompareExchange(&m->Gets, 0, 0);
            information = sizeof(*t);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return desk_reply(Irp, status, information);
}

static VOID NTAPI MotdUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(MOTD_LINK);
    MotdExchange(MotdDevice->DeviceExtension, NULL);
    IoDeleteDevice(MotdDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = desk_nod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MotdControl;
    Driver->DriverUnload = MotdUnload;

    status = desk_make(Driver, MOTD_NAME, sizeof(MOTD), 0, &MotdDevice);
    if (!NT_SUCCESS(status))
        return status;
    KeInitializeSpinLock(&((MOTD *)MotdDevice->DeviceExtension)->Lock);
    status = desk_publish(MOTD_LINK, MOTD_NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(MotdDevice);
    return status;
}

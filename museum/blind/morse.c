/*
 * morse: a software keyer. Text that programs write is turned into dots, dashes and gaps by a thread of the driver; programs
 * read the marks, a byte each, and play them. Ported from a character driver of Linux, whose kthread it kept.
 *
 * The bug: unloading waits for an event that the thread sets as one of its last steps instead of for the thread itself, so the
 * device extension (with the event) and the driver's code can be gone while the thread still executes its end.
 *
 * Device: none
 * Rule: use-after-free, unload-still-called, wild-call, wild-read, write-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define TEXT_ROOM 256
#define MARK_ROOM 1024

#define IOCTL_MORSE_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _MORSE {
    PKTHREAD Thread;
    KEVENT Wake;
    KEVENT Gone;
    KSPIN_LOCK Lock;                /* of what follows */
    BOOLEAN Stop;
    ULONG TextIn, TextOut;          /* run freely */
    ULONG MarkIn, MarkOut;
    ULONG Lost;
    CHAR Text[TEXT_ROOM];
    CHAR Mark[MARK_ROOM];
} MORSE;

static const SOLO MorseSolo = { L"\\Device\\MorseKeyer", L"\\DosDevices\\MorseKeyer", sizeof(MORSE), DO_BUFFERED_IO };
static PDEVICE_OBJECT MorseDevice;

static const CHAR *const MorseLetter[26] = {
    ".-", "-...", "-.-.", "-..", ".", "..-.", "--.", "....", "..", ".---", "-.-", ".-..", "--",
    "-.", "---", ".--.", "--.-", ".-.", "...", "-", "..-", "...-", ".--", "-..-", "-.--", "--.."
};

static VOID MorsePutLocked(MORSE *Morse, CHAR Mark)
{
    if (Morse->MarkIn - Morse->MarkOut == MARK_ROOM)
        Morse->Lost++;
    else
        Morse->Mark[Morse->MarkIn++ % MARK_ROOM] = Mark;
}

static VOID MorseKeyLocked(MORSE *Morse, CHAR Letter)
{
    const CHAR *mark;

    if (Letter >= 'a' && Letter <= 'z')
        Letter -= 'a' - 'A';
    if (Letter < 'A' || Letter > 'Z') {
        MorsePutLocked(Morse, '/');
        return;
    }
    for (mark = MorseLetter[Letter - 'A']; *mark != 0; mark++)
        MorsePutLocked(Morse, *mark);
    MorsePutLocked(Morse, ' ');
}

static VOID NTAPI MorseThread(PVOID Context)
{
    MORSE *morse = Context;
    BOOLEAN stop = FALSE;
    KIRQL irql;

    while (!stop) {
        KeWaitForSingleObject(&morse->Wake, Executive, KernelMode, FALSE, NULL);
        for (;;) {
            BOOLEAN more;

            KeAcquireSpinLock(&morse->Lock, &irql);
            stop = morse->Stop;
            more = !stop && morse->TextIn != morse->TextOut;
            if (more)
                MorseKeyLocked(morse, morse->Text[morse->TextOut++ % TEXT_ROOM]);
            KeReleaseSpinLock(&morse->Lock, irql);
            if (!more)
                break;
        }
    }
#ifndef FIXED
    KeSetEvent(&morse->Gone, IO_NO_INCREMENT, FALSE);
#endif
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID MorseAskToStop(MORSE *Morse)
{
    KIRQL irql;

    KeAcquireSpinLock(&Morse->Lock, &irql);
    Morse->Stop = TRUE;
    KeReleaseSpinLock(&Morse->Lock, irql);
    KeSetEvent(&Morse->Wake, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS MorseBegin(MORSE *Morse)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, MorseThread, Morse);
    if (!NT_SUCCESS(status))
        return status;
#ifdef FIXED
    status = ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Morse->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        MorseAskToStop(Morse);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
#endif
    ZwClose(handle);
    return status;
}

static VOID MorseEnd(MORSE *Morse)
{
    MorseAskToStop(Morse);
#ifndef FIXED
    KeWaitForSingleObject(&Morse->Gone, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(Morse->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Morse->Thread);
#endif
}

static NTSTATUS NTAPI MorseWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MORSE *morse = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    const CHAR *text = Irp->AssociatedIrp.SystemBuffer;
    ULONG taken = 0;
    KIRQL irql;

    KeAcquireSpinLock(&morse->Lock, &irql);
    while (taken < length && morse->TextIn - morse->TextOut < TEXT_ROOM)
        morse->Text[morse->TextIn++ % TEXT_ROOM] = text[taken++];
    KeReleaseSpinLock(&morse->Lock, irql);
    if (taken != 0)
        KeSetEvent(&morse->Wake, IO_NO_INCREMENT, FALSE);
    return SoloEnd(Irp, STATUS_SUCCESS, taken);
}

static NTSTATUS NTAPI MorseRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MORSE *morse = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    CHAR *mark = Irp->AssociatedIrp.SystemBuffer;
    ULONG given = 0;
    KIRQL irql;

    KeAcquireSpinLock(&morse->Lock, &irql);
    while (given < length && morse->MarkIn != morse->MarkOut)
        mark[given++] = morse->Mark[morse->MarkOut++ % MARK_ROOM];
    KeReleaseSpinLock(&morse->Lock, irql);
    return SoloEnd(Irp, STATUS_SUCCESS, given);
}

static NTSTATUS NTAPI MorseControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MORSE *morse = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG lost;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MORSE_LOST:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return SoloEnd(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&morse->Lock, &irql);
        lost = morse->Lost;
        morse->Lost = 0;
        KeReleaseSpinLock(&morse->Lock, irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = lost;
        return SoloEnd(Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return SoloEnd(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI MorseUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&MorseSolo);
    MorseEnd(MorseDevice->DeviceExtension);
    IoDeleteDevice(MorseDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    MORSE *morse;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_READ] = MorseRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = MorseWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MorseControl;
    DriverObject->DriverUnload = MorseUnload;
    status = SoloMake(DriverObject, &MorseSolo, &MorseDevice);
    if (!NT_SUCCESS(status))
        return status;
    morse = MorseDevice->DeviceExtension;
    KeInitializeSpinLock(&morse->Lock);
    KeInitializeEvent(&morse->Wake, SynchronizationEvent, FALSE);
    KeInitializeEvent(&morse->Gone, NotificationEvent, FALSE);
    status = MorseBegin(morse);
    if (NT_SUCCESS(status)) {
        status = SoloShow(&MorseSolo);
        if (NT_SUCCESS(status))
            return STATUS_SUCCESS;
        MorseEnd(morse);
    }
    IoDeleteDevice(MorseDevice);
    return status;
}

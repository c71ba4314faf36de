/*
 * inkstand: a catalogue of short lines that several programs write together. Lines are added and struck out by number, and each handle has a
 * bookmark of its own, with which it reads line after line.
 *
 * The bug: who strikes out a line moves his own bookmark on if it lies there, but no one else's. Another handle's bookmark still points to the line, which is
 * freed, and its next reading goes there.
 *
 * Device: none
 * Rule: use-after-free, bad-pointer, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/park_frame.h"

#define IOCTL_INK_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* text; answers the number */
#define IOCTL_INK_STRIKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* number */
#define IOCTL_INK_MARK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* number, 0 for the first */
#define IOCTL_INK_NEXT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x824, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers a LINE_OUT */

#define WIDTH 56
#define MOST_LINES 200

typedef struct _LINE_OUT {
    ULONG Number;
    ULONG Length;
    CHAR Text[WIDTH];
} LINE_OUT;

typedef struct _LINE {
    LIST_ENTRY Link;
    ULONG Number;
    ULONG Length;
    CHAR Text[WIDTH];
} LINE;

typedef struct _READER {
    LIST_ENTRY Link;
    LINE *Mark;
} READER;

static struct {
    DESK Desk;
    FAST_MUTEX Mutex;
    LIST_ENTRY Lines, Readers;
    ULONG Count, LastNumber;
} Ink;

static LINE *Behind(LINE *Line)
{
    return Line->Link.Flink == &Ink.Lines ? NULL : CONTAINING_RECORD(Line->Link.Flink, LINE, Link);
}

static LINE *Numbered(ULONG Number)
{
    PLIST_ENTRY e;
    for (e = Ink.Lines.Flink; e != &Ink.Lines; e = e->Flink) {
        LINE *l = CONTAINING_RECORD(e, LINE, Link);
        if (!Number || l->Number == Number)
            return l;
    }
    return NULL;
}

static NTSTATUS Add(PVOID Buffer, ULONG In, ULONG Out, ULONG_PTR *Info)
{
    LINE *l;
    if (!In || In > WIDTH || Out < sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    if (Ink.Count >= MOST_LINES)
        return STATUS_QUOTA_EXCEEDED;
    l = YyGet(sizeof *l);
    if (!l)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(l->Text, Buffer, In);
    l->Length = In;
    if (!++Ink.LastNumber)
        Ink.LastNumber = 1;
    l->Number = Ink.LastNumber;
    InsertTailList(&Ink.Lines, &l->Link);
    Ink.Count++;
    *(ULONG *)Buffer = l->Number;
    *Info = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS Strike(READER *By, ULONG Number)
{
    LINE *l = Number ? Numbered(Number) : NULL;
    if (!l)
        return STATUS_NOT_FOUND;
#ifndef FIXED
    if (By->Mark == l)
        By->Mark = Behind(l);
#else
    PLIST_ENTRY e;
    UNREFERENCED_PARAMETER(By);
    for (e = Ink.Readers.Flink; e != &Ink.Readers; e = e->Flink) {
        READER *r = CONTAINING_RECORD(e, READER, Link);
        if (r->Mark == l)
            r->Mark = Behind(l);
    }
#endif
    RemoveEntryList(&l->Link);
    Ink.Count--;
    YyPut(l);
    return STATUS_SUCCESS;
}

static NTSTATUS Next(READER *By, LINE_OUT *To, ULONG Out, ULONG_PTR *Info)
{
    LINE *l = By->Mark;
    if (Out < sizeof *To)
        return STATUS_BUFFER_TOO_SMALL;
    if (!l)
        return STATUS_NO_MORE_ENTRIES;
    RtlZeroMemory(To, sizeof *To);
    To->Number = l->Number;
    To->Length = l->Length;
    RtlCopyMemory(To->Text, l->Text, sizeof To->Text);
    By->Mark = Behind(l);
    *Info = sizeof *To;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    READER *reader = sp->FileObject->FsContext;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR info = 0;
    UNREFERENCED_PARAMETER(Device);
    ExAcquireFastMutex(&Ink.Mutex);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_INK_ADD:
        status = Add(buffer, in, out, &info);
        break;
    case IOCTL_INK_STRIKE:
        status = in >= sizeof(ULONG) ? Strike(reader, *(ULONG *)buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_INK_MARK:
        if (in < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        reader->Mark = Numbered(*(ULONG *)buffer);
        status = reader->Mark ? STATUS_SUCCESS : STATUS_NOT_FOUND;
        break;
    case IOCTL_INK_NEXT:
        status = Next(reader, buffer, out, &info);
        break;
    }
    ExReleaseFastMutex(&Ink.Mutex);
    return YyEnd(Irp, status, info);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    READER *r = YyGet(sizeof *r);
    UNREFERENCED_PARAMETER(Device);
    if (!r)
        return YyEnd(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = r;
    ExAcquireFastMutex(&Ink.Mutex);
    InsertTailList(&Ink.Readers, &r->Link);
    ExReleaseFastMutex(&Ink.Mutex);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    READER *r = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    UNREFERENCED_PARAMETER(Device);
    ExAcquireFastMutex(&Ink.Mutex);
    RemoveEntryList(&r->Link);
    ExReleaseFastMutex(&Ink.Mutex);
    YyPut(r);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskClose(&Ink.Desk);
    while (!IsListEmpty(&Ink.Lines))
        YyPut(CONTAINING_RECORD(RemoveHeadList(&Ink.Lines), LINE, Link));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&Ink.Mutex);
    InitializeListHead(&Ink.Lines);
    InitializeListHead(&Ink.Readers);
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    status = DeskOpen(&Ink.Desk, Driver, L"\\Device\\Inkstand", L"\\DosDevices\\Inkstand", DO_BUFFERED_IO);
    if (NT_SUCCESS(status))
        DeskReady(&Ink.Desk);
    return status;
}

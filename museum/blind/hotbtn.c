/*
 * hotbtn: the hot button of a set-top box, pressed by a test tool's request: a program registers
 * events for a short and for a long press, which a timer tells apart and signals.
 *
 * The bug: the timer's DPC signals the event after it has let go of the lock, without a reference of its own, while
 * the program's unregistering may drop the last one.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

typedef struct { ULONGLONG Short, Long; } BTN_EVENTS;        /* handles */
#define IOCTL_BTN_REGISTER   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BTN_UNREGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BTN_PRESS      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x953, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BTN_RELEASE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x954, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;           /* the fields below */
    PFILE_OBJECT Owner;        /* who has registered */
    PKEVENT Short, Long;       /* referenced */
    BOOLEAN Down, WasLong;
    ULONG Presses;
} BTN, *PBTN;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\HotBtn");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\HotBtn");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Half a second after the press: if still down, it is a long one. */
static VOID NTAPI BtnHeld(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PBTN B = Ctx;
#ifndef FIXED
    PKEVENT event = NULL;
#endif
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    KeAcquireSpinLockAtDpcLevel(&B->Lock);
    if (B->Down) {
        B->WasLong = TRUE;
        if (B->Long)
#ifdef FIXED
            KeSetEvent(B->Long, IO_NO_INCREMENT, FALSE);
#else
            event = B->Long;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&B->Lock);
#ifndef FIXED
    if (event)
        KeSetEvent(event, IO_NO_INCREMENT, FALSE);
#endif
}

static NTSTATUS BtnRegister(PBTN B, PFILE_OBJECT File, BTN_EVENTS *In, KPROCESSOR_MODE Mode)
{
    PVOID s, l;
    NTSTATUS st;
    KIRQL irql;

    st = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)In->Short, EVENT_MODIFY_STATE, *ExEventObjectType, Mode, &s, NULL);
    if (!NT_SUCCESS(st))
        return st;
    st = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)In->Long, EVENT_MODIFY_STATE, *ExEventObjectType, Mode, &l, NULL);
    if (!NT_SUCCESS(st)) {
        ObDereferenceObject(s);
        return st;
    }
    KeAcquireSpinLock(&B->Lock, &irql);
    if (B->Owner)
        st = STATUS_DEVICE_BUSY;
    else {
        B->Owner = File;
        B->Short = s;
        B->Long = l;
    }
    KeReleaseSpinLock(&B->Lock, irql);
    if (!NT_SUCCESS(st)) {
        ObDereferenceObject(s);
        ObDereferenceObject(l);
    }
    return st;
}
static NTSTATUS BtnUnregister(PBTN B, PFILE_OBJECT File)
{
    PKEVENT s = NULL, l = NULL;
    KIRQL irql;
    KeAcquireSpinLock(&B->Lock, &irql);
    if (B->Owner == File) {
        s = B->Short;
        l = B->Long;
        B->Short = B->Long = NULL;
        B->Owner = NULL;
    }
    KeReleaseSpinLock(&B->Lock, irql);
    if (!s)
        return STATUS_NOT_FOUND;
    ObDereferenceObject(s);
    ObDereferenceObject(l);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BtnControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PBTN B = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LARGE_INTEGER due;
    KIRQL irql;
    NTSTATUS st = STATUS_SUCCESS;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BTN_REGISTER:
        if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(BTN_EVENTS))
            st = STATUS_INFO_LENGTH_MISMATCH;
        else
            st = BtnRegister(B, sp->FileObject, Irp->AssociatedIrp.SystemBuffer, Irp->RequestorMode);
        break;
    case IOCTL_BTN_UNREGISTER:
        st = BtnUnregister(B, sp->FileObject);
        break;
    case IOCTL_BTN_PRESS:
        KeAcquireSpinLock(&B->Lock, &irql);
        if (!B->Down) {
            B->Down = TRUE;
            B->WasLong = FALSE;
            B->Presses++;
            due.QuadPart = -5000000;
            KeSetTimer(&B->Timer, due, &B->Dpc);
        }
        KeReleaseSpinLock(&B->Lock, irql);
        break;
    case IOCTL_BTN_RELEASE:
        KeAcquireSpinLock(&B->Lock, &irql);
        if (B->Down) {
            B->Down = FALSE;
            KeCancelTimer(&B->Timer);
            if (!B->WasLong && B->Short)
                KeSetEvent(B->Short, IO_NO_INCREMENT, FALSE);
        }
        KeReleaseSpinLock(&B->Lock, irql);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Finish(Irp, st);
}
static NTSTATUS NTAPI BtnFile(PDEVICE_OBJECT D, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    /* At close no more requests of the handle can come. */
    if (sp->MajorFunction == IRP_MJ_CLOSE)
        (void)BtnUnregister(D->DeviceExtension, sp->FileObject);
    return Finish(Irp, STATUS_SUCCESS);
}

static VOID NTAPI BtnUnload(PDRIVER_OBJECT Drv)
{
    PBTN B = Drv->DeviceObject->DeviceExtension;
    KeCancelTimer(&B->Timer);
    KeFlushQueuedDpcs();
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Drv->DeviceObject);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT d;
    PBTN B;
    NTSTATUS st;
    UNREFERENCED_PARAMETER(Path);
    st = IoCreateDevice(Drv, sizeof(BTN), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    B = d->DeviceExtension;
    RtlZeroMemory(B, sizeof(BTN));
    KeInitializeSpinLock(&B->Lock);
    KeInitializeTimer(&B->Timer);
    KeInitializeDpc(&B->Dpc, BtnHeld, B);
    Drv->DriverUnload = BtnUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = BtnFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = BtnFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = BtnFile;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BtnControl;
    st = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(st))
        IoDeleteDevice(d);
    return st;
}

/*
 * clipcam: a virtual camera that gives each open handle a moving test picture of 160 by 120 grey
 * pixels, 30 frames a second, by direct reads; the pattern can be chosen for each handle.
 *
 * The bug: a handle's stream is freed at IRP_MJ_CLEANUP, while the frame DPC or a control request of another thread
 * may still be using it.
 *
 * Device: ROOT\CLIPCAM
 * Rule: use-after-free
 * Needs: schedule
 */
#include "../include/plain_pnp.h"

DEFINE_GUID(GUID_CLIPCAM, 0x8d0c2e03, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x03);

#define WIDTH  160u
#define HEIGHT 120u
#define FRAME  (WIDTH * HEIGHT)
#define TAG 'mClC'
typedef struct { ULONG Pattern, Brightness; } CAM_SETUP;
#define IOCTL_CAM_SETUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CAM_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    KSPIN_LOCK Lock;
    CAM_SETUP Setup;
    ULONG Frames;
} STREAM, *PSTREAM;

typedef struct {
    SOFT Soft;
    KTIMER Timer;
    KDPC Dpc;
    IO_CSQ Csq;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY Reads;
} CAM, *PCAM;
#define CAM_OF(csq) CONTAINING_RECORD(csq, CAM, Csq)

static VOID NTAPI CamInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CAM_OF(Csq)->Reads, &Irp->Tail.Overlay.ListEntry);
}
static VOID NTAPI CamRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static PIRP NTAPI CamPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PLIST_ENTRY head = &CAM_OF(Csq)->Reads;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    for (; e != head; e = e->Flink) {
        PIRP c = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(c)->FileObject == File)
            return c;
    }
    return NULL;
}
static VOID NTAPI CamLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CAM_OF(Csq)->QueueLock, Irql);
}
static VOID NTAPI CamUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CAM_OF(Csq)->QueueLock, Irql);
}
static VOID CamEnd(PCAM C, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    SoftDone(Irp, Status, Info);
    IoReleaseRemoveLock(&C->Soft.RemoveLock, Irp);
}
static VOID NTAPI CamCanceled(PIO_CSQ Csq, PIRP Irp)
{
    CamEnd(CAM_OF(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID CamDraw(PSTREAM S, PUCHAR To)
{
    ULONG x, y;
    KeAcquireSpinLockAtDpcLevel(&S->Lock);
    for (y = 0; y < HEIGHT; y++)
        for (x = 0; x < WIDTH; x++) {
            ULONG v = S->Setup.Pattern == 0 ? x + S->Frames
                    : S->Setup.Pattern == 1 ? y + S->Frames : (x ^ y) + S->Frames;
            *To++ = (UCHAR)((v & 0xFF) * S->Setup.Brightness / 100);
        }
    S->Frames++;
    KeReleaseSpinLockFromDpcLevel(&S->Lock);
}

static VOID NTAPI CamFrame(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PCAM C = Ctx;
    ULONG n;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    for (n = 0; n < 16; n++) {
        PIRP irp = IoCsqRemoveNextIrp(&C->Csq, NULL);
        PUCHAR to;
        if (!irp)
            break;
        to = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);  /* mapped by the dispatch routine */
        CamDraw(IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext, to);
        CamEnd(C, irp, STATUS_SUCCESS, FRAME);
    }
}

static NTSTATUS NTAPI CamRead(PDEVICE_OBJECT D, PIRP Irp)
{
    PCAM C = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIRP irp;
    NTSTATUS st = IoAcquireRemoveLock(&C->Soft.RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);
    if (C->Soft.Stopped)
        st = STATUS_DEVICE_NOT_CONNECTED;
    else if (sp->Parameters.Read.Length < FRAME)
        st = STATUS_BUFFER_TOO_SMALL;
    else if (!MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority))
        st = STATUS_INSUFFICIENT_RESOURCES;
    else
        st = IoAcquireRemoveLock(&C->Soft.RemoveLock, C);
    if (!NT_SUCCESS(st)) {
        CamEnd(C, Irp, st, 0);
        return st;
    }
    IoMarkIrpPending(Irp);
    IoCsqInsertIrp(&C->Csq, Irp, NULL);
    if (C->Soft.Stopped)                  /* it may have come behind SoftStop's emptying */
        while ((irp = IoCsqRemoveNextIrp(&C->Csq, NULL)))
            CamEnd(C, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    IoReleaseRemoveLock(&C->Soft.RemoveLock, C);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI CamControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PCAM C = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSTREAM S = sp->FileObject->FsContext;
    CAM_SETUP *in = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&C->Soft.RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CAM_SETUP:
        if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(CAM_SETUP))
            st = STATUS_INFO_LENGTH_MISMATCH;
        else if (in->Pattern > 2 || in->Brightness > 100)
            st = STATUS_INVALID_PARAMETER;
        else {
            KeAcquireSpinLock(&S->Lock, &irql);
            S->Setup = *in;
            KeReleaseSpinLock(&S->Lock, irql);
        }
        break;
    case IOCTL_CAM_COUNT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            st = STATUS_BUFFER_TOO_SMALL;
        else {
            KeAcquireSpinLock(&S->Lock, &irql);
            *(PULONG)in = S->Frames;
            KeReleaseSpinLock(&S->Lock, irql);
            info = sizeof(ULONG);
        }
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    CamEnd(C, Irp, st, info);
    return st;
}

static NTSTATUS NTAPI CamCreate(PDEVICE_OBJECT D, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSTREAM S;
    if (!SoftOpenable(D->DeviceExtension))
        return SoftDone(Irp, STATUS_DELETE_PENDING, 0);
    S = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(STREAM), TAG);
    if (!S)
        return SoftDone(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(S, sizeof(STREAM));
    KeInitializeSpinLock(&S->Lock);
    S->Setup.Brightness = 100;
    sp->FileObject->FsContext = S;
    return SoftDone(Irp, STATUS_SUCCESS, 0);
}
static NTSTATUS NTAPI CamCleanup(PDEVICE_OBJECT D, PIRP Irp)
{
    PCAM C = D->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&C->Csq, file)))
        CamEnd(C, irp, STATUS_CANCELLED, 0);
#ifndef FIXED
    ExFreePoolWithTag(file->FsContext, TAG);
#endif
    return SoftDone(Irp, STATUS_SUCCESS, 0);
}
static NTSTATUS NTAPI CamClose(PDEVICE_OBJECT D, PIRP Irp)
{
    UNREFERENCED_PARAMETER(D);
#ifdef FIXED
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, TAG);
#endif
    return SoftDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS SoftStart(PSOFT S)
{
    PCAM C = (PCAM)S;
    LARGE_INTEGER due;
    due.QuadPart = -330000;
    KeSetTimerEx(&C->Timer, due, 33, &C->Dpc);
    return STATUS_SUCCESS;
}
static VOID SoftStop(PSOFT S)
{
    PCAM C = (PCAM)S;
    PIRP irp;
    KeCancelTimer(&C->Timer);
    KeFlushQueuedDpcs();
    while ((irp = IoCsqRemoveNextIrp(&C->Csq, NULL)))
        CamEnd(C, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
}
static VOID SoftFinal(PSOFT S)
{
    UNREFERENCED_PARAMETER(S);
}

static NTSTATUS NTAPI CamAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PSOFT S;
    PCAM C;
    NTSTATUS st = SoftCreate(Drv, Pdo, sizeof(CAM), &GUID_CLIPCAM, &S);
    if (!NT_SUCCESS(st))
        return st;
    C = (PCAM)S;
    KeInitializeTimerEx(&C->Timer, NotificationTimer);
    KeInitializeDpc(&C->Dpc, CamFrame, C);
    KeInitializeSpinLock(&C->QueueLock);
    InitializeListHead(&C->Reads);
    st = IoCsqInitialize(&C->Csq, CamInsert, CamRemove, CamPeek, CamLock, CamUnlock, CamCanceled);
    if (!NT_SUCCESS(st)) {
        RtlFreeUnicodeString(&S->Link);
        IoDeleteDevice(S->Self);
        return st;
    }
    return SoftAttach(S, DO_DIRECT_IO);
}
static VOID NTAPI CamUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = CamAdd;
    Drv->DriverUnload = CamUnload;
    Drv->MajorFunction[IRP_MJ_PNP] = SoftPnp;
    Drv->MajorFunction[IRP_MJ_POWER] = SoftPower;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SoftPass;
    Drv->MajorFunction[IRP_MJ_CREATE] = CamCreate;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = CamCleanup;
    Drv->MajorFunction[IRP_MJ_CLOSE] = CamClose;
    Drv->MajorFunction[IRP_MJ_READ] = CamRead;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CamControl;
    return STATUS_SUCCESS;
}

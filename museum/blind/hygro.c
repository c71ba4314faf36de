/*
 * hygro: a hygrometer in software, for testing the programs of the real one. A thread draws a new value twice a second while the
 * device is started and awake; programs read the last values, and may set the value around which it draws.
 *
 * The bug: removal stops the thread without asking whether there is one; the thread is made at the first start, and a device
 * whose AddDevice failed late, whose start failed or that was never started has none. (Linux never calls remove without probe.)
 *
 * Device: Root\HYGRO
 * Rule: bad-pointer, wild-read, object-not-initialized, not-a-thread, trap
 * Needs: removal, failure
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define VALUES 64

#define IOCTL_HYGRO_AROUND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HYGRO_LAST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _HYGRO {
    PLUG Plug;
    PKTHREAD Thread;
    KEVENT Stop;
    KSPIN_LOCK Lock;            /* of what follows */
    BOOLEAN Drawing;
    ULONG Seed;
    USHORT Around;              /* per mille */
    ULONG Count;                /* of values drawn, the last VALUES of which are kept */
    USHORT Value[VALUES];
} HYGRO;

static const GUID HygroInterface = { 0x6a3f5b01, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x01 } };

static VOID HygroDrawLocked(HYGRO *Hygro)
{
    LONG value;

    Hygro->Seed = Hygro->Seed * 1664525 + 1013904223;
    value = (LONG)Hygro->Around + (LONG)((Hygro->Seed >> 16) % 21) - 10;
    if (value < 0)
        value = 0;
    if (value > 1000)
        value = 1000;
    Hygro->Value[Hygro->Count++ % VALUES] = (USHORT)value;
}

static VOID NTAPI HygroThread(PVOID Context)
{
    HYGRO *hygro = Context;
    LARGE_INTEGER time;
    KIRQL irql;

    time.QuadPart = -500 * 10000LL;
    while (KeWaitForSingleObject(&hygro->Stop, Executive, KernelMode, FALSE, &time) == STATUS_TIMEOUT) {
        KeAcquireSpinLock(&hygro->Lock, &irql);
        if (hygro->Drawing)
            HygroDrawLocked(hygro);
        KeReleaseSpinLock(&hygro->Lock, irql);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID HygroDrawing(HYGRO *Hygro, BOOLEAN Drawing)
{
    KIRQL irql;

    KeAcquireSpinLock(&Hygro->Lock, &irql);
    Hygro->Drawing = Drawing;
    KeReleaseSpinLock(&Hygro->Lock, irql);
}

static NTSTATUS HygroAdded(PLUG *Plug)
{
    HYGRO *hygro = (HYGRO *)Plug;

    KeInitializeEvent(&hygro->Stop, NotificationEvent, FALSE);
    KeInitializeSpinLock(&hygro->Lock);
    hygro->Around = 550;
    hygro->Seed = 1;
    return STATUS_SUCCESS;
}

static VOID HygroDiscarded(PLUG *Plug)
{
    HYGRO *hygro = (HYGRO *)Plug;

#ifdef FIXED
    if (hygro->Thread == NULL)
        return;
#endif
    KeSetEvent(&hygro->Stop, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(hygro->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(hygro->Thread);
}

/* The thread stays from the first start to the removal. */
static NTSTATUS HygroBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    HYGRO *hygro = (HYGRO *)Plug;
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Translated);
    if (hygro->Thread == NULL) {
        InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
        status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, HygroThread, hygro);
        if (!NT_SUCCESS(status))
            return status;
        status = ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&hygro->Thread, NULL);
        if (!NT_SUCCESS(status)) {
            KeSetEvent(&hygro->Stop, IO_NO_INCREMENT, FALSE);
            ZwWaitForSingleObject(handle, FALSE, NULL);
            KeClearEvent(&hygro->Stop);
            ZwClose(handle);
            hygro->Thread = NULL;
            return status;
        }
        ZwClose(handle);
    }
    HygroDrawing(hygro, TRUE);
    return STATUS_SUCCESS;
}

static VOID HygroHalt(PLUG *Plug, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Reachable);
    HygroDrawing((HYGRO *)Plug, FALSE);
}

static VOID HygroDoze(PLUG *Plug)
{
    HygroDrawing((HYGRO *)Plug, FALSE);
}

static VOID HygroRouse(PLUG *Plug)
{
    HygroDrawing((HYGRO *)Plug, TRUE);
}

/* The newest values, the last one first. */
static ULONG HygroNewest(HYGRO *Hygro, USHORT *To, ULONG Count)
{
    ULONG there, i;
    KIRQL irql;

    KeAcquireSpinLock(&Hygro->Lock, &irql);
    there = Hygro->Count < VALUES ? Hygro->Count : VALUES;
    if (Count > there)
        Count = there;
    for (i = 0; i < Count; i++)
        To[i] = Hygro->Value[(Hygro->Count - 1 - i) % VALUES];
    KeReleaseSpinLock(&Hygro->Lock, irql);
    return Count;
}

static NTSTATUS HygroRequest(PLUG *Plug, PIRP Irp)
{
    HYGRO *hygro = (HYGRO *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG count;
    USHORT around;
    KIRQL irql;

    if (stack->MajorFunction == IRP_MJ_READ) {
        count = HygroNewest(hygro, buffer, stack->Parameters.Read.Length / sizeof(USHORT));
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, count * sizeof(USHORT));
    }
    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HYGRO_AROUND:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(USHORT))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        around = *(USHORT *)buffer;
        if (around > 1000)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&hygro->Lock, &irql);
        hygro->Around = around;
        KeReleaseSpinLock(&hygro->Lock, irql);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    case IOCTL_HYGRO_LAST:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(USHORT))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        count = HygroNewest(hygro, buffer, 1);
        return PlugEnd(Plug, Irp, count != 0 ? STATUS_SUCCESS : STATUS_NO_DATA_DETECTED, count * sizeof(USHORT));
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const PLUG_ROLE HygroRole = {
    .Size = sizeof(HYGRO),
    .Flags = DO_BUFFERED_IO,
    .Interface = &HygroInterface,
    .Added = HygroAdded,
    .Discarded = HygroDiscarded,
    .Begin = HygroBegin,
    .Halt = HygroHalt,
    .Doze = HygroDoze,
    .Rouse = HygroRouse,
    .Request = HygroRequest,
};

static NTSTATUS NTAPI HygroAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &HygroRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, HygroAdd);
}

/*
 * simbaro: a simulated barometer; a thread of the driver's takes a sample ten times a second into a ring, which
 * applications read.
 *
 * The bug: when the device is stopped or removed its thread is asked to end but is not waited for.
 *
 * Device: ROOT\SIMBARO
 * Rule: unload-still-called, use-after-free
 * Needs: nothing
 */
#include "../include/held_core.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define IOCTL_BARO_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BARO_TREND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define BARO_RING 128

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x04, 0x01 } };

typedef struct _SAMPLE {
    ULONG64 Time;
    LONG Pascal;
    ULONG Number;
} SAMPLE;

typedef struct _DEV {
    CORE Core;
    PKTHREAD Thread;
    KEVENT Stop;
    FAST_MUTEX Lock;
    LONG Pascal;                /* from here on under the lock */
    LONG Trend;                 /* pascals a sample */
    ULONG Taken;
    SAMPLE Ring[BARO_RING];
} DEV;

static VOID TakeSample(DEV *Dev)
{
    SAMPLE *sample;

    ExAcquireFastMutex(&Dev->Lock);
    Dev->Pascal += Dev->Trend;
    if ((Dev->Pascal < 87000 && Dev->Trend < 0) || (Dev->Pascal > 108500 && Dev->Trend > 0))
        Dev->Trend = -Dev->Trend;
    sample = &Dev->Ring[Dev->Taken % BARO_RING];
    sample->Number = Dev->Taken++;
    sample->Pascal = Dev->Pascal;
    sample->Time = KeQueryInterruptTime();
    ExReleaseFastMutex(&Dev->Lock);
}

static VOID NTAPI BaroThread(PVOID Context)
{
    DEV *dev = Context;
    LARGE_INTEGER pause;

    do {
        TakeSample(dev);
        pause.QuadPart = -1000000;
    } while (KeWaitForSingleObject(&dev->Stop, Executive, KernelMode, FALSE, &pause) == STATUS_TIMEOUT);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    DEV *dev = (DEV *)Core;
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

    UNREFERENCED_PARAMETER(Translated);
    KeClearEvent(&dev->Stop);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, BaroThread, dev);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&dev->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        KeSetEvent(&dev->Stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
        dev->Thread = NULL;
    }
    ZwClose(handle);
    return status;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    UNREFERENCED_PARAMETER(Touch);
    KeSetEvent(&dev->Stop, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(dev->Thread, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(dev->Thread);
    dev->Thread = NULL;
}

/* As many of the latest samples as there is room for, the latest first. */
static ULONG History(DEV *Dev, SAMPLE *Out, ULONG Room)
{
    ULONG i, have;

    ExAcquireFastMutex(&Dev->Lock);
    have = min(min(Dev->Taken, BARO_RING), Room);
    for (i = 0; i < have; i++)
        Out[i] = Dev->Ring[(Dev->Taken - 1 - i) % BARO_RING];
    ExReleaseFastMutex(&Dev->Lock);
    return have;
}

static NTSTATUS NTAPI BaroControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(status))
        return status;
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BARO_HISTORY:
        if (out < sizeof(SAMPLE))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            info = History(dev, buffer, out / sizeof(SAMPLE)) * sizeof(SAMPLE);
        break;
    case IOCTL_BARO_TREND:
        if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(LONG) ||
            *(PLONG)buffer < -500 || *(PLONG)buffer > 500) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        ExAcquireFastMutex(&dev->Lock);
        dev->Trend = *(PLONG)buffer;
        ExReleaseFastMutex(&dev->Lock);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CoreComplete(&dev->Core, Irp, status, info);
    return status;
}

/* Requests use memory only: they need not be held. */
static VOID HwQuiesce(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwSleep(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwWake(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwFini(CORE *Core) { UNREFERENCED_PARAMETER(Core); }

static NTSTATUS NTAPI BaroAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    (void)CoreResource;
    (void)CoreConnect;
    if (NT_SUCCESS(status)) {
        DEV *dev = (DEV *)core;

        KeInitializeEvent(&dev->Stop, NotificationEvent, FALSE);
        ExInitializeFastMutex(&dev->Lock);
        dev->Pascal = 101325;
        dev->Trend = 7;
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, BaroAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BaroControl;
    return STATUS_SUCCESS;
}

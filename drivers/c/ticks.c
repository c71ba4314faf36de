/*
 * ticks.sys: a Plug and Play function driver for the card `bench` whose timers and service routine run beside its threads on a machine of two
 * processors: a tick, or the card's interrupt, is taken by one while a thread goes on on the other.
 *   IOCTL_TICKS_TIMER sets a timer whose DPC adds 1 to a count, to which the thread adds 2, both plainly; then waits for the DPC.
 *   IOCTL_TICKS_INTERRUPT is the same with the card's interrupt, whose service routine adds 1.
 *     Output of both: the count, 3 if none is lost, 2 without what the routine has added, 1 without what the thread has.
 *   IOCTL_TICKS_WATCH sets a periodic timer whose DPC looks at the card, until the device is stopped. Input: 0, or 1 to have the DPC waited for
 *     then. Else it may run on another processor while the timer is cancelled, and looks at registers that are unmapped.
 */
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "enabled.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlTicks");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlTicks");

#define IOCTL_TICKS_TIMER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE28, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TICKS_INTERRUPT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE29, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TICKS_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE2A, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TIMER_TIME (-1000 * 10) /* 1 ms */
#define PERIOD 50               /* ms */

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    KEVENT Served;
    KDPC Dpc, TimerDpc, WatchDpc;
    KTIMER Timer, Watch;
    volatile ULONG Count;
    LONG Looks;
    ULONG Present;
    BOOLEAN Waits;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static VOID NTAPI Serve(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    if (Dpc == &Extension->TimerDpc) {
        Extension->Count = Extension->Count + 1;
    }
    KeSetEvent(&Extension->Served, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI Look(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    InterlockedIncrement(&Extension->Looks);
    Extension->Present = Read(&Extension->Function, BENCH_ENABLE);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, BENCH_STATUS);

    if (Status == 0) {
        return FALSE;
    }
    Write(&Extension->Function, BENCH_STATUS, Status);
    Read(&Extension->Function, BENCH_STATUS);
    Extension->Count = Extension->Count + 1;
    KeInsertQueueDpc(&Extension->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Add(PDEVICE_EXTENSION Extension, ULONG Code)
{
    LARGE_INTEGER Due;

    Extension->Count = 0;
    if (Code == IOCTL_TICKS_TIMER) {
        Due.QuadPart = TIMER_TIME;
        KeSetTimer(&Extension->Timer, Due, &Extension->TimerDpc);
    } else {
        /* As WRITE_REGISTER_ULONG, without its fence, which others could see. */
        *(volatile ULONG *)(Extension->Function.Registers + BENCH_RAISE) = 1;
    }
    Extension->Count = Extension->Count + 2;
    KeWaitForSingleObject(&Extension->Served, Executive, KernelMode, FALSE, NULL);
}

static VOID BeginWatch(PDEVICE_EXTENSION Extension, BOOLEAN Waits)
{
    LARGE_INTEGER Due;

    Extension->Waits = Waits;
    Due.QuadPart = -PERIOD * 10000;
    KeSetTimerEx(&Extension->Watch, Due, PERIOD, &Extension->WatchDpc);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    PULONG Word = Irp->AssociatedIrp.SystemBuffer;

    switch (Code) {
    case IOCTL_TICKS_TIMER:
    case IOCTL_TICKS_INTERRUPT:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Add(Extension, Code);
        *Word = Extension->Count;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_TICKS_WATCH:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        BeginWatch(Extension, *Word != 0);
        return Complete(Irp, STATUS_SUCCESS, 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeEvent(&Extension->Served, SynchronizationEvent, FALSE);
    KeInitializeDpc(&Extension->Dpc, Serve, Extension);
    KeInitializeDpc(&Extension->TimerDpc, Serve, Extension);
    KeInitializeDpc(&Extension->WatchDpc, Look, Extension);
    KeInitializeTimer(&Extension->Timer);
    KeInitializeTimer(&Extension->Watch);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeCancelTimer(&Extension->Watch);
    if (Extension->Waits) {
        KeFlushQueuedDpcs();
    }
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    return ConnectAndEnable(Device);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}

/*
 * early.sys: a Plug and Play function driver for the card `bench` that starts something before it has said what for. Interrupts and timers take
 * their time, so it works, until a thread is held up between two of its instructions.
 *   IOCTL_EARLY_INTERRUPT has the card interrupt, and then stores what the service routine is to find.
 *   IOCTL_EARLY_CALL is the same with a call of the kernel between, which others could see.
 *   IOCTL_EARLY_TIMER sets a timer, and then stores what its DPC is to find.
 * Input: 0, or 1 to have it in the right order. Output: what was found, 1 if all is well.
 */
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "enabled.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlEarly");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlEarly");

#define IOCTL_EARLY_INTERRUPT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EARLY_CALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EARLY_TIMER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE22, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TIMER_TIME (-1000 * 10) /* 1 ms */

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    KEVENT Served;
    KDPC Dpc, TimerDpc;
    KTIMER Timer;
    volatile ULONG Wanted;
    ULONG Found;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static VOID NTAPI Serve(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    if (Dpc == &Extension->TimerDpc) {
        Extension->Found = Extension->Wanted;
    }
    KeSetEvent(&Extension->Served, IO_NO_INCREMENT, FALSE);
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
    Extension->Found = Extension->Wanted;
    KeInsertQueueDpc(&Extension->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Begin(PDEVICE_EXTENSION Extension, ULONG Code)
{
    LARGE_INTEGER Due;

    if (Code == IOCTL_EARLY_TIMER) {
        Due.QuadPart = TIMER_TIME;
        KeSetTimer(&Extension->Timer, Due, &Extension->TimerDpc);
    } else {
        /* As WRITE_REGISTER_ULONG, without its fence, which others could see. */
        *(volatile ULONG *)(Extension->Function.Registers + BENCH_RAISE) = 1;
    }
    if (Code == IOCTL_EARLY_CALL) {
        KeQueryTimeIncrement();
    }
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    PULONG Word = Irp->AssociatedIrp.SystemBuffer;

    if (Code != IOCTL_EARLY_INTERRUPT && Code != IOCTL_EARLY_CALL && Code != IOCTL_EARLY_TIMER) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Extension->Wanted = 0;
    if (*Word != 0) {
        Extension->Wanted = 1;
        Begin(Extension, Code);
    } else {
        Begin(Extension, Code);
        Extension->Wanted = 1;
    }
    KeWaitForSingleObject(&Extension->Served, Executive, KernelMode, FALSE, NULL);
    *Word = Extension->Found;
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeEvent(&Extension->Served, SynchronizationEvent, FALSE);
    KeInitializeDpc(&Extension->Dpc, Serve, Extension);
    KeInitializeDpc(&Extension->TimerDpc, Serve, Extension);
    KeInitializeTimer(&Extension->Timer);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
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

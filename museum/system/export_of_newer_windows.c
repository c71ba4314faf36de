/*
 * A pulse that a timer gives every 10 ms, and programs when they want to (IOCTL_PULSE_GIVE); IOCTL_PULSE_COUNTS tells how many each of the two gave.
 * It is to run on Windows 8.1 too.
 *
 * The bug: the driver finds out which of the two it is by KeIsExecutingDpc, which came with Windows 10: Windows 8.1 does not load a driver that
 * imports it. It shows on a Windows that does not have it.
 *
 * Device: none
 * Rule: export-too-new
 * Needs: nothing
 * Options: --windows=8.1
 */
#define DEVICE_NAME L"\\Device\\Pulse"
#define LINK_NAME L"\\DosDevices\\Pulse"
#include "../include/legacy.h"

#define IOCTL_PULSE_GIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA88, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PULSE_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA89, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PERIOD 10 /* ms */

typedef struct _COUNTS {
    LONG OfTimer;
    LONG OfPrograms;
} COUNTS;

static KTIMER Timer;
static KDPC TimerDpc;
static volatile COUNTS Counts;

#ifdef FIXED

static LOGICAL(NTAPI *IsExecutingDpc)(VOID); /* NULL: this Windows does not have it */

static VOID FindRoutines(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"KeIsExecutingDpc");

    IsExecutingDpc = MmGetSystemRoutineAddress(&Name);
}

static BOOLEAN IsOfTimer(VOID)
{
    return IsExecutingDpc != NULL ? IsExecutingDpc() != 0 : KeGetCurrentIrql() == DISPATCH_LEVEL;
}

#else

NTKERNELAPI LOGICAL NTAPI KeIsExecutingDpc(VOID);

static VOID FindRoutines(VOID)
{
}

static BOOLEAN IsOfTimer(VOID)
{
    return KeIsExecutingDpc() != 0;
}

#endif

static VOID Give(VOID)
{
    InterlockedIncrement(IsOfTimer() ? &Counts.OfTimer : &Counts.OfPrograms);
}

static VOID NTAPI IsDue(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    Give();
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    COUNTS *Output = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    switch (CodeOf(Stack)) {
    case IOCTL_PULSE_GIVE:
        Give();
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_PULSE_COUNTS:
        if (OutputOf(Stack) < sizeof(COUNTS)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Output->OfTimer = Counts.OfTimer;
        Output->OfPrograms = Counts.OfPrograms;
        return Complete(Irp, STATUS_SUCCESS, sizeof(COUNTS));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Due;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    FindRoutines();
    KeInitializeTimer(&Timer);
    KeInitializeDpc(&TimerDpc, IsDue, NULL);
    Due.QuadPart = -10000LL * PERIOD;
    KeSetTimerEx(&Timer, Due, PERIOD, &TimerDpc);
    return STATUS_SUCCESS;
}

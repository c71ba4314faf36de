/*
 * contend.sys: 64 system threads, each on a processor of its own, that contend for one spin lock. \\.\DirqlContend,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS); the input is how often each thread takes the lock,
 * a ULONG. It answers with a TALLY: what the lock guards is exact, on however many processors.
 *
 * What the lock guards is changed by plain loads and stores, in two steps, so that each lost or doubled entry shows.
 */
#include <ddk/wdm.h>

#include "control.h"

#define CONTEND_CODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define INIT_CODE __attribute__((section("INIT")))
#define THREADS 64

/* What wdm.h of mingw lacks; as in Microsoft's. */
NTKERNELAPI VOID NTAPI KeSetSystemGroupAffinityThread(PGROUP_AFFINITY Affinity, PGROUP_AFFINITY PreviousAffinity);
NTKERNELAPI VOID NTAPI KeRevertToUserGroupAffinityThread(PGROUP_AFFINITY PreviousAffinity);
NTKERNELAPI NTSTATUS NTAPI KeGetProcessorNumberFromIndex(ULONG Index, PPROCESSOR_NUMBER Number);
NTKERNELAPI ULONG NTAPI KeGetCurrentProcessorNumberEx(PPROCESSOR_NUMBER Number);
NTKERNELAPI ULONG NTAPI KeQueryActiveProcessorCountEx(USHORT Group);

typedef struct TALLY {
    ULONG Sum;        /* entries, counted under the lock */
    ULONG Inside;     /* how often another was inside, too */
    ULONG Elsewhere;  /* how often a thread was not on its processor */
    ULONG Processors; /* different ones that threads ran on */
    ULONG Entries[THREADS]; /* of each thread */
    ULONG Checksum; /* the number of each that enters, from 1, times how often it has, added up */
} TALLY;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlContend");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlContend");
static KSPIN_LOCK Lock;
static KEVENT Start;
static volatile TALLY Tally;
static volatile ULONG Owner; /* index of the thread inside + 1 */
static volatile ULONG64 Seen; /* processors, by number */
static ULONG Rounds;

/* Thread number Index, on the processor of that number, or on that of the remainder if there are fewer. */
static VOID NTAPI Contend(PVOID Context)
{
    ULONG Index = (ULONG)(ULONG_PTR)Context;
    ULONG Processor = Index % KeQueryActiveProcessorCountEx(0xFFFF /* ALL_PROCESSOR_GROUPS */);
    PROCESSOR_NUMBER Number;
    GROUP_AFFINITY Affinity = {0}, Before;
    ULONG Round, Sum;
    KIRQL Level;

    if (!NT_SUCCESS(KeGetProcessorNumberFromIndex(Processor, &Number))) {
        PsTerminateSystemThread(STATUS_UNSUCCESSFUL);
    }
    Affinity.Group = Number.Group;
    Affinity.Mask = (KAFFINITY)1 << Number.Number;
    KeSetSystemGroupAffinityThread(&Affinity, &Before);
    KeWaitForSingleObject(&Start, Executive, KernelMode, FALSE, NULL);
    for (Round = 0; Round < Rounds; Round++) {
        KeAcquireSpinLock(&Lock, &Level);
        Tally.Inside += Owner != 0;
        Owner = Index + 1;
        Sum = Tally.Sum;
        Tally.Entries[Index] = Tally.Entries[Index] + 1;
        Tally.Checksum += (Index + 1) * Tally.Entries[Index];
        Tally.Elsewhere += KeGetCurrentProcessorNumberEx(NULL) != Processor;
        Seen |= 1ull << KeGetCurrentProcessorNumberEx(NULL);
        Tally.Sum = Sum + 1;
        Tally.Inside += Owner != Index + 1;
        Owner = 0;
        KeReleaseSpinLock(&Lock, Level);
    }
    KeRevertToUserGroupAffinityThread(&Before);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Run(TALLY *Answer)
{
    static PVOID Threads[THREADS];
    NTSTATUS Status = STATUS_SUCCESS;
    HANDLE Handle;
    ULONG64 Left;
    ULONG Made;

    RtlZeroMemory((PVOID)&Tally, sizeof(Tally));
    Seen = 0;
    KeInitializeEvent(&Start, NotificationEvent, FALSE);
    for (Made = 0; Made < THREADS; Made++) {
        Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Contend, (PVOID)(ULONG_PTR)Made);
        if (!NT_SUCCESS(Status)) {
            break;
        }
        Status = ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Threads[Made], NULL);
        ZwClose(Handle);
    }
    KeSetEvent(&Start, IO_NO_INCREMENT, FALSE);
    while (Made-- > 0) {
        KeWaitForSingleObject(Threads[Made], Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(Threads[Made]);
    }
    for (Left = Seen; Left != 0; Left &= Left - 1) {
        Tally.Processors++;
    }
    *Answer = *(TALLY *)&Tally;
    return Status;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != CONTEND_CODE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TALLY)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Rounds = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    Status = Run(Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(TALLY) : 0);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Lock);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}

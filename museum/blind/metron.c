/*
 * metron - clock drift sampler.
 *
 * While it is switched on, a system thread takes a pair (system time,
 * performance counter) every `Period` milliseconds and keeps the last 128
 * pairs; programs fetch them to see how the two clocks drift apart.
 *
 *   IOCTL_METRON_START   in:  ULONG period in ms (10..10000)
 *   IOCTL_METRON_STOP
 *   IOCTL_METRON_FETCH   out: array of METRON_PAIR, oldest first
 *
 * The bug: unloading waits for an event that the thread sets before it ends, and not for the thread.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define PAIRS 128u

#define IOCTL_METRON_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_METRON_STOP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_METRON_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _METRON_PAIR {
    LONGLONG SystemTime;
    LONGLONG Counter;
} METRON_PAIR;

typedef struct _METRON {
    /* The switch: taken by START, STOP and unload, never by the thread. */
    KMUTEX      Switch;
    HANDLE      Thread;         /* kernel handle; NULL: switched off */
    ULONG       Period;         /* ms; constant while the thread runs */
    KEVENT      Stop;           /* the thread is to finish */
    KEVENT      Finished;       /* the thread has left its loop */

    KSPIN_LOCK  Lock;           /* what follows */
    ULONG       Next;           /* next place in Pair[] */
    ULONG       Count;
    METRON_PAIR Pair[PAIRS];
} METRON, *PMETRON;

static PDEVICE_OBJECT g_Device;

static VOID MetronSample(PMETRON m)
{
    LARGE_INTEGER now, counter;
    KIRQL irql;

    KeAcquireSpinLock(&m->Lock, &irql);
    KeQuerySystemTime(&now);
    counter = KeQueryPerformanceCounter(NULL);
    m->Pair[m->Next].SystemTime = now.QuadPart;
    m->Pair[m->Next].Counter = counter.QuadPart;
    m->Next = (m->Next + 1) % PAIRS;
    if (m->Count < PAIRS)
        m->Count++;
    KeReleaseSpinLock(&m->Lock, irql);
}

static VOID NTAPI MetronThread(PVOID Context)
{
    PMETRON m = Context;
    LARGE_INTEGER pause;

    pause.QuadPart = -(LONGLONG)m->Period * 10000;
    while (KeWaitForSingleObject(&m->Stop, Executive, KernelMode, FALSE, &pause) == STATUS_TIMEOUT)
        MetronSample(m);

    KeSetEvent(&m->Finished, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Both with the switch held. */
static NTSTATUS MetronOn(PMETRON m, ULONG period)
{
    OBJECT_ATTRIBUTES oa;
    KIRQL irql;
    NTSTATUS status;

    if (m->Thread != NULL)
        return STATUS_DEVICE_BUSY;

    KeAcquireSpinLock(&m->Lock, &irql);
    m->Next = m->Count = 0;
    KeReleaseSpinLock(&m->Lock, irql);

    m->Period = period;
    KeClearEvent(&m->Stop);
    KeClearEvent(&m->Finished);
    InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&m->Thread, THREAD_ALL_ACCESS, &oa, NULL, NULL, MetronThread, m);
    if (!NT_SUCCESS(status))
        m->Thread = NULL;
    return status;
}

static NTSTATUS MetronOff(PMETRON m)
{
    if (m->Thread == NULL)
        return STATUS_DEVICE_NOT_READY;

    KeSetEvent(&m->Stop, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    ZwWaitForSingleObject(m->Thread, FALSE, NULL);
#else
    KeWaitForSingleObject(&m->Finished, Executive, KernelMode, FALSE, NULL);
#endif
    ZwClose(m->Thread);
    m->Thread = NULL;
    return STATUS_SUCCESS;
}

static ULONG MetronFetch(PMETRON m, METRON_PAIR *out, ULONG max)
{
    ULONG i, n, first;
    KIRQL irql;

    KeAcquireSpinLock(&m->Lock, &irql);
    n = m->Count < max ? m->Count : max;
    first = (m->Next + PAIRS - m->Count) % PAIRS;
    for (i = 0; i < n; i++)
        out[i] = m->Pair[(first + i) % PAIRS];
    KeReleaseSpinLock(&m->Lock, irql);
    return n;
}

static NTSTATUS MetronDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMETRON m = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ULONG period, n;

    if (sl->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (sl->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_METRON_START:
            if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
                status = STATUS_INFO_LENGTH_MISMATCH;
                break;
            }
            period = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
            if (period < 10 || period > 10000) {
                status = STATUS_INVALID_PARAMETER;
                break;
            }
            KeWaitForSingleObject(&m->Switch, Executive, KernelMode, FALSE, NULL);
            status = MetronOn(m, period);
            KeReleaseMutex(&m->Switch, FALSE);
            break;

        case IOCTL_METRON_STOP:
            KeWaitForSingleObject(&m->Switch, Executive, KernelMode, FALSE, NULL);
            status = MetronOff(m);
            KeReleaseMutex(&m->Switch, FALSE);
            break;

        case IOCTL_METRON_FETCH:
            n = sl->Parameters.DeviceIoControl.OutputBufferLength / sizeof(METRON_PAIR);
            if (n == 0) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            info = MetronFetch(m, Irp->AssociatedIrp.SystemBuffer, n) * sizeof(METRON_PAIR);
            break;

        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }

    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID MetronUnload(PDRIVER_OBJECT Driver)
{
    PMETRON m = g_Device->DeviceExtension;
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Metron");

    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&link);

    /* A program may have gone and left the sampler on. */
    KeWaitForSingleObject(&m->Switch, Executive, KernelMode, FALSE, NULL);
    MetronOff(m);
    KeReleaseMutex(&m->Switch, FALSE);

    IoDeleteDevice(g_Device);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Metron");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Metron");
    PMETRON m;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(Driver, sizeof(METRON), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &g_Device);
    if (!NT_SUCCESS(status))
        return status;

    m = g_Device->DeviceExtension;
    RtlZeroMemory(m, sizeof(*m));
    KeInitializeMutex(&m->Switch, 0);
    KeInitializeEvent(&m->Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&m->Finished, NotificationEvent, FALSE);
    KeInitializeSpinLock(&m->Lock);

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(g_Device);
        return status;
    }

    Driver->MajorFunction[IRP_MJ_CREATE] = MetronDispatch;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MetronDispatch;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MetronDispatch;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MetronDispatch;
    Driver->DriverUnload = MetronUnload;
    g_Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/*
 * seismo: stands in for a school's seismograph, root-enumerated. A thread takes a sample every 20 ms and puts it into a ring, with a mark at
 * the end of a recording; programs read the ring.
 *
 * The bug: stopping tells the thread to end but does not wait for it: the ring is freed, and at removal the device and the driver's image go,
 * under a thread that still marks the end.
 *
 * Device: ROOT\SEISMO
 * Rule: use-after-free, write-after-free, freed-while-waited-for, unload-still-called, wild-call
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define TAG 'msiS'

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define IOCTL_SEISMO_GAIN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SEISMO_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)

#define SAMPLES 512
#define END_MARK ((SHORT)0x7fff)

static const GUID SeismoClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x04 } };

typedef struct {
    ULONG Waiting;              /* samples */
    ULONG Lost;
    ULONG Gain;
} STATE;

typedef struct {
    FRAME Frame;
    PVOID Thread;
    KEVENT Quit;
    FAST_MUTEX Mutex;           /* of what follows */
    SHORT *Ring;
    ULONG First, Count, Lost;
    ULONG Gain;
    ULONG Noise;
} SEISMO;

/* Mutex held. */
static void Put(SEISMO *S, SHORT Sample)
{
    if (S->Count == SAMPLES) {
        S->First = (S->First + 1) % SAMPLES;
        S->Count--;
        S->Lost++;
    }
    S->Ring[(S->First + S->Count) % SAMPLES] = Sample;
    S->Count++;
}

static void NTAPI Recorder(PVOID Context)
{
    SEISMO *s = Context;
    LARGE_INTEGER interval;

    interval.QuadPart = -10000LL * 20;
    while (KeWaitForSingleObject(&s->Quit, Executive, KernelMode, FALSE, &interval) == STATUS_TIMEOUT) {
        ExAcquireFastMutex(&s->Mutex);
        s->Noise = s->Noise * 1103515245 + 12345;
        Put(s, (SHORT)(((LONG)((s->Noise >> 16) & 0xff) - 128) * (LONG)s->Gain));
        ExReleaseFastMutex(&s->Mutex);
    }
    ExAcquireFastMutex(&s->Mutex);
    Put(s, END_MARK);
    ExReleaseFastMutex(&s->Mutex);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    SEISMO *s = (SEISMO *)F;
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Translated);
    s->Ring = ExAllocatePoolWithTag(PagedPool, SAMPLES * sizeof(SHORT), TAG);
    if (!s->Ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    s->First = s->Count = s->Lost = 0;
    KeClearEvent(&s->Quit);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Recorder, s);
    if (NT_SUCCESS(status)) {
        status = ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode, &s->Thread, NULL);
        if (!NT_SUCCESS(status)) {
            KeSetEvent(&s->Quit, IO_NO_INCREMENT, FALSE);
            ZwWaitForSingleObject(handle, FALSE, NULL);
        }
        ZwClose(handle);
    }
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(s->Ring, TAG);
        s->Ring = NULL;
    }
    return status;
}

static void Stop(FRAME *F)
{
    SEISMO *s = (SEISMO *)F;

    KeSetEvent(&s->Quit, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(s->Thread, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(s->Thread);
    s->Thread = NULL;
    ExFreePoolWithTag(s->Ring, TAG);
    s->Ring = NULL;
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    SEISMO *s = Device->DeviceExtension;
    SHORT *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room, n;
    NTSTATUS status;

    status = FrameBegin(&s->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(SHORT);
    ExAcquireFastMutex(&s->Mutex);
    for (n = 0; n < room && s->Count; n++) {
        out[n] = s->Ring[s->First];
        s->First = (s->First + 1) % SAMPLES;
        s->Count--;
    }
    ExReleaseFastMutex(&s->Mutex);
    return FrameEnd(&s->Frame, Irp, STATUS_SUCCESS, (ULONG_PTR)n * sizeof(SHORT));
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    SEISMO *s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    STATE *state = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG gain;

    status = FrameBegin(&s->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEISMO_GAIN:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrameEnd(&s->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        gain = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (gain == 0 || gain > 100)
            return FrameEnd(&s->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&s->Mutex);
        s->Gain = gain;
        ExReleaseFastMutex(&s->Mutex);
        return FrameEnd(&s->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_SEISMO_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return FrameEnd(&s->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&s->Mutex);
        state->Waiting = s->Count;
        state->Lost = s->Lost;
        state->Gain = s->Gain;
        ExReleaseFastMutex(&s->Mutex);
        return FrameEnd(&s->Frame, Irp, STATUS_SUCCESS, sizeof(STATE));
    }
    return FrameEnd(&s->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    SEISMO *s;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(SEISMO), &SeismoClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    s = (SEISMO *)f;
    f->Start = Start;
    f->Stop = Stop;
    KeInitializeEvent(&s->Quit, NotificationEvent, FALSE);
    ExInitializeFastMutex(&s->Mutex);
    s->Gain = 10;
    s->Noise = 1906;
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}

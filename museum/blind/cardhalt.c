/*
 * cardhalt: a thread takes a sample from a card ten times a second, and applications read what has been sampled. Registers (BAR0, 32 bits
 * each): 00 identity; 04 the sample; 08 control, bit 0 turns the sensor on.
 *
 * The bug: when the device is stopped or removed, the end of the thread is awaited with the mutex held that the thread takes for each sample; if the
 * thread is just about to, neither goes on, and the removal hangs.
 *
 * Device: PCI\VEN_1DA7&DEV_0A12
 * Rule: deadlock
 * Needs: removal, schedule
 */
#include "../include/bay_own.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE handle, BOOLEAN alertable, PLARGE_INTEGER limit);

#define R_SAMPLE  0x04u
#define R_CONTROL 0x08u

#define SAMPLES 256u

typedef struct CARD {
    AF_OWN own;
    PVOID thread;
    KEVENT stop;
    FAST_MUTEX mutex;                           /* of what follows */
    BOOLEAN on;
    ULONG first, count;
    ULONG sample[SAMPLES];
} CARD;

static const GUID Guid = { 0xaf01000d, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x0d } };

static VOID NTAPI Thread(PVOID context)
{
    CARD *card = context;
    LARGE_INTEGER period;

    period.QuadPart = -1000000;
    while (KeWaitForSingleObject(&card->stop, Executive, KernelMode, FALSE, &period) == STATUS_TIMEOUT) {
        ExAcquireFastMutex(&card->mutex);
        if (card->on && card->count < SAMPLES) {
            ULONG value = AfRead32(card->own.regs, R_SAMPLE);

            if (value != 0xFFFFFFFF) {
                card->sample[(card->first + card->count) % SAMPLES] = value;
                ++card->count;
            }
        }
        ExReleaseFastMutex(&card->mutex);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static void Turn(CARD *card, BOOLEAN on)
{
    ExAcquireFastMutex(&card->mutex);
    if (AfReachable(&card->own.af) || on)
        AfWrite32(card->own.regs, R_CONTROL, on ? 1 : 0);
    card->on = on;
    ExReleaseFastMutex(&card->mutex);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeEvent(&card->stop, NotificationEvent, FALSE);
    ExInitializeFastMutex(&card->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status = AfOwnMap(&card->own, list, R_CONTROL + sizeof(ULONG), 0);
    HANDLE handle;

    if (!NT_SUCCESS(status))
        return status;
    KeClearEvent(&card->stop);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Thread, card);
    if (!NT_SUCCESS(status)) {
        AfOwnUnmap(&card->own);
        return status;
    }
    status = ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode, &card->thread, NULL);
    if (!NT_SUCCESS(status)) {
        KeSetEvent(&card->stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
        ZwClose(handle);
        AfOwnUnmap(&card->own);
        return status;
    }
    ZwClose(handle);
    Turn(card, TRUE);
    return STATUS_SUCCESS;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    ExAcquireFastMutex(&card->mutex);
    if (AfReachable(af))
        AfWrite32(card->own.regs, R_CONTROL, 0);
    card->on = FALSE;
    KeSetEvent(&card->stop, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(card->thread, Executive, KernelMode, FALSE, NULL);
    ExReleaseFastMutex(&card->mutex);
#else
    ExReleaseFastMutex(&card->mutex);
    KeWaitForSingleObject(card->thread, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(card->thread);
    card->thread = NULL;
    AfOwnUnmap(&card->own);
}

static void Suspend(AF_DEVICE *af)
{
    Turn((CARD *)af, FALSE);
}

static void Resume(AF_DEVICE *af)
{
    Turn((CARD *)af, TRUE);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    ULONG *buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG room, taken = 0;

    if (stack->MajorFunction != IRP_MJ_READ) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    room = stack->Parameters.Read.Length / sizeof *buffer;
    ExAcquireFastMutex(&card->mutex);
    while (taken < room && card->count) {
        buffer[taken++] = card->sample[card->first];
        card->first = (card->first + 1) % SAMPLES;
        --card->count;
    }
    ExReleaseFastMutex(&card->mutex);
    AfFinish(af, irp, STATUS_SUCCESS, taken * sizeof *buffer);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .suspend = Suspend, .resume = Resume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}

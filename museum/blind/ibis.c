/*
 * ibis: collects noise for programs that need seeds. A thread of its own stirs a block of 256 bytes every 50 ms with the performance
 * counter; reads take bytes out of it, writes stir something in. When the thread ends it wipes the block, as no one shall find it later.
 *
 * The bug: at unload the block is freed first and the thread is ended, and waited for, behind that: its last act wipes freed
 * memory.
 *
 * Device: none
 * Rule: write-after-free, use-after-free
 * Needs: nothing
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE handle, BOOLEAN alertable, PLARGE_INTEGER timeout);

#define IBIS_TAG 'sibI'

#define IOCTL_IBIS_ROUNDS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BLOCK_BYTES 256u

typedef struct IBIS {
    SITE Site;
    KSPIN_LOCK Lock;        /* guards the block's bytes and what is below */
    PUCHAR Block;
    ULONG Place;
    ULONG State;
    ULONG Rounds;
    PKTHREAD Thread;
    KEVENT Over;
} IBIS;

/* With the lock. */
static UCHAR IbisMix(IBIS *ibis, UCHAR value)
{
    ibis->State = ibis->State * 1664525u + 1013904223u + value;
    ibis->Place = (ibis->Place + 1) % BLOCK_BYTES;
    ibis->Block[ibis->Place] ^= (UCHAR)(ibis->State >> 24);
    return ibis->Block[ibis->Place];
}

static VOID NTAPI IbisThread(PVOID context)
{
    IBIS *ibis = context;
    LARGE_INTEGER pause, counter;
    KIRQL irql;
    ULONG i;

    pause.QuadPart = -10000LL * 50;
    while (KeWaitForSingleObject(&ibis->Over, Executive, KernelMode, FALSE, &pause) == STATUS_TIMEOUT) {
        counter = KeQueryPerformanceCounter(NULL);
        KeAcquireSpinLock(&ibis->Lock, &irql);
        for (i = 0; i < sizeof counter.QuadPart; ++i)
            IbisMix(ibis, (UCHAR)(counter.QuadPart >> (8 * i)));
        ibis->Rounds += 1;
        KeReleaseSpinLock(&ibis->Lock, irql);
    }
    KeAcquireSpinLock(&ibis->Lock, &irql);
    RtlZeroMemory(ibis->Block, BLOCK_BYTES);
    ibis->State = 0;
    KeReleaseSpinLock(&ibis->Lock, irql);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID IbisStop(IBIS *ibis)
{
    KeSetEvent(&ibis->Over, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(ibis->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(ibis->Thread);
}

static NTSTATUS IbisServe(SITE *site, ASK *ask)
{
    IBIS *ibis = (IBIS *)site;
    PUCHAR bytes = ask->Buffer;
    ULONG i;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ || ask->Major == IRP_MJ_WRITE) {
        ULONG length = ask->Major == IRP_MJ_READ ? ask->Out : ask->In;

        if (length > BLOCK_BYTES)
            length = BLOCK_BYTES;
        KeAcquireSpinLock(&ibis->Lock, &irql);
        for (i = 0; i < length; ++i) {
            if (ask->Major == IRP_MJ_READ)
                bytes[i] = IbisMix(ibis, 0);
            else
                IbisMix(ibis, bytes[i]);
        }
        KeReleaseSpinLock(&ibis->Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, length);
    }
    if (ask->Code != IOCTL_IBIS_ROUNDS)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (ask->Out < sizeof(ULONG))
        return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&ibis->Lock, &irql);
    *(PULONG)bytes = ibis->Rounds;
    KeReleaseSpinLock(&ibis->Lock, irql);
    return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS IbisBorn(SITE *site)
{
    IBIS *ibis = (IBIS *)site;
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    KeInitializeSpinLock(&ibis->Lock);
    KeInitializeEvent(&ibis->Over, NotificationEvent, FALSE);
    ibis->Block = ExAllocatePoolWithTag(NonPagedPool, BLOCK_BYTES, IBIS_TAG);
    if (ibis->Block == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(ibis->Block, BLOCK_BYTES);
    ibis->State = (ULONG)KeQueryInterruptTime();
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, IbisThread, ibis);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(ibis->Block, IBIS_TAG);
        return status;
    }
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&ibis->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        KeSetEvent(&ibis->Over, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
        ZwClose(handle);
        ExFreePoolWithTag(ibis->Block, IBIS_TAG);
        return status;
    }
    ZwClose(handle);
    return STATUS_SUCCESS;
}

static VOID IbisBuried(SITE *site)
{
    IBIS *ibis = (IBIS *)site;

#ifndef FIXED
    ExFreePoolWithTag(ibis->Block, IBIS_TAG);
    IbisStop(ibis);
#else
    IbisStop(ibis);
    ExFreePoolWithTag(ibis->Block, IBIS_TAG);
#endif
}

static const SCRIPT Script = {
    .Size = sizeof(IBIS),
    .Device = L"\\Device\\Ibis",
    .Link = L"\\DosDevices\\Ibis",
    .Born = IbisBorn,
    .Buried = IbisBuried,
    .Serve = IbisServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}

/*
 * edubriar: a link quality recorder for QEMU's educational card. Every ten milliseconds it writes a pattern to the liveness register, and keeps
 * what comes back in a ring of pages, which programs fetch one by one.
 *
 * The bug: the table of the pages is not cleared before they are allocated, and if one of them cannot be had, the cleanup frees whatever the
 * rest of the table happens to hold.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: bad-free, double-free, wild-pointer, bad-pointer, pool-tag-mismatch
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_BRIAR_PAGE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BRIAR_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BRIAR_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define BRIAR_TAG     'rirB'
#define BRIAR_PAGES   8
#define BRIAR_SAMPLES 1024
#define BRIAR_BYTES   (BRIAR_SAMPLES * sizeof(ULONG))
#define EDU_LIVENESS  0x04

typedef struct BRIAR_STATE {
    ULONG Page, Sample;                      /* where the next one goes */
    ULONG Taken, Bad;
} BRIAR_STATE;

typedef struct BRIAR {
    DEPOT *Depot;
    WINDOW Regs;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                         /* all below */
    BOOLEAN Lit;
    ULONG Pattern;
    BRIAR_STATE State;
    PULONG *Pages;
} BRIAR;

static const GUID BriarGuid = { 0x7be11a05, 0x0c44, 0x4f6e, { 0x83, 0x5d, 0x90, 0x02, 0x1c, 0xaf, 0x55, 0x02 } };

static VOID NTAPI BriarDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    BRIAR *b = context;
    ULONG back;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    if (b->Lit) {
        b->Pattern = b->Pattern * 1664525 + 1013904223;
        WindowPut(&b->Regs, EDU_LIVENESS, b->Pattern);
        back = WindowGet(&b->Regs, EDU_LIVENESS);
        if (back != ~b->Pattern)
            b->State.Bad++;
        b->State.Taken++;
        b->Pages[b->State.Page][b->State.Sample] = back;
        if (++b->State.Sample == BRIAR_SAMPLES) {
            b->State.Sample = 0;
            b->State.Page = (b->State.Page + 1) % BRIAR_PAGES;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
}

static VOID BriarBurn(BRIAR *b)
{
    ULONG i;

    for (i = 0; i < BRIAR_PAGES; i++) {
        if (b->Pages[i] != NULL)
            ExFreePoolWithTag(b->Pages[i], BRIAR_TAG);
    }
    ExFreePoolWithTag(b->Pages, BRIAR_TAG);
    b->Pages = NULL;
}

static NTSTATUS BriarPlant(BRIAR *b)
{
    ULONG i;

    b->Pages = ExAllocatePoolWithTag(NonPagedPoolNx, BRIAR_PAGES * sizeof(PULONG), BRIAR_TAG);
    if (b->Pages == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    RtlZeroMemory(b->Pages, BRIAR_PAGES * sizeof(PULONG));
#endif
    for (i = 0; i < BRIAR_PAGES; i++) {
        b->Pages[i] = ExAllocatePoolWithTag(NonPagedPoolNx, BRIAR_BYTES, BRIAR_TAG);
        if (b->Pages[i] == NULL) {
            BriarBurn(b);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlZeroMemory(b->Pages[i], BRIAR_BYTES);
    }
    return STATUS_SUCCESS;
}

static VOID BriarLight(BRIAR *b)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&b->Lock, &irql);
    b->Lit = TRUE;
    KeReleaseSpinLock(&b->Lock, irql);
    due.QuadPart = -100000;
    KeSetTimerEx(&b->Timer, due, 10, &b->Dpc);
}

static VOID BriarDark(BRIAR *b)
{
    KIRQL irql;

    KeAcquireSpinLock(&b->Lock, &irql);
    b->Lit = FALSE;
    KeReleaseSpinLock(&b->Lock, irql);
    KeCancelTimer(&b->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS BriarUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    BRIAR *b = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    NTSTATUS st;

    if (r == NULL || r->Type != CmResourceTypeMemory)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&b->Regs, r, 0x100))
        return STATUS_INSUFFICIENT_RESOURCES;
    st = BriarPlant(b);
    if (!NT_SUCCESS(st)) {
        WindowShut(&b->Regs);
        return st;
    }
    RtlZeroMemory(&b->State, sizeof(b->State));
    BriarLight(b);
    return STATUS_SUCCESS;
}

static VOID BriarDown(DEPOT *d, BOOLEAN reach)
{
    BRIAR *b = d->Own;

    UNREFERENCED_PARAMETER(reach);
    BriarDark(b);
    BriarBurn(b);
    WindowShut(&b->Regs);
}

static VOID BriarSleep(DEPOT *d)
{
    BriarDark(d->Own);
}

static VOID BriarWake(DEPOT *d)
{
    BriarLight(d->Own);
}

static NTSTATUS BriarPrepare(DEPOT *d)
{
    BRIAR *b = d->Own;

    b->Depot = d;
    b->Pattern = 0x2545F491;
    KeInitializeSpinLock(&b->Lock);
    KeInitializeTimer(&b->Timer);
    KeInitializeDpc(&b->Dpc, BriarDpc, b);
    return STATUS_SUCCESS;
}

static NTSTATUS BriarControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    BRIAR *b = d->Own;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ULONG n, i;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BRIAR_PAGE:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        n = *(PULONG)buffer;
        if (n >= BRIAR_PAGES) {
            st = STATUS_INVALID_PARAMETER;
            break;
        }
        info = out < BRIAR_BYTES ? out : BRIAR_BYTES;
        KeAcquireSpinLock(&b->Lock, &irql);
        RtlCopyMemory(buffer, b->Pages[n], info);
        KeReleaseSpinLock(&b->Lock, irql);
        break;
    case IOCTL_BRIAR_STATE:
        if (out < sizeof(BRIAR_STATE)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&b->Lock, &irql);
        *(BRIAR_STATE *)buffer = b->State;
        KeReleaseSpinLock(&b->Lock, irql);
        info = sizeof(BRIAR_STATE);
        break;
    case IOCTL_BRIAR_CLEAR:
        KeAcquireSpinLock(&b->Lock, &irql);
        for (i = 0; i < BRIAR_PAGES; i++)
            RtlZeroMemory(b->Pages[i], BRIAR_BYTES);
        RtlZeroMemory(&b->State, sizeof(b->State));
        KeReleaseSpinLock(&b->Lock, irql);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return DepotEnd(d, irp, st, info);
}

static const PLAN BriarPlan = {
    .Interface = &BriarGuid,
    .OwnSize = sizeof(BRIAR),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = BriarPrepare,
    .Up = BriarUp,
    .Down = BriarDown,
    .Sleep = BriarSleep,
    .Wake = BriarWake,
    .Control = BriarControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &BriarPlan);
}

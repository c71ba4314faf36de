/*
 * VELLUM: a page of text that programs share: one writes a part of it, others take copies of the whole. Copies go straight into the program's buffer
 * (METHOD_NEITHER), since the page is asked for often.
 *
 * The bug: the page is copied into the program's buffer with the page's spin lock held. The buffer may be paged out or not be there any more; a page fault at
 * DISPATCH_LEVEL cannot be served, and no handler gets to see it.
 *
 * Device: none
 * Compiler: clang
 * Rule: paged-at-raised-irql, irql-too-high, user-memory-unguarded
 * Needs: ioctl
 */
#include "../include/rig_clang.h"
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/desk_or_rig.h"

#define VELLUM_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define VELLUM_COPY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_NEITHER, FILE_ANY_ACCESS)
#define VELLUM_WIPE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'leVN'
#define PAGE_BYTES 1024

typedef struct _PATCH {
    ULONG Offset;
    ULONG Length;
    UCHAR Text[256];
} PATCH;

typedef struct _SHEET {
    ULONG Version;
    ULONG Used;
    UCHAR Text[PAGE_BYTES];
} SHEET;

static KSPIN_LOCK Lock;
static SHEET Sheet;

static NTSTATUS Copy(TASK *task)
{
    PVOID user = task->Irp->UserBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;
#ifdef FIXED
    SHEET *copy;
#endif

    if (task->Out < sizeof(SHEET))
        return STATUS_BUFFER_TOO_SMALL;
    if (task->Irp->RequestorMode != KernelMode) {
        __try {
            ProbeForWrite(user, sizeof(SHEET), sizeof(ULONG));
        } __except (EXCEPTION_EXECUTE_HANDLER) {
            return GetExceptionCode();
        }
    }
#ifndef FIXED
    KeAcquireSpinLock(&Lock, &irql);
    __try {
        RtlCopyMemory(user, &Sheet, sizeof(SHEET));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
    }
    KeReleaseSpinLock(&Lock, irql);
#else
    copy = ExAllocatePoolWithTag(NonPagedPool, sizeof(SHEET), TAG);
    if (copy == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&Lock, &irql);
    RtlCopyMemory(copy, &Sheet, sizeof(SHEET));
    KeReleaseSpinLock(&Lock, irql);
    __try {
        RtlCopyMemory(user, copy, sizeof(SHEET));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
    }
    ExFreePoolWithTag(copy, TAG);
#endif
    if (NT_SUCCESS(status))
        task->Info = sizeof(SHEET);
    return status;
}

static NTSTATUS Write(TASK *task)
{
    PATCH *patch = task->Buffer;
    KIRQL irql;

    if (task->In < FIELD_OFFSET(PATCH, Text))
        return STATUS_INVALID_PARAMETER;
    if (patch->Length > sizeof(patch->Text) || patch->Length > task->In - FIELD_OFFSET(PATCH, Text))
        return STATUS_INVALID_PARAMETER;
    if (patch->Offset > PAGE_BYTES || patch->Length > PAGE_BYTES - patch->Offset)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Lock, &irql);
    RtlCopyMemory(Sheet.Text + patch->Offset, patch->Text, patch->Length);
    if (patch->Offset + patch->Length > Sheet.Used)
        Sheet.Used = patch->Offset + patch->Length;
    Sheet.Version++;
    KeReleaseSpinLock(&Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS VellumControl(TASK *task)
{
    KIRQL irql;

    switch (task->Code) {
    case VELLUM_WRITE:
        return Write(task);
    case VELLUM_COPY:
        return Copy(task);
    case VELLUM_WIPE:
        KeAcquireSpinLock(&Lock, &irql);
        RtlZeroMemory(Sheet.Text, sizeof(Sheet.Text));
        Sheet.Used = 0;
        Sheet.Version++;
        KeReleaseSpinLock(&Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const DESK_OPS Ops = {
    .Control = VellumControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    KeInitializeSpinLock(&Lock);
    return DeskOpen(driver, &Ops, L"\\Device\\Vellum", L"\\DosDevices\\Vellum");
}

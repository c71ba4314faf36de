/*
 * dunlin: a capture buffer for field diagnostics. Services write lines of text, which are kept one behind the other until the buffer is
 * full; a tool reads them back, empties the buffer, asks how full it is and may give it another size.
 *
 * The bug: to give the buffer another size the old one is freed before the new one is allocated. If that fails the program gets
 * its error, but the driver goes on with a pointer to freed memory, and frees it once more when it is unloaded.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, double-free, bad-free
 * Needs: ioctl, failure
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

#define DUNLIN_TAG 'nulD'

#define IOCTL_DUNLIN_RESIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DUNLIN_EMPTY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DUNLIN_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LEAST_BYTES   64u
#define MOST_BYTES    65536u
#define FIRST_BYTES   1024u

typedef struct DUNLIN_STATE {
    ULONG Capacity;
    ULONG Used;
    ULONG Lost;
} DUNLIN_STATE;

typedef struct DUNLIN {
    SITE Site;
    FAST_MUTEX Mutex;       /* guards what is below */
    PUCHAR Bytes;
    DUNLIN_STATE State;
} DUNLIN;

/* With the mutex. A line is stored whole or not at all. */
static NTSTATUS DunlinStore(DUNLIN *dunlin, const VOID *line, ULONG length)
{
    DUNLIN_STATE *state = &dunlin->State;

    if (length > state->Capacity - state->Used) {
        state->Lost += 1;
        return STATUS_DISK_FULL;
    }
    if (length != 0)
        RtlCopyMemory(dunlin->Bytes + state->Used, line, length);
    state->Used += length;
    return STATUS_SUCCESS;
}

/* With the mutex. What is read is taken out. */
static ULONG DunlinFetch(DUNLIN *dunlin, VOID *to, ULONG length)
{
    DUNLIN_STATE *state = &dunlin->State;

    if (length > state->Used)
        length = state->Used;
    if (length == 0)
        return 0;
    RtlCopyMemory(to, dunlin->Bytes, length);
    RtlMoveMemory(dunlin->Bytes, dunlin->Bytes + length, state->Used - length);
    state->Used -= length;
    return length;
}

/* With the mutex. What was captured is given up. */
static NTSTATUS DunlinResize(DUNLIN *dunlin, ULONG bytes)
{
    PUCHAR fresh;

    if (bytes < LEAST_BYTES || bytes > MOST_BYTES)
        return STATUS_INVALID_PARAMETER;
#ifndef FIXED
    ExFreePoolWithTag(dunlin->Bytes, DUNLIN_TAG);
    fresh = ExAllocatePoolWithTag(NonPagedPool, bytes, DUNLIN_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#else
    fresh = ExAllocatePoolWithTag(NonPagedPool, bytes, DUNLIN_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExFreePoolWithTag(dunlin->Bytes, DUNLIN_TAG);
#endif
    dunlin->Bytes = fresh;
    dunlin->State.Capacity = bytes;
    dunlin->State.Used = 0;
    return STATUS_SUCCESS;
}

static NTSTATUS DunlinServe(SITE *site, ASK *ask)
{
    DUNLIN *dunlin = (DUNLIN *)site;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG information = 0;

    ExAcquireFastMutex(&dunlin->Mutex);
    if (ask->Major == IRP_MJ_WRITE) {
        status = DunlinStore(dunlin, ask->Buffer, ask->In);
        if (NT_SUCCESS(status))
            information = ask->In;
    } else if (ask->Major == IRP_MJ_READ) {
        information = DunlinFetch(dunlin, ask->Buffer, ask->Out);
    } else {
        switch (ask->Code) {
        case IOCTL_DUNLIN_RESIZE:
            if (ask->In < sizeof(ULONG))
                status = STATUS_BUFFER_TOO_SMALL;
            else
                status = DunlinResize(dunlin, *(PULONG)ask->Buffer);
            break;
        case IOCTL_DUNLIN_EMPTY:
            dunlin->State.Used = 0;
            dunlin->State.Lost = 0;
            break;
        case IOCTL_DUNLIN_STATE:
            if (ask->Out < sizeof(DUNLIN_STATE)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            RtlCopyMemory(ask->Buffer, &dunlin->State, sizeof(DUNLIN_STATE));
            information = sizeof(DUNLIN_STATE);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    ExReleaseFastMutex(&dunlin->Mutex);
    return Finish(site, ask->Irp, status, information);
}

static NTSTATUS DunlinBorn(SITE *site)
{
    DUNLIN *dunlin = (DUNLIN *)site;

    ExInitializeFastMutex(&dunlin->Mutex);
    dunlin->Bytes = ExAllocatePoolWithTag(NonPagedPool, FIRST_BYTES, DUNLIN_TAG);
    if (dunlin->Bytes == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    dunlin->State.Capacity = FIRST_BYTES;
    return STATUS_SUCCESS;
}

static VOID DunlinBuried(SITE *site)
{
    ExFreePoolWithTag(((DUNLIN *)site)->Bytes, DUNLIN_TAG);
}

static const SCRIPT Script = {
    .Size = sizeof(DUNLIN),
    .Device = L"\\Device\\Dunlin",
    .Link = L"\\DosDevices\\Dunlin",
    .Born = DunlinBorn,
    .Buried = DunlinBuried,
    .Serve = DunlinServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}

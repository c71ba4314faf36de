/*
 * plxmarsh: gives programs the memory behind local space 0 of a PLX 9050 board (a dual-ported RAM):
 * blocks of 32 bit words are read and written by offset and length; the board's configuration is
 * reported.
 *
 * The bug: the sum of a block's offset and length, worked out in 32 bits, is held against the size
 * of the window: with an offset near 4 GB it wraps, and the access goes far behind the mapping.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, wild-read, wild-write
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID MarshInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x09 } };

#define IOCTL_MARSH_READ   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_MARSH_WRITE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MARSH_FILL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MARSH_CONFIG CTL_CODE(FILE_DEVICE_UNKNOWN, 0x973, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLX_LAS0RR  0x00
#define PLX_LAS0BA  0x14
#define PLX_LAS0BRD 0x28
#define PLX_INTCSR  0x4C
#define PLX_CNTRL   0x50
#define PLX_LENGTH  0x54
#define PLX_LAS0_ENABLE 0x1

#define MARSH_MAX_BLOCK 4096

typedef struct _MARSH_BLOCK { /* READ; FILL; the data of WRITE follows */
    ULONG Offset;
    ULONG Length;
} MARSH_BLOCK;

typedef struct _MARSH_FILL {
    MARSH_BLOCK Block;
    ULONG Value;
} MARSH_FILL;

typedef struct _MARSH_CONFIG {
    ULONG WindowLength;
    ULONG Range;
    ULONG Base;
    ULONG Descriptor;
    ULONG Control;
} MARSH_CONFIG;

typedef struct _MARSH_EXT {
    FR_DEV Frame;
    PUCHAR Local; /* the chip's registers */
    ULONG LocalLength;
    PUCHAR Window; /* local space 0 */
    ULONG WindowLength;
    FAST_MUTEX Lock; /* a block is read or written as a whole */
} MARSH_EXT, *PMARSH_EXT;

static ULONG MarshLocal(PMARSH_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Local + Register));
}

static BOOLEAN MarshInside(PMARSH_EXT x, const MARSH_BLOCK *Block)
{
    if ((Block->Offset | Block->Length) & 3)
        return FALSE;
    if (Block->Length == 0 || Block->Length > MARSH_MAX_BLOCK)
        return FALSE;
#ifdef FIXED
    return Block->Offset <= x->WindowLength && Block->Length <= x->WindowLength - Block->Offset;
#else
    return Block->Offset + Block->Length <= x->WindowLength;
#endif
}

static VOID MarshRead(PMARSH_EXT x, ULONG Offset, ULONG Length, ULONG *Out)
{
    ULONG i;
    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < Length / 4; i++)
        Out[i] = READ_REGISTER_ULONG((PULONG)(x->Window + Offset + i * 4));
    ExReleaseFastMutex(&x->Lock);
}

/* In == NULL: all words get Value */
static VOID MarshWrite(PMARSH_EXT x, ULONG Offset, ULONG Length, const UCHAR *In, ULONG Value)
{
    ULONG i;
    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < Length / 4; i++) {
        if (In)
            RtlCopyMemory(&Value, In + i * 4, 4);
        WRITE_REGISTER_ULONG((PULONG)(x->Window + Offset + i * 4), Value);
    }
    ExReleaseFastMutex(&x->Lock);
}

static NTSTATUS MarshControl(PMARSH_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    MARSH_BLOCK block;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode;

    if (code == IOCTL_MARSH_CONFIG) {
        MARSH_CONFIG *out = buffer;
        if (outLength < sizeof(*out))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        out->WindowLength = x->WindowLength;
        out->Range = MarshLocal(x, PLX_LAS0RR);
        out->Base = MarshLocal(x, PLX_LAS0BA);
        out->Descriptor = MarshLocal(x, PLX_LAS0BRD);
        out->Control = MarshLocal(x, PLX_CNTRL);
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(*out));
    }
    if (code != IOCTL_MARSH_READ && code != IOCTL_MARSH_WRITE && code != IOCTL_MARSH_FILL)
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (inLength < sizeof(block))
        return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    block = *(MARSH_BLOCK *)buffer;
    if (!MarshInside(x, &block))
        return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
    switch (code) {
    case IOCTL_MARSH_READ:
        if (outLength < block.Length)
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        MarshRead(x, block.Offset, block.Length, buffer);
        return FrDone(d, Irp, STATUS_SUCCESS, block.Length);
    case IOCTL_MARSH_WRITE:
        if (inLength - sizeof(block) < block.Length)
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        MarshWrite(x, block.Offset, block.Length, (PUCHAR)buffer + sizeof(block), 0);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    default:
        if (inLength < sizeof(MARSH_FILL))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        MarshWrite(x, block.Offset, block.Length, NULL, ((MARSH_FILL *)buffer)->Value);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    }
}

static NTSTATUS NTAPI MarshRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMARSH_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = MarshControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS MarshInit(PFR_DEV d)
{
    ExInitializeFastMutex(&((PMARSH_EXT)d)->Lock);
    return STATUS_SUCCESS;
}

/* The chip's interrupt is not used; the window has to be open. */
static VOID MarshSetUp(PMARSH_EXT x)
{
    ULONG base = MarshLocal(x, PLX_LAS0BA);

    WRITE_REGISTER_ULONG((PULONG)(x->Local + PLX_INTCSR), 0);
    if (base != ~0u && !(base & PLX_LAS0_ENABLE))
        WRITE_REGISTER_ULONG((PULONG)(x->Local + PLX_LAS0BA), base | PLX_LAS0_ENABLE);
}

static NTSTATUS MarshStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PMARSH_EXT x = (PMARSH_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = FrResource(Resources, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = FrResource(Resources, CmResourceTypeMemory, 1);

    if (!local || !window || local->u.Memory.Length < PLX_LENGTH || window->u.Memory.Length < 4)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->LocalLength = local->u.Memory.Length;
    x->Local = MmMapIoSpace(local->u.Memory.Start, x->LocalLength, MmNonCached);
    if (!x->Local)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->WindowLength = window->u.Memory.Length;
    x->Window = MmMapIoSpace(window->u.Memory.Start, x->WindowLength, MmNonCached);
    if (!x->Window)
        return STATUS_INSUFFICIENT_RESOURCES;
    MarshSetUp(x);
    return STATUS_SUCCESS;
}

static VOID MarshStop(PFR_DEV d)
{
    PMARSH_EXT x = (PMARSH_EXT)d;

    if (x->Window)
        MmUnmapIoSpace(x->Window, x->WindowLength);
    if (x->Local)
        MmUnmapIoSpace(x->Local, x->LocalLength);
    x->Window = NULL;
    x->Local = NULL;
}

static VOID MarshFlush(PFR_DEV d, NTSTATUS Status)
{
    FR_UNUSED(d);
    FR_UNUSED(Status);
}

static VOID MarshPowerUp(PFR_DEV d)
{
    MarshSetUp((PMARSH_EXT)d);
}

static const FR_OPS MarshOps = {
    sizeof(MARSH_EXT), &MarshInterface, DO_BUFFERED_IO, MarshInit, MarshStart, MarshStop, MarshFlush,
    FrNothing, MarshPowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &MarshOps);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MarshRequest;
    return STATUS_SUCCESS;
}

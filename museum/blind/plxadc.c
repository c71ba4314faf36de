/*
 * plxadc: takes analogue samples with an eight-channel converter in the bridge's first local
 * space (BAR2: +0 channel and start, +4 state, +8 value) and returns one or a series of them.
 *
 * The bug: the end of a conversion is awaited in a loop without bound, under a spin lock, so that a converter that
 * never gets done hangs the processor.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop
 * Needs: device
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_PLXADC, 0x5d2f1b06, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x06);

#define CHANNELS 8u
#define SERIES   32u
typedef struct { ULONG Channel, Count; } ADC_SERIES;
#define IOCTL_ADC_SERIES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ADC_OFFSET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define CNTRL        (0x50 / 4)
#define CNTRL_USER1_OUT  0x10u
#define CNTRL_USER1_HIGH 0x20u     /* the converter's supply */

#define ADC_START (0 / 4)
#define ADC_STATE (4 / 4)
#define ADC_VALUE (8 / 4)
#define STATE_DONE 1u

typedef struct {
    KIT Kit;
    volatile ULONG *Bridge, *Adc;
    KSPIN_LOCK Lock;           /* the converter and the offsets */
    LONG Offset[CHANNELS];
} ADC, *PADC;
#define BRIDGE_LEN 0x54u
#define ADC_LEN    12u

/* One conversion takes 5 us. */
static NTSTATUS AdcConvert(PADC A, ULONG Channel, PLONG Value)
{
    ULONG v, state;
#ifdef FIXED
    ULONG n = 0;
#endif

    WRITE_REGISTER_ULONG((PULONG)&A->Adc[ADC_START], Channel | 0x80000000u);
    while (!((state = READ_REGISTER_ULONG(&A->Adc[ADC_STATE])) & STATE_DONE)) {
#ifdef FIXED
        if (++n > 50)
            return STATUS_IO_TIMEOUT;
#endif
        KeStallExecutionProcessor(1);
    }
    if (state == 0xFFFFFFFF)
        return STATUS_DEVICE_NOT_CONNECTED;
    v = READ_REGISTER_ULONG(&A->Adc[ADC_VALUE]);
    if (v == 0xFFFFFFFF)
        return STATUS_DEVICE_NOT_CONNECTED;
    *Value = (LONG)(v & 0xFFFF) - A->Offset[Channel];
    return STATUS_SUCCESS;
}

static NTSTATUS AdcHandle(PKIT K, PIRP Irp)
{
    PADC A = (PADC)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    KIRQL irql;
    ULONG i;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADC_SERIES: {
        ADC_SERIES rq;
        PLONG values = buf;
        if (in != sizeof(rq)) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        rq = *(ADC_SERIES *)buf;
        if (rq.Channel >= CHANNELS || rq.Count == 0 || rq.Count > SERIES) {
            st = STATUS_INVALID_PARAMETER;
            break;
        }
        if (out < rq.Count * sizeof(LONG)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        for (i = 0; i < rq.Count && NT_SUCCESS(st); i++) {
            KeAcquireSpinLock(&A->Lock, &irql);
            st = AdcConvert(A, rq.Channel, &values[i]);
            KeReleaseSpinLock(&A->Lock, irql);
        }
        if (NT_SUCCESS(st))
            info = rq.Count * sizeof(LONG);
        break;
    }
    case IOCTL_ADC_OFFSET: {
        struct { ULONG Channel; LONG Offset; } *o = buf;
        if (in != sizeof(*o)) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        if (o->Channel >= CHANNELS || o->Offset < -32768 || o->Offset > 32767) {
            st = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&A->Lock, &irql);
        A->Offset[o->Channel] = o->Offset;
        KeReleaseSpinLock(&A->Lock, irql);
        break;
    }
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitFinish(K, Irp, st, info);
    return st;
}
static VOID AdcPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(K);
    UNREFERENCED_PARAMETER(File);
    UNREFERENCED_PARAMETER(Status);
}

static VOID AdcSupply(PADC A, BOOLEAN On)
{
    ULONG v = READ_REGISTER_ULONG(&A->Bridge[CNTRL]);
    if (v == 0xFFFFFFFF)
        return;
    v |= CNTRL_USER1_OUT;
    v = On ? v | CNTRL_USER1_HIGH : v & ~CNTRL_USER1_HIGH;
    WRITE_REGISTER_ULONG((PULONG)&A->Bridge[CNTRL], v);
}
static VOID AdcUp(PKIT K)
{
    AdcSupply((PADC)K, TRUE);
}
static VOID AdcDown(PKIT K, BOOLEAN Present)
{
    if (Present)
        AdcSupply((PADC)K, FALSE);
}
static VOID AdcRelease(PKIT K)
{
    PADC A = (PADC)K;
    if (A->Adc) {
        MmUnmapIoSpace((PVOID)A->Adc, ADC_LEN);
        A->Adc = NULL;
    }
    if (A->Bridge) {
        MmUnmapIoSpace((PVOID)A->Bridge, BRIDGE_LEN);
        A->Bridge = NULL;
    }
}
static NTSTATUS AdcStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PADC A = (PADC)K;
    ULONG i;

    for (i = 0; i < Res->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &Res->PartialDescriptors[i];
        if (d->Type != CmResourceTypeMemory)
            continue;
        if (!A->Bridge) {
            if (d->u.Memory.Length < BRIDGE_LEN)
                return STATUS_DEVICE_CONFIGURATION_ERROR;
            A->Bridge = MmMapIoSpace(d->u.Memory.Start, BRIDGE_LEN, MmNonCached);
            if (!A->Bridge)
                return STATUS_INSUFFICIENT_RESOURCES;
        } else {
            if (d->u.Memory.Length < ADC_LEN)
                return STATUS_DEVICE_CONFIGURATION_ERROR;
            A->Adc = MmMapIoSpace(d->u.Memory.Start, ADC_LEN, MmNonCached);
            return A->Adc ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

static const KIT_OPS CardOps = { AdcStart, AdcUp, AdcDown, AdcRelease, AdcHandle, AdcPurge };

static NTSTATUS NTAPI AdcAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(ADC), &GUID_PLXADC, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    KeInitializeSpinLock(&((PADC)K)->Lock);
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, AdcAdd);
    return STATUS_SUCCESS;
}

/*
 * EDUFIFE: factorials by QEMU's edu card. IOCTL_FACTORIAL sends a number to the card and gives back what the card made of it; requests
 * wait in a queue, one is on the card at a time, and the card's interrupt ends it and brings the next one on. IOCTL_ALIVE checks the
 * card's liveness register.
 *
 * The bug: the DPC brings the next request onto the card before it reads the result of the one that ended; with requests waiting, the
 * result register already belongs to the next one.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: answer-of-another
 * Needs: device
 */
#include "../include/quay_edu.h"
#include "../include/quay_queue.h"

#define NUMBER_MOST 12              /* 13! does not fit into 32 bits */

#define IOCTL_FACTORIAL AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG, out: ULONG */
#define IOCTL_ALIVE     AI_CTL(1, METHOD_BUFFERED)      /* in: ULONG, out: ULONG */

static const GUID FifeGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x11 } };

typedef struct _FIFE {
    AI_CARD C;
    AI_ENGINE E;
} FIFE;

static NTSTATUS Begin(PAI_FDO f, PIRP irp)
{
    NTSTATUS s = AiEduCompute((PAI_CARD)f, *(PULONG)AiBuffer(irp));

    return NT_SUCCESS(s) ? STATUS_PENDING : s;
}

static VOID Collect(PAI_FDO f, PIRP irp)
{
    if (AiEduProduct((PAI_CARD)f, AiBuffer(irp))) {
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = sizeof(ULONG);
    } else {
        irp->IoStatus.Status = STATUS_DEVICE_NOT_CONNECTED;
        irp->IoStatus.Information = 0;
    }
}

static VOID NTAPI DoneDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    FIFE *x = context;
    PAI_FDO f = &x->C.F;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    if (!(AiCause(&x->C) & EDU_INT_FACT))
        return;
#ifdef FIXED
    irp = AiEngineTake(&x->E, Collect);
    AiEngineKick(&x->E);
#else
    irp = AiEngineTake(&x->E, NULL);
    AiEngineKick(&x->E);
    if (irp)
        Collect(f, irp);
#endif
    if (irp)
        AiFinish(f, irp, irp->IoStatus.Status, irp->IoStatus.Information);
}

static NTSTATUS Alive(FIFE *x, PULONG v)
{
    NTSTATUS s = STATUS_DEVICE_NOT_READY;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    if (x->C.Live) {
        AiWrite(&x->C, EDU_ALIVE, *v);
        s = AiRead(&x->C, EDU_ALIVE) == ~*v && AiRead(&x->C, EDU_ID) != EDU_GONE ? STATUS_SUCCESS : STATUS_DEVICE_NOT_CONNECTED;
    }
    KeReleaseInterruptSpinLock(x->C.Int, q);
    *v = ~*v;
    return s;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    FIFE *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_FACTORIAL:
    case IOCTL_ALIVE:
        if (AiInLen(irp) < sizeof(ULONG) || AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (AiCode(irp) == IOCTL_ALIVE) {
            s = Alive(x, AiBuffer(irp));
            return AiExit(f, irp, s, NT_SUCCESS(s) ? sizeof(ULONG) : 0);
        }
        if (*(PULONG)AiBuffer(irp) > NUMBER_MOST)
            return AiExit(f, irp, STATUS_INVALID_PARAMETER, 0);
        AiQueuePut(&x->E.Q, irp);
        AiEngineKick(&x->E);
        AiLeaveGate(f);
        return STATUS_PENDING;

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* what waits goes with the handle; what is on the card ends soon */
static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    FIFE *x = dev->DeviceExtension;

    AiQueueFlush(&x->E.Q, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    return AiEduStart((PAI_CARD)f, list, AiEduIsr);
}

static VOID CloseEngine(FIFE *x)
{
    PIRP irp = AiEngineClose(&x->E);

    if (irp)
        AiFinish(&x->C.F, irp, STATUS_DEVICE_NOT_READY, 0);
}

static VOID Halt(PAI_FDO f)
{
    FIFE *x = (FIFE *)f;

    CloseEngine(x);
    AiEduStop(&x->C);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((FIFE *)f)->E.Q, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID Resume(PAI_FDO f)
{
    AiEngineOpen(&((FIFE *)f)->E);
}

static VOID PowerDown(PAI_FDO f)
{
    FIFE *x = (FIFE *)f;

    CloseEngine(x);
    AiEduQuiet(&x->C);
}

static VOID PowerUp(PAI_FDO f)
{
    FIFE *x = (FIFE *)f;

    AiEduWake(&x->C);
    AiEngineOpen(&x->E);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .Resume = Resume, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    FIFE *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(FIFE), &Ops, &FifeGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, DoneDpc, x);
    AiEngineInit(&x->E, &x->C.F, Begin);
    AiReady(&x->C.F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}

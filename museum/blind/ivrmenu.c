/*
 * ivrmenu: the tree of an interactive voice response system ("press 1 for sales"): 32 nodes with a prompt and twelve
 * keys each, edited and walked by programs through METHOD_NEITHER requests.
 *
 * The bug: when the caller's structure faults while a node is being edited, the exception path returns without
 * releasing the menu's resource.
 *
 * Device: none
 * Rule: critical-region-unpaired
 * Needs: ioctl
 * Compiler: clang
 */
/* what mingw's headers need to go through clang */
#define __INTRIN_H_
#include <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(type, field) ((LONG)__builtin_offsetof(type, field))
#undef C_ASSERT
#define C_ASSERT(expr)
#include <ddk/wdm.h>

NTKERNELAPI VOID NTAPI KeEnterCriticalRegion(VOID);
NTKERNELAPI VOID NTAPI KeLeaveCriticalRegion(VOID);

#define IOCTL_IVR_EDIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_IVR_NODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_IVR_WALK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_READ_ACCESS)

#define NODES    32
#define KEYS     12
#define PROMPT   64
#define NO_NODE  0xFF

typedef struct IVR_NODE {
    UCHAR Prompt[PROMPT];
    UCHAR Target[KEYS];         /* NO_NODE: the key does nothing */
} IVR_NODE;

typedef struct IVR_EDIT {
    ULONG Node;
    ULONG Reserved;
    IVR_NODE Content;
} IVR_EDIT;

typedef struct IVR_WALK {
    ULONG From;
    ULONG Count;                /* of keys pressed */
    UCHAR Keys[16];
} IVR_WALK;

typedef struct IVR {
    ERESOURCE Lock;
    IVR_NODE Nodes[NODES];
} IVR;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\IvrMenu");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\IvrMenu");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS IvrEdit(IVR *ivr, PIRP irp, PVOID from, ULONG length)
{
    const IVR_EDIT *edit = from;
    IVR_NODE content;
    ULONG node, key;

    if (length < sizeof(*edit))
        return STATUS_INVALID_PARAMETER;
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&ivr->Lock, TRUE);
    __try {
        if (irp->RequestorMode != KernelMode)
            ProbeForRead(from, sizeof(*edit), 1);
        node = *(const volatile ULONG *)&edit->Node;
        RtlCopyMemory(&content, &edit->Content, sizeof(content));
    } __except (1) {
#ifdef FIXED
        ExReleaseResourceLite(&ivr->Lock);
        KeLeaveCriticalRegion();
#endif
        return STATUS_ACCESS_VIOLATION;
    }
    for (key = 0; key < KEYS; key++)
        if (content.Target[key] >= NODES && content.Target[key] != NO_NODE)
            break;
    if (node < NODES && key == KEYS)
        ivr->Nodes[node] = content;
    ExReleaseResourceLite(&ivr->Lock);
    KeLeaveCriticalRegion();
    return node < NODES && key == KEYS ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

/* Input: the node's number; output: the node. */
static NTSTATUS IvrNode(IVR *ivr, PIRP irp, PIO_STACK_LOCATION sp)
{
    PVOID from = sp->Parameters.DeviceIoControl.Type3InputBuffer;
    IVR_NODE content;
    ULONG node;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(IVR_NODE))
        return STATUS_BUFFER_TOO_SMALL;
    __try {
        if (irp->RequestorMode != KernelMode)
            ProbeForRead(from, sizeof(ULONG), 1);
        node = *(const volatile ULONG *)from;
    } __except (1) {
        return STATUS_ACCESS_VIOLATION;
    }
    if (node >= NODES)
        return STATUS_INVALID_PARAMETER;
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&ivr->Lock, TRUE);
    content = ivr->Nodes[node];
    ExReleaseResourceLite(&ivr->Lock);
    KeLeaveCriticalRegion();
    __try {
        if (irp->RequestorMode != KernelMode)
            ProbeForWrite(irp->UserBuffer, sizeof(content), 1);
        RtlCopyMemory(irp->UserBuffer, &content, sizeof(content));
    } __except (1) {
        return STATUS_ACCESS_VIOLATION;
    }
    irp->IoStatus.Information = sizeof(content);
    return STATUS_SUCCESS;
}

/* Input: where to start and the keys pressed; output: where one arrives. */
static NTSTATUS IvrWalk(IVR *ivr, PIRP irp, PIO_STACK_LOCATION sp)
{
    IVR_WALK walk;
    ULONG node, i;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(walk))
        return STATUS_INVALID_PARAMETER;
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    walk = *(IVR_WALK *)irp->AssociatedIrp.SystemBuffer;
    if (walk.From >= NODES || walk.Count > sizeof(walk.Keys))
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < walk.Count; i++)
        if (walk.Keys[i] >= KEYS)
            return STATUS_INVALID_PARAMETER;
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&ivr->Lock, TRUE);
    for (i = 0, node = walk.From; i < walk.Count; i++) {
        UCHAR next = ivr->Nodes[node].Target[walk.Keys[i]];
        if (next != NO_NODE)
            node = next;
    }
    ExReleaseResourceLite(&ivr->Lock);
    KeLeaveCriticalRegion();
    *(ULONG *)irp->AssociatedIrp.SystemBuffer = node;
    irp->IoStatus.Information = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI IvrControl(PDEVICE_OBJECT dev, PIRP irp)
{
    IVR *ivr = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status;

    irp->IoStatus.Information = 0;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IVR_EDIT:
        status = IvrEdit(ivr, irp, sp->Parameters.DeviceIoControl.Type3InputBuffer,
            sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_IVR_NODE:
        status = IvrNode(ivr, irp, sp);
        break;
    case IOCTL_IVR_WALK:
        status = IvrWalk(ivr, irp, sp);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(irp, status, irp->IoStatus.Information);
}

static NTSTATUS NTAPI IvrCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI IvrUnload(PDRIVER_OBJECT drv)
{
    IVR *ivr = drv->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
    ExDeleteResourceLite(&ivr->Lock);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    IVR *ivr;
    ULONG i, k;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(drv, sizeof(IVR), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    ivr = dev->DeviceExtension;
    RtlZeroMemory(ivr, sizeof(*ivr));
    for (i = 0; i < NODES; i++)
        for (k = 0; k < KEYS; k++)
            ivr->Nodes[i].Target[k] = NO_NODE;
    status = ExInitializeResourceLite(&ivr->Lock);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    drv->MajorFunction[IRP_MJ_CREATE] = IvrCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = IvrCreateClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = IvrControl;
    drv->DriverUnload = IvrUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        ExDeleteResourceLite(&ivr->Lock);
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

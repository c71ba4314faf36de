/*
 * A tree of settings: the input is a list of nodes, each with the indices of its two children.
 *
 * The bug: the depth is counted by recursion, and nothing looks whether a node is its own descendant. It shows with a node that names itself.
 *
 * Device: none
 * Rule: stack-overflow, endless-loop
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Tree"
#define LINK_NAME L"\\DosDevices\\Tree"
#include "../include/legacy.h"

#define IOCTL_TREE_DEPTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC38, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define DEEPEST 16

typedef struct _NODE {
    USHORT Left; /* 0: none */
    USHORT Right;
} NODE, *PNODE;

static ULONG Depth(const NODE *Nodes, ULONG Count, ULONG Index, ULONG Level)
{
    volatile ULONG Deeper[2] = {0, 0};

#ifdef FIXED
    if (Level > DEEPEST) {
        return Level;
    }
#endif
    if (Nodes[Index].Left != 0 && Nodes[Index].Left < Count) {
        Deeper[0] = Depth(Nodes, Count, Nodes[Index].Left, Level + 1);
    }
    if (Nodes[Index].Right != 0 && Nodes[Index].Right < Count) {
        Deeper[1] = Depth(Nodes, Count, Nodes[Index].Right, Level + 1);
    }
    return 1 + max(Deeper[0], Deeper[1]);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_TREE_DEPTH) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(NODE) || InputOf(Stack) > 64 * sizeof(NODE) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *(PULONG)Buffer = Depth(Buffer, InputOf(Stack) / sizeof(NODE), 0, 0);
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}

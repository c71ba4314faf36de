/* Stories of wmi_raw.sys about events and names. */
#ifndef WMI_LISTENS_H
#define WMI_LISTENS_H

#include "asks.h"

static KEVENT Arrived;
static ULONG HeardBytes, HeardValue, HeardIrql, HeardContext;
static GUID HeardGuid;

static VOID NTAPI OnEvent(PVOID Wnode, PVOID Context)
{
    PWNODE_SINGLE_INSTANCE Node = Wnode;

    HeardIrql = KeGetCurrentIrql();
    HeardContext = *(PULONG)Context;
    HeardGuid = Node->WnodeHeader.Guid;
    HeardBytes = Node->SizeDataBlock;
    HeardValue = *(PULONG)((PUCHAR)Node + Node->DataBlockOffset);
    KeSetEvent(&Arrived, IO_NO_INCREMENT, FALSE);
}

/* An event of one instance with a ULONG. */
static PWNODE_SINGLE_INSTANCE NewEvent(ULONG Value)
{
    PWNODE_SINGLE_INSTANCE Node = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Node) + sizeof(Value), TAG);

    if (Node == NULL) {
        return NULL;
    }
    RtlZeroMemory(Node, sizeof(*Node));
    Node->WnodeHeader.BufferSize = sizeof(*Node) + sizeof(Value);
    Node->WnodeHeader.ProviderId = IoWMIDeviceObjectToProviderId(Lower);
    Node->WnodeHeader.Guid = Ports;
    Node->WnodeHeader.Flags = WNODE_FLAG_SINGLE_INSTANCE | WNODE_FLAG_EVENT_ITEM | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    KeQuerySystemTime(&Node->WnodeHeader.TimeStamp);
    Node->InstanceIndex = 1;
    Node->DataBlockOffset = sizeof(*Node);
    Node->SizeDataBlock = sizeof(Value);
    *(PULONG)(Node + 1) = Value;
    return Node;
}

static ULONG Events(VOID)
{
    static ULONG Context = 0xC0FFEE;
    PWNODE_SINGLE_INSTANCE Node;
    PVOID Object, Other;

    Registered();
    KeInitializeEvent(&Arrived, SynchronizationEvent, FALSE);
    Object = Open(&Ports, WMIGUID_QUERY);
    CHECK(IoWMISetNotificationCallback(Object, OnEvent, &Context) == STATUS_ACCESS_DENIED);
    ObDereferenceObject(Object);
    CHECK(!EventsOn);
    Object = Open(&Ports, WMIGUID_NOTIFICATION | SYNCHRONIZE);
    Other = Open(&Ports, WMIGUID_NOTIFICATION | SYNCHRONIZE);
    CHECK(IoWMISetNotificationCallback(Object, OnEvent, &Context) == STATUS_SUCCESS);
    CHECK(EventsOn && Switches == 1);
    CHECK(IoWMISetNotificationCallback(Other, OnEvent, &Context) == STATUS_SUCCESS && Switches == 1);
    ObDereferenceObject(Other);
    CHECK(EventsOn && Switches == 1);
    Node = NewEvent(0x1234);
    CHECK(IoWMIWriteEvent(Node) == STATUS_SUCCESS); /* it is the system's now */
    WaitFor(&Arrived);
    CHECK(HeardIrql == PASSIVE_LEVEL && HeardContext == 0xC0FFEE && IsEqualGUID(&HeardGuid, &Ports));
    CHECK(HeardBytes == sizeof(ULONG) && HeardValue == 0x1234);
    /* What the system does not take stays the driver's. */
    Node = NewEvent(1);
    Node->WnodeHeader.BufferSize = 0x20000;
    CHECK(IoWMIWriteEvent(Node) == STATUS_BUFFER_OVERFLOW);
    Node->WnodeHeader.BufferSize = 4;
    CHECK(IoWMIWriteEvent(Node) == STATUS_INVALID_PARAMETER);
    Node->WnodeHeader.Flags |= WNODE_FLAG_TRACED_GUID;
    CHECK(IoWMIWriteEvent(Node) == STATUS_INVALID_HANDLE);
    ExFreePoolWithTag(Node, TAG);
    ObDereferenceObject(Object);
    CHECK(!EventsOn && Switches == 2);
    return 0;
}

/* One that is too large to be sent: the system asks for it. */
static ULONG LargeEvent(VOID)
{
    static ULONG Context = 1;
    PWNODE_EVENT_REFERENCE Node = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Node), TAG);
    PVOID Object;

    Registered();
    KeInitializeEvent(&Arrived, SynchronizationEvent, FALSE);
    Object = Open(&Ports, WMIGUID_NOTIFICATION | SYNCHRONIZE);
    CHECK(Node != NULL && IoWMISetNotificationCallback(Object, OnEvent, &Context) == STATUS_SUCCESS);
    RtlZeroMemory(Node, sizeof(*Node));
    Node->WnodeHeader.BufferSize = sizeof(*Node);
    Node->WnodeHeader.ProviderId = IoWMIDeviceObjectToProviderId(Lower);
    Node->WnodeHeader.Guid = Ports;
    Node->WnodeHeader.Flags = WNODE_FLAG_EVENT_REFERENCE | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    Node->TargetGuid = Ports;
    Node->TargetDataBlockSize = LARGE;
    Node->TargetInstanceIndex = 1;
    CHECK(IoWMIWriteEvent(Node) == STATUS_SUCCESS);
    WaitFor(&Arrived);
    CHECK(HeardBytes == LARGE && HeardValue == 0x77777777);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG Named(UNICODE_STRING *Name, PCWSTR Expected)
{
    UNICODE_STRING String;

    RtlInitUnicodeString(&String, Expected);
    CHECK(RtlEqualUnicodeString(Name, &String, FALSE));
    RtlFreeUnicodeString(Name);
    return 0;
}

static ULONG Names(VOID)
{
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\??\\Somewhere"), Path = RTL_CONSTANT_STRING(L"\\Device\\DirqlWmiRaw"), Name;
    PVOID Block = Open(&Colours, WMIGUID_QUERY), Other = Open(&Above, WMIGUID_QUERY), Unnamed = Open(&Tasks, WMIGUID_QUERY);
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Io;
    ULONG First = 99, Second = 99;
    HANDLE File;

    Registered();
    CHECK(IoWMIAllocateInstanceIds((GUID *)&Ports, 6, &First) == STATUS_SUCCESS);
    CHECK(IoWMIAllocateInstanceIds((GUID *)&Ports, 1, &Second) == STATUS_SUCCESS && Second == First + 6);
    CHECK(IoWMIAllocateInstanceIds((GUID *)&Tasks, 1, &Second) == STATUS_SUCCESS && Second == First);
    CHECK(IoWMIDeviceObjectToProviderId(Lower) != 0);
    CHECK(IoWMIDeviceObjectToProviderId(Lower) != IoWMIDeviceObjectToProviderId(Upper));
    CHECK(IoWMISuggestInstanceName(NULL, &Link, FALSE, &Name) == STATUS_SUCCESS);
    CHECK_ALL(Named(&Name, L"Somewhere"));
    CHECK(IoWMISuggestInstanceName(NULL, &Link, TRUE, &Name) == STATUS_INVALID_PARAMETER);
    CHECK(IoWMIDeviceObjectToInstanceName(Block, Lower, &Name) == STATUS_SUCCESS);
    CHECK_ALL(Named(&Name, L"Red"));
    CHECK(IoWMIDeviceObjectToInstanceName(Other, Upper, &Name) == STATUS_SUCCESS);
    CHECK_ALL(Named(&Name, L"Above0"));
    CHECK(IoWMIDeviceObjectToInstanceName(Unnamed, Lower, &Name) == STATUS_WMI_INSTANCE_NOT_FOUND);
    InitializeObjectAttributes(&Attributes, &Path, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwOpenFile(&File, GENERIC_READ | SYNCHRONIZE, &Attributes, &Io, 3, FILE_SYNCHRONOUS_IO_NONALERT) == STATUS_SUCCESS);
    CHECK(IoWMIHandleToInstanceName(Other, File, &Name) == STATUS_SUCCESS);
    CHECK_ALL(Named(&Name, L"Above0"));
    CHECK(IoWMIHandleToInstanceName(Unnamed, File, &Name) == STATUS_WMI_INSTANCE_NOT_FOUND);
    ZwClose(File);
    ObDereferenceObject(Block);
    ObDereferenceObject(Other);
    ObDereferenceObject(Unnamed);
    return 0;
}

#endif

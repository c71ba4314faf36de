/* The consumer of wmi_raw.sys: stories of blocks that are asked by drivers. */
#ifndef WMI_ASKS_H
#define WMI_ASKS_H

#include "raw.h"

#define MARK 0x5F5F5F5Fu /* behind a buffer */

static VOID Registered(VOID)
{
    Delay(1); /* the system asks for registrations on a thread of its own */
}

static PVOID Open(const GUID *Guid, ULONG Access)
{
    PVOID Object = NULL;

    return NT_SUCCESS(IoWMIOpenBlock((GUID *)Guid, Access, &Object)) ? Object : NULL;
}

static BOOLEAN IsText(PUCHAR Node, ULONG At, PCWSTR String)
{
    USHORT Length = (USHORT)(wcslen(String) * sizeof(WCHAR));

    return *(PUSHORT)(Node + At) == Length && RtlCompareMemory(Node + At + sizeof(USHORT), String, Length) == Length;
}

/* All data of a block in new pool; NULL if they cannot be had. */
static PWNODE_ALL_DATA All(PVOID Object, ULONG *Size)
{
    PVOID Buffer;

    *Size = 0;
    if (IoWMIQueryAllData(Object, Size, NULL) != STATUS_BUFFER_TOO_SMALL) {
        return NULL;
    }
    Buffer = ExAllocatePoolWithTag(NonPagedPool, *Size, TAG);
    if (Buffer != NULL && !NT_SUCCESS(IoWMIQueryAllData(Object, Size, Buffer))) {
        ExFreePoolWithTag(Buffer, TAG);
        Buffer = NULL;
    }
    return Buffer;
}

static ULONG DynamicInstances(VOID)
{
    PVOID Object = Open(&Tasks, WMIGUID_QUERY);
    PWNODE_ALL_DATA Node;
    PUCHAR Bytes;
    ULONG Size, *Names;

    CHECK(Object != NULL);
    Node = All(Object, &Size);
    CHECK(Node != NULL);
    Bytes = (PUCHAR)Node;
    Names = (PULONG)(Bytes + Node->OffsetInstanceNameOffsets);
    CHECK(Node->WnodeHeader.Linkage == 0 && IsEqualGUID(&Node->WnodeHeader.Guid, &Tasks));
    CHECK(Node->InstanceCount == 2 && Node->FixedInstanceSize == 6 && Node->DataBlockOffset % 8 == 0);
    CHECK(IsText(Bytes, Names[0], L"Alpha") && IsText(Bytes, Names[1], L"Beta"));
    CHECK(*(PULONG)(Bytes + Node->DataBlockOffset + 8) == 101);
    ExFreePoolWithTag(Node, TAG);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG StaticInstances(VOID)
{
    PVOID Object = Open(&Colours, WMIGUID_QUERY);
    PWNODE_ALL_DATA Node;
    PUCHAR Bytes;
    ULONG Size, Index, *Names;

    CHECK(Object != NULL);
    Node = All(Object, &Size);
    CHECK(Node != NULL && Node->InstanceCount == 3);
    Bytes = (PUCHAR)Node;
    Names = (PULONG)(Bytes + Node->OffsetInstanceNameOffsets);
    for (Index = 0; Index < 3; Index++) {
        CHECK(IsText(Bytes, Names[Index], ColourNames[Index]));
        CHECK(Node->OffsetInstanceDataAndLength[Index].LengthInstanceData == sizeof(ULONG));
        CHECK(*(PULONG)(Bytes + Node->OffsetInstanceDataAndLength[Index].OffsetInstanceData) == Values[Index]);
    }
    ExFreePoolWithTag(Node, TAG);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG AllInstances(VOID)
{
    static const GUID Unknown = WMI_BLOCK(0x99);
    PVOID Object;
    PWNODE_ALL_DATA Node;
    ULONG Size = 0;

    Registered();
    CHECK_ALL(DynamicInstances());
    CHECK_ALL(StaticInstances());
    Object = Open(&Above, WMIGUID_QUERY);
    Node = All(Object, &Size);
    CHECK(Node != NULL && Node->InstanceCount == 1);
    CHECK(*(PULONGLONG)((PUCHAR)Node + Node->OffsetInstanceDataAndLength[0].OffsetInstanceData) == 0x1122334455667788);
    ExFreePoolWithTag(Node, TAG);
    ObDereferenceObject(Object);
    Object = Open(&Colours, WMIGUID_SET);
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_ACCESS_DENIED);
    ObDereferenceObject(Object);
    Object = Open(&Unknown, WMIGUID_QUERY);
    CHECK(Object != NULL && IoWMIQueryAllData(Object, &Size, NULL) == STATUS_WMI_GUID_NOT_FOUND);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG OneInstance(VOID)
{
    static union {
        WNODE_SINGLE_INSTANCE Node;
        UCHAR Bytes[0x100];
        ULONG Words[0x40];
    } Buffer;
    UNICODE_STRING Green = RTL_CONSTANT_STRING(L"Green"), Beta = RTL_CONSTANT_STRING(L"Beta"), None = RTL_CONSTANT_STRING(L"None");
    PVOID Object = Open(&Colours, WMIGUID_QUERY | WMIGUID_SET), Other = Open(&Tasks, WMIGUID_QUERY | WMIGUID_SET);
    ULONG Size = 0, Value = 0x123456;

    Registered();
    CHECK(Object != NULL && Other != NULL);
    CHECK(IoWMIQuerySingleInstance(Object, &Green, &Size, NULL) == STATUS_BUFFER_TOO_SMALL && Size < sizeof(Buffer));
    Buffer.Words[Size / 4 + 1] = MARK;
    CHECK(IoWMIQuerySingleInstance(Object, &Green, &Size, &Buffer) == STATUS_SUCCESS);
    CHECK(Buffer.Words[Size / 4 + 1] == MARK && Buffer.Node.WnodeHeader.BufferSize == Size);
    CHECK(Buffer.Node.InstanceIndex == 1 && IsText(Buffer.Bytes, Buffer.Node.OffsetInstanceName, L"Green"));
    CHECK(Buffer.Node.SizeDataBlock == 4 && *(PULONG)(Buffer.Bytes + Buffer.Node.DataBlockOffset) == 0x00FF00);
    Size = sizeof(Buffer);
    CHECK(IoWMIQuerySingleInstance(Other, &Beta, &Size, &Buffer) == STATUS_SUCCESS);
    CHECK(Buffer.Node.SizeDataBlock == 6 && *(PULONG)(Buffer.Bytes + Buffer.Node.DataBlockOffset) == 101);
    Size = sizeof(Buffer);
    CHECK(IoWMIQuerySingleInstance(Other, &None, &Size, &Buffer) == STATUS_WMI_INSTANCE_NOT_FOUND);
    CHECK(IoWMIQuerySingleInstance(Object, &None, &Size, &Buffer) == STATUS_WMI_INSTANCE_NOT_FOUND);

    CHECK(IoWMISetSingleInstance(Object, &Green, 0, sizeof(Value), &Value) == STATUS_SUCCESS && Values[1] == 0x123456);
    CHECK(IoWMISetSingleInstance(Object, &Green, 0, 2, &Value) == STATUS_WMI_SET_FAILURE);
    CHECK(IoWMISetSingleInstance(Other, &Beta, 0, sizeof(Value), &Value) == STATUS_WMI_READ_ONLY);
    Value = 7;
    CHECK(IoWMISetSingleItem(Object, &Green, 1, 0, sizeof(Value), &Value) == STATUS_SUCCESS && Values[1] == 7);
    CHECK(IoWMISetSingleItem(Object, &Green, 2, 0, sizeof(Value), &Value) == STATUS_WMI_ITEMID_NOT_FOUND);
    CHECK(IoWMISetSingleItem(Object, &None, 1, 0, sizeof(Value), &Value) == STATUS_WMI_INSTANCE_NOT_FOUND);
    ObDereferenceObject(Object);
    ObDereferenceObject(Other);
    return 0;
}

static ULONG Methods(VOID)
{
    UNICODE_STRING Blue = RTL_CONSTANT_STRING(L"Blue"), None = RTL_CONSTANT_STRING(L"None");
    PVOID Object = Open(&Colours, WMIGUID_EXECUTE), Asks = Open(&Colours, WMIGUID_QUERY);
    ULONG Buffer[2] = {21, MARK}, Size = sizeof(ULONG);

    Registered();
    CHECK(IoWMIExecuteMethod(Object, &Blue, 1, sizeof(ULONG), &Size, (PUCHAR)Buffer) == STATUS_SUCCESS);
    CHECK(Size == sizeof(ULONG) && Buffer[0] == 42 && Buffer[1] == MARK);
    CHECK(IoWMIExecuteMethod(Object, &Blue, 2, sizeof(ULONG), &Size, (PUCHAR)Buffer) == STATUS_WMI_ITEMID_NOT_FOUND);
    CHECK(IoWMIExecuteMethod(Object, &None, 1, sizeof(ULONG), &Size, (PUCHAR)Buffer) == STATUS_WMI_INSTANCE_NOT_FOUND);
    CHECK(IoWMIExecuteMethod(Asks, &Blue, 1, sizeof(ULONG), &Size, (PUCHAR)Buffer) == STATUS_ACCESS_DENIED);
    Size = 2;
    CHECK(IoWMIExecuteMethod(Object, &Blue, 1, sizeof(ULONG), &Size, (PUCHAR)Buffer) == STATUS_BUFFER_TOO_SMALL && Size == sizeof(ULONG));
    ObDereferenceObject(Object);
    ObDereferenceObject(Asks);
    return 0;
}

static ULONG Several(VOID)
{
    UNICODE_STRING Which[2] = {RTL_CONSTANT_STRING(L"Red"), RTL_CONSTANT_STRING(L"Alpha")};
    PVOID Objects[2] = {Open(&Colours, WMIGUID_QUERY), Open(&Tasks, WMIGUID_QUERY)};
    PWNODE_SINGLE_INSTANCE Node;
    PWNODE_ALL_DATA First, Second;
    ULONG Size = 0;

    Registered();
    CHECK(IoWMIQueryAllDataMultiple(Objects, 2, &Size, NULL) == STATUS_BUFFER_TOO_SMALL);
    First = ExAllocatePoolWithTag(NonPagedPool, Size, TAG);
    CHECK(First != NULL && IoWMIQueryAllDataMultiple(Objects, 2, &Size, First) == STATUS_SUCCESS);
    CHECK(First->WnodeHeader.Linkage != 0 && First->WnodeHeader.Linkage % 8 == 0);
    Second = (PWNODE_ALL_DATA)((PUCHAR)First + First->WnodeHeader.Linkage);
    CHECK(IsEqualGUID(&First->WnodeHeader.Guid, &Colours) && IsEqualGUID(&Second->WnodeHeader.Guid, &Tasks));
    CHECK(Second->WnodeHeader.Linkage == 0 && Second->InstanceCount == 2);
    ExFreePoolWithTag(First, TAG);
    Size = 0;
    CHECK(IoWMIQuerySingleInstanceMultiple(Objects, Which, 2, &Size, NULL) == STATUS_BUFFER_TOO_SMALL);
    Node = ExAllocatePoolWithTag(NonPagedPool, Size, TAG);
    CHECK(Node != NULL && IoWMIQuerySingleInstanceMultiple(Objects, Which, 2, &Size, Node) == STATUS_SUCCESS);
    CHECK(Node->SizeDataBlock == 4);
    CHECK(((PWNODE_SINGLE_INSTANCE)((PUCHAR)Node + Node->WnodeHeader.Linkage))->SizeDataBlock == 6);
    ExFreePoolWithTag(Node, TAG);
    ObDereferenceObject(Objects[0]);
    ObDereferenceObject(Objects[1]);
    return 0;
}

/* A block is taken away by an update and comes back with a new registration. */
static ULONG Updates(VOID)
{
    PVOID Object = Open(&Colours, WMIGUID_QUERY);
    ULONG Size = 0;

    Registered();
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_BUFFER_TOO_SMALL);
    NoColours = TRUE;
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_UPDATE_GUIDS) == STATUS_SUCCESS);
    Registered();
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_WMI_GUID_NOT_FOUND);
    NoColours = FALSE;
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_UPDATE_GUIDS) == STATUS_SUCCESS);
    Registered();
    Size = 0;
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_BUFFER_TOO_SMALL);
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_REREGISTER) == STATUS_SUCCESS);
    Registered();
    Size = 0;
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_BUFFER_TOO_SMALL);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG Registrations(VOID)
{
    static ULONG_PTR Record[8];
    PVOID Object = Open(&Tasks, WMIGUID_QUERY);
    ULONG Size = 0;

    Registered();
    CHECK(IoWMIRegistrationControl(Lower, 0) == STATUS_INVALID_PARAMETER);
    CHECK(IoWMIRegistrationControl(Lower, 6) == STATUS_INVALID_PARAMETER);
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_REGISTER) == STATUS_OBJECT_NAME_EXISTS);
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_BLOCK_IRPS) == STATUS_SUCCESS);
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_WMI_GUID_NOT_FOUND);
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_DEREGISTER) == STATUS_SUCCESS);
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_UPDATE_GUIDS) == STATUS_INVALID_PARAMETER);
    CHECK(IoWMIRegistrationControl(Lower, WMIREG_ACTION_REGISTER) == STATUS_SUCCESS);
    Registered();
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_BUFFER_TOO_SMALL);
    ObDereferenceObject(Object);
    /* A callback in the place of a device, as trace providers register one. */
    CHECK(IoWMIRegistrationControl((PDEVICE_OBJECT)Record, WMIREG_ACTION_REGISTER | 0x80000000) == STATUS_SUCCESS);
    CHECK(IoWMIRegistrationControl((PDEVICE_OBJECT)Record, WMIREG_ACTION_REGISTER | 0x80000000) == STATUS_OBJECT_NAME_EXISTS);
    CHECK(IoWMIRegistrationControl((PDEVICE_OBJECT)Record, WMIREG_ACTION_DEREGISTER | 0x80000000) == STATUS_SUCCESS);
    CHECK(IoWMIRegistrationControl((PDEVICE_OBJECT)Record, WMIREG_ACTION_DEREGISTER | 0x80000000) == STATUS_INVALID_PARAMETER);
    return 0;
}

/* Consumers may be at APC_LEVEL: the provider is asked at PASSIVE_LEVEL all the same. */
static ULONG Levels(VOID)
{
    PVOID Object;
    ULONG Size = 0;
    NTSTATUS Status;
    KIRQL Old;

    Registered();
    KeRaiseIrql(APC_LEVEL, &Old);
    Object = Open(&Tasks, WMIGUID_QUERY);
    Status = IoWMIQueryAllData(Object, &Size, NULL);
    KeLowerIrql(Old);
    CHECK(Status == STATUS_BUFFER_TOO_SMALL);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG DeregistersInRequest(VOID)
{
    PVOID Object = Open(&Tasks, WMIGUID_QUERY);
    ULONG Size = 0;

    Registered();
    Deregisters = TRUE;
    CHECK(IoWMIQueryAllData(Object, &Size, NULL) == STATUS_BUFFER_TOO_SMALL); /* which does not return */
    return 0;
}

static ULONG WrongObject(VOID)
{
    PVOID Object = Open(&Tasks, WMIGUID_QUERY);
    ULONG Size = 0;

    ObDereferenceObject(Object);
    IoWMIQueryAllData(Object, &Size, NULL);
    return 0;
}

#endif

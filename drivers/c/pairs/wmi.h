/* Pairs of WMI: a device that is registered, another attached above it, and what is asked of both. */
#ifndef PAIRS_WMI_H
#define PAIRS_WMI_H

#include "devices.h"
#include <wmistr.h>

#ifndef WMIGUID_QUERY /* which wmistr.h has for applications' headers only */
#define WMIGUID_QUERY 0x0001
#endif

/* As providers answer for this block; what they do wrong is set before. */
static const GUID WmiBlock = {0xD1B0C0DE, 0x0000, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, 0x50}};
static PDEVICE_OBJECT WmiLower; /* the provider */
static PDEVICE_OBJECT WmiUpper; /* above it, if it is there */
static BOOLEAN WmiSwallows;     /* the upper one completes what is the lower one's */
static BOOLEAN WmiLeaves;       /* it deregisters in a request */
static BOOLEAN WmiUnbounded;    /* its instance ends beyond the block */

static NTSTATUS WmiRegInfo(PIRP Irp, PUCHAR Buffer)
{
    PWMIREGINFOW Info = (PWMIREGINFOW)Buffer;
    ULONG At = sizeof(*Info) + sizeof(WMIREGGUIDW);

    RtlZeroMemory(Buffer, At + 4);
    Info->BufferSize = At + 4;
    Info->GuidCount = 1;
    Info->WmiRegGuid[0].Guid = WmiBlock;
    Info->WmiRegGuid[0].Flags = WMIREG_FLAG_INSTANCE_BASENAME;
    Info->WmiRegGuid[0].InstanceCount = 1;
    Info->WmiRegGuid[0].BaseNameOffset = At;
    *(PUSHORT)(Buffer + At) = sizeof(WCHAR);
    *(PWCHAR)(Buffer + At + 2) = L'A';
    return Complete(Irp, STATUS_SUCCESS, At + 4);
}

static NTSTATUS WmiAll(PIRP Irp, PUCHAR Buffer)
{
    PWNODE_ALL_DATA Node = (PWNODE_ALL_DATA)Buffer;

    Node->WnodeHeader.BufferSize = sizeof(*Node) + 8;
    Node->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    Node->InstanceCount = 1;
    Node->FixedInstanceSize = WmiUnbounded ? 0x2000 : 8;
    Node->DataBlockOffset = sizeof(*Node);
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Node) + 8);
}

static NTSTATUS NTAPI WmiDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR Minor = Stack->MinorFunction;

    if (Device == WmiUpper && !WmiSwallows) {
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(WmiLower, Irp);
    }
    if (Device == WmiUpper || (PDEVICE_OBJECT)Stack->Parameters.WMI.ProviderId != Device) {
        return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
    }
    if (Minor == IRP_MN_REGINFO_EX) {
        return WmiRegInfo(Irp, Stack->Parameters.WMI.Buffer);
    }
    if (Minor == IRP_MN_QUERY_ALL_DATA) {
        if (WmiLeaves) {
            IoWMIRegistrationControl(Device, WMIREG_ACTION_DEREGISTER);
        }
        return WmiAll(Irp, Stack->Parameters.WMI.Buffer);
    }
    return Complete(Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
}

/* A provider whose registration the system has taken. */
static VOID WmiBegin(VOID)
{
    TheDriver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = WmiDispatch;
    WmiLower = NewDevice();
    IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_REGISTER);
    Delay(1);
}

static VOID WmiEnd(VOID)
{
    IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_DEREGISTER);
    IoDeleteDevice(WmiLower);
}

/* Asks for all instances. */
static VOID WmiAsk(VOID)
{
    ULONG Size = 0;
    PVOID Object;

    if (NT_SUCCESS(IoWMIOpenBlock((GUID *)&WmiBlock, WMIGUID_QUERY, &Object))) {
        IoWMIQueryAllData(Object, &Size, NULL);
        ObDereferenceObject(Object);
    }
}

static VOID WmiBadBlock(BOOLEAN Wrong)
{
    WmiUnbounded = Wrong;
    WmiBegin();
    WmiAsk();
    WmiEnd();
}

static VOID WmiBlockLeak(BOOLEAN Wrong)
{
    PVOID Object = NULL;

    IoWMIOpenBlock((GUID *)&WmiBlock, WMIGUID_QUERY, &Object);
    if (!Wrong) {
        ObDereferenceObject(Object);
    }
}

static VOID NotAWmiBlock(BOOLEAN Wrong)
{
    ULONG Size = 0;
    PVOID Object = NULL;

    IoWMIOpenBlock((GUID *)&WmiBlock, WMIGUID_QUERY, &Object);
    IoWMIQueryAllData(Wrong ? (PVOID)TheDevice : Object, &Size, NULL);
    ObDereferenceObject(Object);
}

static VOID WmiDeregisteredInRequest(BOOLEAN Wrong)
{
    WmiLeaves = Wrong;
    WmiBegin();
    WmiAsk();
    WmiEnd();
}

static VOID WmiDeregisteredTwice(BOOLEAN Wrong)
{
    WmiBegin();
    if (Wrong) {
        IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_DEREGISTER);
    }
    WmiEnd();
}

/* The device above is the provider here, and what it passes down is completed below. */
static VOID WmiRegistrationPassedDown(BOOLEAN Wrong)
{
    TheDriver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = WmiDispatch;
    WmiLower = NewDevice();
    WmiUpper = NewDevice();
    IoAttachDeviceToDeviceStack(WmiUpper, WmiLower);
    IoWMIRegistrationControl(Wrong ? WmiUpper : WmiLower, WMIREG_ACTION_REGISTER);
    Delay(1);
    IoWMIRegistrationControl(Wrong ? WmiUpper : WmiLower, WMIREG_ACTION_DEREGISTER);
    IoDetachDevice(WmiLower);
    IoDeleteDevice(WmiUpper);
    IoDeleteDevice(WmiLower);
}

static VOID WmiRequestNotForwarded(BOOLEAN Wrong)
{
    WmiBegin();
    WmiUpper = NewDevice();
    IoAttachDeviceToDeviceStack(WmiUpper, WmiLower);
    WmiSwallows = Wrong;
    WmiAsk();
    IoDetachDevice(WmiLower);
    IoDeleteDevice(WmiUpper);
    WmiEnd();
}

static VOID WmiStillRegistered(BOOLEAN Wrong)
{
    WmiBegin();
    if (!Wrong) {
        IoWMIRegistrationControl(WmiLower, WMIREG_ACTION_DEREGISTER);
    }
    IoDeleteDevice(WmiLower);
}

#define WMI_PAIRS                                                                                                      \
    PAIR("not-a-wmi-block", NotAWmiBlock)                                                                              \
    PAIR("wmi-bad-block", WmiBadBlock)                                                                                 \
    PAIR("wmi-block-leak", WmiBlockLeak)                                                                               \
    PAIR("wmi-deregistered-in-request", WmiDeregisteredInRequest)                                                      \
    PAIR("wmi-deregistered-twice", WmiDeregisteredTwice)                                                               \
    PAIR("wmi-registration-passed-down", WmiRegistrationPassedDown)                                                    \
    PAIR("wmi-request-not-forwarded", WmiRequestNotForwarded)                                                          \
    PAIR("wmi-still-registered", WmiStillRegistered)                                                                   \

#endif

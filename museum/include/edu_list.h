/*
 * A driver that has QEMU's educational device read an application's own pages: IOCTL_EDU_GATHER moves the first piece of its "output" buffer, which is
 * the input by METHOD_IN_DIRECT, into the card's buffer. The driver has ListDone, which is called when the card is done with the list.
 */
#ifndef EDU_LIST_H
#define EDU_LIST_H

#include "edu_dma.h"

#define IOCTL_EDU_GATHER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_IN_DIRECT, FILE_ANY_ACCESS)

static VOID ListDone(PFDO Fdo, PSCATTER_GATHER_LIST Done);

static VOID NTAPI ListReady(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST Ready, PVOID Context)
{
    PDMA Dma = Context;
    PFDO Fdo = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    Dma->List = Ready;
    DmaBegin(Fdo, (ULONG64)Ready->Elements[0].Address.QuadPart, min(Ready->Elements[0].Length, MOST_BYTES));
#ifdef LIST_PUT_EARLY
    Dma->List = NULL;
    ListDone(Fdo, Ready);
#endif
}

static VOID ListEnd(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;
    PSCATTER_GATHER_LIST Done = InterlockedExchangePointer((PVOID *)&Dma->List, NULL);
    KIRQL OldIrql;

    if (Done != NULL) {
        KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
        ListDone(Fdo, Done);
        KeLowerIrql(OldIrql);
    }
}

static VOID NTAPI ListDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    if (((PEDU)Context)->Pending & EDU_TRANSFERRED) {
        ListEnd(Context);
    }
    DmaDpc(Dpc, Context, One, Two);
}

static NTSTATUS ListAdd(PFDO Fdo)
{
    NTSTATUS Status = DmaAdd(Fdo);

    KeInitializeDpc(&((PEDU)Fdo)->Dpc, ListDpc, Fdo);
    return Status;
}

/* What a card that has gone has left. */
static VOID ListFlush(PFDO Fdo)
{
    DmaWaitIdle(Fdo);
    ListEnd(Fdo);
    EduFlush(Fdo);
}

static NTSTATUS ListGet(PEDU Edu, PIRP Irp)
{
    PDMA Dma = (PDMA)Edu;
    NTSTATUS Status;
#ifndef LIST_AT_PASSIVE
    KIRQL OldIrql;

    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
#endif
    Status = Dma->Adapter->DmaOperations->GetScatterGatherList(Dma->Adapter, Edu->Fdo.Self, Irp->MdlAddress, MmGetMdlVirtualAddress(Irp->MdlAddress),
                                                          MmGetMdlByteCount(Irp->MdlAddress), ListReady, &Edu->Fdo, TRUE);
#ifndef LIST_AT_PASSIVE
    KeLowerIrql(OldIrql);
#endif
    return Status;
}

static NTSTATUS NTAPI ListControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDMA Dma = Device->DeviceExtension;
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_EDU_GATHER || Irp->MdlAddress == NULL || OutputOf(Stack) > PAGE_SIZE) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (!DmaTake(Edu, Irp)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_DEVICE_BUSY, 0);
    }
    Status = ListGet(Edu, Irp);
    if (!NT_SUCCESS(Status)) {
        Irp = EduTakeCurrent(Edu);
        InterlockedExchange(&Dma->Transferring, FALSE);
        KeSetEvent(&Dma->Idle, IO_NO_INCREMENT, FALSE);
        if (Irp != NULL) {
            FdoEndPended(&Edu->Fdo, Irp, Status, 0);
        }
    }
    return FdoPend(&Edu->Fdo);
}

#endif

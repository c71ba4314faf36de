/*
 * Part of services.sys: routines that end in `ret 0` (C2 00 00) instead of `ret`, as compilers pad them for processors that predict a
 * lone `ret` badly. The kernel calls them by a DPC, a work item, a system thread and as a completion routine; a driver's own code
 * does, too.
 */
#ifndef RETURNS_H
#define RETURNS_H

#include "services.h"

typedef struct RETURNED {
    volatile LONG Count;
    KEVENT Done;
} RETURNED;

static RETURNED Returned;

__attribute__((used)) static VOID NTAPI CountReturn(VOID)
{
    InterlockedIncrement(&Returned.Count);
    KeSetEvent(&Returned.Done, IO_NO_INCREMENT, FALSE);
}

/* Of any prototype: what it is given it ignores. It answers STATUS_MORE_PROCESSING_REQUIRED, which a completion routine may. */
VOID NTAPI ReturnsByRet0(VOID);
__asm__(".text\n"
        ".globl ReturnsByRet0\n"
        "ReturnsByRet0:\n"
        "    subq $40, %rsp\n"
        "    call CountReturn\n"
        "    movl $0xC0000016, %eax\n"
        "    addq $40, %rsp\n"
        "    ret $0\n");

#define RET0(Type) ((Type)(ULONG_PTR)ReturnsByRet0)

static ULONG ReturnedOnce(LONG Count)
{
    CHECK(KeWaitForSingleObject(&Returned.Done, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(Returned.Count == Count);
    return 0;
}

static ULONG Returns(PDEVICE_OBJECT Device)
{
    static KDPC Dpc;
    PIO_WORKITEM Item = IoAllocateWorkItem(Device);
    PIRP Irp = IoAllocateIrp((CCHAR)(Device->StackSize + 1), FALSE);
    HANDLE Thread;

    CHECK(Item != NULL && Irp != NULL);
    Returned.Count = 0;
    KeInitializeEvent(&Returned.Done, SynchronizationEvent, FALSE);
    ReturnsByRet0();
    CHECK_ALL(ReturnedOnce(1));
    KeInitializeDpc(&Dpc, RET0(PKDEFERRED_ROUTINE), NULL);
    CHECK(KeInsertQueueDpc(&Dpc, NULL, NULL));
    CHECK_ALL(ReturnedOnce(2));
    IoQueueWorkItem(Item, RET0(PIO_WORKITEM_ROUTINE), DelayedWorkQueue, NULL);
    CHECK_ALL(ReturnedOnce(3));
    IoFreeWorkItem(Item);
    CHECK(NT_SUCCESS(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, RET0(PKSTART_ROUTINE), NULL)));
    CHECK_ALL(ReturnedOnce(4));
    ZwClose(Thread);
    IoSetNextIrpStackLocation(Irp);
    IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_CREATE;
    IoSetCompletionRoutine(Irp, RET0(PIO_COMPLETION_ROUTINE), NULL, TRUE, TRUE, TRUE);
    CHECK(IoCallDriver(Device, Irp) == STATUS_SUCCESS);
    CHECK_ALL(ReturnedOnce(5));
    IoFreeIrp(Irp);
    return 0;
}

#endif

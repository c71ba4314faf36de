/* Stories of processes, threads and the machine: who owns a thread, where memory lies, what is remembered for a thread. */
#include "system.h"

#define HARD_ERROR_IRP_PAGING 2 /* IRP_PAGING_IO */

typedef struct _RANGE {
    PHYSICAL_ADDRESS BaseAddress;
    LARGE_INTEGER NumberOfBytes;
} RANGE;

NTKERNELAPI LONGLONG NTAPI PsGetProcessCreateTimeQuadPart(PEPROCESS Process);
NTKERNELAPI ULONG NTAPI PsGetCurrentProcessSessionId(VOID);
NTKERNELAPI PEPROCESS NTAPI PsGetThreadProcess(PETHREAD Thread);
NTKERNELAPI HANDLE NTAPI PsGetThreadProcessId(PETHREAD Thread);
NTKERNELAPI BOOLEAN NTAPI PsIsThreadTerminating(PETHREAD Thread);
NTKERNELAPI BOOLEAN NTAPI PsGetThreadHardErrorsAreDisabled(PETHREAD Thread);
NTKERNELAPI VOID NTAPI PsSetThreadHardErrorsAreDisabled(PETHREAD Thread, BOOLEAN Disabled);
NTKERNELAPI BOOLEAN NTAPI IoSetThreadHardErrorMode(BOOLEAN Enable);
NTKERNELAPI VOID NTAPI IoSetHardErrorOrVerifyDevice(PIRP Irp, PDEVICE_OBJECT Device);
NTKERNELAPI PDEVICE_OBJECT NTAPI IoGetDeviceToVerify(PETHREAD Thread);
NTKERNELAPI VOID NTAPI IoSetDeviceToVerify(PETHREAD Thread, PDEVICE_OBJECT Device);
NTKERNELAPI PVOID NTAPI IoGetInitialStack(VOID);
NTKERNELAPI ULONG NTAPI IoGetPagingIoPriority(PIRP Irp);
NTKERNELAPI RANGE *NTAPI MmGetPhysicalMemoryRanges(VOID);
NTKERNELAPI ULONG NTAPI MmIsDriverVerifying(PDRIVER_OBJECT Driver);
NTKERNELAPI ULONG NTAPI MmIsDriverVerifyingByAddress(PVOID Address);
NTSYSAPI WCHAR NTAPI RtlAnsiCharToUnicodeChar(PUCHAR *Character);
NTSYSAPI NTSTATUS NTAPI ZwOpenProcess(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, PCLIENT_ID Client);
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID Address);

static ULONG OwnersOfThreads(VOID)
{
    OBJECT_ATTRIBUTES Attributes;
    CLIENT_ID Client, Wanted = {0};
    HANDLE Thread, Process = NULL;
    LARGE_INTEGER Now;
    PVOID Object, Opened;
    KEVENT Event;

    KeQuerySystemTime(&Now);
    CHECK(PsGetProcessCreateTimeQuadPart(IoGetCurrentProcess()) <= Now.QuadPart);
    CHECK(PsGetProcessCreateTimeQuadPart(IoGetCurrentProcess()) > Now.QuadPart - 600000000);
    CHECK(PsGetCurrentProcessSessionId() == 1);
    CHECK(PsGetThreadProcess((PETHREAD)CurrentThread()) == IoGetCurrentProcess());
    CHECK(PsGetThreadProcessId((PETHREAD)CurrentThread()) == PsGetCurrentProcessId());
    CHECK(!PsIsThreadTerminating((PETHREAD)CurrentThread()));

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, &Client, WaitsInVain, &Event) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    ZwClose(Thread);
    CHECK(PsGetThreadProcessId(Object) == (HANDLE)4 && !PsIsThreadTerminating(Object));

    /* A process by its number, and by that of a thread of its. */
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Wanted.UniqueProcess = PsGetCurrentProcessId();
    CHECK(ZwOpenProcess(&Process, 0x400, &Attributes, &Wanted) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Process, 0x400, NULL, KernelMode, &Opened, NULL) == STATUS_SUCCESS);
    CHECK(Opened == IoGetCurrentProcess());
    ObDereferenceObject(Opened);
    ZwClose(Process);
    Wanted = (CLIENT_ID){NULL, Client.UniqueThread};
    CHECK(ZwOpenProcess(&Process, 0x400, &Attributes, &Wanted) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Process, 0x400, NULL, KernelMode, &Opened, NULL) == STATUS_SUCCESS);
    CHECK(Opened == PsGetThreadProcess(Object) && Opened != IoGetCurrentProcess());
    ObDereferenceObject(Opened);
    ZwClose(Process);
    Wanted.UniqueProcess = PsGetCurrentProcessId();
    CHECK(ZwOpenProcess(&Process, 0x400, &Attributes, &Wanted) == STATUS_INVALID_CID);
    Wanted = (CLIENT_ID){(HANDLE)0x12344, NULL};
    CHECK(ZwOpenProcess(&Process, 0x400, &Attributes, &Wanted) == STATUS_INVALID_CID);
    CHECK(ZwOpenProcess(&Process, 0x400, &Attributes, NULL) == STATUS_INVALID_PARAMETER);

    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    CHECK(PsIsThreadTerminating(Object) && PsGetThreadProcessId(Object) == (HANDLE)4);
    ObDereferenceObject(Object);
    return 0;
}

static ULONG HardErrors(VOID)
{
    PETHREAD Own = (PETHREAD)CurrentThread();
    PDEVICE_OBJECT Device = TheDriver->DeviceObject;
    PIRP Irp = IoAllocateIrp(1, FALSE);

    CHECK(Irp != NULL);
    CHECK(IoSetThreadHardErrorMode(FALSE) == TRUE && IoSetThreadHardErrorMode(FALSE) == FALSE);
    CHECK(PsGetThreadHardErrorsAreDisabled(Own));
    CHECK(IoSetThreadHardErrorMode(TRUE) == FALSE && !PsGetThreadHardErrorsAreDisabled(Own));
    PsSetThreadHardErrorsAreDisabled(Own, TRUE);
    CHECK(IoSetThreadHardErrorMode(TRUE) == FALSE && IoSetThreadHardErrorMode(TRUE) == TRUE);
    CHECK(IoGetDeviceToVerify(Own) == NULL);
    IoSetHardErrorOrVerifyDevice(Irp, Device); /* no thread has made it */
    CHECK(IoGetDeviceToVerify(Own) == NULL);
    Irp->Tail.Overlay.Thread = Own;
    IoSetHardErrorOrVerifyDevice(Irp, Device);
    CHECK(IoGetDeviceToVerify(Own) == Device);
    IoSetDeviceToVerify(Own, NULL);
    CHECK(IoGetDeviceToVerify(Own) == NULL);
    CHECK(IoGetPagingIoPriority(Irp) == 0);
    Irp->Flags |= HARD_ERROR_IRP_PAGING;
    CHECK(IoGetPagingIoPriority(Irp) == 1);
    Irp->Flags &= ~HARD_ERROR_IRP_PAGING;
    Irp->Tail.Overlay.Thread = NULL;
    IoFreeIrp(Irp);
    return 0;
}

static ULONG Ranges(VOID)
{
    RANGE *All = MmGetPhysicalMemoryRanges();
    ULONG Index = 0, Inside = 0;
    LONGLONG Last = 0, Here;
    PUCHAR Text = (PUCHAR) "a\x80", Next = Text;

    CHECK(All != NULL);
    Here = MmGetPhysicalAddress(All).QuadPart;
    for (; All[Index].NumberOfBytes.QuadPart != 0; Index++) {
        CHECK(All[Index].BaseAddress.QuadPart > Last && All[Index].NumberOfBytes.QuadPart % PAGE_SIZE == 0);
        Last = All[Index].BaseAddress.QuadPart + All[Index].NumberOfBytes.QuadPart;
        Inside += Here >= All[Index].BaseAddress.QuadPart && Here < Last;
    }
    CHECK(Index >= 2 && All[Index].BaseAddress.QuadPart == 0 && Inside == 1);
    ExFreePool(All);
    CHECK(!MmIsDriverVerifying(TheDriver) && !MmIsDriverVerifyingByAddress((PVOID)Ranges));
    CHECK((ULONG_PTR)IoGetInitialStack() > (ULONG_PTR)&All && (ULONG_PTR)IoGetInitialStack() < (ULONG_PTR)&All + 0x6000);
    CHECK(RtlAnsiCharToUnicodeChar(&Next) == L'a' && Next == Text + 1);
    CHECK(RtlAnsiCharToUnicodeChar(&Next) == 0x20AC && Next == Text + 2);
    return 0;
}

static ULONG Watched(VOID)
{
    CHECK(MmIsDriverVerifying(TheDriver) && MmIsDriverVerifyingByAddress((PVOID)Watched));
    CHECK(!MmIsDriverVerifyingByAddress((PVOID)0x1000));
    return 0;
}

/* What a family of checks reports, and the device extension that families share. Included by requests.c first. */
#include <ddk/wdm.h>

#define REQUESTS_TAG 'qeRD' /* "DReq" in pool listings */
#define REQUESTS_CODE(Number) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (Number), METHOD_BUFFERED, FILE_ANY_ACCESS)

/* gcc takes the offset of a gs: access, as KeGetCurrentThread makes one, for a null pointer. */
#pragma GCC diagnostic ignored "-Warray-bounds"

/* Of mingw's ntddk.h and ntifs.h, which do not find wdm.h where it is. */
#define PCIConfiguration 4 /* a BUS_DATA_TYPE */
NTHALAPI ULONG NTAPI HalGetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
NTHALAPI ULONG NTAPI HalSetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
NTHALAPI ULONG NTAPI HalGetBusDataByOffset(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset, ULONG Length);
NTHALAPI ULONG NTAPI HalSetBusDataByOffset(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset, ULONG Length);
NTHALAPI BOOLEAN NTAPI HalTranslateBusAddress(INTERFACE_TYPE Interface, ULONG Bus, PHYSICAL_ADDRESS Address,
                                              PULONG Space, PPHYSICAL_ADDRESS Translated);
NTKERNELAPI NTSTATUS NTAPI IoAttachDeviceToDeviceStackSafe(PDEVICE_OBJECT Source, PDEVICE_OBJECT Target,
                                                           PDEVICE_OBJECT *Below);
NTKERNELAPI PIRP NTAPI IoMakeAssociatedIrp(PIRP Master, CCHAR StackSize);
NTKERNELAPI BOOLEAN NTAPI MmIsAddressValid(PVOID Address);
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID Address);
NTKERNELAPI PVOID NTAPI MmAllocateNonCachedMemory(SIZE_T Length);
NTKERNELAPI VOID NTAPI MmFreeNonCachedMemory(PVOID Address, SIZE_T Length);
NTKERNELAPI VOID NTAPI MmLockPagableSectionByHandle(PVOID Section);
NTKERNELAPI NTSTATUS NTAPI ObOpenObjectByPointer(PVOID Object, ULONG Attributes, PACCESS_STATE State,
                                                 ACCESS_MASK Access, POBJECT_TYPE Type, KPROCESSOR_MODE Mode,
                                                 PHANDLE Handle);
NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);
NTKERNELAPI HANDLE NTAPI PsGetCurrentThreadId(VOID);
NTKERNELAPI HANDLE NTAPI PsGetThreadId(PETHREAD Thread);
NTKERNELAPI BOOLEAN NTAPI PsIsSystemThread(PETHREAD Thread);
NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);
NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE Id, PEPROCESS *Process);
NTKERNELAPI NTSTATUS NTAPI ObCloseHandle(HANDLE Handle, KPROCESSOR_MODE Mode);
NTKERNELAPI VOID NTAPI IoGetStackLimits(PULONG_PTR Low, PULONG_PTR High);
NTKERNELAPI VOID NTAPI IoRegisterDriverReinitialization(PDRIVER_OBJECT Driver,
                                                        VOID (NTAPI *Routine)(PDRIVER_OBJECT, PVOID, ULONG),
                                                        PVOID Context);
NTKERNELAPI NTSTATUS NTAPI KdDisableDebugger(VOID);
NTKERNELAPI NTSTATUS NTAPI KdEnableDebugger(VOID);
NTKERNELAPI BOOLEAN NTAPI KdRefreshDebuggerNotPresent(VOID);
NTKERNELAPI PDEVICE_OBJECT NTAPI IoGetDeviceAttachmentBaseRef(PDEVICE_OBJECT DeviceObject);
NTKERNELAPI PDEVICE_OBJECT NTAPI IoGetLowerDeviceObject(PDEVICE_OBJECT DeviceObject);
NTKERNELAPI BOOLEAN NTAPI IoIsOperationSynchronous(PIRP Irp);
NTKERNELAPI BOOLEAN NTAPI IoIsSystemThread(PETHREAD Thread);
NTKERNELAPI PEPROCESS NTAPI IoGetRequestorProcess(PIRP Irp);
NTKERNELAPI ULONG NTAPI IoGetRequestorProcessId(PIRP Irp);
NTKERNELAPI PEPROCESS NTAPI IoThreadToProcess(PETHREAD Thread);
NTKERNELAPI PIRP NTAPI IoGetTopLevelIrp(VOID);
NTKERNELAPI VOID NTAPI IoSetTopLevelIrp(PIRP Irp);
NTSYSAPI NTSTATUS NTAPI ZwDeviceIoControlFile(HANDLE File, HANDLE Event, PIO_APC_ROUTINE Apc, PVOID Context,
                                              PIO_STATUS_BLOCK Status, ULONG Code, PVOID Input, ULONG InputLength,
                                              PVOID Output, ULONG OutputLength);
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Object, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
NTSYSAPI NTSTATUS NTAPI ZwSetEvent(HANDLE Event, PLONG PreviousState);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Event, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes,
                                      EVENT_TYPE Type, BOOLEAN InitialState);

/* mingw declares these with one star too many for variables that are imported. */
#define OBJECT_TYPE_OF(Variable) ((POBJECT_TYPE)(Variable))

/* What every control code answers. */
typedef struct _REQUESTS_RESULT {
    ULONG Checks;   /* made */
    ULONG Failures;
    ULONG First;    /* the number of the first check that failed, from 1; 0 if none did */
    ULONG Line;     /* where it stands in its file */
} REQUESTS_RESULT;

typedef enum _DEVICE_KIND { ControlDevice, LowerDevice, FilterDevice } DEVICE_KIND;

typedef struct _DEVICE_EXTENSION {
    DEVICE_KIND Kind;
    PDEVICE_OBJECT Below;   /* a filter's */
    LIST_ENTRY Held;        /* the lower device's: IRPs in Queue */
    KSPIN_LOCK Lock;        /* guards Held */
    IO_CSQ Queue;
    ULONG Sum;              /* of the bytes written last */
    LONG Ticks;             /* of the IO timer */
    PFILE_OBJECT Related;   /* of the file that was opened last: what its name counts from */
    ULONG CreateOptions;
    USHORT NameLength;
    WCHAR Name[16];
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static PDRIVER_OBJECT TheDriver;
static ULONG Reinitialized;             /* calls of Reinitialize; above bit 16 the counts it was given */
static PDEVICE_OBJECT Lower;            /* answers what the families send */
static UNICODE_STRING ServiceKey;       /* the driver's, with a zero at the end */
static UNICODE_STRING LowerName = RTL_CONSTANT_STRING(L"\\Device\\DirqlRequestsLower");
static UNICODE_STRING AbsentName = RTL_CONSTANT_STRING(L"\\Device\\DirqlNobody");

/* Output: the input, each bit turned. */
#define IOCTL_LOWER_INVERT REQUESTS_CODE(0x100)
/* Stays in the lower device's cancel-safe queue. */
#define IOCTL_LOWER_HOLD REQUESTS_CODE(0x101)

static BOOLEAN Check(REQUESTS_RESULT *Result, BOOLEAN Holds, const char *Text, const char *File, ULONG Line)
{
    Result->Checks++;
    if (!Holds) {
        Result->Failures++;
        if (Result->First == 0) {
            Result->First = Result->Checks;
            Result->Line = Line;
        }
        DbgPrint("requests: check %u failed, %s:%u: %s\n", Result->Checks, File, Line, Text);
    }
    return Holds;
}

/* TRUE if the condition holds. */
#define CHECK(Condition) Check(Result, (Condition) ? TRUE : FALSE, #Condition, __FILE_NAME__, __LINE__)
/* What a status is, and what it was if it is another. */
#define CHECK_STATUS(Call, Expected) CheckStatus(Result, (Call), (Expected), #Call, __FILE_NAME__, __LINE__)

static BOOLEAN CheckStatus(REQUESTS_RESULT *Result, NTSTATUS Status, NTSTATUS Expected, const char *Text,
                           const char *File, ULONG Line)
{
    if (Status != Expected) {
        DbgPrint("requests: %08x, not %08x\n", Status, Expected);
    }
    return Check(Result, Status == Expected, Text, File, Line);
}

static VOID Fill(PUCHAR Bytes, ULONG Length, UCHAR First)
{
    ULONG Index;

    for (Index = 0; Index < Length; Index++) {
        Bytes[Index] = (UCHAR)(First + Index);
    }
}

/* Whether Bytes are what Fill makes. */
static BOOLEAN Filled(const UCHAR *Bytes, ULONG Length, UCHAR First)
{
    ULONG Index;

    for (Index = 0; Index < Length; Index++) {
        if (Bytes[Index] != (UCHAR)(First + Index)) {
            return FALSE;
        }
    }
    return TRUE;
}

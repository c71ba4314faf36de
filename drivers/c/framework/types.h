/*
 * The structures and constants of KMDF that the framework and its clients share, with the members of the client's version (KMDF_MINOR): only
 * what is used here. Sizes by version are the *_SIZE macros, to which both sides are held.
 *
 * Layouts: the pages of the structures' names, each of which says since which version a member is there. Where they are silent: 1.9 added
 * TolerableDelay and NumberOfPresentedRequests, as it stands on the pages of later members.
 */
#ifndef FRAMEWORK_TYPES_H
#define FRAMEWORK_TYPES_H

#include "../wdfldr/wdfldr.h"

typedef WDF_COMPONENT_GLOBALS WDF_DRIVER_GLOBALS, *PWDF_DRIVER_GLOBALS;
typedef VOID (*WDFFUNC)(VOID);

/* The functions of version 1.Minor; 0: there is no such version. */
#define FUNCTION_COUNT_OF(Minor)                                                                                                       \
    ((Minor) == 0                     ? 383U                                                                                           \
     : (Minor) == 1                   ? 386U                                                                                           \
     : (Minor) == 5 || (Minor) == 7   ? 387U                                                                                           \
     : (Minor) == 9                   ? 396U                                                                                           \
     : (Minor) == 11                  ? 432U                                                                                           \
     : (Minor) == 13                  ? 438U                                                                                           \
     : (Minor) == 15 || (Minor) == 17 ? 444U                                                                                           \
     : (Minor) == 19                  ? 446U                                                                                           \
     : (Minor) == 21                  ? 448U                                                                                           \
     : (Minor) == 23                  ? 451U                                                                                           \
     : (Minor) == 25 || (Minor) == 27 ? 453U                                                                                           \
     : (Minor) == 29                  ? 454U                                                                                           \
     : (Minor) == 31 || (Minor) == 33 ? 458U                                                                                           \
                                      : 0U)
#define FUNCTIONS_IN_OWN_ARRAY 438U /* the most that are copied into the client's array */

typedef enum _WDFFUNCENUM {
#define FUNCTION(Name) Name##TableIndex,
#include "functions.h"
#undef FUNCTION
    FUNCTION_COUNT
} WDFFUNCENUM;
C_ASSERT(FUNCTION_COUNT == 458);
C_ASSERT(WdfDriverMiniportUnloadTableIndex == 201);

typedef PVOID WDFOBJECT;
typedef PVOID WDFCONTEXT;
typedef struct WDFDRIVER__ *WDFDRIVER;
typedef struct WDFDEVICE__ *WDFDEVICE;
typedef struct WDFQUEUE__ *WDFQUEUE;
typedef struct WDFIOTARGET__ *WDFIOTARGET;
typedef struct WDFREQUEST__ *WDFREQUEST;
typedef struct WDFFILEOBJECT__ *WDFFILEOBJECT;
typedef struct WDFINTERRUPT__ *WDFINTERRUPT;
typedef struct WDFTIMER__ *WDFTIMER;
typedef struct WDFDPC__ *WDFDPC;
typedef struct WDFWORKITEM__ *WDFWORKITEM;
typedef struct WDFSPINLOCK__ *WDFSPINLOCK;
typedef struct WDFWAITLOCK__ *WDFWAITLOCK;
typedef struct WDFCMRESLIST__ *WDFCMRESLIST;
typedef struct _WDFDEVICE_INIT *PWDFDEVICE_INIT;

#define STATUS_WDF_PAUSED ((NTSTATUS)0xC0200203)
#define STATUS_WDF_BUSY ((NTSTATUS)0xC0200204)
#define STATUS_WDF_OBJECT_ATTRIBUTES_INVALID ((NTSTATUS)0xC0200209)
#define STATUS_WDF_NO_CALLBACK ((NTSTATUS)0xC020020B)
#define STATUS_WDF_PARENT_NOT_SPECIFIED ((NTSTATUS)0xC0200212)

typedef enum _WDF_TRI_STATE { WdfFalse, WdfTrue, WdfUseDefault } WDF_TRI_STATE;
typedef enum _WDF_EXECUTION_LEVEL {
    WdfExecutionLevelInheritFromParent = 1,
    WdfExecutionLevelPassive,
    WdfExecutionLevelDispatch
} WDF_EXECUTION_LEVEL;
typedef enum _WDF_SYNCHRONIZATION_SCOPE {
    WdfSynchronizationScopeInheritFromParent = 1,
    WdfSynchronizationScopeDevice,
    WdfSynchronizationScopeQueue,
    WdfSynchronizationScopeNone
} WDF_SYNCHRONIZATION_SCOPE;
typedef enum _WDF_IO_QUEUE_DISPATCH_TYPE {
    WdfIoQueueDispatchSequential = 1,
    WdfIoQueueDispatchParallel,
    WdfIoQueueDispatchManual
} WDF_IO_QUEUE_DISPATCH_TYPE;
typedef enum _WDF_DEVICE_IO_TYPE { WdfDeviceIoNeither = 1, WdfDeviceIoBuffered, WdfDeviceIoDirect } WDF_DEVICE_IO_TYPE;
typedef enum _WDF_POWER_DEVICE_STATE {
    WdfPowerDeviceD0 = 1,
    WdfPowerDeviceD1,
    WdfPowerDeviceD2,
    WdfPowerDeviceD3,
    WdfPowerDeviceD3Final
} WDF_POWER_DEVICE_STATE;

/* Of WDF_DRIVER_CONFIG. */
#define WdfDriverInitNonPnpDriver 1
#define WdfDriverInitNoDispatchOverride 2
/* ActionFlags of EvtIoStop. */
#define WdfRequestStopActionSuspend 1
#define WdfRequestStopActionPurge 2
#define WdfRequestStopRequestCancelable 0x10000000

typedef VOID (*PFN_WDF_OBJECT_CONTEXT_CLEANUP)(WDFOBJECT Object);
typedef const struct _WDF_OBJECT_CONTEXT_TYPE_INFO *PCWDF_OBJECT_CONTEXT_TYPE_INFO;

typedef struct _WDF_OBJECT_CONTEXT_TYPE_INFO {
    ULONG Size;
    PCSTR ContextName;
    SIZE_T ContextSize;
    PCWDF_OBJECT_CONTEXT_TYPE_INFO UniqueType;
    PCWDF_OBJECT_CONTEXT_TYPE_INFO (*EvtDriverGetUniqueContextType)(VOID);
} WDF_OBJECT_CONTEXT_TYPE_INFO;
C_ASSERT(sizeof(WDF_OBJECT_CONTEXT_TYPE_INFO) == 0x28);

typedef struct _WDF_OBJECT_ATTRIBUTES {
    ULONG Size;
    PFN_WDF_OBJECT_CONTEXT_CLEANUP EvtCleanupCallback;
    PFN_WDF_OBJECT_CONTEXT_CLEANUP EvtDestroyCallback;
    WDF_EXECUTION_LEVEL ExecutionLevel;
    WDF_SYNCHRONIZATION_SCOPE SynchronizationScope;
    WDFOBJECT ParentObject;
    SIZE_T ContextSizeOverride;
    PCWDF_OBJECT_CONTEXT_TYPE_INFO ContextTypeInfo;
} WDF_OBJECT_ATTRIBUTES, *PWDF_OBJECT_ATTRIBUTES;
C_ASSERT(sizeof(WDF_OBJECT_ATTRIBUTES) == 0x38);

typedef struct _WDF_DRIVER_CONFIG {
    ULONG Size;
    NTSTATUS (*EvtDriverDeviceAdd)(WDFDRIVER Driver, PWDFDEVICE_INIT Init);
    VOID (*EvtDriverUnload)(WDFDRIVER Driver);
    ULONG DriverInitFlags;
    ULONG DriverPoolTag; /* 1.5 */
} WDF_DRIVER_CONFIG;
C_ASSERT(sizeof(WDF_DRIVER_CONFIG) == 0x20);

typedef NTSTATUS (*PFN_WDF_DEVICE_D0)(WDFDEVICE Device, WDF_POWER_DEVICE_STATE State);
typedef NTSTATUS (*PFN_WDF_DEVICE_PREPARE_HARDWARE)(WDFDEVICE Device, WDFCMRESLIST Raw, WDFCMRESLIST Translated);
typedef NTSTATUS (*PFN_WDF_DEVICE_RELEASE_HARDWARE)(WDFDEVICE Device, WDFCMRESLIST Translated);
typedef VOID (*PFN_WDF_DEVICE)(WDFDEVICE Device);
typedef NTSTATUS (*PFN_WDF_DEVICE_STATUS)(WDFDEVICE Device);

typedef struct _WDF_PNPPOWER_EVENT_CALLBACKS {
    ULONG Size;
    PFN_WDF_DEVICE_D0 EvtDeviceD0Entry;
    PFN_WDF_DEVICE_D0 EvtDeviceD0EntryPostInterruptsEnabled;
    PFN_WDF_DEVICE_D0 EvtDeviceD0Exit;
    PFN_WDF_DEVICE_D0 EvtDeviceD0ExitPreInterruptsDisabled;
    PFN_WDF_DEVICE_PREPARE_HARDWARE EvtDevicePrepareHardware;
    PFN_WDF_DEVICE_RELEASE_HARDWARE EvtDeviceReleaseHardware;
    PFN_WDF_DEVICE EvtDeviceSelfManagedIoCleanup;
    PFN_WDF_DEVICE EvtDeviceSelfManagedIoFlush;
    PFN_WDF_DEVICE_STATUS EvtDeviceSelfManagedIoInit;
    PFN_WDF_DEVICE_STATUS EvtDeviceSelfManagedIoSuspend;
    PFN_WDF_DEVICE_STATUS EvtDeviceSelfManagedIoRestart;
    PFN_WDF_DEVICE EvtDeviceSurpriseRemoval;
    PFN_WDF_DEVICE_STATUS EvtDeviceQueryRemove;
    PFN_WDF_DEVICE_STATUS EvtDeviceQueryStop;
    PVOID EvtDeviceUsageNotification;
    PVOID EvtDeviceRelationsQuery;
#if KMDF_MINOR >= 11
    PVOID EvtDeviceUsageNotificationEx;
#endif
} WDF_PNPPOWER_EVENT_CALLBACKS;
#define PNPPOWER_EVENT_CALLBACKS_SIZE(Minor) ((Minor) < 11 ? 0x88U : 0x90U)
C_ASSERT(sizeof(WDF_PNPPOWER_EVENT_CALLBACKS) == PNPPOWER_EVENT_CALLBACKS_SIZE(KMDF_MINOR));

typedef struct _WDF_FILEOBJECT_CONFIG {
    ULONG Size;
    VOID (*EvtDeviceFileCreate)(WDFDEVICE Device, WDFREQUEST Request, WDFFILEOBJECT File);
    VOID (*EvtFileClose)(WDFFILEOBJECT File);
    VOID (*EvtFileCleanup)(WDFFILEOBJECT File);
    WDF_TRI_STATE AutoForwardCleanupClose;
    ULONG FileObjectClass;
} WDF_FILEOBJECT_CONFIG;
C_ASSERT(sizeof(WDF_FILEOBJECT_CONFIG) == 0x28);

typedef VOID (*PFN_WDF_IO_QUEUE_IO)(WDFQUEUE Queue, WDFREQUEST Request);
typedef VOID (*PFN_WDF_IO_QUEUE_IO_LENGTH)(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length);
typedef VOID (*PFN_WDF_IO_QUEUE_IO_CONTROL)(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code);
typedef VOID (*PFN_WDF_IO_QUEUE_IO_STOP)(WDFQUEUE Queue, WDFREQUEST Request, ULONG ActionFlags);
typedef VOID (*PFN_WDF_IO_QUEUE_STATE)(WDFQUEUE Queue, WDFCONTEXT Context);

typedef struct _WDF_IO_QUEUE_CONFIG {
    ULONG Size;
    WDF_IO_QUEUE_DISPATCH_TYPE DispatchType;
    WDF_TRI_STATE PowerManaged;
    BOOLEAN AllowZeroLengthRequests;
    BOOLEAN DefaultQueue;
    PFN_WDF_IO_QUEUE_IO EvtIoDefault;
    PFN_WDF_IO_QUEUE_IO_LENGTH EvtIoRead;
    PFN_WDF_IO_QUEUE_IO_LENGTH EvtIoWrite;
    PFN_WDF_IO_QUEUE_IO_CONTROL EvtIoDeviceControl;
    PFN_WDF_IO_QUEUE_IO_CONTROL EvtIoInternalDeviceControl;
    PFN_WDF_IO_QUEUE_IO_STOP EvtIoStop;
    PFN_WDF_IO_QUEUE_IO EvtIoResume;
    PFN_WDF_IO_QUEUE_IO EvtIoCanceledOnQueue;
#if KMDF_MINOR >= 9
    ULONG NumberOfPresentedRequests; /* Settings.Parallel */
#endif
#if KMDF_MINOR >= 11
    WDFDRIVER Driver;
#endif
} WDF_IO_QUEUE_CONFIG;
#define IO_QUEUE_CONFIG_SIZE(Minor) ((Minor) < 9 ? 0x50U : (Minor) < 11 ? 0x58U : 0x60U)
C_ASSERT(sizeof(WDF_IO_QUEUE_CONFIG) == IO_QUEUE_CONFIG_SIZE(KMDF_MINOR));

typedef NTSTATUS (*PFN_WDF_INTERRUPT_ENABLE)(WDFINTERRUPT Interrupt, WDFDEVICE Device);
typedef VOID (*PFN_WDF_INTERRUPT_DPC)(WDFINTERRUPT Interrupt, WDFOBJECT Object);
typedef BOOLEAN (*PFN_WDF_INTERRUPT_SYNCHRONIZE)(WDFINTERRUPT Interrupt, WDFCONTEXT Context);

typedef struct _WDF_INTERRUPT_CONFIG {
    ULONG Size;
    WDFSPINLOCK SpinLock;
    WDF_TRI_STATE ShareVector;
    BOOLEAN FloatingSave;
    BOOLEAN AutomaticSerialization;
    BOOLEAN (*EvtInterruptIsr)(WDFINTERRUPT Interrupt, ULONG MessageId);
    PFN_WDF_INTERRUPT_DPC EvtInterruptDpc;
    PFN_WDF_INTERRUPT_ENABLE EvtInterruptEnable;
    PFN_WDF_INTERRUPT_ENABLE EvtInterruptDisable;
#if KMDF_MINOR >= 11
    PFN_WDF_INTERRUPT_DPC EvtInterruptWorkItem;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR InterruptRaw;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR InterruptTranslated;
    WDFWAITLOCK WaitLock;
    BOOLEAN PassiveHandling;
    WDF_TRI_STATE ReportInactiveOnPowerDown;
#endif
#if KMDF_MINOR >= 15
    BOOLEAN CanWakeDevice;
#endif
} WDF_INTERRUPT_CONFIG;
#define INTERRUPT_CONFIG_SIZE(Minor) ((Minor) < 11 ? 0x38U : (Minor) < 15 ? 0x60U : 0x68U)
C_ASSERT(sizeof(WDF_INTERRUPT_CONFIG) == INTERRUPT_CONFIG_SIZE(KMDF_MINOR));

typedef struct _WDF_TIMER_CONFIG {
    ULONG Size;
    VOID (*EvtTimerFunc)(WDFTIMER Timer);
    ULONG Period;
    BOOLEAN AutomaticSerialization;
#if KMDF_MINOR >= 9
    ULONG TolerableDelay;
#endif
#if KMDF_MINOR >= 13
    BOOLEAN UseHighResolutionTimer;
#endif
} WDF_TIMER_CONFIG;
#define TIMER_CONFIG_SIZE(Minor) ((Minor) < 9 ? 0x18U : 0x20U)
C_ASSERT(sizeof(WDF_TIMER_CONFIG) == TIMER_CONFIG_SIZE(KMDF_MINOR));

typedef struct _WDF_DPC_CONFIG {
    ULONG Size;
    VOID (*EvtDpcFunc)(WDFDPC Dpc);
    BOOLEAN AutomaticSerialization;
} WDF_DPC_CONFIG;
C_ASSERT(sizeof(WDF_DPC_CONFIG) == 0x18);

typedef struct _WDF_WORKITEM_CONFIG {
    ULONG Size;
    VOID (*EvtWorkItemFunc)(WDFWORKITEM WorkItem);
    BOOLEAN AutomaticSerialization;
} WDF_WORKITEM_CONFIG;
C_ASSERT(sizeof(WDF_WORKITEM_CONFIG) == 0x18);

typedef struct _WDF_REQUEST_PARAMETERS {
    USHORT Size;
    UCHAR MinorFunction;
    ULONG Type; /* the major function */
    union {
        struct {
            SIZE_T Length;
            ULONG DECLSPEC_ALIGN(8) Key;
            LONGLONG DeviceOffset;
        } Read, Write;
        struct {
            SIZE_T OutputBufferLength;
            SIZE_T InputBufferLength;
            ULONG DECLSPEC_ALIGN(8) IoControlCode;
            PVOID Type3InputBuffer;
        } DeviceIoControl;
        PVOID Others[4];
    } Parameters;
} WDF_REQUEST_PARAMETERS;
C_ASSERT(sizeof(WDF_REQUEST_PARAMETERS) == 0x28);

#define WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET 8

typedef struct _WDF_REQUEST_SEND_OPTIONS {
    ULONG Size;
    ULONG Flags;
    LONGLONG Timeout;
} WDF_REQUEST_SEND_OPTIONS;
C_ASSERT(sizeof(WDF_REQUEST_SEND_OPTIONS) == 0x10);

/* Places of StructTable, in the order of WDFSTRUCTENUM. */
enum {
    INDEX_WDF_DPC_CONFIG = 23,
    INDEX_WDF_DRIVER_CONFIG = 24,
    INDEX_WDF_DRIVER_GLOBALS = 25,
    INDEX_WDF_FILEOBJECT_CONFIG = 28,
    INDEX_WDF_INTERRUPT_CONFIG = 29,
    INDEX_WDF_IO_QUEUE_CONFIG = 33,
    INDEX_WDF_OBJECT_ATTRIBUTES = 38,
    INDEX_WDF_OBJECT_CONTEXT_TYPE_INFO = 39,
    INDEX_WDF_PNPPOWER_EVENT_CALLBACKS = 41,
    INDEX_WDF_REQUEST_PARAMETERS = 51,
    INDEX_WDF_TIMER_CONFIG = 55,
    INDEX_WDF_WORKITEM_CONFIG = 67,
    STRUCTURE_COUNT = 81
};

#include "ddi.h"

#endif

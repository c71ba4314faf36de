/*
 * What a client of KMDF is linked with: its entry point, which binds the framework of version 1.KMDF_MINOR, and its classes if it has any
 * (CLIENT_CLASSES), and calls ClientEntry; and calls by the table that binding gives it. With KMDF_MINIMUM_MINOR it works with older frameworks
 * than its own version, from that one.
 *
 * No page has this: it follows what is known of Microsoft's static stub (the loader's protocol, wdfldr/wdfldr.h). Clients of up to 1.13 have an
 * array of their own, into which the library copies; later ones a pointer to the library's.
 */
#ifndef FRAMEWORK_CLIENT_H
#define FRAMEWORK_CLIENT_H

#include "types.h"

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath);

static PWDF_DRIVER_GLOBALS WdfDriverGlobals;

#define OWN_FUNCTIONS FUNCTION_COUNT_OF(KMDF_MINOR)

#if KMDF_MINOR <= 13
static WDFFUNC WdfFunctions[OWN_FUNCTIONS];
#define FUNCTIONS_PLACE ((PVOID *)WdfFunctions)
#else
static const WDFFUNC *WdfFunctions;
#define FUNCTIONS_PLACE ((PVOID *)&WdfFunctions)
#endif

/* Calls a function of the framework. */
#define CALL(Name, ...) (((PFN_##Name)WdfFunctions[Name##TableIndex])(WdfDriverGlobals, ##__VA_ARGS__))

#ifdef KMDF_MINIMUM_MINOR

static ULONG MinimumVersion = KMDF_MINIMUM_MINOR;
static BOOLEAN HigherThanFramework;
static ULONG FunctionsThere;
static ULONG StructuresThere;
static const SIZE_T *Structures;

static WDF_BIND_INFO2 BindInfo = {
    {sizeof(BindInfo), L"KmdfLibrary", {1, KMDF_MINOR, 0}, OWN_FUNCTIONS, FUNCTIONS_PLACE, NULL},
    &MinimumVersion,
    &HigherThanFramework,
    &FunctionsThere,
    &StructuresThere,
    (PVOID *)&Structures,
};
#define BIND_INFO (&BindInfo.Info)
/* The size of a structure that the framework expects: its own, where it is older than the client. */
#define SIZE_FOR_FRAMEWORK(Name) ((ULONG)(HigherThanFramework ? Structures[INDEX_##Name] : sizeof(Name)))

#else

static WDF_BIND_INFO BindInfo = {sizeof(BindInfo), L"KmdfLibrary", {1, KMDF_MINOR, 0}, OWN_FUNCTIONS, FUNCTIONS_PLACE, NULL};
#define BIND_INFO (&BindInfo)
#define SIZE_FOR_FRAMEWORK(Name) ((ULONG)sizeof(Name))

#endif

/* A structure of the framework's with its size, and 0 otherwise. */
#define INITIALIZE(Name, Variable) (RtlZeroMemory(Variable, sizeof(Name)), (Variable)->Size = SIZE_FOR_FRAMEWORK(Name))

/* A type of contexts, and the routine that finds an object's. */
#define CONTEXT_TYPE(Type, Find)                                                                                                       \
    static const WDF_OBJECT_CONTEXT_TYPE_INFO TypeOf##Type = {sizeof(TypeOf##Type), #Type, sizeof(Type), &TypeOf##Type, NULL};         \
    static inline Type *Find(WDFOBJECT Object) { return CALL(WdfObjectGetTypedContextWorker, Object, TypeOf##Type.UniqueType); }

static inline VOID InitializeAttributes(PWDF_OBJECT_ATTRIBUTES Attributes, PCWDF_OBJECT_CONTEXT_TYPE_INFO Type, WDFOBJECT Parent)
{
    INITIALIZE(WDF_OBJECT_ATTRIBUTES, Attributes);
    Attributes->ExecutionLevel = WdfExecutionLevelInheritFromParent;
    Attributes->SynchronizationScope = WdfSynchronizationScopeInheritFromParent;
    Attributes->ContextTypeInfo = Type;
    Attributes->ParentObject = Parent;
}

static inline VOID InitializeQueue(WDF_IO_QUEUE_CONFIG *Config, WDF_IO_QUEUE_DISPATCH_TYPE DispatchType, WDF_TRI_STATE PowerManaged)
{
    INITIALIZE(WDF_IO_QUEUE_CONFIG, Config);
    Config->DispatchType = DispatchType;
    Config->PowerManaged = PowerManaged;
#if KMDF_MINOR >= 9
    Config->NumberOfPresentedRequests = DispatchType == WdfIoQueueDispatchParallel ? MAXULONG : 0;
#endif
}

#ifndef CLIENT_CLASSES /* addresses of WDF_CLASS_BIND_INFO */
#define CLIENT_CLASSES NULL
#endif

static WCHAR PathBuffer[260];
static UNICODE_STRING Path = {0, sizeof(PathBuffer), PathBuffer};
static PDRIVER_UNLOAD Displaced;

/* Unbinds so many of the client's classes, and itself. */
static VOID Unbind(ULONG Classes)
{
    WDF_CLASS_BIND_INFO *const All[] = {CLIENT_CLASSES};

    while (Classes > 0) {
        Classes--;
        WdfVersionUnbindClass(BIND_INFO, WdfDriverGlobals, All[Classes]);
    }
    WdfVersionUnbind(&Path, BIND_INFO, WdfDriverGlobals);
}

static NTSTATUS BindClasses(ULONG *Bound)
{
    WDF_CLASS_BIND_INFO *const All[] = {CLIENT_CLASSES};
    NTSTATUS Status = STATUS_SUCCESS;

    while (*Bound < RTL_NUMBER_OF(All) && All[*Bound] != NULL && NT_SUCCESS(Status)) {
        Status = WdfVersionBindClass(BIND_INFO, WdfDriverGlobals, All[*Bound]);
        *Bound += NT_SUCCESS(Status) ? 1 : 0;
    }
    return Status;
}

static ULONG ClassesBound;

static VOID NTAPI ClientUnload(PDRIVER_OBJECT Driver)
{
    if (Displaced != NULL) {
        Displaced(Driver);
    }
    Unbind(ClassesBound);
}

DRIVER_INITIALIZE DriverEntry;

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status;

    RtlCopyUnicodeString(&Path, RegistryPath);
    Status = WdfVersionBind(Driver, &Path, BIND_INFO, &WdfDriverGlobals);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = BindClasses(&ClassesBound);
    if (NT_SUCCESS(Status)) {
        Status = ClientEntry(Driver, RegistryPath);
    }
    if (!NT_SUCCESS(Status)) {
        Unbind(ClassesBound);
        return Status;
    }
    if (WdfDriverGlobals->DisplaceDriverUnload) {
        Displaced = Driver->DriverUnload;
        Driver->DriverUnload = ClientUnload;
    }
    return STATUS_SUCCESS;
}

#endif

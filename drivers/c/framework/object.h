/*
 * Objects: every handle is one, with a parent, children, contexts and references. A handle is an object's address with all bits inverted, so that
 * who reads memory by one is seen. When an object is deleted its children are first: they and it come to rest (Dispose) and their cleanup callbacks
 * run; when all have, their references go, and with the last one destroy callbacks run and the memory goes. So a timer that is another child's may run
 * until it has come to rest, and finds what it uses.
 *
 * Pages: Framework Object Life Cycle, Framework Object Context Space, Bug Check 0x10D: WDF_VIOLATION, EvtObjectContextCleanup. Callbacks are
 * synchronised with nothing: WdfSynchronizationScopeDevice and Queue, and an execution level of passive, are missing (Missing).
 */
#ifndef FRAMEWORK_OBJECT_H
#define FRAMEWORK_OBJECT_H

#define FRAMEWORK_TAG 'mrFK'
#define WDF_VIOLATION 0x10D

/* A routine that no correct client comes to: its code lies apart. */
#define COLD __attribute__((cold, noinline))

/* The first parameter of WDF_VIOLATION, as the page has them; WHAT_IS_MISSING is none of its. */
enum { NULL_PARAMETER = 4, WRONG_HANDLE = 5, FATAL_REQUEST = 6, WRONG_DELETION = 7, WHAT_IS_MISSING = 0x1000 };
/* The second of FATAL_REQUEST. */
enum { INFORMATION_TOO_LONG = 4 };

typedef enum _OBJECT_KIND {
    NoKind, /* deleted */
    GeneralKind,
    DriverKind,
    DeviceKind,
    QueueKind,
    RequestKind,
    FileKind,
    InterruptKind,
    TimerKind,
    DpcKind,
    WorkItemKind,
    SpinLockKind,
    WaitLockKind,
    ResourcesKind,
    TargetKind
} OBJECT_KIND;

typedef struct _CONTEXT {
    struct _CONTEXT *Next;
    struct _OBJECT *Object;
    PCWDF_OBJECT_CONTEXT_TYPE_INFO Type;
    PFN_WDF_OBJECT_CONTEXT_CLEANUP EvtCleanup;
    PFN_WDF_OBJECT_CONTEXT_CLEANUP EvtDestroy;
    DECLSPEC_ALIGN(16) UCHAR Data[];
} CONTEXT;

typedef struct _OBJECT {
    OBJECT_KIND Kind;
    BOOLEAN Deleted;
    BOOLEAN IsKept; /* its memory is the client's next request's */
    LONG References;
    struct _CLIENT *Client;
    struct _OBJECT *Parent;
    LIST_ENTRY Children;
    LIST_ENTRY Sibling;
    CONTEXT *Contexts;
    VOID (*Dispose)(struct _OBJECT *Object); /* what it does ends; may wait */
} OBJECT;

/* A client and its globals, which come first. */
typedef struct _CLIENT {
    WDF_DRIVER_GLOBALS Globals;
    ULONG Minor;
    KSPIN_LOCK Lock; /* of all its objects' families */
    LONG Objects; /* in memory: the one that is kept is one of them */
    struct _LOG *Log; /* NULL where there was no memory for it */
    PVOID volatile Kept; /* the memory of a request that has ended, or NULL */
    struct _DRIVER *Driver;
    PDRIVER_OBJECT Wdm;
} CLIENT;

static CLIENT *ClientOf(PWDF_DRIVER_GLOBALS Globals)
{
    return CONTAINING_RECORD(Globals, CLIENT, Globals);
}

static DECLSPEC_NORETURN COLD VOID Violation(ULONG_PTR Code, ULONG_PTR Second, ULONG_PTR Third)
{
    KeBugCheckEx(WDF_VIOLATION, Code, Second, Third, 0);
}

/* What this framework does not do: it says so and stops. */
static DECLSPEC_NORETURN COLD VOID Missing(const CHAR *What)
{
    DbgPrint("framework: %s: missing\n", What);
    Violation(WHAT_IS_MISSING, 0, (ULONG_PTR)__builtin_return_address(0));
}

static PVOID HandleOf(OBJECT *Object)
{
    return (PVOID) ~(ULONG_PTR)Object;
}

static inline OBJECT *AnyObject(PVOID Handle)
{
    OBJECT *Object = (OBJECT *)~(ULONG_PTR)Handle;

    if (Handle == NULL) {
        Violation(NULL_PARAMETER, 0, (ULONG_PTR)__builtin_return_address(0));
    }
    if (Object->Kind == NoKind) {
        Violation(WRONG_HANDLE, (ULONG_PTR)Handle, 0);
    }
    return Object;
}

static inline PVOID ObjectOf(PVOID Handle, OBJECT_KIND Kind)
{
    OBJECT *Object = AnyObject(Handle);

    if (Object->Kind != Kind) {
        Violation(WRONG_HANDLE, (ULONG_PTR)Handle, 0);
    }
    return Object;
}

static NTSTATUS AddContext(OBJECT *Object, PWDF_OBJECT_ATTRIBUTES Attributes, PVOID *Data)
{
    SIZE_T Size = 0;
    CONTEXT *Context;
    KIRQL Irql;

    if (Attributes->ContextTypeInfo != NULL) {
        Size = max(Attributes->ContextSizeOverride, Attributes->ContextTypeInfo->ContextSize);
    }
    Context = ExAllocatePoolWithTag(NonPagedPool, sizeof(CONTEXT) + Size, FRAMEWORK_TAG);
    if (Context == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Context, sizeof(CONTEXT) + Size);
    Context->Object = Object;
    Context->Type = Attributes->ContextTypeInfo;
    Context->EvtCleanup = Attributes->EvtCleanupCallback;
    Context->EvtDestroy = Attributes->EvtDestroyCallback;
    KeAcquireSpinLock(&Object->Client->Lock, &Irql);
    Context->Next = Object->Contexts;
    Object->Contexts = Context;
    KeReleaseSpinLock(&Object->Client->Lock, Irql);
    if (Data != NULL) {
        *Data = Context->Data;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS CheckAttributes(PWDF_OBJECT_ATTRIBUTES Attributes)
{
    if (Attributes->Size != sizeof(WDF_OBJECT_ATTRIBUTES)) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    if (Attributes->ExecutionLevel == 0 || Attributes->ExecutionLevel > WdfExecutionLevelDispatch ||
        Attributes->SynchronizationScope == 0 || Attributes->SynchronizationScope > WdfSynchronizationScopeNone) {
        return STATUS_WDF_OBJECT_ATTRIBUTES_INVALID;
    }
    if (Attributes->ExecutionLevel == WdfExecutionLevelPassive) {
        Missing("WdfExecutionLevelPassive");
    }
    if (Attributes->SynchronizationScope == WdfSynchronizationScopeDevice ||
        Attributes->SynchronizationScope == WdfSynchronizationScopeQueue) {
        Missing("WdfSynchronizationScopeDevice, WdfSynchronizationScopeQueue");
    }
    return STATUS_SUCCESS;
}

/* The parent that attributes name, or the usual one. */
static OBJECT *ParentOf(PWDF_OBJECT_ATTRIBUTES Attributes, PVOID Usual)
{
    return Attributes != NULL && Attributes->ParentObject != NULL ? AnyObject(Attributes->ParentObject) : Usual;
}

/* Every member of it; what is behind it in the same memory is its maker's. */
static VOID InitializeObject(OBJECT *Object, CLIENT *Client, OBJECT_KIND Kind, OBJECT *Parent)
{
    Object->Kind = Kind;
    Object->Deleted = FALSE;
    Object->IsKept = FALSE;
    Object->References = 1;
    Object->Client = Client;
    Object->Parent = Parent;
    InitializeListHead(&Object->Children);
    InitializeListHead(&Object->Sibling);
    Object->Contexts = NULL;
    Object->Dispose = NULL;
}

/* Memory of an object, whose contents are undefined. */
static PVOID ObjectMemory(CLIENT *Client, SIZE_T Size)
{
    PVOID Memory = ExAllocatePoolWithTag(NonPagedPool, Size, FRAMEWORK_TAG);

    if (Memory != NULL) {
        InterlockedIncrement(&Client->Objects);
    }
    return Memory;
}

static VOID FreeMemory(CLIENT *Client, PVOID Memory)
{
    ExFreePoolWithTag(Memory, FRAMEWORK_TAG);
    InterlockedDecrement(&Client->Objects);
}

static VOID Release(OBJECT *Object)
{
    CLIENT *Client = Object->Client;
    CONTEXT *Context;

    /* Who has the only reference is alone. */
    if (Object->References != 1 && InterlockedDecrement(&Object->References) != 0) {
        return;
    }
    if (!Object->Deleted) {
        Violation(WRONG_DELETION, (ULONG_PTR)HandleOf(Object), 0);
    }
    for (Context = Object->Contexts; Context != NULL; Context = Context->Next) {
        if (Context->EvtDestroy != NULL) {
            Context->EvtDestroy(HandleOf(Object));
        }
    }
    while (Object->Contexts != NULL) {
        Context = Object->Contexts;
        Object->Contexts = Context->Next;
        ExFreePoolWithTag(Context, FRAMEWORK_TAG);
    }
    Object->Kind = NoKind;
    if (!Object->IsKept || InterlockedCompareExchangePointer(&Client->Kept, Object, NULL) != NULL) {
        FreeMemory(Client, Object);
    }
}

static VOID CleanUp(OBJECT *Object)
{
    CONTEXT *Context;

    for (Context = Object->Contexts; Context != NULL; Context = Context->Next) {
        if (Context->EvtCleanup != NULL) {
            Context->EvtCleanup(HandleOf(Object));
        }
    }
}

static OBJECT *LastChild(OBJECT *Object)
{
    OBJECT *Child = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&Object->Client->Lock, &Irql);
    if (!IsListEmpty(&Object->Children)) {
        Child = CONTAINING_RECORD(Object->Children.Blink, OBJECT, Sibling);
    }
    KeReleaseSpinLock(&Object->Client->Lock, Irql);
    return Child;
}

/* Of those that have not come to rest. */
static OBJECT *LastInUse(OBJECT *Object)
{
    OBJECT *Child = NULL;
    LIST_ENTRY *Entry;
    KIRQL Irql;

    KeAcquireSpinLock(&Object->Client->Lock, &Irql);
    for (Entry = Object->Children.Blink; Entry != &Object->Children && Child == NULL; Entry = Entry->Blink) {
        Child = CONTAINING_RECORD(Entry, OBJECT, Sibling);
        Child = Child->Deleted ? NULL : Child;
    }
    KeReleaseSpinLock(&Object->Client->Lock, Irql);
    return Child;
}

static VOID ComeToRest(OBJECT *Object)
{
    OBJECT *Child;

    if (Object->Deleted) {
        Violation(WRONG_HANDLE, (ULONG_PTR)HandleOf(Object), 0);
    }
    if (Object->Dispose != NULL && KeGetCurrentIrql() > PASSIVE_LEVEL) {
        Missing("deletion of what may have to be waited for, above PASSIVE_LEVEL");
    }
    Object->Deleted = TRUE;
    while ((Child = LastInUse(Object)) != NULL) {
        ComeToRest(Child);
    }
    if (Object->Dispose != NULL) {
        Object->Dispose(Object);
    }
    CleanUp(Object);
}

static VOID GiveUp(OBJECT *Object)
{
    OBJECT *Child;
    KIRQL Irql;

    while ((Child = LastChild(Object)) != NULL) {
        GiveUp(Child);
    }
    KeAcquireSpinLock(&Object->Client->Lock, &Irql);
    RemoveEntryList(&Object->Sibling);
    InitializeListHead(&Object->Sibling);
    KeReleaseSpinLock(&Object->Client->Lock, Irql);
    Release(Object);
}

static VOID Delete(OBJECT *Object)
{
    ComeToRest(Object);
    GiveUp(Object);
}

/* A new object of Size bytes, which begin with its OBJECT and are 0 behind it. It is given to its parent when all of it is there (Adopt). */
static NTSTATUS CreateObject(CLIENT *Client, OBJECT_KIND Kind, SIZE_T Size, PWDF_OBJECT_ATTRIBUTES Attributes, PVOID UsualParent,
                             PVOID *Created)
{
    NTSTATUS Status = Attributes == NULL ? STATUS_SUCCESS : CheckAttributes(Attributes);
    OBJECT *Object;

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Object = ObjectMemory(Client, Size);
    if (Object == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Object, Size);
    InitializeObject(Object, Client, Kind, ParentOf(Attributes, UsualParent));
    *Created = Object;
    return STATUS_SUCCESS;
}

/* The last step of creation: the context, the parent, and from now on the routine by which it comes to rest. */
static NTSTATUS Adopt(OBJECT *Object, PWDF_OBJECT_ATTRIBUTES Attributes, VOID (*Dispose)(OBJECT *Object))
{
    BOOLEAN HasContext = Attributes != NULL && (Attributes->ContextTypeInfo != NULL || Attributes->EvtCleanupCallback != NULL ||
                                                Attributes->EvtDestroyCallback != NULL);
    NTSTATUS Status = HasContext ? AddContext(Object, Attributes, NULL) : STATUS_SUCCESS;
    KIRQL Irql;

    if (!NT_SUCCESS(Status)) {
        Object->Deleted = TRUE;
        Release(Object);
        return Status;
    }
    Object->Dispose = Dispose;
    if (Object->Parent != NULL) {
        KeAcquireSpinLock(&Object->Client->Lock, &Irql);
        InsertTailList(&Object->Parent->Children, &Object->Sibling);
        KeReleaseSpinLock(&Object->Client->Lock, Irql);
    }
    return STATUS_SUCCESS;
}

static PVOID ObjectGetTypedContextWorker(PWDF_DRIVER_GLOBALS Globals, WDFOBJECT Handle, PCWDF_OBJECT_CONTEXT_TYPE_INFO Type)
{
    CONTEXT *Context;

    UNREFERENCED_PARAMETER(Globals);
    for (Context = AnyObject(Handle)->Contexts; Context != NULL; Context = Context->Next) {
        if (Context->Type == Type) {
            return Context->Data;
        }
    }
    return NULL;
}

static NTSTATUS ObjectAllocateContext(PWDF_DRIVER_GLOBALS Globals, WDFOBJECT Handle, PWDF_OBJECT_ATTRIBUTES Attributes, PVOID *Data)
{
    NTSTATUS Status = CheckAttributes(Attributes);
    PVOID Present;

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (Attributes->ContextTypeInfo == NULL || Attributes->ParentObject != NULL) {
        return STATUS_INVALID_PARAMETER;
    }
    Present = ObjectGetTypedContextWorker(Globals, Handle, Attributes->ContextTypeInfo);
    if (Present != NULL) {
        if (Data != NULL) {
            *Data = Present;
        }
        return STATUS_OBJECT_NAME_EXISTS;
    }
    return AddContext(AnyObject(Handle), Attributes, Data);
}

static WDFOBJECT ObjectContextGetObject(PWDF_DRIVER_GLOBALS Globals, PVOID Data)
{
    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(CONTAINING_RECORD(Data, CONTEXT, Data)->Object);
}

static VOID ObjectReferenceActual(PWDF_DRIVER_GLOBALS Globals, WDFOBJECT Handle, PVOID Tag, LONG Line, PCSTR File)
{
    UNREFERENCED_PARAMETER(Globals);
    UNREFERENCED_PARAMETER(Tag);
    UNREFERENCED_PARAMETER(Line);
    UNREFERENCED_PARAMETER(File);
    InterlockedIncrement(&AnyObject(Handle)->References);
}

static VOID ObjectDereferenceActual(PWDF_DRIVER_GLOBALS Globals, WDFOBJECT Handle, PVOID Tag, LONG Line, PCSTR File)
{
    UNREFERENCED_PARAMETER(Globals);
    UNREFERENCED_PARAMETER(Tag);
    UNREFERENCED_PARAMETER(Line);
    UNREFERENCED_PARAMETER(File);
    Release(AnyObject(Handle));
}

static NTSTATUS ObjectCreate(PWDF_DRIVER_GLOBALS Globals, PWDF_OBJECT_ATTRIBUTES Attributes, WDFOBJECT *Created)
{
    CLIENT *Client = ClientOf(Globals);
    OBJECT *Object;
    NTSTATUS Status = CreateObject(Client, GeneralKind, sizeof(OBJECT), Attributes, Client->Driver, (PVOID *)&Object);

    if (NT_SUCCESS(Status)) {
        Status = Adopt(Object, Attributes, NULL);
    }
    if (NT_SUCCESS(Status)) {
        *Created = HandleOf(Object);
    }
    return Status;
}

/* Objects that the framework itself deletes must not be deleted by a driver. */
static VOID ObjectDelete(PWDF_DRIVER_GLOBALS Globals, WDFOBJECT Handle)
{
    OBJECT *Object = AnyObject(Handle);

    UNREFERENCED_PARAMETER(Globals);
    if (Object->Kind == DriverKind || Object->Kind == RequestKind || Object->Kind == FileKind || Object->Kind == InterruptKind ||
        Object->Kind == ResourcesKind || Object->Kind == TargetKind) {
        Violation(WRONG_DELETION, (ULONG_PTR)Handle, 0);
    }
    Delete(Object);
}

#endif

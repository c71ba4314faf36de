/*
 * kmdf_class.sys: a class extension of KMDF, as those for batteries or network cards are: a client of the framework itself, without Plug and Play,
 * which registers a class library. Its device is \Device\KmdfClass0. A client of the class gives it numbers, and asks for their mean.
 *
 * The class, DirqlKmdfClass 1.2, serves four clients; to more it answers STATUS_INSUFFICIENT_RESOURCES, and to one that wants more functions than it has,
 * STATUS_REVISION_MISMATCH.
 */
#include <ddk/wdm.h>

#include "framework/client.h"
#include "framework/control.h"

#include "framework/class.h"

typedef struct _MEMBER {
    PWDF_DRIVER_GLOBALS Globals; /* NULL: none */
    ULONG Sum;
    ULONG Count;
} MEMBER;

static MEMBER Members[4];
static WDFSPINLOCK Lock;

/* The member of these globals; the lock is held. */
static MEMBER *MemberOf(PWDF_DRIVER_GLOBALS Globals)
{
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Members); Index++) {
        if (Members[Index].Globals == Globals) {
            return &Members[Index];
        }
    }
    return NULL;
}

static VOID ClassAdd(PWDF_DRIVER_GLOBALS Globals, ULONG Value)
{
    MEMBER *Member;

    CALL(WdfSpinLockAcquire, Lock);
    Member = MemberOf(Globals);
    Member->Sum += Value;
    Member->Count++;
    CALL(WdfSpinLockRelease, Lock);
}

static ULONG ClassMean(PWDF_DRIVER_GLOBALS Globals)
{
    MEMBER *Member;
    ULONG Mean;

    CALL(WdfSpinLockAcquire, Lock);
    Member = MemberOf(Globals);
    Mean = Member->Count == 0 ? 0 : Member->Sum / Member->Count;
    CALL(WdfSpinLockRelease, Lock);
    return Mean;
}

static NTSTATUS NTAPI Initialize(VOID)
{
    DbgPrint("class: initialized\n");
    return STATUS_SUCCESS;
}

static VOID NTAPI Deinitialize(VOID)
{
    DbgPrint("class: deinitialized\n");
}

static NTSTATUS NTAPI BindClient(WDF_CLASS_BIND_INFO *Class, WDF_COMPONENT_GLOBALS *Globals)
{
    static const PVOID Functions[CLASS_FUNCTION_COUNT] = {[ClassAddIndex] = ClassAdd, [ClassMeanIndex] = ClassMean};
    MEMBER *Member;

    if (Class->FunctionTableCount > CLASS_FUNCTION_COUNT) {
        return STATUS_REVISION_MISMATCH;
    }
    CALL(WdfSpinLockAcquire, Lock);
    Member = MemberOf(NULL);
    if (Member != NULL) {
        Member->Globals = Globals;
        Member->Sum = 0;
        Member->Count = 0;
    }
    CALL(WdfSpinLockRelease, Lock);
    if (Member == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(Class->FunctionTable, Functions, Class->FunctionTableCount * sizeof(Functions[0]));
    DbgPrint("class: serves %s\n", Globals->DriverName);
    return STATUS_SUCCESS;
}

static VOID NTAPI UnbindClient(WDF_CLASS_BIND_INFO *Class, WDF_COMPONENT_GLOBALS *Globals)
{
    UNREFERENCED_PARAMETER(Class);
    CALL(WdfSpinLockAcquire, Lock);
    MemberOf(Globals)->Globals = NULL;
    CALL(WdfSpinLockRelease, Lock);
    DbgPrint("class: serves %s no more\n", Globals->DriverName);
}

static WDF_CLASS_LIBRARY_INFO Library = {sizeof(Library), {CLASS_MAJOR, CLASS_MINOR, 0}, Initialize, Deinitialize, BindClient, UnbindClient};

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\KmdfClass0");

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DbgPrint("class: unloaded\n");
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    WDFDRIVER Handle;
    WDFDEVICE Device;
    NTSTATUS Status = CreateDriver(Driver, RegistryPath, OnUnload, &Handle);

    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfSpinLockCreate, NULL, &Lock);
    }
    if (NT_SUCCESS(Status)) {
        Status = CreateControlDevice(Handle, &DeviceName, NULL, &Device);
    }
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return NT_SUCCESS(Status) ? WdfRegisterClassLibrary(&Library, RegistryPath, &DeviceName) : Status;
}

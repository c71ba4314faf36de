/*
 * The frameworks' loader, WDFLDR.SYS, as its callers are compiled: no kit that mingw has knows it, and no page of Microsoft's. Written anew
 * from the layouts of compiled frameworks and clients of KMDF 1.x.
 */
#ifndef WDFLDR_H
#define WDFLDR_H

typedef struct _WDF_VERSION {
    ULONG Major;
    ULONG Minor;
    ULONG Build;
} WDF_VERSION;

/* What a client asks for; FuncTable is its own array, or (444 functions and more) where the address of the library's table goes. */
typedef struct _WDF_BIND_INFO {
    ULONG Size;
    PCWSTR Component;
    WDF_VERSION Version;
    ULONG FuncCount;
    PVOID *FuncTable;
    PVOID Module;
} WDF_BIND_INFO;

/* The same of a client that also runs on older frameworks. */
typedef struct _WDF_BIND_INFO2 {
    WDF_BIND_INFO Info;
    PULONG MinimumVersionRequired;
    PBOOLEAN ClientVersionHigherThanFramework;
    PULONG FuncCountPtr;
    PULONG StructCountPtr;
    PVOID *StructTable;
} WDF_BIND_INFO2;

/* What a client and the loader know of a framework's globals. */
typedef struct _WDF_COMPONENT_GLOBALS {
    PVOID Driver;
    ULONG DriverFlags;
    ULONG DriverTag;
    CHAR DriverName[32];
    BOOLEAN DisplaceDriverUnload;
} WDF_COMPONENT_GLOBALS;

typedef struct _CLIENT_INFO {
    ULONG Size;
    PUNICODE_STRING RegistryPath;
    PDRIVER_OBJECT DriverObject;
} CLIENT_INFO;

typedef struct _WDF_LIBRARY_INFO {
    ULONG Size;
    NTSTATUS(NTAPI *LibraryCommission)(VOID);
    NTSTATUS(NTAPI *LibraryDecommission)(VOID);
    /* Context: the address of a CLIENT_INFO; comes back with what the framework wants. */
    NTSTATUS(NTAPI *LibraryRegisterClient)(WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS **Globals, PVOID *Context);
    NTSTATUS(NTAPI *LibraryUnregisterClient)(WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Globals);
    WDF_VERSION Version;
} WDF_LIBRARY_INFO;

typedef struct _WDF_CLASS_BIND_INFO {
    ULONG Size;
    PCWSTR ClassName;
    WDF_VERSION Version;
    PVOID *FunctionTable;
    ULONG FunctionTableCount;
    PVOID ClassBindInfo;
    PVOID ClientBindClass;
    PVOID ClientUnbindClass;
    PVOID ClassModule;
} WDF_CLASS_BIND_INFO;

typedef struct _WDF_CLASS_LIBRARY_INFO {
    ULONG Size;
    WDF_VERSION Version;
    NTSTATUS(NTAPI *ClassLibraryInitialize)(VOID);
    VOID(NTAPI *ClassLibraryDeinitialize)(VOID);
    NTSTATUS(NTAPI *ClassLibraryBindClient)(WDF_CLASS_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Globals);
    VOID(NTAPI *ClassLibraryUnbindClient)(WDF_CLASS_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Globals);
} WDF_CLASS_LIBRARY_INFO;

typedef struct _WDF_INTERFACE_HEADER {
    const GUID *InterfaceType;
    ULONG InterfaceSize;
} WDF_INTERFACE_HEADER;

/* What the loader answers by its standard interface. */
typedef struct _WDF_LOADER_INTERFACE {
    WDF_INTERFACE_HEADER Header;
    PVOID RegisterLibrary;
    PVOID VersionBind;
    PVOID VersionUnbind;
    NTSTATUS(NTAPI *DiagnosticsValueByNameAsULONG)(PUNICODE_STRING Name, PULONG Value);
} WDF_LOADER_INTERFACE;

DECLSPEC_IMPORT NTSTATUS NTAPI WdfRegisterLibrary(WDF_LIBRARY_INFO *Info, PUNICODE_STRING ServicePath, PCUNICODE_STRING DeviceName);
DECLSPEC_IMPORT NTSTATUS NTAPI WdfRegisterClassLibrary(WDF_CLASS_LIBRARY_INFO *Info, PUNICODE_STRING ServicePath, PCUNICODE_STRING DeviceName);
DECLSPEC_IMPORT NTSTATUS NTAPI WdfVersionBind(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath, WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS **Globals);
DECLSPEC_IMPORT NTSTATUS NTAPI WdfVersionUnbind(PUNICODE_STRING RegistryPath, WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Globals);
DECLSPEC_IMPORT NTSTATUS NTAPI WdfVersionBindClass(WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Globals, WDF_CLASS_BIND_INFO *Class);
DECLSPEC_IMPORT VOID NTAPI WdfVersionUnbindClass(WDF_BIND_INFO *Info, WDF_COMPONENT_GLOBALS *Globals, WDF_CLASS_BIND_INFO *Class);
DECLSPEC_IMPORT NTSTATUS NTAPI WdfLdrQueryInterface(WDF_INTERFACE_HEADER *Header);
DECLSPEC_IMPORT NTSTATUS NTAPI WdfLdrDiagnosticsValueByNameAsULONG(PUNICODE_STRING Name, PULONG Value);
DECLSPEC_IMPORT NTSTATUS NTAPI DllInitialize(PUNICODE_STRING RegistryPath);
DECLSPEC_IMPORT NTSTATUS NTAPI DllUnload(VOID);

#endif

/*
 * KMDF's loader, WDFLDR.SYS: its exports and the structures by which a framework, a class library and a client introduce themselves.
 */
#ifndef FRAMEWORK_LOADER_H
#define FRAMEWORK_LOADER_H

typedef struct _WDF_VERSION {
    ULONG Major;
    ULONG Minor;
    ULONG Build;
} WDF_VERSION;

typedef VOID (*WDFFUNC)(VOID);

/* What a client gets when it binds, and hands to each function of the table. */
typedef struct _WDF_DRIVER_GLOBALS {
    struct WDFDRIVER__ *Driver;
    ULONG DriverFlags;
    ULONG DriverTag;
    CHAR DriverName[32];
    BOOLEAN DisplaceDriverUnload;
} WDF_DRIVER_GLOBALS, *PWDF_DRIVER_GLOBALS;
C_ASSERT(FIELD_OFFSET(WDF_DRIVER_GLOBALS, DisplaceDriverUnload) == 0x30);

typedef struct _WDF_BIND_INFO {
    ULONG Size;
    PCWSTR Component;
    WDF_VERSION Version;
    ULONG FuncCount;
    PVOID FuncTable; /* 438 functions or fewer: the client's array; more: the place for the address of the library's */
    PVOID Module;
} WDF_BIND_INFO, *PWDF_BIND_INFO;
C_ASSERT(sizeof(WDF_BIND_INFO) == 0x30);

/* Of a client of 1.25 or later that works with an older framework too. */
typedef struct _WDF_BIND_INFO2 {
    WDF_BIND_INFO Info;
    PULONG MinimumVersionRequired;
    PBOOLEAN ClientVersionHigherThanFramework;
    PULONG FuncCountPtr;
    PULONG StructCountPtr;
    const SIZE_T **StructTable;
} WDF_BIND_INFO2;
C_ASSERT(sizeof(WDF_BIND_INFO2) == 0x58);

/* A client, as the loader names it to the framework. */
typedef struct _CLIENT_INFO {
    ULONG Size;
    PUNICODE_STRING RegistryPath;
    PDRIVER_OBJECT DriverObject;
} CLIENT_INFO;
C_ASSERT(sizeof(CLIENT_INFO) == 0x18);

typedef struct _WDF_LIBRARY_INFO {
    ULONG Size;
    NTSTATUS (*LibraryCommission)(VOID);
    NTSTATUS (*LibraryDecommission)(VOID);
    NTSTATUS (*LibraryRegisterClient)(PWDF_BIND_INFO Info, PWDF_DRIVER_GLOBALS *Globals, PVOID *Context);
    NTSTATUS (*LibraryUnregisterClient)(PWDF_BIND_INFO Info, PWDF_DRIVER_GLOBALS Globals);
    WDF_VERSION Version;
} WDF_LIBRARY_INFO;
C_ASSERT(sizeof(WDF_LIBRARY_INFO) == 0x38);

typedef struct _WDF_CLASS_BIND_INFO WDF_CLASS_BIND_INFO, *PWDF_CLASS_BIND_INFO;

typedef NTSTATUS (*CLIENT_BIND_CLASS)(NTSTATUS (*Bind)(PWDF_BIND_INFO, PWDF_DRIVER_GLOBALS, PWDF_CLASS_BIND_INFO), PWDF_BIND_INFO Info,
                                      PWDF_DRIVER_GLOBALS Globals, PWDF_CLASS_BIND_INFO Class);
typedef VOID (*CLIENT_UNBIND_CLASS)(VOID (*Unbind)(PWDF_BIND_INFO, PWDF_DRIVER_GLOBALS, PWDF_CLASS_BIND_INFO), PWDF_BIND_INFO Info,
                                    PWDF_DRIVER_GLOBALS Globals, PWDF_CLASS_BIND_INFO Class);

/* A class that a client binds besides the framework. */
struct _WDF_CLASS_BIND_INFO {
    ULONG Size;
    PCWSTR ClassName;
    WDF_VERSION Version;
    WDFFUNC *FunctionTable;
    ULONG FunctionTableCount;
    PVOID ClassBindInfo;
    CLIENT_BIND_CLASS ClientBindClass; /* NULL: the loader's routine is called */
    CLIENT_UNBIND_CLASS ClientUnbindClass;
    PVOID ClassModule;
};
C_ASSERT(sizeof(WDF_CLASS_BIND_INFO) == 0x50);

typedef struct _WDF_CLASS_LIBRARY_INFO {
    ULONG Size;
    WDF_VERSION Version;
    NTSTATUS (*ClassLibraryInitialize)(VOID);
    VOID (*ClassLibraryDeinitialize)(VOID);
    NTSTATUS (*ClassLibraryBindClient)(PWDF_CLASS_BIND_INFO Class, PWDF_DRIVER_GLOBALS Client);
    VOID (*ClassLibraryUnbindClient)(PWDF_CLASS_BIND_INFO Class, PWDF_DRIVER_GLOBALS Client);
} WDF_CLASS_LIBRARY_INFO;
C_ASSERT(sizeof(WDF_CLASS_LIBRARY_INFO) == 0x30);

NTSTATUS NTAPI WdfRegisterLibrary(WDF_LIBRARY_INFO *Info, PUNICODE_STRING ServicePath, PCUNICODE_STRING DeviceName);
NTSTATUS NTAPI WdfVersionBind(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath, PWDF_BIND_INFO Info, PWDF_DRIVER_GLOBALS *Globals);
NTSTATUS NTAPI WdfVersionUnbind(PUNICODE_STRING RegistryPath, PWDF_BIND_INFO Info, PWDF_DRIVER_GLOBALS Globals);
NTSTATUS WdfVersionBindClass(PWDF_BIND_INFO Info, PWDF_DRIVER_GLOBALS Globals, PWDF_CLASS_BIND_INFO Class);
VOID WdfVersionUnbindClass(PWDF_BIND_INFO Info, PWDF_DRIVER_GLOBALS Globals, PWDF_CLASS_BIND_INFO Class);
NTSTATUS NTAPI WdfRegisterClassLibrary(WDF_CLASS_LIBRARY_INFO *Info, PUNICODE_STRING ServicePath, PCUNICODE_STRING DeviceName);

/* The functions of version 1.Minor; 0: there is no such version. */
static inline ULONG FunctionCountOf(ULONG Minor)
{
    static const USHORT Counts[] = {383, 386, 0,   387, 387, 396, 432, 438, 444, 444, 446, 448,
                                    451, 453, 453, 454, 458, 458}; /* of 1.0, 1.1, then of each odd one */

    if (Minor < 2) {
        return Counts[Minor];
    }
    return Minor % 2 == 0 || Minor > 33 ? 0 : Counts[(Minor + 1) / 2];
}

#define FUNCTIONS_IN_OWN_ARRAY 438 /* the most that are copied into the client's array */

#endif

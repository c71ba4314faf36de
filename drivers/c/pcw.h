/* Performance counters, which mingw's kit lacks. Included behind the DDK's declarations. */
#ifndef PCW_H
#define PCW_H

typedef struct _PCW_COUNTER_DESCRIPTOR {
    USHORT Id;
    USHORT StructIndex;
    USHORT Offset;
    USHORT Size;
} PCW_COUNTER_DESCRIPTOR;

typedef struct _PCW_DATA {
    const VOID *Data;
    ULONG Size;
} PCW_DATA;

typedef struct _PCW_MASK_INFORMATION {
    ULONG64 CounterMask;
    PUNICODE_STRING InstanceMask;
    ULONG InstanceId;
    BOOLEAN CollectMultiple;
    PVOID Buffer;
    PKEVENT CancelEvent;
} PCW_MASK_INFORMATION;

typedef enum { AddCounter, RemoveCounter, EnumerateInstances, CollectData } PCW_CALLBACK_TYPE;
typedef NTSTATUS(NTAPI *PCW_CALLBACK)(PCW_CALLBACK_TYPE Type, PCW_MASK_INFORMATION *Info, PVOID Context);

typedef struct _PCW_REGISTRATION_INFORMATION {
    ULONG Version;
    PUNICODE_STRING Name;
    ULONG CounterCount;
    PCW_COUNTER_DESCRIPTOR *Counters;
    PCW_CALLBACK Callback;
    PVOID CallbackContext;
    ULONG Flags;
} PCW_REGISTRATION_INFORMATION;

NTKERNELAPI NTSTATUS NTAPI PcwRegister(PVOID *Registration, PCW_REGISTRATION_INFORMATION *Info);
NTKERNELAPI VOID NTAPI PcwUnregister(PVOID Registration);
NTKERNELAPI NTSTATUS NTAPI PcwCreateInstance(PVOID *Instance, PVOID Registration, PUNICODE_STRING Name, ULONG Count, PCW_DATA *Data);
NTKERNELAPI VOID NTAPI PcwCloseInstance(PVOID Instance);
NTKERNELAPI NTSTATUS NTAPI PcwAddInstance(PVOID Buffer, PUNICODE_STRING Name, ULONG Id, ULONG Count, PCW_DATA *Data);

#define PCW_VERSION_1 0x100
#define PCW_ANY_INSTANCE_ID 0xFFFFFFFF

#endif

/*
 * hostile.sys: code that attacks the machine that runs it, one attack for each control code. \\.\DirqlHostile,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB00 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Attacks below.
 * Code 0xB00 is sound: it returns the number of attacks.
 *
 * faults.sys has the bugs that drivers have; this one does what no driver does by mistake: it makes Linux system calls,
 * rewrites processor state, and writes over the addresses where dirql itself lives. Never load it on a machine you care for.
 */
#include <ddk/wdm.h>

#define FIRST_FUNCTION 0xB00
#define INIT_CODE __attribute__((section("INIT")))
#define HOSTILE_TAG 0x74736F48u /* "Host" in pool listings */

/* Where dirql keeps what is not the driver's: crates/engine/src/windows.rs. Heap and stacks lie elsewhere in each process; they
   were here once. */
#define CODE_CACHE ((PUCHAR)0x200060000000ull)
#define SCRATCH_PAGE ((PUCHAR)0x70000000ull)
#define DISPATCH_TABLE ((PUCHAR)0x200070000000ull)
#define MACHINE_HEAP ((PUCHAR)0x204000000000ull)
#define HOST_STACKS ((PUCHAR)0x205000000000ull)

typedef VOID (*ATTACK)(VOID);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlHostile");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlHostile");
static PDEVICE_OBJECT OwnDevice;
static volatile ULONG64 Zero; /* volatile, so that the compiler cannot see through the attacks */

/* ---- system calls of the host ------------------------------------------------------------------------------------ */

/* 1: exit_group(0) of 64-bit Linux: a run that ends so would look clean. */
static VOID Syscall(VOID)
{
    __asm__ volatile("movl $231, %%eax; xorl %%edi, %%edi; syscall" ::: "rax", "rdi", "rcx", "r11", "memory");
}

/* 2: the same by the 32-bit gate. */
static VOID Int80(VOID)
{
    __asm__ volatile("movl $252, %%eax; xorl %%ebx, %%ebx; int $0x80" ::: "rax", "rbx", "memory");
}

/* 3: and by the 32-bit fast one. */
static VOID Sysenter(VOID)
{
    __asm__ volatile("movl $252, %%eax; xorl %%ebx, %%ebx; sysenter" ::: "rax", "rbx", "memory");
}

/* ---- processor state --------------------------------------------------------------------------------------------- */

/* 4: returns from an interrupt that there was not, to an address of the host's. */
static VOID Iretq(VOID)
{
    __asm__ volatile("pushq $0x2b; pushq %0; pushq $0x202; pushq $0x33; pushq %0; iretq" ::"r"(0x400000ull) : "memory");
}

/* 5: a descriptor table of its own. */
static VOID SetGdt(VOID)
{
    static const UCHAR Table[10];

    __asm__ volatile("lgdt %0" ::"m"(Table));
}

/* 6: the address that system calls go to. */
static VOID Wrmsr(VOID)
{
    __asm__ volatile("wrmsr" ::"c"(0xC0000082), "a"(0), "d"(0));
}

/* 7: a call to the hypervisor. */
static VOID Vmcall(VOID)
{
    __asm__ volatile("vmcall" ::"a"(0));
}

/* 8: a far jump to a 32-bit code segment. */
static VOID FarJump(VOID)
{
    static const struct {
        ULONG Offset;
        USHORT Segment;
    } Target = {0x1000, 0x23};

    __asm__ volatile("ljmp *%0" ::"m"(Target));
}

/* 9: a far return. */
static VOID FarReturn(VOID)
{
    __asm__ volatile("pushq $0x33; pushq %0; lretq" ::"r"(0x400000ull) : "memory");
}

/* 10: another GS, then what every driver reads through it. */
static VOID GsBase(VOID)
{
    ULONG64 Thread;

    __asm__ volatile("wrgsbase %1; movq %%gs:0x188, %0" : "=r"(Thread) : "r"(0x1000ull));
}

/* 11: GS by its selector. */
static VOID GsSelector(VOID)
{
    __asm__ volatile("movw %w0, %%gs" ::"r"(0));
    KeGetCurrentIrql();
}

/* 12: FS is the host's thread. */
static VOID FsWrite(VOID)
{
    __asm__ volatile("movq %0, %%fs:0x10; movq %0, %%fs:0x28" ::"r"(0x4141414141414141ull) : "memory");
    KeGetCurrentIrql();
}

/* 13: the stack in the middle of nowhere. */
static VOID StackPivotNowhere(VOID)
{
    __asm__ volatile("movq %0, %%rsp; pushq %0; call *%1" ::"r"(0x4141414141410000ull), "r"(KeGetCurrentIrql) : "memory");
}

/* 14: the stack in pool, and a call of the kernel from there. */
static VOID StackPivotPool(VOID)
{
    PUCHAR Stack = ExAllocatePoolWithTag(NonPagedPool, 0x4000, HOSTILE_TAG);

    if (Stack != NULL) {
        __asm__ volatile("movq %%rsp, %%rbx; movq %0, %%rsp; call *%1; movq %%rbx, %%rsp" ::"r"(Stack + 0x3F00),
                         "r"(KeGetCurrentIrql)
                         : "rbx", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory");
        ExFreePoolWithTag(Stack, HOSTILE_TAG);
    }
}

/* 15: single steps, alignment checks and strings downwards, into a call of the kernel. */
static VOID Flags(VOID)
{
    __asm__ volatile("pushfq; orq $0x40500, (%%rsp); popfq" ::: "memory", "cc");
    KeGetCurrentIrql();
}

/* 16: every floating-point exception unmasked, then a division by zero. */
static VOID FloatingPoint(VOID)
{
    ULONG Control = 0;
    double Value = 1.0;

    __asm__ volatile("ldmxcsr %1; divsd %2, %0" : "+x"(Value) : "m"(Control), "m"(Zero));
}

/* 17: page tables of its own. */
static VOID Cr3(VOID)
{
    __asm__ volatile("movq %0, %%cr3" ::"r"(0ull));
}

/* 18: stops the processor with interrupts off. */
static VOID Halt(VOID)
{
    __asm__ volatile("cli; hlt");
}

/* 19: never lets an interrupt in again. */
static VOID SpinWithoutInterrupts(VOID)
{
    __asm__ volatile("cli");
    while (Zero == 0) {
        YieldProcessor();
    }
}

/* ---- where it jumps to ------------------------------------------------------------------------------------------- */

/* 20: into the middle of an instruction, which is a system call there. */
static VOID MiddleOfInstruction(VOID)
{
    __asm__ volatile("movl $231, %%eax; xorl %%edi, %%edi; leaq 1f(%%rip), %%rcx; incq %%rcx; jmp *%%rcx\n"
                     "1: movl $0xc3050f90, %%eax" ::
                         : "rax", "rcx", "rdi", "r11", "memory");
}

/* 21: where a Linux program begins. */
static VOID CallHost(VOID)
{
    ((ATTACK)(ULONG_PTR)(0x401000 + Zero))();
}

/* 22: the host kernel's own page in every process. */
static VOID CallVsyscall(VOID)
{
    ((ATTACK)(ULONG_PTR)(0xFFFFFFFFFF600000ull + Zero))();
}

/* 23: the translations themselves. */
static VOID CallCodeCache(VOID)
{
    ((ATTACK)(ULONG_PTR)(CODE_CACHE + 0x1001 + Zero))();
}

/* 24: its own text, changed. */
static VOID ChangeText(VOID)
{
    *(volatile UCHAR *)(ULONG_PTR)ChangeText = 0xC3;
}

/* ---- what it uses up --------------------------------------------------------------------------------------------- */

/* 25: all the pool there is. */
static VOID AllPool(VOID)
{
    while (ExAllocatePoolWithTag(NonPagedPool, 1 << 20, HOSTILE_TAG) != NULL) {
    }
}

/* 26: lines without an end. */
static VOID PrintForEver(VOID)
{
    for (;;) {
        DbgPrint("hostile: and on, and on\n");
    }
}

/* 32: sends itself a request again and again, each time from within the other. */
static VOID SendToItself(VOID)
{
    PIRP Irp = IoAllocateIrp(OwnDevice->StackSize, FALSE);

    if (Irp != NULL) {
        IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
        IoCallDriver(OwnDevice, Irp);
    }
}

/* ---- dirql's own memory ------------------------------------------------------------------------------------------ */

static VOID Overwrite(PUCHAR At, SIZE_T Length, UCHAR Byte)
{
    SIZE_T Index;

    for (Index = 0; Index < Length; Index++) {
        ((volatile UCHAR *)At)[Index] = Byte;
    }
}

/* 27: the kernel's state. */
static VOID OverwriteHeap(VOID)
{
    Overwrite(MACHINE_HEAP, 1 << 20, 0x41);
}

/* 28: the stacks that the kernel stands on: the first thread's, behind the scheduler's own. */
static VOID OverwriteStacks(VOID)
{
    Overwrite(HOST_STACKS + 0x1C0000, 0x400000, 0x41);
}

/* 29: where each address is translated to. */
static VOID OverwriteTable(VOID)
{
    Overwrite(DISPATCH_TABLE, 1 << 24, 0x41);
}

/* 30: what translated code keeps for a moment. */
static VOID OverwriteScratch(VOID)
{
    Overwrite(SCRATCH_PAGE, 0x1000, 0x41);
    KeGetCurrentIrql();
}

/* 31: the translations, by exit_group(0). */
static VOID OverwriteCodeCache(VOID)
{
    static const UCHAR Exit[16] = {0xB8, 231, 0, 0, 0, 0x31, 0xFF, 0x0F, 0x05, 0x90, 0x90, 0x90, 0x90, 0x90, 0xEB, 0xF0};
    SIZE_T Index;

    for (Index = 0; Index < 1 << 16; Index++) {
        ((volatile UCHAR *)CODE_CACHE)[Index] = Exit[Index % sizeof(Exit)];
    }
}

/* ---- what it can find out about the host -------------------------------------------------------------------------- */

/* Prints a checksum of what lies here: an address of the host's would make it another in each process. */
static VOID PrintWords(const char *Name, PUCHAR At, SIZE_T Length)
{
    ULONG64 Sum = 0;
    SIZE_T Offset;

    for (Offset = 0; Offset + 8 <= Length; Offset++) {
        Sum = (Sum << 7 | Sum >> 57) ^ *(volatile ULONG64 UNALIGNED *)(At + Offset);
    }
    DbgPrint("%s: sum %llx\n", Name, Sum);
}

/* 33: what translated code keeps for a moment. */
static VOID PrintScratch(VOID)
{
    ULONG Index;

    for (Index = 0; Index < 0x1000 / 8; Index++) {
        ULONG64 Word = ((volatile ULONG64 *)SCRATCH_PAGE)[Index];

        if (Word != 0) {
            DbgPrint("scratch+%x: %llx\n", Index * 8, Word);
        }
    }
    PrintWords("scratch", SCRATCH_PAGE, 0x1000);
}

/* 34: the translations, from the stubs that every run has to its own, and what leads to them. */
static VOID PrintCache(VOID)
{
    PrintWords("stubs", CODE_CACHE, 0x8000);
    PrintWords("translations", CODE_CACHE + 0x400000, 0x8000);
    PrintWords("table", DISPATCH_TABLE + 0x7000, 0x2000);
}

/* 35: what a call of the kernel leaves in registers, and below the stack pointer. */
static VOID PrintLeftovers(VOID)
{
    ULONG64 Registers[10], Called = (ULONG64)(ULONG_PTR)KeQueryActiveProcessorCount, Argument = 0;
    UCHAR Vectors[96], Below[1024];
    ULONG Index;

    __asm__ volatile("subq $32, %%rsp; call *%%rax; addq $32, %%rsp\n"
                     "movq %%rax, (%%rbx); movq %%rcx, 8(%%rbx); movq %%rdx, 16(%%rbx); movq %%r8, 24(%%rbx)\n"
                     "movq %%r9, 32(%%rbx); movq %%r10, 40(%%rbx); movq %%r11, 48(%%rbx)\n"
                     "movups %%xmm0, (%%rdi); movups %%xmm1, 16(%%rdi); movups %%xmm2, 32(%%rdi)\n"
                     "movups %%xmm3, 48(%%rdi); movups %%xmm4, 64(%%rdi); movups %%xmm5, 80(%%rdi)\n"
                     : "+a"(Called), "+c"(Argument)
                     : "b"(Registers), "D"(Vectors)
                     : "rdx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "memory", "cc");
    for (Index = 0; Index < sizeof(Below); Index++) {
        Below[Index] = *((volatile UCHAR *)__builtin_frame_address(0) - sizeof(Below) - 2048 + Index);
    }
    PrintWords("registers", (PUCHAR)Registers, 7 * 8);
    PrintWords("vectors", Vectors, sizeof(Vectors));
    PrintWords("below", Below, sizeof(Below));
}

/* 36: where its own routine is translated to: elsewhere. */
static VOID RedirectTable(VOID)
{
    volatile ULONG *Entry = (volatile ULONG *)(DISPATCH_TABLE + ((ULONG64)(ULONG_PTR)PrintLeftovers & 0xFFFFFFFF) * 8);

    *Entry = *Entry + 1;
    PrintLeftovers();
}

/* 37: looks for a system call in the translations, which has one from its own immediate, and lets everything that lies beside the
   translations lead there. */
static VOID LeadToSyscall(VOID)
{
    SIZE_T Offset;
    ULONG Index;

    __asm__ volatile("movl $0xc3050f90, %%eax" ::: "rax");
    for (Offset = 0x400000; Offset < 0x480000; Offset++) {
        PUCHAR At = CODE_CACHE + Offset;

        if (At[0] == 0x0F && At[1] == 0x05 && At[2] == 0xC3) {
            DbgPrint("a system call at %p\n", At);
            for (Index = 0; Index < 0x1000 / 8; Index++) {
                ((volatile ULONG64 *)SCRATCH_PAGE)[Index] = (ULONG64)(ULONG_PTR)At;
            }
            __asm__ volatile("movl $231, %%eax; xorl %%edi, %%edi; call *%0" ::"r"(At + Zero) : "rax", "rdi", "rcx", "r11", "memory");
        }
    }
}

/* 38: the stack in the page that the kernel shares with applications. */
static VOID StackPivotShared(VOID)
{
    __asm__ volatile("movq %0, %%rsp; pushq %0" ::"r"(0xFFFFF78000000800ull) : "memory");
}

static const ATTACK Attacks[] = {
    NULL,        Syscall,       Int80,         Sysenter,      Iretq,
    SetGdt,        Wrmsr,         Vmcall,        FarJump,       FarReturn,
    GsBase,      GsSelector,    FsWrite,       StackPivotNowhere, StackPivotPool,
    Flags,       FloatingPoint, Cr3,           Halt,          SpinWithoutInterrupts,
    MiddleOfInstruction, CallHost, CallVsyscall, CallCodeCache, ChangeText,
    AllPool,     PrintForEver,  OverwriteHeap, OverwriteStacks, OverwriteTable,
    OverwriteScratch, OverwriteCodeCache, SendToItself, PrintScratch, PrintCache,
    PrintLeftovers, RedirectTable, LeadToSyscall, StackPivotShared,
};

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Number = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    (void)Device;
    if (Number == 0 && Stack->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = sizeof(Attacks) / sizeof(Attacks[0]) - 1;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (Number == 0 || Number >= sizeof(Attacks) / sizeof(Attacks[0])) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Attacks[Number]();
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchInternal(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Device, Irp);
}

static NTSTATUS DispatchCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    (void)Device;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID DriverUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

INIT_CODE NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    (void)RegistryPath;
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchInternal;
    Driver->DriverUnload = DriverUnload;
    OwnDevice = Device;
    return STATUS_SUCCESS;
}

/*
 * Stories of exceptions that come while another is dealt with, and of those that cross calls of the kernel.
 */
#ifndef SEH_NESTED_H
#define SEH_NESTED_H

#include "seh.h"

static NOINLINE void RaiseAndCatch(char Letter)
{
    __try {
        Sink = ReadAt(NoPlace);
        Step('x');
    } __except (1) {
        Step(Letter);
    }
}

/* A filter, a termination handler and a block may each have exceptions of their own. */
static ULONG HandledInside(void)
{
    Begin();
    __try {
        __try {
            Raise(STATUS_UNSUCCESSFUL);
            Step('x');
        } __finally {
            RaiseAndCatch('F');
        }
    } __except (RaiseAndCatch('f'), 1) {
        RaiseAndCatch('e');
        Step('E');
    }
    CHECK(Went("fFeE"));
    return 0;
}

static NOINLINE void FinallyThatRaises(void)
{
    __try {
        __try {
            __try {
                Raise(STATUS_DEVICE_BUSY);
                Step('x');
            } __finally {
                Step('1');
                Raise(STATUS_DEVICE_NOT_READY);
                Step('x');
            }
        } __finally {
            Step('2');
        }
    } __finally {
        Step('3');
    }
}

/* The second exception takes the first one's place; handlers that have begun are not run again. */
static ULONG FinallyRaises(void)
{
    volatile NTSTATUS Code = 0;

    /* It goes to the same handler. */
    Begin();
    __try {
        FinallyThatRaises();
    } __except (Filter('f', 1)) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("f1f23e"));
    CHECK(Code == STATUS_DEVICE_NOT_READY);

    /* It goes to one further in: the first unwind never comes to its end. */
    Begin();
    __try {
        __try {
            FinallyThatRaises();
        } __except (GetExceptionCode() == STATUS_DEVICE_NOT_READY ? Filter('i', 1) : Filter('n', 0)) {
            Step('I');
        }
        Step('g');
    } __except (Filter('f', 1)) {
        Step('x');
    }
    CHECK(Went("nf1i23Ig"));

    /* It goes to one further out than the first. */
    Begin();
    __try {
        __try {
            __try {
                FinallyThatRaises();
            } __except (GetExceptionCode() == STATUS_DEVICE_BUSY ? Filter('b', 1) : Filter('n', 0)) {
                Step('x');
            }
        } __finally {
            Step('4');
        }
    } __except (Filter('f', 1)) {
        Step('e');
    }
    CHECK(Went("b1nf234e"));
    return 0;
}

static NOINLINE int FilterThatRaisesOnce(char Letter)
{
    Step(Letter);
    if (StepCount < 3) {
        Raise(STATUS_INVALID_PARAMETER);
        Step('x');
    }
    return 1;
}

/* An exception in a filter is looked for a handler from the filter on outwards, the same frames included. */
static ULONG FilterRaises(void)
{
    volatile NTSTATUS Code = 0;

    Begin();
    __try {
        Raise(STATUS_DEVICE_BUSY);
        Step('x');
    } __except (FilterThatRaisesOnce('f')) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("fffe"));
    CHECK(Code == STATUS_INVALID_PARAMETER);
    return 0;
}

static PDEVICE_OBJECT TheDevice;

static NTSTATUS NTAPI CompletionThatFaults(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    Step('c');
    IoFreeIrp(Irp);
    __try {
        Sink = ReadAt(Context);
    } __finally {
        Step('C');
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

#define INTERNAL_RAISES 1 /* a control code */

/* IRP_MJ_INTERNAL_DEVICE_CONTROL: completes at once, and has something to tidy up. */
static NTSTATUS NTAPI DispatchInternal(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    __try {
        Step('d');
        if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == INTERNAL_RAISES) {
            Raise(STATUS_DEVICE_NOT_READY);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        Step('x');
    } __finally {
        Step('D');
    }
    return STATUS_SUCCESS;
}

/* A completion routine faults; who sent the IRP catches it, beyond IoCompleteRequest and IoCallDriver. */
static ULONG ThroughTheKernel(void)
{
    PIRP Irp = IoAllocateIrp((CCHAR)(TheDevice->StackSize + 1), FALSE);
    volatile NTSTATUS Code = 0;
    KIRQL Irql = KeGetCurrentIrql();

    CHECK(Irp != NULL);
    Begin();
    IoSetNextIrpStackLocation(Irp);
    IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    IoSetCompletionRoutine(Irp, CompletionThatFaults, NoPlace, TRUE, TRUE, TRUE);
    __try {
        IoCallDriver(TheDevice, Irp);
        Step('x');
    } __except (Filter('f', 1)) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("dcfCDe"));
    CHECK(Code == STATUS_ACCESS_VIOLATION);
    CHECK(KeGetCurrentIrql() == Irql);
    return 0;
}

static VOID NTAPI DpcThatCatches(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    __try {
        Sink = Divide(Zero);
    } __except (Filter('f', KeGetCurrentIrql() == DISPATCH_LEVEL)) {
        Step('e');
    }
}

/* What is no bad address is an exception at DISPATCH_LEVEL too, on the stack of DPCs. */
static ULONG InADpc(void)
{
    static KDPC Dpc;

    Begin();
    KeInitializeDpc(&Dpc, DpcThatCatches, NULL);
    __try {
        KeInsertQueueDpc(&Dpc, NULL, NULL);
        Step('t');
    } __except (Filter('x', 1)) {
        Step('X');
    }
    CHECK(Went("fet"));
    return 0;
}

#endif

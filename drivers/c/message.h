/*
 * What a test needs to talk to message.sys, and the registers of dirql's `bench` card that the driver uses.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

/* Input: a ULONG, the sources to raise. Ends when each has been served. */
#define IOCTL_MESSAGE_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
/* Output: one MESSAGE_STATE. */
#define IOCTL_MESSAGE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MAX_MESSAGES 32

#ifndef CONNECT_MESSAGE_BASED_PASSIVE /* Windows 8 */
#define CONNECT_MESSAGE_BASED_PASSIVE 5
#endif

typedef struct _MESSAGE_STATE {
    ULONG Version;         /* 00 as IoConnectInterruptEx left it */
    ULONG UnifiedIrql;     /* 04 0 without a table */
    ULONG MessageCount;    /* 08 messages connected */
    ULONG Requirements;    /* 0C interrupt descriptors of the first list, before the driver changed them */
    ULONG Asked;           /* 10 messages that the first of them asks for */
    ULONG Lists;           /* 14 alternative lists */
    ULONG Descriptors;     /* 18 interrupt descriptors in the start lists */
    ULONG Flags;           /* 1C of the first */
    ULONG RawCount;        /* 20 its MessageCount */
    ULONG Level;           /* 24 its translated level */
    ULONG Vector;          /* 28 its translated vector */
    ULONG Affinity;        /* 2C its processors */
    ULONG Early;           /* 30 calls of the routine before the connection was known */
    ULONG Faults;          /* 34 things that the routine found wrong */
    ULONG Dpcs;            /* 38 */
    ULONG Passed;          /* 3C calls that found nothing to do */
    ULONG Served[MAX_MESSAGES]; /* 40 */
    ULONG Retried;         /* C0 the platform knew only CONNECT_FULLY_SPECIFIED */
    ULONG Left;            /* C4 calls of the routine that have returned */
    ULONG Where;           /* C8 a bit for each processor that the routine ran on */
} MESSAGE_STATE;

/* BAR0, 32 bits each. */
#define BENCH_LENGTH 0x100
#define BENCH_IDENTIFICATION 0x00
#define BENCH_SOURCES 0x04
#define BENCH_RAISE 0x08
#define BENCH_STATUS 0x0C           /* write one to clear */
#define BENCH_STATUS_AND_CLEAR 0x10 /* read to clear */
#define BENCH_ENABLE 0x14
#define BENCH_SIGNAL 0x18
#define BENCH_DELAY 0x20

#define BENCH_IS_THERE 0x636E6542u /* Benc */

#endif

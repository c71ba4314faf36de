/* What drivers do between two kernel calls, for the figures `native_ratio_*`: run natively and translated. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT __declspec(dllexport)
#define NOINLINE __attribute__((noinline))

static u8 text[4096];
static u32 numbers[512];

static u64 next(u64 *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A checksum over a packet, bit by bit. */
EXPORT u64 crc(u64 seed)
{
    u32 sum = (u32)seed;
    for (u32 i = 0; i < sizeof text; i++) {
        sum ^= (u8)(i + seed);
        for (int bit = 0; bit < 8; bit++)
            sum = (sum >> 1) ^ (0xEDB88320u & (0u - (sum & 1)));
    }
    return sum;
}

/* A protocol: one state and one switch for each byte. */
EXPORT u64 parse(u64 seed)
{
    static const u8 alphabet[16] = "0123456789+-*/ ;";
    u64 total = 0, number = 0, words = 0, statements = 0;
    for (u32 i = 0; i < sizeof text; i++)
        text[i] = alphabet[(seed * (i | 1) >> 5) & 15];
    for (u32 i = 0; i < sizeof text; i++) {
        switch (text[i]) {
        case '+': total += number; number = 0; break;
        case '-': total -= number; number = 0; break;
        case '*': total ^= number << 1; number = 0; break;
        case '/': total = (total >> 1) + number; number = 0; break;
        case ' ': words++; break;
        case ';': statements++; total += words; break;
        default: number = number * 10 + text[i] - '0'; break;
        }
    }
    return total ^ words << 32 ^ statements;
}

typedef int (*comparison)(const u32 *, const u32 *);

NOINLINE static int ascending(const u32 *a, const u32 *b)
{
    return (*a > *b) - (*a < *b);
}

NOINLINE static void shell_sort(u32 *data, u32 count, comparison compare)
{
    for (u32 gap = count / 2; gap; gap /= 2)
        for (u32 i = gap; i < count; i++) {
            u32 value = data[i], at = i;
            while (at >= gap && compare(&data[at - gap], &value) > 0) {
                data[at] = data[at - gap];
                at -= gap;
            }
            data[at] = value;
        }
}

/* A list in order, by a routine that is passed. */
EXPORT u64 sort(u64 seed)
{
    u64 state = seed | 1;
    for (u32 i = 0; i < 512; i++)
        numbers[i] = (u32)next(&state);
    comparison volatile compare = ascending;
    shell_sort(numbers, 512, compare);
    return numbers[0] ^ (u64)numbers[255] << 20 ^ (u64)numbers[511] << 32;
}

/* Many small routines that call each other. */
NOINLINE static u64 descend(u64 n, u64 seed)
{
    if (n < 2)
        return n + (seed & 1);
    return descend(n - 1, seed) + descend(n - 2, seed);
}

EXPORT u64 calls(u64 seed)
{
    return descend(17, seed);
}

int __stdcall DllMain(void *a, u32 b, void *c)
{
    return a != 0 && b != 0 && c != 0;
}

/* Tiles of bfloat16, which a processor with AMX multiplies.
 *
 * A product of 16 by 32 numbers of bfloat16 and 32 by 16 adds to 16 by 16 sums in float32. A number
 * in float32 becomes two of bfloat16: itself, rounded, and what rounding loses of it, rounded too.
 * Together they have 17 bits or more of its 24. Of the product of two such sums, that of the two
 * second parts may be left out. Where nothing is lost, as of weights in bfloat16, there is no second
 * part.
 *
 * A tile has 16 lines of 16 words. Word i of a line holds numbers i and i + 16.
 */
#if defined __AMX_BF16__ && defined __AVX512BF16__ && defined __x86_64__ && defined __linux__
#if __has_builtin(__builtin_shufflevector)
#define TILES
#endif
#endif

#ifndef TILES
EXPORT int has_tiles(void) { return 0; }
#else
extern long syscall(long, ...);

/* Whether this process may use tiles: Linux gives their registers to those that ask for them. */
EXPORT int has_tiles(void) {
    enum { ARCH_PRCTL = 158, ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return !syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, TILE_DATA);
}

enum {
    LINES = 16, /* of a tile; as many words has a line */
    TERMS = 32  /* that a product of tiles sums */
};

/* Tile registers. A thread has them from `use_tiles` to `leave_tiles`. */
#define TILE_LOAD(tile, from, bytes)                                                             \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((long)(bytes))          \
                     : "memory")
#define TILE_STORE(tile, to, bytes)                                                              \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((long)(bytes))        \
                     : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %tmm" #tile)
#define TILE_ADD(sum, a, b) __asm__ volatile("tdpbf16ps %tmm" #b ", %tmm" #a ", %tmm" #sum)

INLINE void use_tiles(void) {
    struct {
        uint8_t palette, begin, zeros[14];
        uint16_t bytes[16]; /* of a line */
        uint8_t lines[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 4 * LINES, shape.lines[i] = LINES;
    __asm__ volatile("ldtilecfg %0" ::"m"(shape));
}

INLINE void leave_tiles(void) { __asm__ volatile("tilerelease"); }

/* Words of two numbers, rounded to bfloat16: the first is the lower half. */
INLINE ivec paired(vec first, vec second) {
    typedef short halves __attribute__((vector_size(VECTOR_BYTES)));
    halves x;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(x) : "v"(first), "v"(second));
#define TWO(i) i, i + 16
#define EIGHT(i) TWO(i), TWO(i + 1), TWO(i + 2), TWO(i + 3)
    return (ivec)__builtin_shufflevector(x, x, EIGHT(0), EIGHT(4), EIGHT(8), EIGHT(12));
}

INLINE int any_of(ivec words) {
    int any = 0;
    for (int i = 0; i < LANES; i++) any |= words[i];
    return any;
}

/* Where a number is infinite or NaN. Sums by tiles that are so are taken again in float32, where
 * they may be others: factors near the end of its range are rounded to infinity, and second parts,
 * which have either sign or are zero, make NaN of what is infinite. */
INLINE ivec not_finite(vec x) { return ~(v_abs(x) < INFINITY); }

/* Store a line of a tile, and `apart` lines from it what rounding loses; this is returned. */
INLINE ivec put_line(vec first, vec second, ivec *to, long apart) {
    const ivec line = paired(first, second);
    *to = line;
    return to[apart] = paired(first - (vec)(line << 16), second - (vec)(line & -65536));
}

/* Words of x and y: of blocks of d by d words, those that stay when blocks above and below the
 * diagonal change places, in the upper of two lines that are d apart, or in the lower. */
#define UPPER(d, i) (i) & d ? 16 + (i) - d : (i)
#define LOWER(d, i) (i) & d ? 16 + (i) : (i) + d
#define FOUR(of, d, i) of(d, i), of(d, i + 1), of(d, i + 2), of(d, i + 3)
#define WORDS(of, d) FOUR(of, d, 0), FOUR(of, d, 4), FOUR(of, d, 8), FOUR(of, d, 12)
#define EXCHANGE(d)                                                                              \
    UNROLL for (int i = 0; i < LINES; i++) if (!(i & d)) {                                       \
        const ivec x = tile[i], y = tile[i + d];                                                 \
        tile[i] = __builtin_shufflevector(x, y, WORDS(UPPER, d));                                \
        tile[i + d] = __builtin_shufflevector(x, y, WORDS(LOWER, d));                            \
    }

/* Exchange lines and words of a tile. */
static __attribute__((noinline, unused)) void turn(ivec *words) {
    ivec tile[LINES];
    UNROLL for (int i = 0; i < LINES; i++) tile[i] = words[i];
    EXCHANGE(8) EXCHANGE(4) EXCHANGE(2) EXCHANGE(1)
    UNROLL for (int i = 0; i < LINES; i++) words[i] = tile[i];
}

/* The first of n numbers, and zeros; n may be more than a vector has, or negative. */
INLINE vec first_of(const real *from, long n) {
    return n >= LANES ? v_load(from) : n > 0 ? v_load_n(from, (int)n) : (vec){0};
}
#endif

/* What all printed loops share: products by packed weights, threads, and barriers.
 *
 * The rows of a batch are split among groups of threads, the units of a stage among the threads of
 * a group. A thread computes the same units for all gates and all steps, so that its part of the
 * weights stays in its core's cache. After each stage the threads of a group wait for each other,
 * since each of them then reads what all have written.
 */
#include <sched.h>
#include <stdatomic.h>

EXPORT const int64_t lanes_of_a_vector = LANES;

#if SUMS > 12 /* a quarter faster at two or three rows, but slower with fewer registers */
#define UNROLL_TWICE _Pragma("GCC unroll 2")
#else
#define UNROLL_TWICE
#endif

/* A function that is called once a panel, a tile or a step: copies of it in its callers would take
 * time to compile, and save none. */
#define APART static __attribute__((noinline, unused))

/* The distance of two rows of n numbers in the workspace: whole vectors, and not a power of two,
 * since rows at such distances compete for the same cache lines. */
#define ROW(n) (((n) + LANES - 1) / LANES * LANES + LANES)

/* Partial sums of each column of vectors: enough independent ones to hide an addition's latency. */
#define SPLIT(vectors) ((vectors) >= 6 ? 1 : (vectors) >= 3 ? 2 : (vectors) == 2 ? 4 : 8)

/* The product (R, V vectors) of R rows of K numbers, `stride` apart, and a panel (K, V vectors), plus
 * V vectors in each row, if any. */
#define PRODUCT(V, R)                                                                            \
    APART void product_##V##_##R(const real *a, long stride, const real *w, long K,              \
                                 const real *plus, real *z) {                                    \
        enum { S = SPLIT(V * R) };                                                               \
        vec sum[S][R][V];                                                                        \
        UNROLL for (int s = 0; s < S; s++)                                                       \
            UNROLL for (int r = 0; r < R; r++)                                                   \
                UNROLL for (int v = 0; v < V; v++) sum[s][r][v] = (vec){0};                      \
        long k = 0;                                                                              \
        UNROLL_TWICE                                                                             \
        for (; k + S <= K; k += S)                                                               \
            UNROLL for (int s = 0; s < S; s++) {                                                 \
                vec column[V];                                                                   \
                UNROLL for (int v = 0; v < V; v++)                                               \
                    column[v] = v_load(w + ((k + s) * V + v) * LANES);                           \
                UNROLL for (int r = 0; r < R; r++) {                                             \
                    const vec x = v_set(a[r * stride + k + s]);                                  \
                    UNROLL for (int v = 0; v < V; v++) sum[s][r][v] += x * column[v];            \
                }                                                                                \
            }                                                                                    \
        for (; k < K; k++)                                                                       \
            UNROLL for (int r = 0; r < R; r++)                                                   \
                UNROLL for (int v = 0; v < V; v++)                                               \
                    sum[0][r][v] += v_set(a[r * stride + k]) * v_load(w + (k * V + v) * LANES);  \
        UNROLL for (int r = 0; r < R; r++)                                                       \
            UNROLL for (int v = 0; v < V; v++) {                                                 \
                vec total = sum[0][r][v];                                                        \
                UNROLL for (int s = 1; s < S; s++) total += sum[s][r][v];                        \
                if (plus) total += v_load(plus + v * LANES);                                     \
                v_store(z + (r * V + v) * LANES, total);                                         \
            }                                                                                    \
    }

typedef void (*Product)(const real *, long, const real *, long, const real *, real *);

INLINE int lanes(long left) { return (int)(left < LANES ? left : LANES); }

/* Pack a panel of a weight (blocks * width, K), transposed: its rows become columns, by block. */
APART void pack_rows(const real *w, long K, long width, int blocks, int vectors, long unit,
                     real *panel) {
    const long wide = (long)blocks * vectors;
    for (long k = 0; k < K; k += LANES)
        for (long g = 0; g < blocks; g++)
            for (long v = 0; v < vectors; v++) {
                const long first = unit + v * LANES;
                const real *from = w + (g * width + first) * K + k;
                real *to = panel + (k * wide + g * vectors + v) * LANES;
                const int n = lanes(K - k);
                vec x[LANES];
                UNROLL for (int i = 0; i < LANES; i++)
                    x[i] = v_load_n(from + i * K, first + i < width ? n : 0);
                v_transpose(x);
                UNROLL for (int i = 0; i < LANES; i++)
                    if (i < n) v_store(to + i * wide * LANES, x[i]);
            }
}

/* The same of rows `first` ... of an affine map, whose bias becomes a last row; zeros if there is
 * none. */
APART void pack_affine(const real *w, const real *bias, long first, long K, long width, int blocks,
                       int vectors, long unit, real *panel) {
    real *last = panel + K * blocks * vectors * LANES;
    pack_rows(w + first * K, K, width, blocks, vectors, unit, panel);
    if (bias)
        pack_rows(bias + first, 1, width, blocks, vectors, unit, last);
    else
        memset(last, 0, (size_t)(blocks * vectors) * sizeof(vec));
}

/* Pack a panel of a weight (K, width), not transposed. */
APART void pack_columns(const real *w, long K, long width, int vectors, long unit, real *panel) {
    for (long k = 0; k < K; k++)
        for (int v = 0; v < vectors; v++) {
            const long left = width - unit - v * LANES;
            const int n = (int)(left < 0 ? 0 : left < LANES ? left : LANES);
            v_store(panel + (k * vectors + v) * LANES, v_load_n(w + k * width + unit + v * LANES, n));
        }
}

/* The most rows of a tile, and the most rows of a panel that are selected one by one. */
enum { TALLEST = 12, FEW = 128 };

/* The size of a list of the rows that are kept of a panel of K rows: their count, then the first
 * row, if they are adjacent, or else -1 and the index of each. Counted in reals, as all scratch
 * memory is. */
#define KEPT(K) (2 + (K))

/* In the place of the count: the panel has become the only number of each column, and its row. */
enum { PICKS = -1 };

static inline int all_zeros(const real *row, long vectors) {
    if (row[0] != 0) return 0;
    vec total = {0};
    for (long v = 0; v < vectors; v++) total += v_abs(v_load(row + v * LANES));
    return v_sum(total) == 0;
}

/* Whether each column of a panel is zero but for one number at most, as of a matrix that moves
 * units. Looked at 8 rows at a time, of which a dense panel needs no more. */
static inline int is_sparse(const real *panel, long K, long wide) {
    for (long v = 0; v < wide; v++) {
        vec many = {0};
        for (long k = 0; k < K; k++) {
            many += v_truth(v_load(panel + (k * wide + v) * LANES) != 0);
            if ((k % 8 == 7 || k == K - 1) && v_sum(v_truth(many > 1)) != 0) return 0;
        }
    }
    return 1;
}

/* Replace a sparse panel by the number of each column, and the row that it is in. */
static inline void pack_picks(real *panel, long K, long wide) {
    for (long v = 0; v < wide; v++) {
        vec number = {0}, row = {0};
        for (long k = 0; k < K; k++) {
            const vec x = v_load(panel + (k * wide + v) * LANES);
            number += x, row += v_where(x, v_set((real)k), (vec){0});
        }
        int32_t rows[LANES];
        for (int i = 0; i < LANES; i++) rows[i] = (int32_t)row[i];
        v_store(panel + v * LANES, number);
        memcpy((int32_t *)(panel + wide * LANES) + v * LANES, rows, sizeof rows);
    }
}

/* The product of rows of numbers and a sparse panel. */
APART void times_picks(const real *a, long stride, long rows, const real *panel, long size,
                       real *z) {
    const int32_t *places = (const int32_t *)(panel + size);
    for (long r = 0; r < rows; r++, a += stride, z += size)
        for (long i = 0; i < size; i++) {
            const real x = panel[i] * a[places[i]];
            z[i] = panel[i] != 0 ? x : 0; /* if a column is all zeros, whatever a has */
        }
}

/* Move the rows of a panel that are not all zeros to its beginning. The others add nothing to a
 * product, so that a block-diagonal matrix, or one that only moves units, is not multiplied as if
 * it were dense. A sparse one of many rows is not multiplied at all. */
APART void keep_rows(real *panel, long K, long wide, int32_t *kept) {
    const long size = wide * LANES;
    int32_t *places = kept + 2;
    long many = 0;
    for (long k = 0; k < K; k++)
        if (!all_zeros(panel + k * size, wide)) places[many++] = (int32_t)k;
    const long first = many ? places[0] : 0, span = many ? places[many - 1] + 1 - first : 0;
    const int is_range = many > FEW || many * 2 > span;
    const long work = is_range ? span * wide : many * (wide + 2); /* two in a cycle */
    if (work > 2 * size && is_sparse(panel, K, wide)) {
        pack_picks(panel, K, wide);
        kept[0] = PICKS, kept[1] = 0;
        return;
    }
    if (is_range) {
        if (first) memmove(panel, panel + first * size, (size_t)(span * size) * sizeof(real));
        kept[0] = (int32_t)span, kept[1] = (int32_t)first;
        return;
    }
    for (long i = 0; i < many; i++)
        memmove(panel + i * size, panel + places[i] * size, (size_t)size * sizeof(real));
    kept[0] = (int32_t)many, kept[1] = -1;
}

/* The product of rows of numbers and a panel of which a few rows are kept that are not adjacent. */
APART void times_few(Product product, const real *a, long stride, long rows, const real *panel,
                     long many, const int32_t *places, real *z) {
    real few[TALLEST * FEW];
    for (long r = 0; r < rows; r++)
        for (long k = 0; k < many; k++) few[r * FEW + k] = a[r * stride + places[k]];
    product(few, FEW, panel, many, 0, z);
}

/* The product of rows of numbers and the kept rows of a panel. */
INLINE void times_panel(Product product, const real *a, long stride, long rows, const real *panel,
                        const int32_t *kept, long wide, real *z) {
    const long many = kept[0], first = kept[1];
    if (many == PICKS)
        times_picks(a, stride, rows, panel, wide * LANES, z);
    else if (first < 0)
        times_few(product, a, stride, rows, panel, many, kept + 2, z);
    else
        product(a + first, stride, panel, many, 0, z);
}

INLINE long panels(long width, int vectors) {
    return (width + vectors * LANES - 1) / (vectors * LANES);
}

/* Rows of the next tile when `left` rows are left: tiles have about the same height. GCC's code for
 * four rows is a fifth slower than for three or five. */
INLINE long tile(long left, long most) {
    const long tiles = (left + most - 1) / most, rows = (left + tiles - 1) / tiles;
    return rows == 4 && left > 4 && most > 4 ? 5 : rows;
}

INLINE real larger(real a, real b) { return a != a || a > b ? a : b; }

static inline real row_sum(const real *row, long width) {
    vec total = {0};
    for (long u = 0; u < width; u += LANES) total += v_load_n(row + u, lanes(width - u));
    return v_sum(total);
}

/* The maximum of a row; NaN if the row has one. */
static inline real row_max(const real *row, long width) {
    vec many = v_set(row[0]);
    long u = 0;
    for (; u + LANES <= width; u += LANES) many = v_maximum(many, v_load(row + u));
    real most = many[0];
    for (int i = 1; i < LANES; i++) most = larger(most, many[i]);
    for (; u < width; u++) most = larger(most, row[u]);
    return most;
}

static inline void copy_row(real *to, const real *from, long n) {
    if (from)
        memcpy(to, from, (size_t)n * sizeof(real));
    else
        memset(to, 0, (size_t)n * sizeof(real));
}

/* A barrier: threads wait for each other, spinning at first, then yielding the processor. */
typedef struct {
    _Alignas(64) atomic_long arrived;
    _Alignas(64) atomic_long turn;
} Meeting;

APART void meet(Meeting *place, long threads) {
    if (threads == 1) return;
    const long turn = atomic_load_explicit(&place->turn, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&place->arrived, 1, memory_order_acq_rel) + 1 == threads) {
        atomic_store_explicit(&place->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&place->turn, turn + 1, memory_order_release);
        return;
    }
    for (long looks = 0; atomic_load_explicit(&place->turn, memory_order_acquire) == turn; looks++) {
        if (looks > 4000) sched_yield();
#if defined __x86_64__ || defined __i386__
        __builtin_ia32_pause();
#elif defined __aarch64__
        __asm__ volatile("yield");
#endif
    }
}

enum { MOST_GROUPS = 64 };

/* The share of one thread: rows first ... last - 1, and part `unit` of `units` of the panels. */
typedef struct {
    long thread, threads, group, first, last, unit, units;
    Meeting *all, *own;
} Share;

INLINE long share_of(long n, long part, long parts) { return n * part / parts; }

/* The threads of a call: one thread without OpenMP, or where the caller is in a team already. */
typedef struct {
    const void *call;
    long rows, threads, row_groups;
    int (*thread)(void), (*team)(void);
    Meeting all, groups[MOST_GROUPS];
} Team;

static Share share(Team *team) {
    const long threads = team->team ? team->team() : 1;
    const long groups = threads == team->threads ? team->row_groups : 1;
    Share s = {.thread = threads > 1 ? team->thread() : 0, .threads = threads};
    s.units = threads / groups;
    s.group = s.thread / s.units;
    s.unit = s.thread % s.units;
    s.first = share_of(team->rows, s.group, groups);
    s.last = share_of(team->rows, s.group + 1, groups);
    s.all = &team->all;
    s.own = s.units > 1 ? &team->groups[s.group] : 0; /* a thread alone needs no barrier */
    return s;
}

/* The blocks of a product.
 *
 * A block of b stays in a thread's second-level cache, and rows of a are multiplied by it, a tile
 * at a time: the tile's sums stay in registers. Every sum is taken from the first term to the
 * last, whatever m and the number of threads are.
 */
enum {
    VECTORS = SUMS > 12 ? 4 : 2, /* of a panel of b */
    ROWS = SUMS / VECTORS,       /* of a tile: as many sums as the registers hold */
    TALL = 8 * ROWS,             /* rows of a that are packed together */
    DEEP = 256,                  /* rows of a block of b: terms of a sum */
    WIDE = 8 * VECTORS * LANES   /* columns of a block of b */
};

EXPORT const int64_t scratch_of_a_thread = DEEP * (WIDE + TALL);

/* Pack n lines of k numbers as columns of rows that are `width` wide; the rest is not written. */
static void pack(const real *from, long across, long along, long n, long k, long width, real *to) {
    if (across == 1)
        for (long i = 0; i < k; i++)
            memcpy(to + i * width, from + i * along, (size_t)n * sizeof(real));
    else
        for (long first = 0; first < k; first += LANES) /* few enough to stay in the cache */
            for (long line = 0; line < n; line++)
                for (long i = first; i < least(first + LANES, k); i++)
                    to[i * width + line] = from[line * across + i * along];
}

/* The product of a tile of a and a packed panel of b, whose rows are `vectors` wide. */
INLINE void tile(const real *a, long row, long column, const real *b, long k, const int vectors,
                 vec *z) {
    vec sum[ROWS][VECTORS];
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = (vec){0};
    for (long i = 0; i < k; i++) {
        vec line[VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) line[v] = v_load(b + (i * vectors + v) * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
            const vec x = v_set(a[r * row + i * column]);
            UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += x * line[v];
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int v = 0; v < vectors; v++) z[r * vectors + v] = sum[r][v];
}

/* The same for rows of a that are packed, or that are in place at a stride of `row`. */
INLINE void either_tile(const real *a, long row, int packed, const real *b, long k,
                        const int vectors, vec *z) {
    if (packed)
        tile(a, 1, TALL, b, k, vectors, z);
    else
        tile(a, row, 1, b, k, vectors, z);
}

static __attribute__((noinline)) void multiply_tile(const real *a, long row, int packed,
                                                    const real *b, long k, long vectors, vec *z) {
    switch (vectors) {
    case 1: either_tile(a, row, packed, b, k, 1, z); break;
    case 2: either_tile(a, row, packed, b, k, 2, z); break;
    case 3: either_tile(a, row, packed, b, k, VECTORS < 3 ? VECTORS : 3, z); break;
    default: either_tile(a, row, packed, b, k, VECTORS, z);
    }
}

/* Store the sums of a tile in c, or add them `onto` what is there. */
static void put(const Product *p, const vec *z, long vectors, long row, long rows, long column,
                int onto) {
    for (long r = 0; r < rows; r++)
        for (long v = 0; v < vectors; v++, z++) {
            const long at = column + v * LANES;
            const int n = (int)least(LANES, p->n - at);
            real *to = p->c + (row + r) * p->c_row + at;
            const real *plus = onto ? to : p->bias ? p->bias + at : 0;
            v_store_n(to, plus ? *z + v_load_n(plus, n) : *z, n);
        }
}

/* Multiply rows of a by the block of b that begins at row i and a column. */
static void multiply_block(const Product *p, long first, long last, long i, long column, real *room) {
    real *const block = room, *const strip = room + DEEP * WIDE;
    const long k = least(DEEP, p->k - i), n = least(WIDE, p->n - column), panel = VECTORS * LANES;
    for (long j = 0; j < n; j += panel) {
        const long lines = least(panel, n - j), width = (lines + LANES - 1) / LANES * LANES;
        pack(p->b + i * p->b_row + (column + j) * p->b_column, p->b_column, p->b_row, lines, k,
             width, block + j * k);
    }
    for (long row = first; row < last; row += TALL) {
        const long rows = least(TALL, last - row);
        const real *as_it_lies = p->a + row * p->a_row + i * p->a_column;
        const int packed = p->a_column != 1 || rows % ROWS;
        if (packed) pack(as_it_lies, p->a_row, p->a_column, rows, k, TALL, strip);
        for (long r = 0; r < rows; r += ROWS)
            for (long j = 0; j < n; j += panel) {
                const long vectors = (least(panel, n - j) + LANES - 1) / LANES;
                const long high = least(ROWS, rows - r);
                vec z[ROWS * VECTORS];
                const real *a = packed ? strip + r : as_it_lies + r * p->a_row;
                multiply_tile(a, p->a_row, packed, block + j * k, k, vectors, z);
                put(p, z, vectors, row + r, high, column + j, i > 0);
            }
    }
}

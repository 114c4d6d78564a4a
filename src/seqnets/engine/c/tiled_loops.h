/* Products of loops by tiles; see tiles.h.
 *
 * Of 8 rows of the batch, the first 8 lines of a tile are the numbers, rounded, and the others what
 * rounding loses: one product of tiles serves both. A panel of weights is packed as tiles in its
 * place, 32 rows at a time, each with what rounding loses of it.
 */
enum {
    OF_TILES = 16,      /* rows of the batch that are multiplied at once */
    ROWS_AT_ONCE = 128, /* and that a thread packs at once */
    IN_TILES = -2,      /* in the place of a panel's first row: it is packed as tiles, exactly, */
    LOSING_TILES = -3   /* or with what rounding loses */
};

/* Numbers in whole tiles. */
#define IN_TERMS(K) (((K) + TERMS - 1) / TERMS * TERMS)

/* Reals that hold the tiles of B rows of K numbers. */
#define TILES_OF(B, K) (((B) + OF_TILES - 1) / OF_TILES * OF_TILES * IN_TERMS(K))

/* Pack rows of K numbers. */
APART void pack_numbers(const real *a, long stride, long rows, long K, real *to) {
    ivec *tiles = (ivec *)to;
    for (long r = 0; r < rows; r++, a += stride) {
        ivec *line = tiles + r / 8 * (IN_TERMS(K) / TERMS * LINES) + r % 8;
        for (long k = 0; k < K; k += TERMS, line += LINES)
            put_line(first_of(a + k, K - k), first_of(a + k + LINES, K - k - LINES), line, 8);
    }
}

/* Pack a panel (K, wide vectors) as tiles, unless it has NaN or a number that would be rounded to
 * infinity, or is sparse: units that it moves are compared with themselves, and must lose nothing. */
APART void pack_tiles(real *panel, long K, long wide, int32_t *kept) {
    if (kept[0] != K || kept[1] != 0 || is_sparse(panel, K, wide)) return;
    vec rows[TERMS * wide];
    ivec *to = (ivec *)panel, any = {0};
    for (long i = 0; i < K * wide; i++) any |= ~(v_abs(v_load(panel + i * LANES)) < 0x1.ffp127f);
    if (any_of(any)) return;
    for (long k = 0; k < K; k += TERMS, to += TERMS * wide) {
        const long left = (K - k < TERMS ? K - k : TERMS) * wide;
        for (long i = 0; i < TERMS * wide; i++)
            rows[i] = i < left ? v_load((const real *)(to + i)) : (vec){0};
        for (long v = 0; v < wide; v++)
            for (long w = 0; w < LINES; w++)
                any |= put_line(rows[w * wide + v], rows[(w + LINES) * wide + v],
                                to + v * LINES + w, wide * LINES);
    }
    kept[1] = any_of(any) ? LOSING_TILES : IN_TILES;
}

/* The product (wide vectors) of a row and a panel of tiles, in float32. */
APART void product_in_float32(const real *a, const real *panel, long K, long wide, real *z) {
    memset(z, 0, (size_t)(wide * LANES) * sizeof(real));
    for (long k = 0; k < K; k++)
        for (long v = 0; v < wide; v++) {
            const ivec *tile = (const ivec *)panel + (k / TERMS * 2 * wide + v) * LINES;
            const ivec first = tile[k % LINES], second = tile[k % LINES + wide * LINES];
            const vec w = k % TERMS < LINES ? (vec)(first << 16) + (vec)(second << 16)
                                            : (vec)(first & -65536) + (vec)(second & -65536);
            v_store(z + v * LANES, v_load(z + v * LANES) + v_set(a[k]) * w);
        }
}

/* Take those rows of a product in float32 that are not finite. */
APART void mend_rows(const real *a, long stride, long rows, const real *panel, long K, long wide,
                     real *z) {
    for (long r = 0; r < rows; r++, a += stride, z += wide * LANES) {
        ivec bad = {0};
        for (long v = 0; v < wide; v++) bad |= not_finite(v_load(z + v * LANES));
        if (any_of(bad)) product_in_float32(a, panel, K, wide, z);
    }
}

/* Store the sums of a tile's numbers and of what was lost of them. */
#define SUM(tile, row, column)                                                                   \
    TILE_STORE(tile, sums, sizeof(vec));                                                         \
    for (long r = row; r < row + 8 && r < rows; r++) {                                           \
        const vec sum = sums[r - row] + sums[r - row + 8];                                       \
        v_store(z + (r * wide + (column)) * LANES, sum);                                         \
        bad |= not_finite(sum);                                                                  \
    }

/* The product (rows, wide vectors) of up to 16 packed rows and a panel of tiles; returns whether it
 * is finite. */
APART int product_of_tiles(const real *packed, long rows, const real *panel, long K, long wide,
                           int loses, real *z) {
    const long size = IN_TERMS(K) / TERMS * LINES;
    ivec bad = {0};
    for (long v = 0; v < wide; v += 2) {
        const ivec *a = (const ivec *)packed, *b = (const ivec *)panel + v * LINES;
        vec sums[LINES];
        TILE_ZERO(0); TILE_ZERO(1); TILE_ZERO(2); TILE_ZERO(3);
        for (long k = 0; k < K; k += TERMS, a += LINES, b += 2 * wide * LINES) {
            TILE_LOAD(4, a, sizeof(vec));
            if (rows > 8) TILE_LOAD(5, a + size, sizeof(vec));
            for (long part = 0; part <= loses; part++) {
                const ivec *of = b + part * wide * LINES;
                TILE_LOAD(6, of, sizeof(vec));
                TILE_ADD(0, 4, 6);
                if (rows > 8) TILE_ADD(2, 5, 6);
                if (v + 1 < wide) {
                    TILE_LOAD(7, of + LINES, sizeof(vec));
                    TILE_ADD(1, 4, 7);
                    if (rows > 8) TILE_ADD(3, 5, 7);
                }
            }
        }
        SUM(0, 0, v);
        SUM(2, 8, v);
        if (v + 1 < wide) {
            SUM(1, 0, v + 1);
            SUM(3, 8, v + 1);
        }
    }
    return !any_of(bad);
}

/* The product of rows and a panel: by tiles if it is packed so, else of a few rows at a time. */
INLINE void times_tiles(const Product *products, long most, const real *a, long stride, long rows,
                        const real *packed, const real *panel, const int32_t *kept, long K,
                        long wide, real *z) {
    if (kept[1] <= IN_TILES) {
        if (!product_of_tiles(packed, rows, panel, K, wide, kept[1] == LOSING_TILES, z))
            mend_rows(a, stride, rows, panel, K, wide, z);
    } else
        for (long r = 0; r < rows; r += most) {
            const long high = least(rows - r, most);
            times_panel(products[high], a + r * stride, stride, high, panel, kept, wide,
                        z + r * wide * LANES);
        }
}

/* Vectors of real numbers, and mathematics on them.
 *
 * Written in the vector extensions that GCC and clang share, for the widest vectors that the
 * compiler may use. Instructions of x86 that these extensions lack are under an #ifdef. A real is a
 * double if SEQNETS_DOUBLE is defined, else a float. Booleans are the numbers 1 and 0. NaN gives
 * NaN, as in torch, except in comparisons and v_sign.
 *
 * The polynomials are Chebyshev interpolants. The errors given are those of the polynomials with
 * rounded coefficients, relative to the function that they are part of.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef SEQNETS_DOUBLE
typedef double real;
typedef long long word;
#define REAL_BYTES 8
#define LIBM(name) name
#define X86_TYPE pd
#define MANTISSA 52             /* bits */
#define ROUND (0x1.8p52 + 1023) /* n + ROUND ends in the bits of n, and of 2^n's biased exponent */
#define SMALLEST 0x1p-1022      /* positive number that is not denormal */
#define EXP_LOW -746            /* e^x is 0 below */
#define EXP_HIGH 710            /* and infinite above */
#define SIGMOID_LOW -709        /* the least x whose e^x is not denormal */
#define SIGMOID_HIGH 40         /* sigmoid(x) and tanh(x / 2) are 1 above */
#define TRIG_HIGH 1e6           /* the greatest |x| that HALF_PI serves */
#define EXP2_LOW -1076          /* 2^x is 0 below */
#define EXP2_HIGH 1025          /* and infinite above */

/* Constants as sums, whose first terms have few bits: multiplied by the integers that occur, these
 * are exact. */
static const real LN2[] = {0x1.62e42fefa4p-1, -1.7239444525614835e-13};
static const real HALF_PI[] = {0x1.921fb544p0, 0x1.0b4611a6p-34, 2.0222662487959506e-21};
static const real QUARTER_PI[] = {0x1.921fb54442d18p-1, 3.061616997868383e-17};

/* (e^r - 1 - r) / r^2 by powers of r, |r| <= ln 2 / 2; error 4e-17 */
static const real EXPM1[] = {
    0.5000000000000001,     0.16666666666666669,    0.041666666666623824,   0.008333333333330039,
    0.0013888888917367081,  0.00019841269863171557, 2.4801521057868204e-05, 2.7557268276905696e-06,
    2.7620201591031547e-07, 2.5100472505694996e-08};
/* (2 artanh s - 2 s) / s^3 by powers of s^2, |s| <= (sqrt 2 - 1) / (sqrt 2 + 1); error 1e-17 */
static const real LOG[] = {0.666666666666667,   0.3999999999989827,  0.2857142862653362,
                           0.22222211043776857, 0.18182895750119193, 0.1533150161114533,
                           0.1461916613488797};
/* (sin r - r) / r^3 by powers of r^2, |r| <= pi / 4; error 2e-17 */
static const real SIN[] = {-0.16666666666666666,  0.008333333333330925,    -0.00019841269836722418,
                           2.755731608381636e-06, -2.5051127944014188e-08, 1.5917848524808262e-10};
/* (cos r - 1 + r^2 / 2) / r^4 by powers of r^2, |r| <= pi / 4; error 1e-18 */
static const real COS[] = {
    0.041666666666666664,    -0.0013888888888887382, 2.480158729874307e-05,
    -2.7557317260008837e-07, 2.0876143827993133e-09, -1.1382456778061306e-11};
/* (atan t - t) / t^3 by powers of t^2, |t| <= sqrt 2 - 1; error 7e-18 */
static const real ATAN[] = {
    -0.3333333333333333,  0.1999999999999552,   -0.14285714284666542, 0.11111111015256361,
    -0.09090904578123903, 0.07692183190826087,  -0.06664511447381948, 0.0585814891280221,
    -0.0508544973794026,  0.03923165829558719,  -0.01917688711906226};
#else
typedef float real;
typedef int32_t word;
#define REAL_BYTES 4
#define LIBM(name) name##f
#define X86_TYPE ps
#define MANTISSA 23
#define ROUND (0x1.8p23f + 127)
#define SMALLEST 0x1p-126f
#define EXP_LOW -105
#define EXP_HIGH 89
#define SIGMOID_LOW -88
#define SIGMOID_HIGH 20
#define TRIG_HIGH 1e4f
#define EXP2_LOW -151
#define EXP2_HIGH 129

static const real LN2[] = {0x1.62e8p-1f, -2.9088971e-05f};
static const real HALF_PI[] = {0x1.92p0f, 0x1.fb4p-12f, 7.5497901e-08f};
static const real QUARTER_PI[] = {0x1.921fb6p-1f, -2.1855695e-08f};

/* As above; errors 2e-8, 5e-9, 1e-8, 6e-10, 3e-9. */
static const real EXPM1[] = {0.5f, 0.166665763f, 0.0416665524f, 0.00836323295f, 0.00139262504f};
static const real LOG[] = {0.666666865f, 0.399887353f, 0.295820236f};
static const real SIN[] = {-0.166666642f, 0.0083327461f, -0.000195873872f};
static const real COS[] = {0.0416666642f, -0.00138883002f, 2.45474366e-05f};
static const real ATAN[] = {-0.333333313f, 0.199995399f, -0.142639562f, 0.107437313f,
                            -0.0645192787f};
#endif

#ifdef __AVX512F__
#define VECTOR_BYTES 64
#elif defined __AVX__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

/* Vectors of sums that fit in registers beside the factors. ARM needs registers for all factors;
 * AVX-512, which has 32 registers too, reads some from memory. */
#ifdef __AVX512F__
#define SUMS 24
#elif defined __aarch64__
#define SUMS 20
#else
#define SUMS 12
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline, unused))
#ifdef __clang__ /* it ignores GCC's pragma */
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef word ivec __attribute__((vector_size(VECTOR_BYTES)));
/* A vector at any place. A store of it changes reals alone, while memcpy might change all else. */
typedef real placed __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real))));

#define LANES (VECTOR_BYTES / REAL_BYTES)

/* Instructions of x86 that the vector extensions cannot express. GCC's builtins are called by name:
 * it needs longer to read immintrin.h than to compile a small loop. Clang's have other names. */

#ifdef __SSE2__
#define X86_JOIN(before, type, after) X86_PASTE(before, type, after)
#define X86_PASTE(before, type, after) before##type##after

#ifdef __clang__
#include <immintrin.h>
#endif

#if defined __clang__ && defined __AVX512F__
#define X86(name) X86_JOIN(_mm512_##name##_, X86_TYPE, )
#define X86_LOAD(p, mask) X86(maskz_loadu)(mask, p)
#define X86_STORE(p, mask, x) X86(mask_storeu)(p, mask, x)
#elif defined __clang__ && defined __AVX__
#define X86(name) X86_JOIN(_mm256_##name##_, X86_TYPE, )
#define X86_LOAD(p, mask) X86(maskload)(p, (__m256i)(mask))
#define X86_STORE(p, mask, x) X86(maskstore)(p, (__m256i)(mask), x)
#elif defined __clang__
#define X86(name) X86_JOIN(_mm_##name##_, X86_TYPE, )
#elif defined __AVX512F__
#define X86(name) X86_JOIN(__builtin_ia32_##name, X86_TYPE, 512_mask)
#define X86_LOAD(p, mask) X86(loadu)(p, (vec){0}, mask)
#define X86_STORE(p, mask, x) X86(storeu)(p, x, mask)
#elif defined __AVX__
#define X86(name) X86_JOIN(__builtin_ia32_##name, X86_TYPE, 256)
#define X86_LOAD(p, mask) X86(maskload)((const vec *)(p), mask)
#define X86_STORE(p, mask, x) X86(maskstore)((vec *)(p), mask, x)
#else
#define X86(name) X86_JOIN(__builtin_ia32_##name, X86_TYPE, )
#endif

#if defined __AVX512F__ && !defined __clang__
#define X86_ALL(x) , x, -1, 4 /* in all lanes, rounded as is set */
#else
#define X86_ALL(x)
#endif
#endif

INLINE long least(long a, long b) { return a < b ? a : b; }

/* Memory. */

INLINE vec v_set(real x) { return x - (vec){0}; }

INLINE vec v_load(const real *p) { return *(const placed *)p; }
INLINE void v_store(real *p, vec x) { *(placed *)p = x; }

#ifdef __AVX512F__
#define FIRST(n) ((1u << (n)) - 1)
#define IS_WHOLE(n) 0 /* with a mask in any case: as fast as a branch, which compiles slowly */
#elif defined __AVX__
#define FIRST(n) v_first(n)
INLINE ivec v_first(int n) {
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane < n;
}
#endif

#ifndef IS_WHOLE
#define IS_WHOLE(n) ((n) == LANES)
#endif

/* Load the first n lanes; the others are 0, and their memory is not read. */
INLINE vec v_load_n(const real *p, int n) {
    if (IS_WHOLE(n)) return v_load(p);
#ifdef __AVX__
    return X86_LOAD(p, FIRST(n));
#else
    vec x = {0};
    UNROLL for (int i = 0; i < LANES - 1; i++)
        if (i < n) x[i] = p[i];
    return x;
#endif
}

INLINE void v_store_n(real *p, vec x, int n) {
    if (IS_WHOLE(n)) {
        v_store(p, x);
        return;
    }
#ifdef __AVX__
    X86_STORE(p, FIRST(n), x);
#else
    UNROLL for (int i = 0; i < LANES - 1; i++)
        if (i < n) p[i] = x[i];
#endif
}

INLINE real v_sum(vec x) {
    typedef real part __attribute__((vector_size(16)));
    union {
        vec whole;
        part parts[VECTOR_BYTES / 16];
    } u = {x};
    for (int n = VECTOR_BYTES / 32; n; n /= 2)
        for (int i = 0; i < n; i++) u.parts[i] += u.parts[i + n];
    part s = u.parts[0];
#ifdef SEQNETS_DOUBLE
    return s[0] + s[1];
#else
    return (s[0] + s[2]) + (s[1] + s[3]);
#endif
}

/* The first halves of two vectors, a number of each in turn, and their second halves. */
#if LANES == 16
#define FIRST_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SECOND_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define FIRST_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#elif LANES == 4
#define FIRST_HALVES 0, 4, 1, 5
#define SECOND_HALVES 2, 6, 3, 7
#else
#define FIRST_HALVES 0, 2
#define SECOND_HALVES 1, 3
#endif

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* Transpose LANES vectors, each time by one bit of the place of a number. */
INLINE void v_transpose(vec *x) {
    UNROLL for (int bit = 1; bit < LANES; bit *= 2) {
        vec y[LANES];
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            y[2 * i] = SHUFFLE(x[i], x[i + LANES / 2], FIRST_HALVES);
            y[2 * i + 1] = SHUFFLE(x[i], x[i + LANES / 2], SECOND_HALVES);
        }
        UNROLL for (int i = 0; i < LANES; i++) x[i] = y[i];
    }
}

/* Choice. */

INLINE vec v_pick(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

INLINE vec v_truth(ivec mask) { return (vec)(mask & (ivec)v_set(1)); }
INLINE vec v_gt(vec a, vec b) { return v_truth(a > b); }
INLINE vec v_lt(vec a, vec b) { return v_truth(a < b); }
INLINE vec v_ge(vec a, vec b) { return v_truth(a >= b); }
INLINE vec v_le(vec a, vec b) { return v_truth(a <= b); }
INLINE vec v_eq(vec a, vec b) { return v_truth(a == b); }
INLINE vec v_ne(vec a, vec b) { return v_truth(a != b); }
INLINE vec v_where(vec c, vec a, vec b) { return v_pick(c != 0, a, b); }

/* The larger of both; b if either is NaN. */
INLINE vec v_upper(vec a, vec b) {
#ifdef __SSE2__
    return X86(max)(a, b X86_ALL(b));
#else
    return v_pick(a > b, a, b);
#endif
}

INLINE vec v_lower(vec a, vec b) {
#ifdef __SSE2__
    return X86(min)(a, b X86_ALL(b));
#else
    return v_pick(a < b, a, b);
#endif
}

INLINE vec v_maximum(vec a, vec b) { return v_pick(a != a, a, v_upper(a, b)); }
INLINE vec v_minimum(vec a, vec b) { return v_pick(a != a, a, v_lower(a, b)); }
INLINE vec v_relu(vec x) { return v_upper(v_set(0), x); }

INLINE vec v_clamp(vec x, real low, real high) {
    return v_upper(v_set(low), v_lower(v_set(high), x));
}

/* Arithmetic. */

INLINE vec v_abs(vec x) { return (vec)((ivec)x & ~(ivec)v_set(-0.0f)); }
INLINE vec v_signed(vec x, vec s) { return (vec)((ivec)x ^ ((ivec)s & (ivec)v_set(-0.0f))); }
INLINE vec v_sign(vec x) { return v_gt(x, v_set(0)) - v_lt(x, v_set(0)); }
INLINE vec v_reciprocal(vec x) { return 1 / x; }

INLINE vec v_sqrt(vec x) {
#ifdef __SSE2__
    return X86(sqrt)(x X86_ALL(x));
#else
    for (int i = 0; i < LANES; i++) x[i] = LIBM(sqrt)(x[i]);
    return x;
#endif
}

INLINE vec v_rsqrt(vec x) { return 1 / v_sqrt(x); }

/* Rounds half to even: ROUND is odd, so ROUND + 1 is even. */
INLINE vec v_round(vec x) {
    return v_pick(v_abs(x) < (real)(1ull << (MANTISSA - 1)), x + (ROUND + 1) - (ROUND + 1), x);
}

INLINE vec v_floor(vec x) {
    vec n = v_round(x);
    return n - v_gt(n, x);
}

/* The remainder of a / b with the sign of b, as in torch. */
INLINE vec v_remainder(vec a, vec b) {
    vec r = a, n = v_floor(a / b);
    ivec near = {0};
#if defined __FMA__ || defined __ARM_FEATURE_FMA
    near = v_abs(n) < (real)(1ull << (MANTISSA - 1));
    for (int i = 0; i < LANES; i++) r[i] = LIBM(fma)(-n[i], b[i], a[i]);
    near &= r == r;
    r = v_pick((r != 0) & ((r < 0) ^ (b < 0)), r + b, r); /* a quotient may be rounded up to n */
#endif
    for (int i = 0; i < LANES; i++) {
        if (near[i]) continue;
        real left = LIBM(fmod)(a[i], b[i]);
        r[i] = left != 0 && (left < 0) != (b[i] < 0) ? left + b[i] : left;
    }
    return r;
}

/* Functions. */

/* c[0] + c[1] x + ... by Horner's rule for even and odd powers apart, which halves the latency. */
INLINE vec v_polynomial(const real *c, int n, vec x, vec x2) {
    vec a = v_set(c[n - 1]), b = v_set(c[n - 2]);
    for (int k = n - 3; k >= 0; k--) {
        vec next = b;
        b = a * x2 + c[k];
        a = next;
    }
    return a * x + b;
}

#define POLYNOMIAL(c, x, x2) v_polynomial(c, sizeof(c) / sizeof(*(c)), x, x2)

/* 2^n for an integer n whose power is normal; 0 for the next n below, infinity for that above. */
INLINE vec v_pow2(vec n) { return (vec)((ivec)(n + ROUND) << MANTISSA); }

/* x = n ln 2 + r: returns e^r - 1. */
INLINE vec v_expm1_rest(vec x, vec *n) {
    *n = x * (real)1.4426950408889634 + ROUND - ROUND;
    vec r = x - *n * LN2[0] - *n * LN2[1], r2 = r * r;
    return r2 * POLYNOMIAL(EXPM1, r, r2) + r;
}

/* 2^n p for an integer n and p near 1. */
INLINE vec v_scaled(vec p, vec n) {
#ifdef __AVX512F__
    return X86(scalef)(p, n X86_ALL(n));
#else
    vec half = n * (real)0.5 + ROUND - ROUND;
    return p * v_pow2(half) * v_pow2(n - half);
#endif
}

INLINE vec v_exp(vec x) {
    vec n, p = v_expm1_rest(v_clamp(x, EXP_LOW, EXP_HIGH), &n) + 1;
    return v_scaled(p, n);
}

INLINE vec v_exp2(vec x) {
    x = v_clamp(x, EXP2_LOW, EXP2_HIGH);
    vec n = v_round(x), r = (x - n) * (real)0.69314718055994531, r2 = r * r;
    return v_scaled(r2 * POLYNOMIAL(EXPM1, r, r2) + r + 1, n);
}

/* Computed as twice its half, so that it overflows only where e^x - 1 does. */
INLINE vec v_expm1(vec x) {
    vec n, p = v_expm1_rest(v_clamp(x, -SIGMOID_HIGH, EXP_HIGH), &n), s = v_pow2(n - 1);
    return 2 * (s * p + (s - (real)0.5));
}

/* e^|x| / 8, which is finite wherever e^|x| / 2 is, and in `less` (e^|x| - 1) / 8. */
INLINE vec v_eighth_exp(vec x, vec *less) {
    vec n, p = v_expm1_rest(v_clamp(v_abs(x), 0, EXP_HIGH + 1), &n), s = v_pow2(n - 3);
    *less = s * p + (s - (real)0.125);
    return s * p + s;
}

INLINE vec v_sinh(vec x) {
    vec less, e = v_eighth_exp(x, &less);
    return v_signed(4 * (less + less / (8 * e)), x);
}

INLINE vec v_cosh(vec x) {
    vec less, e = v_eighth_exp(x, &less);
    return 4 * e + (real)0.0625 / e;
}

INLINE vec v_sigmoid(vec x) {
    vec n, p = v_expm1_rest(v_clamp(x, SIGMOID_LOW, SIGMOID_HIGH), &n), s = v_pow2(n);
    vec e = s * p + s;
    return e / (e + 1);
}

/* e / (e + 2) with e = e^2|x| - 1; from tanh = 1/2 on as 1 - 2 / (e + 2), which is right to the
 * last digit: the gradient is 1 - tanh^2, in which most digits cancel. */
INLINE vec v_tanh(vec x) {
    vec a = v_abs(x);
    vec n, p = v_expm1_rest(v_clamp(a + a, 0, SIGMOID_HIGH), &n), s = v_pow2(n);
    vec e = s * p + (s - 1);
    ivec large = e > 2;
    vec y = v_pick(large, v_set(-2), e) / (e + 2) + v_pick(large, v_set(1), v_set(0));
    return (vec)((ivec)y | ((ivec)x & (ivec)v_set((real)-0.0)));
}

/* x = 2^n (1 + f), and log(1 + f) = f - f^2 / 2 + s (f^2 / 2 + ...) with s = f / (2 + f). */
INLINE vec v_log(vec x) {
    ivec denormal = x < SMALLEST;
    vec y = v_pick(denormal, x * (real)(1ull << MANTISSA), x);
    ivec exponent = ((ivec)y - (ivec)v_set(0.70710678118654752)) >> MANTISSA;
    vec f = (vec)((ivec)y - (exponent << MANTISSA)) - 1;
    vec n = (vec)(exponent + (ivec)v_set(ROUND)) - ROUND;
    n = v_pick(denormal, n - MANTISSA, n);
    vec s = f / (f + 2), s2 = s * s, h = f * f * (real)0.5;
    vec rest = s * (h + s2 * POLYNOMIAL(LOG, s2, s2 * s2));
    y = n * LN2[0] + (f - (h - (rest + n * LN2[1])));
    y = v_pick(x > 0, y, v_pick(x == 0, v_set(-INFINITY), v_set(NAN)));
    return v_pick(x == (real)INFINITY, x, y);
}

/* Corrected for what rounding lost in 1 + x. */
INLINE vec v_log1p(vec x) {
    vec y = x + 1, lost = (x - (y - 1)) / y;
    return v_log(y) + v_pick(lost == lost, lost, v_set(0));
}

__attribute__((cold, noinline, unused)) static vec v_far_sin(vec x, vec y, int quarter) {
    for (int i = 0; i < LANES; i++)
        if (LIBM(fabs)(x[i]) > TRIG_HIGH) y[i] = quarter ? LIBM(cos)(x[i]) : LIBM(sin)(x[i]);
    return y;
}

/* sin(x + quarter pi / 2), x = n pi / 2 + r. */
INLINE vec v_shifted_sin(vec x, int quarter) {
    vec shifted = x * (real)0.63661977236758134 + ROUND, n = shifted - ROUND;
    vec r = x - n * HALF_PI[0] - n * HALF_PI[1] - n * HALF_PI[2], r2 = r * r, r4 = r2 * r2;
    vec sine = r + r * r2 * POLYNOMIAL(SIN, r2, r4);
    vec cosine = 1 - (r2 * (real)0.5 - r4 * POLYNOMIAL(COS, r2, r4));
    ivec turn = (ivec)shifted + 1 + quarter; /* ROUND ends in -1, modulo 4 */
    vec y = v_pick((turn & 1) != 0, cosine, sine);
    y = (vec)((ivec)y ^ ((turn & 2) << (8 * sizeof(word) - 2)));
    int far = v_sum(v_truth(v_abs(x) > TRIG_HIGH)) != 0;
    return __builtin_expect(far, 0) ? v_far_sin(x, y, quarter) : y;
}

INLINE vec v_sin(vec x) { return v_shifted_sin(x, 0); }
INLINE vec v_cos(vec x) { return v_shifted_sin(x, 1); }

#define FAR (real)1e17 /* above, x^2 + 1 rounds to x^2; below, x^2 is finite */

INLINE vec v_asinh(vec x) {
    vec a = v_abs(x);
    ivec far = a > FAR;
    vec y = v_log1p(v_pick(far, a, a + a * a / (v_sqrt(a * a + 1) + 1)));
    return v_signed(v_pick(far, y + (real)0.69314718055994531, y), x);
}

INLINE vec v_acosh(vec x) {
    vec a = x - 1;
    ivec far = a > FAR;
    vec y = v_log1p(v_pick(far, a, a + v_sqrt(a) * v_sqrt(a + 2)));
    return v_pick(far, y + (real)0.69314718055994531, y);
}

/* The angle of (x, y), y >= 0: eighths of a circle, and what is left when these are turned back. */
INLINE vec v_angle(vec y, vec x) {
    vec b = v_abs(x);
    ivec half = y > b * (real)0.41421356237309503, whole = y > b * (real)2.4142135623730949;
    vec eighths = v_pick(whole, v_set(2), v_pick(half, v_set(1), v_set(0)));
    vec t = v_pick(whole, -b, v_pick(half, y - b, y)) / v_pick(whole, y, v_pick(half, y + b, b));
    eighths = v_pick((ivec)x < 0, 4 - eighths, eighths), t = v_signed(t, x);
    vec t2 = t * t, rest = t * t2 * POLYNOMIAL(ATAN, t2, t2 * t2) + eighths * QUARTER_PI[1];
    return eighths * QUARTER_PI[0] + (t + rest);
}

INLINE vec v_atan(vec x) { return v_signed(v_angle(v_abs(x), v_set(1)), x); }

/* The quotient of two infinities, or of two zeros, is NaN: both operands become 1, or 0 and 1. */
INLINE vec v_atan2(vec y, vec x) {
    vec a = v_abs(y), b = v_abs(x), scale = v_pick(v_upper(a, b) > FAR, v_set(0.25), v_set(1));
    ivec same = a == b;
    a = v_pick(same, v_truth(a != 0), a * scale), b = v_pick(same, v_set(1), b * scale);
    return v_signed(v_angle(a, v_signed(b, x)), y);
}

INLINE vec v_asin(vec x) {
    vec a = v_abs(x);
    return v_signed(v_angle(a, v_sqrt((1 - a) * (1 + a))), x);
}

INLINE vec v_acos(vec x) { return v_atan2(v_sqrt((1 - x) * (1 + x)), x); }

INLINE vec v_erf(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = LIBM(erf)(x[i]);
    return x;
}

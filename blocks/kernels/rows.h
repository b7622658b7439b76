/* What is done row by row: short convolution, norms, gates. Rows are `stride` elements apart in what is read; in
   what is written they follow each other, or are `d_stride` apart. */

static inline REAL NAME(sigmoid)(REAL x) { return 1 / (1 + NAME(power)(-x)); }

/* y[b,t,c] = act(sum_i taps[i,c] x[b,t-W+1+i,c]), x before the start being tail [B,W-1,C]; taps [W,C]. */
static inline void NAME(taps_at)(
    long t, long W, long C, const REAL *x, long stride, const REAL *tail, const REAL *taps, REAL *y) {
#pragma omp simd
    for (long c = 0; c < C; c++) y[c] = 0;
    for (long i = 0; i < W; i++) {
        const long from = t - W + 1 + i;
        const REAL *row = from < 0 ? tail + (from + W - 1) * C : x + from * stride, *tap = taps + i * C;
#pragma omp simd
        for (long c = 0; c < C; c++) y[c] += tap[c] * row[c];
    }
}

int NAME(conv_forward)(
    const REAL *x, const REAL *tail, const REAL *taps, REAL *y, long B, long T, long C, long W, long stride, long act) {
    for (long b = 0; b < B; b++)
        for (long t = 0; t < T; t++) {
            REAL *out = y + (b * T + t) * C;
            NAME(taps_at)(t, W, C, x + b * T * stride, stride, tail + b * (W - 1) * C, taps, out);
            if (act)
#pragma omp simd
                for (long c = 0; c < C; c++) out[c] *= NAME(sigmoid)(out[c]);
        }
    return 0;
}

/* d_x, d_tail and d_taps come filled with zeros. */
int NAME(conv_backward)(
    const REAL *x, const REAL *tail, const REAL *taps, const REAL *d_y, REAL *d_x, REAL *d_tail, REAL *d_taps, long B,
    long T, long C, long W, long stride, long act, long d_stride) {
    REAL *d = malloc(C * sizeof(REAL));
    if (!d) return 1;
    for (long b = 0; b < B; b++)
        for (long t = 0; t < T; t++) {
            const REAL *up = d_y + (b * T + t) * C, *rows = x + b * T * stride, *before = tail + b * (W - 1) * C;
            if (act) {
                NAME(taps_at)(t, W, C, rows, stride, before, taps, d);
#pragma omp simd
                for (long c = 0; c < C; c++) {
                    const REAL z = d[c], p = NAME(sigmoid)(z);
                    d[c] = up[c] * p * (1 + z * (1 - p));
                }
            } else memcpy(d, up, C * sizeof(REAL));
            for (long i = 0; i < W; i++) {
                const long from = t - W + 1 + i;
                const REAL *row = from < 0 ? before + (from + W - 1) * C : rows + from * stride, *tap = taps + i * C;
                REAL *d_row = from < 0 ? d_tail + (b * (W - 1) + from + W - 1) * C : d_x + (b * T + from) * d_stride;
                REAL *d_tap = d_taps + i * C;
#pragma omp simd
                for (long c = 0; c < C; c++) {
                    d_row[c] += tap[c] * d[c];
                    d_tap[c] += row[c] * d[c];
                }
            }
        }
    free(d);
    return 0;
}

static inline REAL NAME(square_sum)(const REAL *x, long D) {
    REAL total = 0;
#pragma omp simd reduction(+ : total)
    for (long d = 0; d < D; d++) total += x[d] * x[d];
    return total;
}

/* y = x / sqrt(mean x^2 + eps) * (gain + shift); each of N rows holds `groups` vectors of D. */
int NAME(norm_forward)(
    const REAL *x, const REAL *gain, REAL *y, long N, long groups, long D, long stride, double eps, double shift) {
    for (long n = 0; n < N; n++)
        for (long g = 0; g < groups; g++) {
            const REAL *row = x + n * stride + g * D;
            const REAL rate = 1 / SQRT(NAME(square_sum)(row, D) / D + (REAL)eps);
            REAL *out = y + (n * groups + g) * D;
#pragma omp simd
            for (long d = 0; d < D; d++) out[d] = row[d] * rate * (gain[d] + (REAL)shift);
        }
    return 0;
}

/* d_gain comes filled with zeros. */
int NAME(norm_backward)(
    const REAL *x, const REAL *gain, const REAL *d_y, REAL *d_x, REAL *d_gain, long N, long groups, long D, long stride,
    double eps, double shift) {
    for (long n = 0; n < N; n++)
        for (long g = 0; g < groups; g++) {
            const REAL *row = x + n * stride + g * D, *up = d_y + (n * groups + g) * D;
            const REAL rate = 1 / SQRT(NAME(square_sum)(row, D) / D + (REAL)eps);
            REAL *d = d_x + (n * groups + g) * D, along = 0;
#pragma omp simd reduction(+ : along)
            for (long i = 0; i < D; i++) {
                const REAL unit = row[i] * rate;
                d_gain[i] += up[i] * unit;
                d[i] = up[i] * (gain[i] + (REAL)shift);
                along += d[i] * unit;
            }
            along /= D;
#pragma omp simd
            for (long i = 0; i < D; i++) d[i] = rate * (d[i] - row[i] * rate * along);
        }
    return 0;
}

/* q = x / sqrt(|x|^2 + eps) * scale for the first half of each row's groups, k the same without scale. */
int NAME(unit_forward)(
    const REAL *x, REAL *q, REAL *k, long N, long H, long K, long stride, double eps, double scale) {
    for (long n = 0; n < N; n++)
        for (long g = 0; g < 2 * H; g++) {
            const REAL *row = x + n * stride + g * K;
            const REAL rate = (g < H ? (REAL)scale : 1) / SQRT(NAME(square_sum)(row, K) + (REAL)eps);
            REAL *out = (g < H ? q : k) + (n * H + g % H) * K;
#pragma omp simd
            for (long i = 0; i < K; i++) out[i] = row[i] * rate;
        }
    return 0;
}

int NAME(unit_backward)(
    const REAL *x, const REAL *d_q, const REAL *d_k, REAL *d_x, long N, long H, long K, long stride, long d_stride,
    double eps, double scale) {
    for (long n = 0; n < N; n++)
        for (long g = 0; g < 2 * H; g++) {
            const REAL *row = x + n * stride + g * K, *up = (g < H ? d_q : d_k) + (n * H + g % H) * K;
            const REAL rate = 1 / SQRT(NAME(square_sum)(row, K) + (REAL)eps), times = g < H ? (REAL)scale : 1;
            REAL *d = d_x + n * d_stride + g * K, along = 0;
#pragma omp simd reduction(+ : along)
            for (long i = 0; i < K; i++) along += up[i] * row[i];
            along *= rate * rate;
#pragma omp simd
            for (long i = 0; i < K; i++) d[i] = times * rate * (up[i] - row[i] * along);
        }
    return 0;
}

/* y = silu(g) u over N rows of D; g and u have strides of their own. */
int NAME(gate_forward)(const REAL *g, const REAL *u, REAL *y, long N, long D, long g_stride, long u_stride) {
    for (long n = 0; n < N; n++)
#pragma omp simd
        for (long d = 0; d < D; d++) {
            const REAL z = g[n * g_stride + d];
            y[n * D + d] = z * NAME(sigmoid)(z) * u[n * u_stride + d];
        }
    return 0;
}

int NAME(gate_backward)(
    const REAL *g, const REAL *u, const REAL *d_y, REAL *d_g, REAL *d_u, long N, long D, long g_stride, long u_stride,
    long d_stride) {
    for (long n = 0; n < N; n++)
#pragma omp simd
        for (long d = 0; d < D; d++) {
            const REAL z = g[n * g_stride + d], p = NAME(sigmoid)(z), up = d_y[n * D + d];
            d_g[n * d_stride + d] = up * u[n * u_stride + d] * p * (1 + z * (1 - p));
            d_u[n * D + d] = up * z * p;
        }
    return 0;
}

/* The gates of a head from two columns of each row, step and write (H apart): log_a = -exp(log_pace)
   softplus(step + bias), b = most sigmoid(write). */
int NAME(gates_forward)(
    const REAL *p, const REAL *log_pace, const REAL *bias, REAL *log_a, REAL *b, long N, long H, long stride,
    double most) {
    for (long n = 0; n < N; n++)
        for (long h = 0; h < H; h++) {
            const REAL z = p[n * stride + h] + bias[h];
            log_a[n * H + h] = -EXP(log_pace[h]) * ((z > 0 ? z : 0) + LOG1P(NAME(power)(z > 0 ? -z : z)));
            b[n * H + h] = (REAL)most * NAME(sigmoid)(p[n * stride + H + h]);
        }
    return 0;
}

/* d_log_pace and d_bias come filled with zeros; d_p has the strides of p. */
int NAME(gates_backward)(
    const REAL *p, const REAL *log_pace, const REAL *bias, const REAL *log_a, const REAL *d_log_a, const REAL *d_b,
    REAL *d_p, REAL *d_log_pace, REAL *d_bias, long N, long H, long stride, double most) {
    for (long n = 0; n < N; n++)
        for (long h = 0; h < H; h++) {
            const REAL d = d_log_a[n * H + h], s = NAME(sigmoid)(p[n * stride + H + h]);
            const REAL d_z = -EXP(log_pace[h]) * NAME(sigmoid)(p[n * stride + h] + bias[h]) * d;
            d_log_pace[h] += d * log_a[n * H + h];
            d_bias[h] += d_z;
            d_p[n * stride + h] = d_z;
            d_p[n * stride + H + h] = (REAL)most * s * (1 - s) * d_b[n * H + h];
        }
    return 0;
}

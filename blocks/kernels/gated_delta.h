/* The gated delta rule, token by token (Yang et al. 2025, eq. 10): S = a S + b k (v - a S^T k)^T, o = S^T q.

   q, k [B,T,H,K], v, o [B,T,H,V], log_a, b [B,T,H], s [B,H,K,V], all contiguous but v, whose tokens (and those of
   its gradient) lie v_row apart. The columns of S do not
   meet, so a panel of N vectors of columns is taken through all of time by itself. The backward pass needs the
   states again: those before every SEGMENT-th token are kept [B,H,T/SEGMENT rounded up,K,V], the others made
   again. */

/* One token: u = b (v - a S^T k), S = a S + k u^T, o = S^T q. Even and odd keys are summed apart: one chain of
   additions would wait for itself. */
static inline __attribute__((always_inline)) void NAME(step)(
    int N, long K, const REAL *q, const REAL *k, const VEC *v, REAL a, REAL b, VEC *s, VEC *u, VEC *o) {
    VEC read[2][4] = {0}, out[2][4] = {0};
    const long even = K & ~1L;
    for (long i = 0; i < even; i += 2)
        for (int e = 0; e < 2; e++)
            for (int n = 0; n < N; n++) read[e][n] += k[i + e] * s[(i + e) * N + n];
    if (even < K) for (int n = 0; n < N; n++) read[0][n] += k[even] * s[even * N + n];
    for (int n = 0; n < N; n++) u[n] = b * (v[n] - a * (read[0][n] + read[1][n]));
    for (long i = 0; i < K; i += 2)
        for (int e = 0; e < 2 && i + e < K; e++)
            for (int n = 0; n < N; n++) {
                VEC now = a * s[(i + e) * N + n] + k[i + e] * u[n];
                s[(i + e) * N + n] = now;
                out[e][n] += q[i + e] * now;
            }
    if (o) for (int n = 0; n < N; n++) o[n] = out[0][n] + out[1][n];
}

static inline __attribute__((always_inline)) void NAME(load_row)(int N, const REAL *from, long width, VEC *to) {
    for (int n = 0; n < N; n++) to[n] = NAME(load)(from + n * LANES, width - n * LANES);
}

static inline __attribute__((always_inline)) void NAME(store_row)(int N, REAL *to, long width, const VEC *from) {
    for (int n = 0; n < N; n++) NAME(store)(to + n * LANES, from[n], width - n * LANES);
}

static inline __attribute__((always_inline)) void NAME(load_state)(
    int N, const REAL *from, long width, long K, long V, VEC *s) {
    for (long i = 0; i < K; i++) NAME(load_row)(N, from + i * V, width, s + i * N);
}

static inline __attribute__((always_inline)) void NAME(store_state)(
    int N, REAL *to, long width, long K, long V, const VEC *s) {
    for (long i = 0; i < K; i++) NAME(store_row)(N, to + i * V, width, s + i * N);
}

/* Columns [0, width) of one head: pointers stand at its first token, H heads lie between tokens. */
static inline __attribute__((always_inline)) void NAME(panel_forward)(
    int N, long width, long T, long H, long K, long V, long v_row, const REAL *q, const REAL *k, const REAL *v,
    const REAL *log_a, const REAL *b, const REAL *s0, REAL *o, REAL *s1, REAL *kept, VEC *s) {
    VEC row[4], u[4], out[4];
    NAME(load_state)(N, s0, width, K, V, s);
    for (long t = 0; t < T; t++) {
        if (kept && t % SEGMENT == 0) NAME(store_state)(N, kept + t / SEGMENT * K * V, width, K, V, s);
        NAME(load_row)(N, v + t * v_row, width, row);
        NAME(step)(N, K, q + t * H * K, k + t * H * K, row, EXP(log_a[t * H]), b[t * H], s, u, out);
        NAME(store_row)(N, o + t * H * V, width, out);
    }
    NAME(store_state)(N, s1, width, K, V, s);
}

/* Gradients of q, k, log_a and b are added to what the panels before have left. g holds dL/dS. */
static inline __attribute__((always_inline)) void NAME(panel_backward)(
    int N, long width, long T, long H, long K, long V, long v_row, const REAL *q, const REAL *k, const REAL *v,
    const REAL *log_a, const REAL *b, const REAL *kept, const REAL *d_o, const REAL *d_s1,
    REAL *d_q, REAL *d_k, REAL *d_v, REAL *d_log_a, REAL *d_b, REAL *d_s0, VEC *scratch) {
    const long size = K * N;
    VEC *g = scratch, *states = g + size, *us = states + (SEGMENT + 1) * size;
    VEC row[4], grad[4], d_u[4];
    NAME(load_state)(N, d_s1, width, K, V, g);
    for (long first = T > 0 ? (T - 1) / SEGMENT * SEGMENT : -1; first >= 0; first -= SEGMENT) {
        const long end = first + SEGMENT < T ? first + SEGMENT : T;
        NAME(load_state)(N, kept + first / SEGMENT * K * V, width, K, V, states);
        for (long t = first; t < end; t++) {
            VEC *s = states + (t - first + 1) * size;
            memcpy(s, s - size, size * sizeof(VEC));
            NAME(load_row)(N, v + t * v_row, width, row);
            NAME(step)(N, K, q + t * H * K, k + t * H * K, row, EXP(log_a[t * H]), b[t * H], s, us + (t - first) * N, 0);
        }
        for (long t = end - 1; t >= first; t--) {
            const VEC *before = states + (t - first) * size, *after = before + size, *u = us + (t - first) * N;
            const REAL *q_t = q + t * H * K, *k_t = k + t * H * K;
            const REAL a = EXP(log_a[t * H]), b_t = b[t * H];
            VEC fade[4] = {0}, strength = {0}, lanes[LANES];
            NAME(load_row)(N, d_o + t * H * V, width, grad);
            for (int n = 0; n < N; n++) d_u[n] = (VEC){0};
            for (long i0 = 0; i0 < K; i0 += LANES) {
                const long here = K - i0 < LANES ? K - i0 : LANES;
                for (long i = 0; i < LANES; i++) lanes[i] = (VEC){0};
                for (long i = 0; i < here; i++)
                    for (int n = 0; n < N; n++) {
                        const long at = (i0 + i) * N + n;
                        g[at] += q_t[i0 + i] * grad[n];
                        d_u[n] += k_t[i0 + i] * g[at];
                        lanes[i] += after[at] * grad[n];
                    }
                VEC d = NAME(load)(d_q + t * H * K + i0, here) + NAME(sums)(lanes);
                NAME(store)(d_q + t * H * K + i0, d, here);
            }
            /* u = b w, w = v - a r, r = S^T k. */
            VEC d_w[4], d_r[4], a_r[4];
            NAME(load_row)(N, v + t * v_row, width, row);
            for (int n = 0; n < N; n++) d_w[n] = b_t * d_u[n], d_r[n] = -a * d_w[n], a_r[n] = (VEC){0};
            for (long i0 = 0; i0 < K; i0 += LANES) {
                const long here = K - i0 < LANES ? K - i0 : LANES;
                for (long i = 0; i < LANES; i++) lanes[i] = (VEC){0};
                for (long i = 0; i < here; i++)
                    for (int n = 0; n < N; n++) {
                        const long at = (i0 + i) * N + n;
                        const VEC past = before[at], now = g[at];
                        lanes[i] += now * u[n] + past * d_r[n];
                        a_r[n] += k_t[i0 + i] * past;
                        fade[n] += now * past;
                        g[at] = a * now + k_t[i0 + i] * d_r[n];
                    }
                VEC d = NAME(load)(d_k + t * H * K + i0, here) + NAME(sums)(lanes);
                NAME(store)(d_k + t * H * K + i0, d, here);
            }
            for (int n = 0; n < N; n++) {
                strength += d_u[n] * (row[n] - a * a_r[n]);
                fade[0] += (n ? fade[n] : (VEC){0}) - d_w[n] * a_r[n];
            }
            d_log_a[t * H] += a * NAME(sum)(fade[0]);
            d_b[t * H] += NAME(sum)(strength);
            NAME(store_row)(N, d_v + t * v_row, width, d_w);
        }
    }
    NAME(store_state)(N, d_s0, width, K, V, g);
}

#define PANELS(V, BODY)                                                                       \
    for (long j = 0; j < (V); j += 4 * LANES) {                                               \
        const long width = (V) - j < 4 * LANES ? (V) - j : 4 * LANES;                         \
        switch ((width + LANES - 1) / LANES) {                                                \
        case 1: { enum { N = 1 }; BODY; } break;                                              \
        case 2: { enum { N = 2 }; BODY; } break;                                              \
        default: { enum { N = 4 }; BODY; } break;                                             \
        }                                                                                     \
    }

int NAME(gated_delta_forward)(
    const REAL *q, const REAL *k, const REAL *v, const REAL *log_a, const REAL *b, const REAL *s0, REAL *o,
    REAL *s1, REAL *kept, long B, long T, long H, long K, long V, long v_row) {
    const long segments = (T + SEGMENT - 1) / SEGMENT;
    VEC *s = aligned_alloc(64, K * 4 * sizeof(VEC));
    if (!s) return 1;
    for (long i = 0; i < B * H; i++) {
        const long head = i / H * T * H + i % H, value = i / H * T * v_row + i % H * V;
        PANELS(V, NAME(panel_forward)(
            N, width, T, H, K, V, v_row, q + head * K, k + head * K, v + value + j, log_a + head, b + head,
            s0 + i * K * V + j, o + head * V + j, s1 + i * K * V + j, kept ? kept + i * segments * K * V + j : 0, s))
    }
    free(s);
    return 0;
}

/* d_q, d_k, d_log_a and d_b come filled with zeros. */
int NAME(gated_delta_backward)(
    const REAL *q, const REAL *k, const REAL *v, const REAL *log_a, const REAL *b, const REAL *kept,
    const REAL *d_o, const REAL *d_s1, REAL *d_q, REAL *d_k, REAL *d_v, REAL *d_log_a, REAL *d_b, REAL *d_s0,
    long B, long T, long H, long K, long V, long v_row) {
    const long vectors = K * 4 * (1 + SEGMENT + 1) + 4 * SEGMENT, segments = (T + SEGMENT - 1) / SEGMENT;
    VEC *scratch = aligned_alloc(64, vectors * sizeof(VEC));
    if (!scratch) return 1;
    for (long i = 0; i < B * H; i++) {
        const long head = i / H * T * H + i % H, value = i / H * T * v_row + i % H * V;
        PANELS(V, NAME(panel_backward)(
            N, width, T, H, K, V, v_row, q + head * K, k + head * K, v + value + j, log_a + head, b + head,
            kept + i * segments * K * V + j, d_o + head * V + j, d_s1 + i * K * V + j, d_q + head * K, d_k + head * K,
            d_v + value + j, d_log_a + head, d_b + head, d_s0 + i * K * V + j, scratch))
    }
    free(scratch);
    return 0;
}

/* A linear memory whose key channels decay, token by token (Yang et al. 2024, eq. 3): S = diag(a) S + k v^T,
   o = S^T q.

   q, k, log_a [B,T,H,K], v, o [B,T,H,V], s [B,H,K,V], all contiguous. Without log_a nothing decays: plain linear
   attention. Panels of columns and segments of time are those of gated_delta.h. */

/* One token; a is what each channel keeps. */
static inline __attribute__((always_inline)) void NAME(add)(
    int N, long K, const REAL *q, const REAL *k, const VEC *v, const REAL *a, VEC *s, VEC *o) {
    VEC out[4] = {0};
    for (long i = 0; i < K; i++)
        for (int n = 0; n < N; n++) {
            VEC now = a[i] * s[i * N + n] + k[i] * v[n];
            s[i * N + n] = now;
            out[n] += q[i] * now;
        }
    if (o) for (int n = 0; n < N; n++) o[n] = out[n];
}

static inline void NAME(keep)(long K, const REAL *log_a, REAL *a) {
#pragma omp simd
    for (long i = 0; i < K; i++) a[i] = log_a ? NAME(power)(log_a[i]) : 1;
}

static inline __attribute__((always_inline)) void NAME(linear_panel_forward)(
    int N, long width, long T, long H, long K, long V, const REAL *q, const REAL *k, const REAL *v,
    const REAL *log_a, const REAL *s0, REAL *o, REAL *s1, REAL *kept, VEC *s, REAL *a) {
    VEC row[4], out[4];
    NAME(load_state)(N, s0, width, K, V, s);
    for (long t = 0; t < T; t++) {
        if (kept && t % SEGMENT == 0) NAME(store_state)(N, kept + t / SEGMENT * K * V, width, K, V, s);
        NAME(keep)(K, log_a ? log_a + t * H * K : 0, a);
        NAME(load_row)(N, v + t * H * V, width, row);
        NAME(add)(N, K, q + t * H * K, k + t * H * K, row, a, s, out);
        NAME(store_row)(N, o + t * H * V, width, out);
    }
    NAME(store_state)(N, s1, width, K, V, s);
}

/* Gradients of q, k and log_a are added to what the panels before have left. g holds dL/dS. */
static inline __attribute__((always_inline)) void NAME(linear_panel_backward)(
    int N, long width, long T, long H, long K, long V, const REAL *q, const REAL *k, const REAL *v,
    const REAL *log_a, const REAL *kept, const REAL *d_o, const REAL *d_s1, REAL *d_q, REAL *d_k, REAL *d_v,
    REAL *d_log_a, REAL *d_s0, VEC *scratch, REAL *a) {
    const long size = K * N;
    VEC *g = scratch, *states = g + size;
    VEC row[4], grad[4], d_row[4];
    NAME(load_state)(N, d_s1, width, K, V, g);
    for (long first = T > 0 ? (T - 1) / SEGMENT * SEGMENT : -1; first >= 0; first -= SEGMENT) {
        const long end = first + SEGMENT < T ? first + SEGMENT : T;
        NAME(load_state)(N, kept + first / SEGMENT * K * V, width, K, V, states);
        for (long t = first; t < end; t++) {
            VEC *s = states + (t - first + 1) * size;
            memcpy(s, s - size, size * sizeof(VEC));
            NAME(keep)(K, log_a ? log_a + t * H * K : 0, a);
            NAME(load_row)(N, v + t * H * V, width, row);
            NAME(add)(N, K, q + t * H * K, k + t * H * K, row, a, s, 0);
        }
        for (long t = end - 1; t >= first; t--) {
            const VEC *before = states + (t - first) * size, *after = before + size;
            const long at_t = t * H * K;
            NAME(keep)(K, log_a ? log_a + at_t : 0, a);
            NAME(load_row)(N, v + t * H * V, width, row);
            NAME(load_row)(N, d_o + t * H * V, width, grad);
            for (int n = 0; n < N; n++) d_row[n] = (VEC){0};
            for (long i0 = 0; i0 < K; i0 += LANES) {
                const long here = K - i0 < LANES ? K - i0 : LANES;
                VEC by_q[LANES] = {0}, by_k[LANES] = {0}, by_a[LANES] = {0};
                for (long i = 0; i < here; i++)
                    for (int n = 0; n < N; n++) {
                        const long at = (i0 + i) * N + n;
                        const VEC now = g[at] + q[at_t + i0 + i] * grad[n];
                        by_q[i] += after[at] * grad[n];
                        by_k[i] += now * row[n];
                        by_a[i] += now * before[at];
                        d_row[n] += k[at_t + i0 + i] * now;
                        g[at] = a[i0 + i] * now;
                    }
                REAL *to_q = d_q + at_t + i0, *to_k = d_k + at_t + i0;
                NAME(store)(to_q, NAME(load)(to_q, here) + NAME(sums)(by_q), here);
                NAME(store)(to_k, NAME(load)(to_k, here) + NAME(sums)(by_k), here);
                if (log_a) {
                    REAL *to_a = d_log_a + at_t + i0;
                    const VEC fade = NAME(sums)(by_a) * NAME(load)(a + i0, here);
                    NAME(store)(to_a, NAME(load)(to_a, here) + fade, here);
                }
            }
            NAME(store_row)(N, d_v + t * H * V, width, d_row);
        }
    }
    NAME(store_state)(N, d_s0, width, K, V, g);
}

int NAME(gated_linear_forward)(
    const REAL *q, const REAL *k, const REAL *v, const REAL *log_a, const REAL *s0, REAL *o, REAL *s1, REAL *kept,
    long B, long T, long H, long K, long V) {
    const long segments = (T + SEGMENT - 1) / SEGMENT;
    VEC *s = aligned_alloc(64, (K * 4 + PADDED(K) / LANES) * sizeof(VEC));
    if (!s) return 1;
    for (long i = 0; i < B * H; i++) {
        const long head = i / H * T * H + i % H;
        PANELS(V, NAME(linear_panel_forward)(
            N, width, T, H, K, V, q + head * K, k + head * K, v + head * V + j, log_a ? log_a + head * K : 0,
            s0 + i * K * V + j, o + head * V + j, s1 + i * K * V + j,
            kept ? kept + i * segments * K * V + j : 0, s, (REAL *)(s + K * 4)))
    }
    free(s);
    return 0;
}

/* d_q, d_k and d_log_a come filled with zeros. */
int NAME(gated_linear_backward)(
    const REAL *q, const REAL *k, const REAL *v, const REAL *log_a, const REAL *kept, const REAL *d_o,
    const REAL *d_s1, REAL *d_q, REAL *d_k, REAL *d_v, REAL *d_log_a, REAL *d_s0, long B, long T, long H, long K,
    long V) {
    const long vectors = K * 4 * (1 + SEGMENT + 1), segments = (T + SEGMENT - 1) / SEGMENT;
    VEC *scratch = aligned_alloc(64, (vectors + PADDED(K) / LANES) * sizeof(VEC));
    if (!scratch) return 1;
    for (long i = 0; i < B * H; i++) {
        const long head = i / H * T * H + i % H;
        PANELS(V, NAME(linear_panel_backward)(
            N, width, T, H, K, V, q + head * K, k + head * K, v + head * V + j, log_a ? log_a + head * K : 0,
            kept + i * segments * K * V + j, d_o + head * V + j, d_s1 + i * K * V + j, d_q + head * K, d_k + head * K,
            d_v + head * V + j, log_a ? d_log_a + head * K : 0, d_s0 + i * K * V + j, scratch,
            (REAL *)(scratch + vectors)))
    }
    free(scratch);
    return 0;
}

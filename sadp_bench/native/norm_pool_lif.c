/* Batch norm, an optional 2x2 average pool, and the LIF neuron over all time steps, forward and backward.

   Images lie channels last, [N, H, W, C], where N is T * B, time first; or B for a current that is the same at every step
   ("still"). They are float32 or bfloat16. Membranes are float32.

   A norm is an affine map of each channel, so it commutes with the pool. The neuron's current is scale pool(y) + shift:

       h[t] = keep v[t-1] + gain (scale pool(y[t]) + shift);   s[t] = h[t] >= threshold
       v[t] = h[t] after the reset: hard, 0 where it spikes; soft, minus the threshold where it spikes

   In training a norm's mean and variance are those of the batch. Examples may have shares in them: sum_b s_b y / sum_b s_b.

   The backward pass computes the membranes again from y, so only y is kept. No gradient flows through the reset.

   Sums within a block of work are float32 for at most FLUSH rows, then float64. The numbers are the same for every number of
   threads. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum { ATAN, SIGMOID, TRIANGLE };
enum { RUN = 512, FLUSH = 64 }; /* numbers of a row that are computed at once; rows */

typedef struct {
    int64_t timesteps, examples, height, width, channels; /* T, B, and H, W, C of y */
    int32_t pool, still, bf16, soft, surrogate;           /* pool: 1 (none) or 2 */
    int32_t normed, training, threads;
    float keep, gain, threshold, momentum;
    double eps;
    team start;
    const void *y;
    const float *weight, *bias;        /* of the norm, [C] */
    const float *share;                /* of each example in the batch's moments, [B]; NULL: all are equal */
    float *running_mean, *running_var; /* [C]; updated in training */
    double *mean, *inverse;            /* [C]: of the forward pass; inverse is 1 / standard deviation */
    const float *before;               /* membranes that come in, [B, h, w, C]; NULL: rest */
    float *after;                      /* membranes after the last step; NULL: not wanted */
    void *spikes;                      /* forward: [T * B, h, w, C] */
    const void *error;                 /* backward: the gradient at the spikes */
    float *inner;                      /* backward: scratch, [N, h, w, C]; may be dy where pool is 1 and y is float32 */
    void *dy;                          /* backward: the gradient at y */
    float *dweight, *dbias;            /* backward: [C] */
    float *squares;                    /* backward: the sum of squares of each row of dy, [N, H]; NULL: not wanted */
} block;

/* ---- Numbers ---- */

INLINE float widened(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

INLINE uint16_t narrowed(float f) { /* to the nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : nearest);
}

INLINE float load(const void *x, int64_t i, int bf16) {
    return bf16 ? widened(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

INLINE void store(void *x, int64_t i, float f, int bf16) {
    if (bf16)
        ((uint16_t *)x)[i] = narrowed(f);
    else
        ((float *)x)[i] = f;
}

INLINE const void *from(const void *x, int64_t i, int bf16) { return (const char *)x + i * (bf16 ? 2 : 4); }
INLINE void *into(void *x, int64_t i, int bf16) { return (char *)x + i * (bf16 ? 2 : 4); }

INLINE float exponential(float x) { /* for |x| <= 87, to 2 units in the last place: 2^n e^r with |r| <= ln(2) / 2 */
    x = x < -87.0f ? -87.0f : x > 87.0f ? 87.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* the nearest whole number */
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) * (1 << 23);
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

INLINE float derivative(float z, int surrogate) { /* of the spike at z = h - threshold, as SpikingJelly's surrogates */
    if (surrogate == ATAN) {                      /* alpha = 2 */
        float u = 3.14159265358979f * z;
        return 1.0f / (u * u + 1.0f);
    }
    if (surrogate == SIGMOID) { /* alpha = 4 */
        float s = 1.0f / (1.0f + exponential(-4.0f * z));
        return 4.0f * s * (1.0f - s);
    }
    float r = 1.0f - (z < 0.0f ? -z : z); /* triangle, alpha = 1 */
    return r < 0.0f ? 0.0f : r;
}

/* ---- Rows ---- */

INLINE int64_t together(int64_t pixels, int64_t C) { /* how many pixels are computed at once */
    int64_t n = RUN / C;
    return n < 1 ? 1 : n > pixels ? pixels : n;
}

INLINE void repeat(float *to, const float *of_channel, int64_t pixels, int64_t C) {
    for (int64_t p = 0; p < pixels; p++) memcpy(to + p * C, of_channel, sizeof(float) * C);
}

/* Adds the float32 sums of each pixel's channels, [2, pixels, C], to sums [2, C], and clears them. */
INLINE void flush(double *sums, float *partial, int64_t pixels, int64_t C) {
    for (int side = 0; side < 2; side++)
        for (int64_t p = 0; p < pixels; p++)
            for (int64_t c = 0; c < C; c++) sums[side * C + c] += partial[(side * pixels + p) * C + c];
    memset(partial, 0, sizeof(float) * 2 * pixels * C);
}

/* ---- Moments: sums of y - origin and of its square; the origin, a channel's first number, keeps them accurate ---- */

INLINE int64_t pixels_of(const block *b) { return (b->still ? 1 : b->timesteps) * b->examples * b->height * b->width; }

/* Returns the divisor of the moments: the shares' sum over all pixels; without shares, the number of pixels. */
static double mass_of(const block *b) {
    if (!b->share) return (double)pixels_of(b);
    double sum = 0;
    for (int64_t e = 0; e < b->examples; e++) sum += b->share[e];
    return sum * (double)(pixels_of(b) / b->examples);
}

INLINE void add_moments(const void *y, const float *origin, float *restrict sum, float *restrict square, int64_t n, int bf16) {
    for (int64_t k = 0; k < n; k++) {
        float v = load(y, k, bf16) - origin[k];
        sum[k] += v;
        square[k] += v * v;
    }
}

INLINE void add_shares(const void *y, const float *origin, float share, float *restrict sum, float *restrict square, int64_t n,
                       int bf16) {
    for (int64_t k = 0; k < n; k++) {
        float v = load(y, k, bf16) - origin[k], part = share * v;
        sum[k] += part;
        square[k] += part * v;
    }
}

/* Adds pixels of one image, which all have the share of its example. */
INLINE void add_image(const block *b, const void *y, int64_t image, const float *origin, float *sum, float *square, int64_t n) {
    float share = b->share[image % b->examples];
    if (b->bf16)
        add_shares(y, origin, share, sum, square, n, 1);
    else
        add_shares(y, origin, share, sum, square, n, 0);
}

EACH_PROCESSOR static int sum_moments(const job *j, int64_t first, int64_t end, double *sums) {
    const block *b = j->of;
    int64_t C = b->channels, pixels = together(end - first, C), L = pixels * C;
    float *origin = calloc((size_t)(3 * L + C), sizeof(float)), *partial = origin + L, *of_channel = origin + 3 * L;
    if (!origin) return 1;
    for (int64_t c = 0; c < C; c++) of_channel[c] = load(b->y, c, b->bf16);
    repeat(origin, of_channel, pixels, C);
    int64_t rows = 0, area = b->height * b->width;
    for (int64_t p = first, some; p < end; p += some) {
        int64_t left = b->share ? area - p % area : end - p; /* pixels in this image */
        some = p + pixels <= end ? pixels : end - p;
        some = some < left ? some : left;
        int64_t n = some * C;
        const void *y = from(b->y, p * C, b->bf16);
        if (b->share)
            add_image(b, y, p / area, origin, partial, partial + L, n);
        else if (b->bf16)
            add_moments(y, origin, partial, partial + L, n, 1);
        else
            add_moments(y, origin, partial, partial + L, n, 0);
        if (++rows == FLUSH) flush(sums, partial, pixels, C), rows = 0;
    }
    flush(sums, partial, pixels, C);
    free(origin);
    return 0;
}

/* Sets mean and inverse. In training they are the batch's, and the running ones are updated; otherwise the running ones. */
static int normalise(const block *b) {
    int64_t C = b->channels, n = pixels_of(b);
    if (!b->training) {
        for (int64_t c = 0; c < C; c++) {
            b->mean[c] = b->running_mean[c];
            b->inverse[c] = 1.0 / sqrt((double)b->running_var[c] + b->eps);
        }
        return 0;
    }
    double *sums = malloc(sizeof(double) * 2 * C);
    if (!sums || run(b, b->start, b->threads, sum_moments, n, sums, 2 * C)) {
        free(sums);
        return 1;
    }
    double mass = mass_of(b);
    for (int64_t c = 0; c < C; c++) {
        double shifted = sums[c] / mass, variance = sums[C + c] / mass - shifted * shifted;
        variance = variance < 0 ? 0 : variance; /* NaN stays NaN */
        b->mean[c] = shifted + load(b->y, c, b->bf16);
        b->inverse[c] = 1.0 / sqrt(variance + b->eps);
        if (b->running_mean) {
            double unbiased = variance * ((double)n / (n > 1 ? n - 1 : 1)), m = b->momentum;
            b->running_mean[c] = (float)((1 - m) * b->running_mean[c] + m * b->mean[c]);
            b->running_var[c] = (float)((1 - m) * b->running_var[c] + m * unbiased);
        }
    }
    free(sums);
    return 0;
}

/* Sets scale and shift, [C]: the current is scale y + shift. */
static void affine(const block *b, float *scale, float *shift) {
    for (int64_t c = 0; c < b->channels; c++) {
        double a = b->normed ? b->inverse[c] * (b->weight ? b->weight[c] : 1.0) : 1.0;
        scale[c] = (float)a;
        shift[c] = b->normed ? (float)((b->bias ? b->bias[c] : 0.0) - b->mean[c] * a) : 0.0f;
    }
}

/* ---- The neuron, `n` numbers of a row at once ---- */

INLINE void pool_row(const block *b, int64_t image, int64_t row, int64_t column, int64_t pixels, float *restrict x, int bf16) {
    int64_t C = b->channels, line = b->width * C;
    const void *y = from(b->y, ((image * b->height + row * b->pool) * b->width + column * b->pool) * C, bf16);
    if (b->pool == 1) {
        for (int64_t k = 0; k < pixels * C; k++) x[k] = load(y, k, bf16);
        return;
    }
    for (int64_t p = 0; p < pixels; p++) {
        const void *upper = from(y, 2 * p * C, bf16), *lower = from(upper, line, bf16);
        for (int64_t c = 0; c < C; c++)
            x[p * C + c] = 0.25f * ((load(upper, c, bf16) + load(upper, C + c, bf16)) + (load(lower, c, bf16) + load(lower, C + c, bf16)));
    }
}

INLINE void read_row(const block *b, int64_t image, int64_t row, int64_t column, int64_t pixels, float *x) {
    if (b->bf16)
        pool_row(b, image, row, column, pixels, x, 1);
    else
        pool_row(b, image, row, column, pixels, x, 0);
}

/* Charges the membranes v by a step. h: the membranes before the reset; NULL: not written. */
INLINE void charge(const block *b, const float *restrict x, const float *scale, const float *shift, float *restrict v,
                   float *restrict h, void *restrict spikes, int64_t n, int bf16) {
    float keep = b->keep, gain = b->gain, threshold = b->threshold, soft = (float)b->soft;
    for (int64_t k = 0; k < n; k++) {
        float charged = keep * v[k] + gain * (scale[k] * x[k] + shift[k]);
        int fires = charged >= threshold;
        if (spikes) store(spikes, k, fires ? 1.0f : 0.0f, bf16);
        if (h) h[k] = charged;
        v[k] = fires ? soft * (charged - threshold) : charged;
    }
}

INLINE void start_membranes(const block *b, float *v, int64_t place, int64_t n) {
    if (b->before)
        memcpy(v, b->before + place, sizeof(float) * n);
    else
        memset(v, 0, sizeof(float) * n);
}

EACH_PROCESSOR static int forward_rows(const job *j, int64_t first, int64_t end, double *sums) {
    const block *b = j->of;
    (void)sums;
    int64_t C = b->channels, h = b->height / b->pool, w = b->width / b->pool, pixels = together(w, C), L = pixels * C;
    int64_t frame = b->examples * h * w * C;
    float *scale = malloc(sizeof(float) * (size_t)(4 * L + 2 * C));
    if (!scale) return 1;
    float *shift = scale + L, *x = shift + L, *v = x + L, *of_channel = v + L;
    affine(b, of_channel, of_channel + C);
    repeat(scale, of_channel, pixels, C);
    repeat(shift, of_channel + C, pixels, C);
    for (int64_t r = first; r < end; r++) /* r: a row of an example */
        for (int64_t column = 0; column < w; column += pixels) {
            int64_t some = column + pixels <= w ? pixels : w - column, n = some * C, place = (r * w + column) * C;
            start_membranes(b, v, place, n);
            for (int64_t t = 0; t < b->timesteps; t++) {
                if (t == 0 || !b->still) read_row(b, t * b->examples + r / h, r % h, column, some, x);
                void *spikes = into(b->spikes, t * frame + place, b->bf16);
                if (b->bf16)
                    charge(b, x, scale, shift, v, NULL, spikes, n, 1);
                else
                    charge(b, x, scale, shift, v, NULL, spikes, n, 0);
            }
            if (b->after) memcpy(b->after + place, v, sizeof(float) * n);
        }
    free(scale);
    return 0;
}

/* Goes back through a step: error at the spikes and carried gradient at the membranes -> gradient at the current (d). */
INLINE void step_back(const block *b, const float *restrict h, const void *restrict error, float *restrict carried, float *restrict d,
                      int64_t n, int surrogate, int bf16) {
    float keep = b->keep, gain = b->gain, threshold = b->threshold, soft = (float)b->soft;
    for (int64_t k = 0; k < n; k++) {
        float z = h[k] - threshold;
        float from_next = z < 0.0f ? carried[k] : soft * carried[k]; /* a membrane that was reset to 0 does not reach the next step */
        float g = from_next + load(error, k, bf16) * derivative(z, surrogate);
        d[k] = gain * g;
        carried[k] = keep * g;
    }
}

INLINE void back(const block *b, const float *h, const void *error, float *carried, float *d, int64_t n, int bf16) {
    if (b->surrogate == ATAN)
        step_back(b, h, error, carried, d, n, ATAN, bf16);
    else if (b->surrogate == SIGMOID)
        step_back(b, h, error, carried, d, n, SIGMOID, bf16);
    else
        step_back(b, h, error, carried, d, n, TRIANGLE, bf16);
}

INLINE void add_products(const float *restrict d, const float *restrict x, const float *mean, float *restrict sum, float *restrict product,
                         int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        sum[k] += d[k];
        product[k] += d[k] * (x[k] - mean[k]);
    }
}

/* Writes inner, the gradient at the pooled y before the norm's scale. Sums: of inner, and of inner (pooled y - mean). */
EACH_PROCESSOR static int backward_rows(const job *j, int64_t first, int64_t end, double *sums) {
    const block *b = j->of;
    int64_t C = b->channels, h = b->height / b->pool, w = b->width / b->pool, pixels = together(w, C), L = pixels * C;
    int64_t frame = b->examples * h * w * C, T = b->timesteps, inputs = b->still ? 1 : T;
    float *scale = calloc((size_t)(L * (8 + T + inputs) + 3 * C), sizeof(float));
    if (!scale) return 1;
    float *shift = scale + L, *mean = shift + L, *v = mean + L, *carried = v + L, *d = carried + L, *partial = d + L;
    float *charged = partial + 2 * L, *x = charged + T * L, *of_channel = x + inputs * L;
    affine(b, of_channel, of_channel + C);
    if (b->normed)
        for (int64_t c = 0; c < C; c++) of_channel[2 * C + c] = (float)b->mean[c];
    repeat(scale, of_channel, pixels, C);
    repeat(shift, of_channel + C, pixels, C);
    repeat(mean, of_channel + 2 * C, pixels, C);
    int64_t rows = 0;
    for (int64_t r = first; r < end; r++)
        for (int64_t column = 0; column < w; column += pixels) {
            int64_t some = column + pixels <= w ? pixels : w - column, n = some * C, place = (r * w + column) * C;
            start_membranes(b, v, place, n);
            for (int64_t t = 0; t < T; t++) {
                float *of_step = x + (b->still ? 0 : t * L);
                if (t == 0 || !b->still) read_row(b, t * b->examples + r / h, r % h, column, some, of_step);
                charge(b, of_step, scale, shift, v, charged + t * L, NULL, n, 0);
            }
            memset(carried, 0, sizeof(float) * n);
            if (b->still) memset(b->inner + place, 0, sizeof(float) * n);
            for (int64_t t = T - 1; t >= 0; t--) {
                const void *error = from(b->error, t * frame + place, b->bf16);
                float *to = b->still ? d : b->inner + t * frame + place;
                if (b->bf16)
                    back(b, charged + t * L, error, carried, to, n, 1);
                else
                    back(b, charged + t * L, error, carried, to, n, 0);
                if (b->still)
                    for (int64_t k = 0; k < n; k++) b->inner[place + k] += d[k];
                else if (b->normed)
                    add_products(to, x + t * L, mean, partial, partial + L, n);
            }
            if (b->still && b->normed) add_products(b->inner + place, x, mean, partial, partial + L, n);
            rows += b->still ? 1 : T;
            if (rows >= FLUSH) flush(sums, partial, pixels, C), rows = 0;
        }
    flush(sums, partial, pixels, C);
    free(scale);
    return 0;
}

/* ---- The norm, backward: dy = factor inner + share (offset + slope y), without inner where no pool covers y ---- */

/* share: of the image's example; NULL: 1. */
INLINE void combine(const float *inner, const void *y, void *dy, const float *factor, const float *slope, const float *offset,
                    const float *share, int64_t n, int bf16) {
    if (!share) {
        for (int64_t k = 0; k < n; k++) store(dy, k, (factor[k] * inner[k] + offset[k]) + slope[k] * load(y, k, bf16), bf16);
        return;
    }
    float part = *share;
    for (int64_t k = 0; k < n; k++) store(dy, k, factor[k] * inner[k] + part * (offset[k] + slope[k] * load(y, k, bf16)), bf16);
}

INLINE void add_squares(const void *dy, float *restrict lanes, int64_t n, int bf16) {
    for (int64_t k = 0; k < n; k++) {
        float d = load(dy, k, bf16);
        lanes[k] += d * d;
    }
}

/* Writes a row of dy. Adds the squares of its numbers to lanes, [pixels, C]. */
INLINE void combine_row(const block *b, int64_t image, int64_t row, const float *terms, int64_t pixels, const float *zero,
                        float *lanes, int bf16) {
    int64_t C = b->channels, W = b->width, h = b->height / b->pool, w = W / b->pool, L = pixels * C;
    const float *factor = terms, *slope = terms + L, *offset = terms + 2 * L;
    const float *share = b->share ? b->share + image % b->examples : NULL;
    int64_t line = (image * b->height + row) * W * C;
    if (b->pool == 1) {
        for (int64_t column = 0; column < W; column += pixels) {
            int64_t place = line + column * C, n = (column + pixels <= W ? pixels : W - column) * C;
            combine(b->inner + place, from(b->y, place, bf16), into(b->dy, place, bf16), factor, slope, offset, share, n, bf16);
            if (b->squares) add_squares(from(b->dy, place, bf16), lanes, n, bf16);
        }
        return;
    }
    const float *inner = row / 2 < h ? b->inner + (image * h + row / 2) * w * C : NULL;
    for (int64_t column = 0; column < W; column++) {
        const float *covered = inner && column / 2 < w ? inner + column / 2 * C : zero;
        int64_t place = line + column * C;
        combine(covered, from(b->y, place, bf16), into(b->dy, place, bf16), factor, slope, offset, share, C, bf16);
        if (b->squares) add_squares(from(b->dy, place, bf16), lanes, C, bf16);
    }
}

typedef struct {
    const block *b;
    const float *terms; /* factor, slope and offset, [3, C] */
} affine_back;

EACH_PROCESSOR static int backward_norm(const job *j, int64_t first, int64_t end, double *sums) {
    const affine_back *with = j->of;
    const block *b = with->b;
    (void)sums;
    int64_t C = b->channels, pixels = together(b->width, C), L = pixels * C;
    float *terms = calloc((size_t)(4 * L + C), sizeof(float)), *lanes = terms + 3 * L, *zero = lanes + L;
    if (!terms) return 1;
    for (int term = 0; term < 3; term++) repeat(terms + term * L, with->terms + term * C, pixels, C);
    for (int64_t r = first; r < end; r++) { /* r: a row of an image of y */
        if (b->bf16)
            combine_row(b, r / b->height, r % b->height, terms, pixels, zero, lanes, 1);
        else
            combine_row(b, r / b->height, r % b->height, terms, pixels, zero, lanes, 0);
        if (b->squares) {
            double sum = 0;
            for (int64_t k = 0; k < L; k++) sum += lanes[k];
            b->squares[r] = (float)sum;
            memset(lanes, 0, sizeof(float) * L);
        }
    }
    free(terms);
    return 0;
}

/* ---- Functions for callers. Each returns 0, or 1 where there is no memory. ---- */

int64_t norm_pool_lif_size(void) { return (int64_t)sizeof(block); }

int norm_pool_lif_forward(const block *b) {
    if (b->normed && normalise(b)) return 1;
    return run(b, b->start, b->threads, forward_rows, b->examples * (b->height / b->pool), NULL, 0);
}

int norm_pool_lif_backward(const block *b) {
    int64_t C = b->channels, images = (b->still ? 1 : b->timesteps) * b->examples;
    double mass = mass_of(b);
    double *sums = malloc(sizeof(double) * 2 * C);
    float *terms = calloc((size_t)(3 * C), sizeof(float));
    int failed = !sums || !terms || run(b, b->start, b->threads, backward_rows, b->examples * (b->height / b->pool), sums, 2 * C);
    for (int64_t c = 0; !failed && c < C; c++) {
        float *factor = terms, *slope = terms + C, *offset = terms + 2 * C;
        double scale = 1.0;
        if (b->normed) {
            double of_weight = (sums[C + c] + ((float)b->mean[c] - b->mean[c]) * sums[c]) * b->inverse[c];
            scale = b->inverse[c] * (b->weight ? b->weight[c] : 1.0);
            if (b->training) {
                double tilt = -scale * b->inverse[c] * of_weight / mass;
                slope[c] = (float)tilt;
                offset[c] = (float)(-scale * sums[c] / mass - tilt * b->mean[c]);
            }
            if (b->dweight) b->dweight[c] = (float)of_weight;
            if (b->dbias) b->dbias[c] = (float)sums[c];
        }
        factor[c] = (float)(scale / (b->pool * b->pool));
    }
    affine_back with = {b, terms};
    failed = failed || run(&with, b->start, b->threads, backward_norm, images * b->height, NULL, 0);
    free(sums);
    free(terms);
    return failed;
}

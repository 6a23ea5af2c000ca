/* The convolution of spikes, forward and at the weight, at a cost in proportion to the spikes.

   Images lie channels last, [N, H, W, I] and [N, h, w, O]; float32. The weight lies [k, k, I, O]. An input of 0 adds nothing,
   so it is skipped: each spike adds a row of O weights to an output pixel, and a row of O errors to the weight's gradient. A
   number other than 0 and 1, such as a sum of spikes, takes one more product. The result is that of a dense convolution, up
   to the order of its sums. */

#include <string.h>

#include "blocks.h"

enum { LANES = 8, RANGE = 64 }; /* floats of a vector; input channels of a unit of work */
enum { MOST_PARTS = 16, GROUP_BYTES = 1 << 16, PART_BYTES = 1 << 22 };

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

typedef struct {
    int64_t images, height, width, inputs; /* N, H, W, I */
    int64_t rows, columns, outputs;        /* h, w, O */
    int32_t size, stride, padding, threads;
    team start;
    const float *x;
    const float *weight, *bias; /* forward; bias: [O], NULL: none */
    float *y;                   /* forward */
    const float *dy;            /* backward */
    float *dweight;             /* backward */
} conv;

typedef uint32_t __attribute__((may_alias)) bits;

INLINE int32_t is_live(const float *x) { return (*(const bits *)x << 1) != 0; } /* not 0 and not -0, also where it is NaN */

INLINE int all_ones(const float *x, int64_t n) { /* whether every number is 0 or 1 */
    uint32_t other = 0;
    for (int64_t i = 0; i < n; i++) other |= (uint32_t)(is_live(x + i) & (x[i] != 1.0f));
    return !other;
}

/* Adds rows of V vectors to a. For each entry of a list: the row at `at + entry`, times the entry's value if `valued`. */
INLINE void add_rows(vector *a, const float *from, int64_t at, const int32_t *list, const float *values, int64_t n, int V, int valued) {
    for (int64_t i = 0; i < n; i++) {
        const float *row = from + (at + list[i]);
        __asm__("" : "+r"(row)); /* keeps one address for all vectors of the row */
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) a[v] += valued ? values[i] * *(const vector *)(row + LANES * v) : *(const vector *)(row + LANES * v);
    }
}

/* The same for a single column, where the outputs are not a multiple of a vector. */
INLINE float add_column(float a, const float *from, int64_t at, const int32_t *list, const float *values, int64_t n, int valued) {
    for (int64_t i = 0; i < n; i++) a += valued ? values[i] * from[at + list[i]] : from[at + list[i]];
    return a;
}

/* ---- Forward ---- */

typedef struct {
    int32_t *list;   /* the place of each input other than 0 in its padded row: (column I + channel) O */
    float *values;   /* those inputs */
    int32_t *starts; /* [H + 2 padding, W + 2 padding + 1]: where a pixel's entries start */
} image_list;

INLINE void list_image(const conv *c, const float *x, const image_list *to, int valued) {
    int64_t I = c->inputs, p = c->padding, across = c->width + 2 * p;
    int32_t n = 0;
    for (int64_t r = 0; r < c->height + 2 * p; r++) {
        int32_t *starts = to->starts + r * (across + 1);
        int inside = r >= p && r < p + c->height;
        for (int64_t k = 0; k < across; k++) {
            starts[k] = n;
            if (!inside || k < p || k >= p + c->width) continue;
            const float *pixel = x + ((r - p) * c->width + k - p) * I;
            for (int64_t i = 0; i < I; i++) {
                to->list[n] = (int32_t)((k * I + i) * c->outputs);
                if (valued) to->values[n] = pixel[i];
                n += is_live(pixel + i);
            }
        }
        starts[across] = n;
    }
}

/* Computes V vectors of outputs of a pixel. The inputs under a row of the kernel are neighbours in the list. */
INLINE void tile(const conv *c, const image_list *l, int64_t row, int64_t column, int64_t o, float *y, int V, int valued) {
    int64_t across = c->width + 2 * c->padding, IO = c->inputs * c->outputs, first = column * c->stride;
    vector a[8];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) a[v] = c->bias ? *(const vector *)(c->bias + o + LANES * v) : (vector){0};
    for (int64_t k = 0; k < c->size; k++) {
        const int32_t *starts = l->starts + (row * c->stride + k) * (across + 1) + first;
        int64_t n = starts[c->size] - starts[0];
        add_rows(a, c->weight, (k * c->size - first) * IO + o, l->list + starts[0], l->values + starts[0], n, V, valued);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) *(vector *)(y + o + LANES * v) = a[v];
}

INLINE void pixel_outputs(const conv *c, const image_list *l, int64_t row, int64_t column, float *y, int valued) {
    int64_t o = 0, O = c->outputs;
    for (; o + 8 * LANES <= O; o += 8 * LANES) tile(c, l, row, column, o, y, 8, valued);
    for (; o + 4 * LANES <= O; o += 4 * LANES) tile(c, l, row, column, o, y, 4, valued);
    for (; o + 2 * LANES <= O; o += 2 * LANES) tile(c, l, row, column, o, y, 2, valued);
    for (; o + LANES <= O; o += LANES) tile(c, l, row, column, o, y, 1, valued);
    int64_t across = c->width + 2 * c->padding, IO = c->inputs * O, first = column * c->stride;
    for (; o < O; o++) {
        float a = c->bias ? c->bias[o] : 0.0f;
        for (int64_t k = 0; k < c->size; k++) {
            const int32_t *starts = l->starts + (row * c->stride + k) * (across + 1) + first;
            a = add_column(a, c->weight, (k * c->size - first) * IO + o, l->list + starts[0], l->values + starts[0],
                           starts[c->size] - starts[0], valued);
        }
        y[o] = a;
    }
}

EACH_PROCESSOR static int forward_images(const job *j, int64_t first, int64_t end, double *sums) {
    const conv *c = j->of;
    (void)sums;
    int64_t numbers = c->height * c->width * c->inputs, p = c->padding;
    int64_t places = (c->height + 2 * p) * (c->width + 2 * p + 1);
    float *values = malloc(4 * (size_t)(2 * (numbers + 1) + places));
    if (!values) return 1;
    image_list l = {.values = values, .list = (int32_t *)(values + numbers + 1), .starts = (int32_t *)(values + 2 * (numbers + 1))};
    for (int64_t n = first; n < end; n++) {
        const float *x = c->x + n * numbers;
        float *y = c->y + n * c->rows * c->columns * c->outputs;
        int valued = !all_ones(x, numbers);
        if (valued)
            list_image(c, x, &l, 1);
        else
            list_image(c, x, &l, 0);
        for (int64_t row = 0; row < c->rows; row++)
            for (int64_t column = 0; column < c->columns; column++, y += c->outputs)
                if (valued)
                    pixel_outputs(c, &l, row, column, y, 1);
                else
                    pixel_outputs(c, &l, row, column, y, 0);
    }
    free(values);
    return 0;
}

/* ---- The weight's gradient ----

   A unit of work is a part of the images and a range of input channels. It handles a group of images at a time. It copies
   their errors with a border of zeros, and lists for each channel the places of its spikes. With a stride s, a spike reaches
   an output only through the weights of its own residue, (row + padding) mod s and (column + padding) mod s. */

typedef struct {
    const conv *c;
    int64_t parts, ranges, group;
    float *partial; /* [parts, k, k, I, O] */
} gradient;

typedef struct {
    int64_t border, high, wide; /* of an image's errors: the zeros above and at the left; rows; columns, all with zeros */
    int64_t capacity;           /* of a list */
    float *errors;              /* [group, high, wide, O] */
    int32_t *list, *counts;     /* [RANGE, s, s, capacity] and [RANGE, s, s] */
    float *values;              /* of the entries */
    int32_t *live;              /* [RANGE]: the channels of a pixel that are not 0 */
} group_lists;

INLINE void list_group(const conv *c, group_lists *g, int64_t first, int64_t end, int64_t from, int64_t channels, int valued) {
    int64_t s = c->stride, O = c->outputs;
    memset(g->counts, 0, sizeof(int32_t) * channels * s * s);
    for (int64_t n = first; n < end; n++) {
        float *errors = g->errors + (n - first) * g->high * g->wide * O;
        const float *dy = c->dy + n * c->rows * c->columns * O;
        for (int64_t r = 0; r < c->rows; r++)
            memcpy(errors + ((r + g->border) * g->wide + g->border) * O, dy + r * c->columns * O, sizeof(float) * c->columns * O);
        for (int64_t row = 0; row < c->height; row++)
            for (int64_t column = 0; column < c->width; column++) {
                int64_t down = row + c->padding, right = column + c->padding, residue = (down % s) * s + right % s;
                int64_t place = ((n - first) * g->high + down / s + g->border) * g->wide + right / s + g->border;
                const float *pixel = c->x + ((n * c->height + row) * c->width + column) * c->inputs + from;
                int64_t live = 0;
                for (int64_t i = 0; i < channels; i++) {
                    g->live[live] = (int32_t)i;
                    live += is_live(pixel + i);
                }
                for (int64_t e = 0; e < live; e++) {
                    int64_t i = g->live[e], of_list = i * s * s + residue, to = of_list * g->capacity + g->counts[of_list]++;
                    g->list[to] = (int32_t)(place * O);
                    if (valued) g->values[to] = pixel[i];
                }
            }
    }
}

INLINE void tile_back(float *sum, const float *errors, int64_t at, const int32_t *list, const float *values, int64_t n, int V, int valued) {
    vector a[8];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) a[v] = (vector){0};
    add_rows(a, errors, at, list, values, n, V, valued);
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) *(vector *)(sum + LANES * v) += a[v];
}

INLINE void add_group(const conv *c, const group_lists *g, float *partial, int64_t from, int64_t channels, int valued) {
    int64_t s = c->stride, O = c->outputs;
    for (int64_t i = 0; i < channels; i++)
        for (int64_t k = 0; k < c->size * c->size; k++) {
            int64_t down = k / c->size, right = k % c->size, of_list = i * s * s + (down % s) * s + right % s;
            int64_t shift = -(down / s * g->wide + right / s) * O, n = g->counts[of_list], o = 0;
            const int32_t *list = g->list + of_list * g->capacity;
            const float *values = g->values + of_list * g->capacity;
            float *sum = partial + (k * c->inputs + from + i) * O;
            for (; o + 8 * LANES <= O; o += 8 * LANES) tile_back(sum + o, g->errors, shift + o, list, values, n, 8, valued);
            for (; o + 4 * LANES <= O; o += 4 * LANES) tile_back(sum + o, g->errors, shift + o, list, values, n, 4, valued);
            for (; o + 2 * LANES <= O; o += 2 * LANES) tile_back(sum + o, g->errors, shift + o, list, values, n, 2, valued);
            for (; o + LANES <= O; o += LANES) tile_back(sum + o, g->errors, shift + o, list, values, n, 1, valued);
            for (; o < O; o++) sum[o] += add_column(0.0f, g->errors, shift + o, list, values, n, valued);
        }
}

EACH_PROCESSOR static int backward_units(const job *j, int64_t first, int64_t end, double *sums) {
    const gradient *of = j->of;
    const conv *c = of->c;
    (void)sums;
    int64_t s = c->stride, down = (c->height - 1 + c->padding) / s + 1, right = (c->width - 1 + c->padding) / s + 1;
    group_lists g = {.border = (c->size - 1) / s};
    g.high = g.border + (down > c->rows ? down : c->rows);
    g.wide = g.border + (right > c->columns ? right : c->columns);
    g.capacity = of->group * ((c->height + s - 1) / s) * ((c->width + s - 1) / s);
    size_t errors = of->group * g.high * g.wide * c->outputs, lists = RANGE * s * s, entries = lists * g.capacity;
    g.errors = calloc(errors + 2 * entries + lists + RANGE + 1, 4);
    if (!g.errors) return 1;
    g.values = g.errors + errors;
    g.list = (int32_t *)(g.values + entries);
    g.counts = g.list + entries;
    g.live = g.counts + lists;
    int64_t weights = (int64_t)c->size * c->size * c->inputs * c->outputs;
    for (int64_t unit = first; unit < end; unit++) {
        int64_t part = unit / of->ranges, from = unit % of->ranges * RANGE;
        int64_t channels = from + RANGE <= c->inputs ? RANGE : c->inputs - from;
        int64_t image = c->images * part / of->parts, past = c->images * (part + 1) / of->parts;
        for (; image < past; image += of->group) {
            int64_t stop = image + of->group < past ? image + of->group : past, numbers = c->height * c->width * c->inputs;
            if (all_ones(c->x + image * numbers, (stop - image) * numbers)) {
                list_group(c, &g, image, stop, from, channels, 0);
                add_group(c, &g, of->partial + part * weights, from, channels, 0);
            } else {
                list_group(c, &g, image, stop, from, channels, 1);
                add_group(c, &g, of->partial + part * weights, from, channels, 1);
            }
        }
    }
    free(g.errors);
    return 0;
}

EACH_PROCESSOR static int add_parts(const job *j, int64_t first, int64_t end, double *sums) {
    const gradient *of = j->of;
    const conv *c = of->c;
    (void)sums;
    int64_t weights = (int64_t)c->size * c->size * c->inputs * c->outputs;
    for (int64_t k = first; k < end; k++) {
        double sum = 0;
        for (int64_t part = 0; part < of->parts; part++) sum += of->partial[part * weights + k];
        c->dweight[k] = (float)sum;
    }
    return 0;
}

/* ---- Functions for callers. Each returns 0, or 1 where there is no memory. ---- */

int64_t spike_conv_size(void) { return (int64_t)sizeof(conv); }

int spike_conv_forward(const conv *c) { return run(c, c->start, c->threads, forward_images, c->images, NULL, 0); }

int spike_conv_backward(const conv *c) {
    int64_t weights = (int64_t)c->size * c->size * c->inputs * c->outputs, high = c->rows + c->size, wide = c->columns + c->size;
    int64_t parts = PART_BYTES / (4 * weights), group = GROUP_BYTES / (4 * high * wide * c->outputs);
    gradient of = {.c = c, .ranges = (c->inputs + RANGE - 1) / RANGE};
    of.parts = parts < 4 ? 4 : parts > MOST_PARTS ? MOST_PARTS : parts;
    of.parts = of.parts < c->images ? of.parts : c->images;
    int64_t most = (c->images + of.parts - 1) / of.parts;
    of.group = group < 1 ? 1 : group > most ? most : group;
    of.partial = calloc((size_t)(of.parts * weights), sizeof(float));
    int failed = !of.partial || run(&of, c->start, c->threads, backward_units, of.parts * of.ranges, NULL, 0) ||
                 run(&of, c->start, c->threads, add_parts, weights, NULL, 0);
    free(of.partial);
    return failed;
}

// Images on their way into lanes: gathered, rotated and shifted, normalised.
#pragma once
#include "shape.h"

typedef float floats __attribute__((vector_size(L * 4)));
typedef int32_t ints __attribute__((vector_size(L * 4)));
typedef uint16_t pairs __attribute__((vector_size(L * 2)));  // of bytes, the first of which is the low one
static inline floats first(pairs x) { return __builtin_convertvector(x & 255, floats); }
static inline floats second(pairs x) { return __builtin_convertvector(x >> 8, floats); }

// What normlab/data/augment.py computes: for each pixel, where it comes from; bilinear, 0 outside.
struct Moves {
  floats cos, sin, right, down, dx, dy;
  // turn: an image's three draws in [-1, 1], as shares of `rotation` (radians) and `shift` (pixels).
  void set(int lane, const float* turn, double rotation, double shift) {
    float angle = turn[0] * (float)rotation, sine = sinf(angle);
    cos[lane] = cosf(angle), sin[lane] = sine;
    right[lane] = sine * ((float)WIDTH / HEIGHT), down[lane] = -sine * ((float)HEIGHT / WIDTH);  // of half a width, a height
    dx[lane] = turn[1] * (float)(2 * shift / WIDTH), dy[lane] = turn[2] * (float)(2 * shift / HEIGHT);
  }
};

// The largest integer that is not above x, and what is left of x.
static inline ints floor_of(floats x, floats& rest) {
  ints whole = __builtin_convertvector(x, ints);
  whole += __builtin_convertvector(whole, floats) > x;  // true is -1
  rest = x - __builtin_convertvector(whole, floats);
  return whole;
}

// f(pixel, values) for each pixel of one plane of L images, in [0, 255]. from: null for lanes without an image.
template <class F> static inline void gathered(const uint8_t* const* from, const Moves* moves, F f) {
  constexpr int EDGE = 2, W = WIDTH + 2 * EDGE, H = HEIGHT + 2 * EDGE;  // pairs beyond the border are 0
  constexpr int IMAGE_BYTES = (H * W / 128 * 2 + 3) * 64;  // an odd number of cache lines: images do not displace one another
  static thread_local uint8_t inside[L * IMAGE_BYTES];
  for (int l = 0; l < L; l++)
    for (int y = 0; y < HEIGHT; y++) {
      uint8_t* row = inside + l * IMAGE_BYTES + (y + EDGE) * W + EDGE;
      if (from[l]) memcpy(row, from[l] + y * WIDTH, WIDTH);
      else memset(row, 0, WIDTH);
    }
  ints image;
  for (int l = 0; l < L; l++) image[l] = l * IMAGE_BYTES + EDGE * W + EDGE;
  for (int y = 0; y < HEIGHT; y++) {  // a row at a time: where its pixels come from, two pairs of bytes for each, values
    ints at[WIDTH];
    floats fx[WIDTH] = {}, fy[WIDTH] = {};
    pairs above[WIDTH], below[WIDTH];
    for (int x = 0; x < WIDTH; x++) {
      if (!moves) {
        at[x] = image + (y * W + x);
        continue;
      }
      const Moves& m = *moves;
      floats u = (float)(2 * x + 1 - WIDTH) / WIDTH - m.dx, t = (float)(2 * y + 1 - HEIGHT) / HEIGHT - m.dy;
      floats px = ((m.cos * u + m.down * t + 1) * WIDTH - 1) / 2, py = ((m.right * u + m.cos * t + 1) * HEIGHT - 1) / 2;
      px = px < -(float)EDGE ? floats{} - EDGE : px > (float)WIDTH ? floats{} + WIDTH : px;
      py = py < -(float)EDGE ? floats{} - EDGE : py > (float)HEIGHT ? floats{} + HEIGHT : py;
      ints left = floor_of(px, fx[x]), top = floor_of(py, fy[x]);
      at[x] = image + top * W + left;
    }
    for (int x = 0; x < WIDTH; x++)
      for (int l = 0; l < L; l++) {
        const uint8_t* pixel = inside + ((const int32_t*)(at + x))[l];
        memcpy((uint16_t*)(above + x) + l, pixel, 2), memcpy((uint16_t*)(below + x) + l, pixel + W, 2);
      }
    for (int x = 0; x < WIDTH; x++) {
      floats top = first(above[x]) * (1 - fx[x]) + second(above[x]) * fx[x];
      floats bottom = first(below[x]) * (1 - fx[x]) + second(below[x]) * fx[x];
      f(y * WIDTH + x, top * (1 - fy[x]) + bottom * fy[x]);
    }
  }
}

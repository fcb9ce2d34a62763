// 3x3 convolutions without padding and the gradients of their weights, a few rows and a register tile at a time.
#pragma once
#include "shape.h"

template <int CO> constexpr int TILE = divisor(CO, 5);  // channels of a tile

// f(n, column) for tiles of n = T pixels that make up a row, and of fewer at its end
template <int WIDE, int T, class F> static inline void tiles(F f) {
  int column = 0;
  for (; column + T <= WIDE; column += T) f(size<T>{}, column);
  if constexpr (WIDE % T != 0) f(size<WIDE % T>{}, column);
}

// Rows of y[CO][.][W-2] = x[CI][.][W] * w. Calls done(tile, n, c, row, column) with n neighbouring pixels of channel c.
// x: the first row that the first of `rows` needs, in channels PLANE numbers apart; `first` is what that row is called.
// w: [CO / TC][CI][3][3][TC], in the order in which it is read.
template <int CI, int CO, int W, int PLANE, class Done>
static inline void convolve(const num* x, int rows, int first, const Weight* w, Done done) {
  constexpr int TC = TILE<CO>, TX = tile_pixels(TC, W - 2);
  for (int row = 0; row < rows; row++)
    tiles<W - 2, TX>([&](auto n, int column) {
      constexpr int T = decltype(n)::value;
      const Weight* next = w;
      for (int c0 = 0; c0 < CO; c0 += TC) {
        v sum[TC][T];
        UNROLL for (int c = 0; c < TC; c++) UNROLL for (int t = 0; t < T; t++) sum[c][t] = v{};
        for (int ci = 0; ci < CI; ci++)
          for (int ky = 0; ky < 3; ky++, next += 3 * TC) {
            const num* from = x + ci * PLANE + ((row + ky) * W + column) * L;
            v in[T + 2];
            UNROLL for (int t = 0; t < T + 2; t++) in[t] = load(from + t * L);
            UNROLL for (int kx = 0; kx < 3; kx++) UNROLL for (int c = 0; c < TC; c++) {
              v weight = spread(next[kx * TC + c]);
              UNROLL for (int t = 0; t < T; t++) sum[c][t] += weight * in[t + kx];
            }
          }
        v tile[TC][T];
        UNROLL for (int c = 0; c < TC; c++) UNROLL for (int t = 0; t < T; t++) tile[c][t] = sum[c][t];
        for (int c = 0; c < TC; c++) done(tile[c], n, c0 + c, first + row, column);
      }
    });
}

// sum[CO][CI][9] += Σ d · x over the pixels of `rows` rows of d[CO][.][WD], which is W - 2 wide.
template <int CI, int CO, int W, int PLANE, int WD, int PLANE_D>
static inline void weight_gradient(const num* x, const num* d, int rows, v* sum) {
  constexpr int TC = divisor(CO, REGISTERS > 16 ? 2 : 1);
  for (int c0 = 0; c0 < CO; c0 += TC)
    for (int ci = 0; ci < CI; ci++) {
      v s[TC][9];
      UNROLL for (int c = 0; c < TC; c++) UNROLL for (int k = 0; k < 9; k++) s[c][k] = sum[((c0 + c) * CI + ci) * 9 + k];
      for (int row = 0; row < rows; row++) {
        const num* xs = x + ci * PLANE + row * W * L;
        const num* ds = d + c0 * PLANE_D + row * WD * L;
        for (int column = 0; column < W - 2; column++, xs += L, ds += L) {
          v grad[TC];
          UNROLL for (int c = 0; c < TC; c++) grad[c] = load(ds + c * PLANE_D);
          UNROLL for (int k = 0; k < 9; k++) {
            v in = load(xs + (k / 3 * W + k % 3) * L);
            UNROLL for (int c = 0; c < TC; c++) s[c][k] += grad[c] * in;
          }
        }
      }
      UNROLL for (int c = 0; c < TC; c++) UNROLL for (int k = 0; k < 9; k++) sum[((c0 + c) * CI + ci) * 9 + k] = s[c][k];
    }
}

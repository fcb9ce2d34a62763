// The shape of the network, from macros that normlab/kernels/compile.py writes by settings/shape.py.
#pragma once
#include "vectors.h"

constexpr int BLOCKS = 5;  // 3x3 convolution, ReLU, norm, (dropout)
constexpr int OUT[BLOCKS] = {BLOCK1, BLOCK2, BLOCK3, BLOCK4, BLOCK5};
constexpr int IN[BLOCKS] = {CHANNELS, BLOCK1, SQUEEZE, BLOCK3, BLOCK4};
constexpr int POOLED = 2;  // the block whose input is squeezed (1x1 convolution) and pooled (2x2)
constexpr int PH = (HEIGHT - 4) / 2, PW = (WIDTH - 4) / 2;
constexpr int HEIGHTS[BLOCKS] = {HEIGHT, HEIGHT - 2, PH, PH - 2, PH - 4};  // of its input
constexpr int WIDTHS[BLOCKS] = {WIDTH, WIDTH - 2, PW, PW - 2, PW - 4};

// A number that is known when the code is compiled, as an argument.
template <int N> struct size {
  static constexpr int value = N;
  constexpr operator int() const { return N; }
};
// One Of<I> for each block.
template <template <int> class Of> struct Each {
  Of<0> block1;
  Of<1> block2;
  Of<2> block3;
  Of<3> block4;
  Of<4> block5;
  template <int I> Of<I>& of() {
    if constexpr (I == 0) return block1;
    else if constexpr (I == 1) return block2;
    else if constexpr (I == 2) return block3;
    else if constexpr (I == 3) return block4;
    else return block5;
  }
  template <int I> const Of<I>& of() const { return const_cast<Each*>(this)->template of<I>(); }
};

template <int I> struct Block {
  static constexpr int in = IN[I], out = OUT[I], h = HEIGHTS[I], w = WIDTHS[I];
  static constexpr int ho = h - 2, wo = w - 2, pixels = ho * wo;
  static constexpr int pad = I ? 2 : 0;  // of the gradient of its output; that of the images is not needed
  static constexpr int wp = wo + 2 * pad;
  static constexpr int row_words = (wo + 31) / 32;  // a row's dropout mask, a bit per pixel
};

constexpr int largest(int a, int b) { return a > b ? a : b; }
constexpr int least(int a, int b) { return a < b ? a : b; }
template <class F> constexpr int largest_of(F f) {
  int most = 0;
  for (int i = 0; i < BLOCKS; i++) most = largest(most, f(i));
  return most;
}
constexpr int WIDEST = largest_of([](int i) { return OUT[i]; });
constexpr int given(int i) { return OUT[i] * (HEIGHTS[i] - 2) * (WIDTHS[i] - 2); }
constexpr int LARGEST_EVEN = largest_of([](int i) { return i % 2 ? 0 : given(i); });
constexpr int LARGEST_ODD = largest_of([](int i) { return i % 2 ? given(i) : 0; });
constexpr int BAND = 4;  // rows of a map that are computed together, so that what they need stays in the fast caches
constexpr int LARGEST_BAND = largest_of([](int i) { return OUT[i] * (BAND + 2) * (WIDTHS[i] - 2); });
constexpr int MOST_WEIGHTS = largest_of([](int i) { return OUT[i] * IN[i] * 9; });

// Register tiles: accumulators for TC channels of TX pixels beside TX + 2 pixels and a weight.
constexpr int divisor(int n, int most) {
  while (n % most) most--;
  return most;
}
constexpr int tile_pixels(int channels, int width) {
  int most = (REGISTERS - (REGISTERS > 16 ? 8 : 6)) / channels;
  most = most < 1 ? 1 : most;
  return most < width ? most : width;
}

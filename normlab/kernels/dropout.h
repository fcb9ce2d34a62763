// Dropout masks, a bit per number. Those of an image follow from its network's seed, the step, the block and its
// place in the batch.
#pragma once
#include "shape.h"

// splitmix64: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 15
static inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// xoshiro128++ in every lane: Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators", section 5
struct Random {
  words s[4];
  void seed(int lane, uint64_t seed, uint64_t step, uint64_t block, uint64_t image) {
    uint64_t x = mix(mix(mix(seed) ^ step) ^ (block << 48 | image));
    for (int i = 0; i < 4; i += 2) {
      x = mix(x);
      s[i][lane] = (uint32_t)x, s[i + 1][lane] = (uint32_t)(x >> 32) | (i == 0);  // never all zeros
    }
  }
  static words turned(words x, int by) { return x << by | x >> (32 - by); }
  words next() {
    words x = turned(s[0] + s[3], 7) + s[0], t = s[1] << 9;
    s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= t, s[3] = turned(s[3], 11);
    return x;
  }
};

// Of 65,536 numbers, how many are dropped on average.
static inline uint32_t threshold(double rate) { return fmin(nearbyint(rate * 65536), 65535); }

// A number is dropped where 16 random bits are below its lane's `dropped`. kept: [channel][row][Block<I>::row_words].
template <int I> void draw_masks(Random& random, words dropped, words* kept) {
  using B = Block<I>;
  for (int row = 0; row < B::out * B::ho; row++)
    for (int first = 0; first < B::wo; first += 32) {
      words bits{};
      for (int i = 0; i < 32 && first + i < B::wo; i += 2) {
        words x = random.next();
        bits |= (words)((x & 0xffff) >= dropped) & (1u << i);
        bits |= (words)((x >> 16) >= dropped) & (2u << i);
      }
      *kept++ = bits;
    }
}

static inline mask is_kept(const words* row, int column) {
  return __builtin_convertvector((row[column / 32] & (1u << column % 32)) != 0, mask);
}

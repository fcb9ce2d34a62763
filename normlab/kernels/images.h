// Images on their way into lanes: gathered, rotated and shifted, normalised.
#pragma once
#include "shape.h"

// What normlab/data/augment.py computes: for each pixel, where it comes from; bilinear, 0 outside. turn: the image's
// three draws in [-1, 1], as shares of `rotation` (radians) and `shift` (pixels).
struct Move {
  float cos, sin, right, down, dx, dy;
  Move(const float* turn, double rotation, double shift) {
    float angle = turn[0] * (float)rotation;
    cos = std::cos(angle), sin = std::sin(angle);
    right = sin * ((float)WIDTH / HEIGHT), down = -sin * ((float)HEIGHT / WIDTH);  // half a width is not half a height
    dx = turn[1] * (float)(2 * shift / WIDTH), dy = turn[2] * (float)(2 * shift / HEIGHT);
  }
};

// to[row][column][lane 0] = image of bytes, moved; in [0, 255]
static inline void moved(const uint8_t* image, const Move& m, num* to) {
  constexpr int EDGE = 2, W = WIDTH + 2 * EDGE, H = HEIGHT + 2 * EDGE;  // pairs beyond the border are 0
  float inside[H * W] = {}, line[WIDTH];
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++) inside[(y + EDGE) * W + x + EDGE] = image[y * WIDTH + x];
  for (int y = 0; y < HEIGHT; y++) {
    float v = (float)(2 * y + 1 - HEIGHT) / HEIGHT - m.dy;
    for (int x = 0; x < WIDTH; x++) {
      float u = (float)(2 * x + 1 - WIDTH) / WIDTH - m.dx;
      float px = ((m.cos * u + m.down * v + 1) * WIDTH - 1) / 2, py = ((m.right * u + m.cos * v + 1) * HEIGHT - 1) / 2;
      px = px < -EDGE ? -EDGE : px > WIDTH ? WIDTH : px;
      py = py < -EDGE ? -EDGE : py > HEIGHT ? HEIGHT : py;
      float left = std::floor(px), top = std::floor(py), fx = px - left, fy = py - top;
      const float* at = inside + ((int)top + EDGE) * W + (int)left + EDGE;
      line[x] = (at[0] * (1 - fx) + at[1] * fx) * (1 - fy) + (at[W] * (1 - fx) + at[W + 1] * fx) * fy;
    }
    for (int x = 0; x < WIDTH; x++) to[(y * WIDTH + x) * L] = line[x];
  }
}

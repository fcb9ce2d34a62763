// A training step or an evaluation of K networks: which block is computed when, and the functions that Python calls.
//
// Tasks are pairs (unit, block): a unit is a network, or the networks that share lanes; its batch is cut into blocks of
// LANES images. Norms without statistics of the batch let a task run through all phases at once, in its thread's memory.
// Else every phase ends for all tasks before the next one begins.
//
//     phase 0 … 4: convolution of block 1 … 5      phase 5: head      phase 6 … 10: gradients of block 5 … 1
#include "network.h"
#include "threads.h"

constexpr int HEAD = BLOCKS, LAST = 2 * BLOCKS;

template <class F> static void of_block(int block, F f) {
  switch (block) {
    case 0: return f(size<0>{});
    case 1: return f(size<1>{});
    case 2: return f(size<2>{});
    case 3: return f(size<3>{});
    case 4: return f(size<4>{});
  }
}

// Room for `count` things that grows and is not freed between steps. New memory is zero.
template <class T> struct Room {
  void* got = nullptr;
  size_t count = 0;
  T* at(size_t i) { return (T*)(((uintptr_t)got + 63) / 64 * 64) + i; }
  bool reserve(size_t wanted) {
    if (wanted <= count) return true;
    free(got);
    got = calloc(wanted * sizeof(T) + 64, 1);
    count = got ? wanted : 0;
    return got;
  }
  ~Room() { free(got); }
};

struct Step {
  Room<Weights> weights;
  Room<Weight> gradients;  // of each task
  Room<v> rows;            // parameters of networks that share lanes
  Room<Memory> memories;
  Room<Scratch> scratches;
  Room<Lanes> lanes;

  Task task(const Job& job, int t, int blocks, int memory, int thread) {
    return Task(job, *weights.at(t / blocks), *memories.at(memory), *scratches.at(thread),
                gradients.at((size_t)t * job.parameters), t / blocks, t % blocks);
  }

  // Returns whether there was memory for it.
  bool run(const Job& job, int from, int to) {
    const int per_unit = L / lanes_of(job), units = (job.networks + per_unit - 1) / per_unit;
    const int blocks = (job.images + L - 1) / L, tasks = units * blocks;
    const int threads = job.threads < tasks ? job.threads : tasks;
    const int64_t kind = job.norms[0].kind;
    const bool local = kind == NONE || kind == IMAGE || (kind == BATCH && !job.training);
    if (from == 0) {
      if (!weights.reserve(units) || !gradients.reserve(job.training ? (size_t)tasks * job.parameters : 1) ||
          !rows.reserve(SHARED ? (size_t)units * job.parameters : 0) || !scratches.reserve(threads) ||
          !memories.reserve(local ? threads : tasks) || !lanes.reserve(tasks))
        return false;
      Pool::run(threads, units, [&](int unit, int) { read_weights(job, unit); });
    }
    auto phase = [&](int p, Task&& task) {
      if (p == 0 && job.training) memset(task.grads, 0, job.parameters * sizeof(Weight));
      if (p == HEAD) return task.head();
      of_block(p < HEAD ? p : LAST - p, [&](auto i) {
        if (p < HEAD) task.forward<i>();
        else task.backward<i>();
      });
    };
    if (local)
      Pool::run(threads, tasks, [&](int t, int thread) {
        for (int p = from; p <= to; p++) phase(p, task(job, t, blocks, thread, thread));
      });
    else
      for (int p = from; p <= to; p++) {
        Pool::run(threads, tasks, [&](int t, int thread) { phase(p, task(job, t, blocks, t, thread)); });
        if (kind == BATCH && p < LAST)
          of_block(p < HEAD ? p : LAST - 1 - p, [&](auto i) {
            Pool::run(threads, units, [&](int unit, int) { statistics<i>(job, unit, blocks, p >= HEAD); });
          });
      }
    if (to == LAST) Pool::run(threads, units, [&](int unit, int) { add_gradients(job, unit, blocks); });
    return true;
  }

  void read_weights(const Job& job, int unit) {
    auto& own = *weights.at(unit);
#if SHARED
    v* row = rows.at((size_t)unit * job.parameters);
    const int group = lanes_of(job), first = unit * (L / group);
    for (int l = 0; l < L; l++)
      for (int64_t i = 0; i < job.parameters; i++)
        row[i][l] = first + l / group < job.networks ? job.rows[(first + l / group) * job.parameters + i] : 0;
    own.fill(job, row);
#else
    own.fill(job, job.rows + unit * job.parameters);
#endif
  }

  // Statistics over the blocks of a unit, in the order of the blocks.
  template <int I> void statistics(const Job& job, int unit, int blocks, bool backward) {
    const int group = lanes_of(job), first = unit * (L / group);
    Batch<I> batch{job.norms[I], lanes.at(unit * blocks), (int)job.images, group};
    for (int b = 0; b < blocks; b++) {
      auto own = task(job, unit * blocks + b, blocks, unit * blocks + b, 0);
      batch.blocks[b] = {&own.maps<I>(), own.valid, own.place};
    }
    const auto& w = *weights.at(unit);
    const int networks = first + L / group < job.networks ? L / group : job.networks - first;
    if (backward) batch.backward(w.weight[I]);
    else batch.forward(w.weight[I], w.bias[I], networks, first);
  }

  // The gradients of all blocks of a unit, one after the other.
  void add_gradients(const Job& job, int unit, int blocks) {
    const Weight* from = gradients.at((size_t)unit * blocks * job.parameters);
    const int group = lanes_of(job), first = unit * (L / group);
    for (int64_t i = 0; i < job.parameters; i++) {
      Weight sum{};
      for (int b = 0; b < blocks; b++) sum += from[b * job.parameters + i];
      for (int k = 0; k < L / group && first + k < job.networks; k++)
        job.grads[(first + k) * job.parameters + i] += spread(sum)[k * group];
    }
  }

  // Maps of block I of all images between lanes, where `lying` tells, and a tensor (K, B, H, W, C).
  template <int I, class Lying> void exchange(const Job& job, num* tensor, bool out, Lying lying) {
    using B = Block<I>;
    const int group = lanes_of(job), per_unit = L / group, blocks = (job.images + L - 1) / L;
    const int units = (job.networks + per_unit - 1) / per_unit;
    constexpr int all = B::out * B::pixels;
    Pool::run(job.threads, units * blocks, [&](int t, int) {
      num *maps = lying(*memories.at(t)), *own[L];
      for (int l = 0; l < L; l++) {
        int64_t network = t / blocks * per_unit + l / group, image = t % blocks * L + l % group;
        bool valid = network < job.networks && image < job.images;
        own[l] = valid ? tensor + (network * job.images + image) * all : nullptr;
      }
      auto get = [](v* to, const num* from, size_t bytes) { memcpy(to, from, bytes); };
      auto put = [](const v* from, num* to, size_t bytes) { memcpy(to, from, bytes); };
      auto square = [&](int first, auto count) {  // of `count` numbers of each image, from the `first` on
        v turned[L]{};
        auto rows = [&](auto move) {
          for (int k = 0, e = first; k < count; k++, e++)
            move(turned + k, maps + (e % B::out * B::pixels + e / B::out) * L, sizeof(v));
        };
        auto columns = [&](auto move) {
          for (int l = 0; l < L; l++)
            if (own[l]) move(turned + l, own[l] + first, count * sizeof(num));
        };
        if (out) rows(get), transpose(turned), columns(put);
        else columns(get), transpose(turned), rows(put);
      };
      for (int first = 0; first + L <= all; first += L) square(first, size<L>{});
      if constexpr (all % L) square(all - all % L, size<all % L>{});
    });
  }
};

// Which numbers dropout keeps behind a block of one network: bytes (images, channels, rows, columns), 1 or 0.
template <int I> static bool masks(uint64_t seed, uint64_t step, double rate, int64_t images, uint8_t* kept) {
  using B = Block<I>;
  Room<words> bits;
  if (!bits.reserve(B::out * B::ho * B::row_words)) return false;
  for (int64_t image = 0; image < images; image++) {
    Random random{};
    random.seed(0, seed, step, I, image);
    draw_masks<I>(random, words{} + threshold(rate), bits.at(0));
    for (int row = 0; row < B::out * B::ho; row++)
      for (int i = 0; i < B::wo; i++) *kept++ = (*bits.at(row * B::row_words + i / 32))[0] >> i % 32 & 1;
  }
  return true;
}

enum What : int64_t { GET_R, SET_Y, GET_D, SET_D };

extern "C" {
// Each returns 1 where it could be done, 0 (or null) where there is no memory for it.
Step* step_new() { return (Step*)calloc(1, sizeof(Step)); }
void step_free(Step* step) {
  step->~Step();
  free(step);
}

// Phases from … to of a step.
int64_t step_run(Step* step, const Job* job, int64_t from, int64_t to) { return step->run(*job, from, to); }

int64_t step_masks(int64_t block, uint64_t seed, uint64_t step, double rate, int64_t images, uint8_t* kept) {
  bool done = false;
  of_block(block, [&](auto i) { done = masks<i>(seed, step, rate, images, kept); });
  return done;
}

// Maps of a block for torch, and back: what the norm reads, what it gives, and their gradients.
void step_exchange(Step* step, const Job* job, int64_t block, int64_t what, num* tensor) {
  of_block(block, [&](auto i) {
    step->exchange<i>(*job, tensor, what == GET_R || what == GET_D, [&](Memory& m) {
      auto& maps = m.maps.of<i>();
      return what == GET_R ? maps.r : what == SET_Y ? maps.y : i % 2 ? m.odd : m.even;
    });
  });
}
}

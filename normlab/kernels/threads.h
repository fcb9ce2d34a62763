// Threads that share tasks: whoever is free takes the next one, the caller too. By pthreads and atomics alone: a library
// that needs no C++ runtime is compiled in seconds wherever there is a compiler.
#pragma once
#include <pthread.h>
#include <sched.h>

#include "vectors.h"

template <class T> struct Atomic {
  T value;
  operator T() const { return __atomic_load_n(&value, __ATOMIC_SEQ_CST); }
  void operator=(T next) { __atomic_store_n(&value, next, __ATOMIC_SEQ_CST); }
  void operator++(int) { __atomic_fetch_add(&value, 1, __ATOMIC_SEQ_CST); }
  // Whether it was `from` and is `to` now; if not, `from` is what it is.
  bool swap(T& from, T to) { return __atomic_compare_exchange_n(&value, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); }
};

// The caller never waits for a thread that has no task.
class Pool {
 public:
  // f(task, thread) for each of `count` tasks, on up to `threads` threads; the caller is thread 0.
  template <class F> static void run(int threads, int count, F f) {
    if (threads < 2 || count < 2 || pthread_mutex_trylock(&one().taken)) {  // a second caller works alone
      for (int task = 0; task < count; task++) f(task, 0);
      return;
    }
    one().share(threads, count, [](void* f, int task, int thread) { (*(F*)f)(task, thread); }, &f);
    pthread_mutex_unlock(&one().taken);
  }

  static void forget() { one() = Pool(); }

 private:
  typedef void (*Call)(void*, int, int);
  // The job's number and the next task: one number, so that nobody takes a task of the last job for one of this.
  Atomic<uint64_t> ticket{0};
  Atomic<Call> call{nullptr};
  Atomic<void*> with{nullptr};
  Atomic<int> count{0}, done{0}, most{0};
  int helpers = 0;
  pthread_mutex_t taken = PTHREAD_MUTEX_INITIALIZER, sleeping = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

  static Pool& one() {
    static Pool pool;  // its threads sleep until the process ends
    return pool;
  }
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  void share(int threads, int tasks, Call f, void* argument) {
    while (helpers < threads - 1) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, help, (void*)(intptr_t)(helpers + 1))) break;  // there are no more to be had
      pthread_detach(thread);
      helpers++;
    }
    uint64_t job = ((uint64_t)ticket >> 32) + 1;
    ticket = (job << 32) - 1;  // no task of the last job can be taken while what follows changes
    call = f, with = argument, count = tasks, done = 0, most = threads;
    pthread_mutex_lock(&sleeping);
    ticket = job << 32;
    pthread_mutex_unlock(&sleeping);
    pthread_cond_broadcast(&wake);
    work(0);
    for (int spins = 0; done < tasks; spins++) spins < 1000 ? pause() : (void)sched_yield();
  }
  void work(int thread) {
    for (uint64_t now = ticket;;) {
      Call f = call;
      void* argument = with;
      if ((now & 0xffffffff) >= (uint64_t)count || thread >= most) return;
      if (!ticket.swap(now, now + 1)) continue;  // `now` is what it is instead
      f(argument, (int)(now & 0xffffffff), thread);
      done++;
      now = ticket;
    }
  }
  static void* help(void* thread) {
    Pool& pool = one();
    for (uint64_t seen = 0;;) {
      for (int spins = 0; spins < 2000 && ((uint64_t)pool.ticket >> 32) == seen; spins++) pause();
      pthread_mutex_lock(&pool.sleeping);
      while ((uint64_t)pool.ticket >> 32 == seen) pthread_cond_wait(&pool.wake, &pool.sleeping);
      pthread_mutex_unlock(&pool.sleeping);
      seen = (uint64_t)pool.ticket >> 32;
      pool.work((int)(intptr_t)thread);
    }
  }
};
__attribute__((constructor)) static void in_a_child() { pthread_atfork(nullptr, nullptr, Pool::forget); }  // it has no threads yet

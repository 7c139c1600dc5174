// Memory and strings, without a C library.
//
// Blocks have sizes of powers of two. A block that is freed waits in the list of its size; memory is
// never given back, as WebAssembly cannot.

#include <stdint.h>

#include "stdlib.h"
#include "string.h"

enum { PAGE = 65536, SMALLEST = 4, LARGEST = 31 };

// In front of every block. 16 bytes, so that what follows is aligned for anything.
typedef struct header {
  struct header *next;
  uint32_t size_log;
  uint64_t unused;
} header_t;

extern uint8_t __heap_base;

static header_t *freed[LARGEST + 1];
static uintptr_t top;

static void *take(size_t bytes) {
  if (top == 0) top = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
  size_t end = __builtin_wasm_memory_size(0) * (size_t)PAGE;
  if (bytes > end - top) {
    size_t pages = (bytes - (end - top) + PAGE - 1) / PAGE;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) return 0;
  }
  void *block = (void *)top;
  top += bytes;
  return block;
}

void *malloc(size_t size) {
  if (size > (size_t)1 << 30) return 0;
  uint32_t size_log = SMALLEST;
  while (((size_t)1 << size_log) < size) size_log++;
  header_t *block = freed[size_log];
  if (block) {
    freed[size_log] = block->next;
  } else {
    block = take(sizeof *block + ((size_t)1 << size_log));
    if (!block) return 0;
    block->size_log = size_log;
  }
  return block + 1;
}

void free(void *ptr) {
  if (!ptr) return;
  header_t *block = (header_t *)ptr - 1;
  block->next = freed[block->size_log];
  freed[block->size_log] = block;
}

void *realloc(void *ptr, size_t size) {
  if (!ptr) return malloc(size);
  size_t there = (size_t)1 << ((header_t *)ptr - 1)->size_log;
  if (size <= there) return ptr;
  void *larger = malloc(size);
  if (!larger) return 0;
  memcpy(larger, ptr, there);
  free(ptr);
  return larger;
}

void abort(void) { __builtin_trap(); }

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}

void *memmove(void *to, const void *from, size_t size) {
  if (to <= from) return memcpy(to, from, size);
  while (size-- > 0) ((uint8_t *)to)[size] = ((const uint8_t *)from)[size];
  return to;
}

void *memset(void *to, int byte, size_t size) {
  for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = (uint8_t)byte;
  return to;
}

int memcmp(const void *one, const void *other, size_t size) {
  for (size_t i = 0; i < size; i++) {
    int difference = ((const uint8_t *)one)[i] - ((const uint8_t *)other)[i];
    if (difference != 0) return difference;
  }
  return 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

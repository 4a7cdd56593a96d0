// SPDX-License-Identifier: MIT
// Preloaded into the unmodified game: makes it a deterministic function of a seed and the keys it is
// sent, and tells the other end of a socket on descriptor 0 when it waits for a key.
//
//   RETAIN_NETHACK_SEED    what /dev/urandom yields, so what the game's random numbers start from
//   RETAIN_NETHACK_PARENT  the process that started the game; the game dies with it
//
// Everything the game shows is collected and sent in one piece, closed by the byte 0xff (which the
// game, in its plain ASCII symbols, never shows), just before it blocks for the next key.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { link_descriptor = 0, end_of_frame = 0xff, exit_unlinked = 3 };

// Sunday noon, neither new nor full moon, no Friday the 13th: nothing the calendar would change.
static const time_t fixed_time = 1000036800;
static const pid_t fixed_process = 4242;
static const uid_t fixed_user = 1000;  // part of a saved game: one user's is then another's as well

// ---- the frame under construction

static unsigned char frame[1 << 16];
static size_t frame_size;

static void send_frame(void) {
  const unsigned char* next = frame;
  while (frame_size > 0) {
    const ssize_t sent = send(link_descriptor, next, frame_size, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      _exit(exit_unlinked);
    }
    next += sent;
    frame_size -= (size_t)sent;
  }
}

static void show_byte(unsigned char byte) {
  if (frame_size == sizeof frame) send_frame();
  frame[frame_size++] = byte;
}

static void show(const char* bytes, size_t count) {
  if (count > sizeof frame - frame_size) {
    send_frame();
    while (count > sizeof frame) {
      memcpy(frame, bytes, sizeof frame);
      frame_size = sizeof frame;
      send_frame();
      bytes += sizeof frame;
      count -= sizeof frame;
    }
  }
  memcpy(frame + frame_size, bytes, count);
  frame_size += count;
}

static int next_key(void) {
  show_byte(end_of_frame);
  send_frame();
  for (;;) {
    unsigned char key;
    const ssize_t got = recv(link_descriptor, &key, 1, 0);
    if (got == 1) return key;
    if (got < 0 && errno == EINTR) continue;
    _exit(exit_unlinked);
  }
}

// ---- start and end

static uint64_t random_state;

__attribute__((constructor)) static void begin(void) {
  const char* seed = getenv("RETAIN_NETHACK_SEED");
  random_state = seed ? strtoull(seed, NULL, 10) : 0;
  // The parent may be gone before the death signal is asked for, hence the second look.
  const char* parent = getenv("RETAIN_NETHACK_PARENT");
  if (parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != (pid_t)strtol(parent, NULL, 10)) _exit(exit_unlinked);
  }
}

__attribute__((destructor)) static void end(void) { send_frame(); }

// ---- input: the game reads its keys in one of these ways

ssize_t read(int descriptor, void* bytes, size_t count) {
  if (descriptor == link_descriptor) {
    if (count == 0) return 0;
    *(unsigned char*)bytes = (unsigned char)next_key();
    return 1;
  }
  return syscall(SYS_read, descriptor, bytes, count);
}

int getc(FILE* file) { return file == stdin ? next_key() : getc_unlocked(file); }
int fgetc(FILE* file) { return getc(file); }
int getchar(void) { return next_key(); }

// ---- output: what goes to stdout goes to the frame

int putc(int byte, FILE* file) {
  if (file != stdout) return putc_unlocked(byte, file);
  show_byte((unsigned char)byte);
  return byte;
}
int fputc(int byte, FILE* file) { return putc(byte, file); }
int putchar(int byte) { return putc(byte, stdout); }

int fputs(const char* text, FILE* file) {
  const size_t length = strlen(text);
  if (file != stdout) return fwrite_unlocked(text, 1, length, file) == length ? 1 : EOF;
  show(text, length);
  return 1;
}
int puts(const char* text) {
  show(text, strlen(text));
  show_byte('\n');
  return 1;
}
size_t fwrite(const void* bytes, size_t size, size_t count, FILE* file) {
  if (file != stdout) return fwrite_unlocked(bytes, size, count, file);
  show(bytes, size * count);
  return count;
}
int __printf_chk(int flag, const char* format, ...) {
  (void)flag;
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length > 0) show(text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
  return length;
}
int fflush(FILE* file) {
  static int (*real)(FILE*);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "fflush");
  return file == stdout ? 0 : real(file);
}

// ---- what would differ from one run to the next

static uint64_t next_random(void) {  // splitmix64
  uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

FILE* fopen(const char* path, const char* mode) {
  static FILE* (*real)(const char*, const char*);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "fopen");
  if (strcmp(path, "/dev/urandom") == 0) {
    static uint64_t random_bytes;
    random_bytes = next_random();
    return fmemopen(&random_bytes, sizeof random_bytes, "r");
  }
  return real(path, mode);
}

time_t time(time_t* result) {
  if (result) *result = fixed_time;
  return fixed_time;
}
pid_t getpid(void) { return fixed_process; }
uid_t getuid(void) { return fixed_user; }
// The game gives up privileges it does not have, in favour of the user it was just told.
int setuid(uid_t user) { return (void)user, 0; }
int setgid(gid_t group) { return (void)group, 0; }

// ---- what would slow the game down or lead out of it

int usleep(useconds_t duration) { return (void)duration, 0; }
int napms(int duration) { return (void)duration, 0; }
unsigned sleep(unsigned duration) { return (void)duration, 0; }

// No shell, no mail reader, no compression of saved games.
pid_t fork(void) {
  errno = EAGAIN;
  return -1;
}
// The game signals its whole process group to suspend itself.
int kill(pid_t process, int signal_number) { return (void)process, (void)signal_number, 0; }

// ---- a terminal of 24 rows and 80 columns

int isatty(int descriptor) { return descriptor < 3; }
int tcgetattr(int descriptor, struct termios* settings) {
  (void)descriptor;
  memset(settings, 0, sizeof *settings);
  settings->c_cc[VERASE] = 127;
  settings->c_cc[VKILL] = 21;
  settings->c_ospeed = B38400;
  return 0;
}
int tcsetattr(int descriptor, int when, const struct termios* settings) {
  return (void)descriptor, (void)when, (void)settings, 0;
}
int ioctl(int descriptor, unsigned long request, ...) {
  (void)descriptor;
  if (request == TIOCGWINSZ) {
    va_list arguments;
    va_start(arguments, request);
    struct winsize* size = va_arg(arguments, struct winsize*);
    va_end(arguments);
    *size = (struct winsize){.ws_row = 24, .ws_col = 80};
    return 0;
  }
  errno = ENOTTY;
  return -1;
}
